//! `word_count`, with files that are good, bad, and many.

mod common;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Printed, example, run};

/// A directory of one test, empty at its beginning and gone after its success.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path, test: &str) -> Self {
        let path = parent.join(format!("word_count-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the directory for test data can be written");
        Self(path)
    }

    fn of(test: &str) -> Self {
        Self::new(Path::new(env!("CARGO_TARGET_TMPDIR")), test)
    }

    fn file(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.join(name), contents).expect("the scratch directory can be written");
        self
    }

    /// `word_count`, where it finds these files by their names, and leaves its core if it is to crash.
    fn word_count(&self) -> Command {
        let mut command = example("word_count");
        command.current_dir(&self.0);
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// One line of the table.
#[derive(Debug)]
struct Row<'a> {
    words: Option<u64>,
    process: u32,
    reason: &'a str,
}

/// The row that begins with this name: words, process, time, and a reason if there is one.
fn row<'a>(printed: &'a Printed, name: &str) -> Row<'a> {
    let line = printed.out.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with("  "))
    });
    let rest = &line.unwrap_or_else(|| panic!("no row {name}: {printed:#?}"))[name.len()..];
    let mut cells = rest.split_whitespace();
    let words = cells.next().and_then(|cell| cell.parse().ok());
    let process = cells.next().and_then(|cell| cell.parse().ok());
    let time = cells.next().expect("a row has a time");
    assert!(time.ends_with('s'), "{line:?}");
    let reason = rest.split_once(time).expect("it was found above").1.trim();
    Row {
        words,
        process: process.expect("a row has a process"),
        reason,
    }
}

#[test]
fn counts_on_bytes_whatever_the_names() {
    let scratch = Scratch::of("bytes");
    let not_utf8 = OsStr::from_bytes(b"caf\xe9");
    scratch
        .file("empty", "")
        .file("spaces", " \n\t \r\n")
        .file("verse", "to be or not to be\nthat is\tthe question")
        .file("ünïcödé", "zwölf Boxkämpfer  jagen Viktor\n")
        .file(not_utf8, b"na\xefve \xff\xfe words\0and zeros\n")
        .file("two\nlines", "a name")
        .file("large", "word ".repeat(300_000));
    let names = ["empty", "spaces", "verse", "ünïcödé", "two\nlines", "large"];
    let printed = run(scratch.word_count().args(names).arg(not_utf8));

    assert_eq!(printed.code, Some(0), "{printed:#?}");
    let words = |name| row(&printed, name).words;
    assert_eq!(words("empty"), Some(0));
    assert_eq!(words("spaces"), Some(0));
    assert_eq!(words("verse"), Some(10));
    assert_eq!(words("ünïcödé"), Some(4));
    assert_eq!(words("two?lines"), Some(2));
    assert_eq!(words("large"), Some(300_000));
    assert_eq!(words("caf\u{fffd}"), Some(4));
    assert_eq!(words("total"), Some(300_020));
    assert_eq!(row(&printed, "total").process, 7);

    let shown = ["empty", "verse", "ünïcödé", "two?lines", "caf\u{fffd}"];
    let processes: HashSet<u32> = shown.map(|name| row(&printed, name).process).into();
    assert_eq!(
        processes.len(),
        shown.len(),
        "one process each: {printed:#?}"
    );
    let widths: HashSet<usize> = printed
        .out
        .lines()
        .map(|line| line.chars().count())
        .collect();
    assert_eq!(widths.len(), 1, "the columns are aligned: {printed:#?}");
}

#[test]
fn a_crash_is_reported_beside_the_results_of_the_others() {
    let scratch = Scratch::of("crash");
    scratch
        .file("good", "three good words")
        .file("bad", "crash")
        .file("last", "the end");
    let printed = run(scratch
        .word_count()
        .args(["good", "bad", "--crash", "bad", "last"]));

    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert_eq!(row(&printed, "good").words, Some(3));
    assert_eq!(row(&printed, "last").words, Some(2));
    let bad = row(&printed, "bad");
    assert_eq!(bad.words, None);
    assert!(
        bad.reason.contains(&format!("(pid {})", bad.process)),
        "{bad:?}"
    );
    assert!(bad.reason.contains("signal 11 (SIGSEGV)"), "{bad:?}");
    let total = row(&printed, "total");
    assert_eq!((total.words, total.reason), (Some(5), "1 of 3 failed"));
}

#[test]
fn the_file_that_crashes_need_not_be_named_twice() {
    let scratch = Scratch::of("crash-alone");
    scratch.file("good", "one").file("bad", "crash");
    let printed = run(scratch.word_count().args(["good", "--crash", "bad"]));
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert!(
        row(&printed, "bad").reason.contains("SIGSEGV"),
        "{printed:#?}"
    );
    assert_eq!(row(&printed, "total").words, Some(1));

    let printed = run(scratch.word_count().args(["good", "--crash"]));
    assert_eq!((printed.code, &*printed.out), (Some(1), ""));
    assert!(printed.err.contains("`--crash`"), "{printed:#?}");
}

#[test]
fn what_is_no_file_is_reported_beside_the_results_of_the_others() {
    let scratch = Scratch::of("no-file");
    scratch.file("good", "three good words");
    fs::create_dir(scratch.0.join("directory")).expect("the scratch directory can be written");
    let printed = run(scratch.word_count().args(["directory", "good", "missing"]));

    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert_eq!(row(&printed, "good").words, Some(3));
    let reasons = ["directory", "missing", "total"].map(|name| row(&printed, name).reason);
    assert!(reasons[0].starts_with("Is a directory"), "{printed:#?}");
    assert!(reasons[1].starts_with("No such file"), "{printed:#?}");
    assert_eq!(reasons[2], "2 of 3 failed");
}

/// Root may read everything, so root becomes nobody for this.
#[test]
fn a_file_that_may_not_be_read_is_reported_beside_the_results_of_the_others() {
    let is_root = fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0;
    // Nobody may not come to where this was built, so the program goes to where everybody may.
    let scratch = Scratch::new(&std::env::temp_dir(), "unreadable");
    scratch
        .file("good", "three good words")
        .file("secret", "not for you");
    let mode = |name: &str, mode| {
        let path = scratch.0.join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    mode("", 0o755);
    mode("good", 0o644);
    mode("secret", 0o000);
    // Copied by another process: an executable that some process of ours still has open for writing cannot be run.
    let program = scratch.0.join("word_count");
    let built = example("word_count");
    let copied = run(Command::new("cp").arg(built.get_program()).arg(&program));
    assert_eq!(copied.code, Some(0), "{copied:#?}");
    mode("word_count", 0o755);

    let mut command = Command::new(&program);
    command.current_dir(&scratch.0).args(["secret", "good"]);
    if is_root {
        const NOBODY: u32 = 65534;
        command.uid(NOBODY).gid(NOBODY);
    }
    let printed = run(&mut command);
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert_eq!(row(&printed, "good").words, Some(3));
    assert!(
        row(&printed, "secret")
            .reason
            .starts_with("Permission denied"),
        "{printed:#?}"
    );
}

#[test]
fn thousands_of_files() {
    let scratch = Scratch::of("thousands");
    let names: Vec<String> = (0..2000).map(|number| format!("file-{number}")).collect();
    for name in &names {
        scratch.file(name, "two words");
    }
    let printed = run(scratch.word_count().args(&names));
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    let rows = printed.out.lines().skip(1).zip(&names);
    assert!(
        rows.clone().all(|(line, name)| line.starts_with(name)),
        "in the order given"
    );
    assert_eq!(rows.count(), names.len());
    let total = row(&printed, "total");
    assert_eq!((total.words, total.process), (Some(4000), 2000));
}

/// The same files by a process each and on a pool: the same words.
#[test]
fn on_a_pool() {
    let scratch = Scratch::of("pool");
    let names: Vec<String> = (0..500).map(|number| format!("file-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        scratch.file(name, "word ".repeat(number));
    }
    let alone = run(scratch.word_count().args(&names[450..]));
    let printed = run(scratch.word_count().arg("--pool").args(&names));
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    for (number, name) in (0..).zip(&names) {
        assert_eq!(row(&printed, name).words, Some(number));
        if number >= 450 {
            assert_eq!(row(&alone, name).words, Some(number));
        }
    }
    let total = row(&printed, "total");
    assert_eq!(total.words, Some((0..500).sum()));
    // No more than there are processors, and each is in some row.
    let processes = names.iter().map(|name| row(&printed, name).process);
    let processes: HashSet<_> = processes.collect();
    assert_eq!(total.process as usize, processes.len());
    assert!(processes.len() <= mproc::cpu_count());
}

/// On a pool, too, a crash is one row.
#[test]
fn a_crash_on_a_pool() {
    let scratch = Scratch::of("pool-crash");
    let names: Vec<String> = (0..100).map(|number| format!("file-{number}")).collect();
    for name in &names {
        scratch.file(name, "two words");
    }
    let mut command = scratch.word_count();
    command.args(["--pool", "--crash", "file-50", "missing"]);
    let printed = run(command.args(&names));
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    let line = |name: &str| {
        let mut lines = printed.out.lines();
        lines
            .find(|line| line.starts_with(&format!("{name}  ")))
            .unwrap()
    };
    assert!(
        line("file-50").contains("signal 11 (SIGSEGV)"),
        "{printed:#?}"
    );
    assert!(line("missing").contains("No such file"), "{printed:#?}");
    let total = row(&printed, "total");
    assert_eq!((total.words, total.reason), (Some(198), "2 of 101 failed"));
    // The one that crashed is among them.
    assert!(total.process >= 2, "{printed:#?}");
}

#[test]
fn without_files_it_takes_the_documents() {
    let scratch = Scratch::of("documents");
    let printed = run(&mut scratch.word_count());
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    assert!(printed.out.contains("examples/README.md  "), "{printed:#?}");
    assert!(row(&printed, "total").words > Some(0), "{printed:#?}");
}
