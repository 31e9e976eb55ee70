//! What surrounds a child: streams, environment, directory, arguments, signals, and the file of the program.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio as StdStdio};
use std::time::Duration;

use mproc::{ErrorKind, Failure, Stdio};
use mproc_tests::facts::{Facts, become_peculiar};
use mproc_tests::{ScratchFile, eventually, program, watchdog};

const LIMIT: Duration = Duration::from_secs(120);

const STREAMS: &str = env!("CARGO_BIN_EXE_streams");
const FACTS: &str = env!("CARGO_BIN_EXE_facts");
const REPLACED: &str = env!("CARGO_BIN_EXE_replaced");

/// Each subset of the streams.
fn subsets() -> impl Iterator<Item = String> {
    (0..8).map(|bits| {
        (0..3)
            .filter(|digit| bits & 1 << digit != 0)
            .map(|digit| digit.to_string())
            .collect()
    })
}

fn stdout_of(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Every child opened a file, printed, and had three streams; what it printed did not land in the file.
const EXPECTED: &str =
    "inherited: 0 012 written\ninherited: 100000 012 written\npiped: text TEXT\n";

#[test]
fn children_of_a_program_that_was_started_without_streams_work() {
    let _watchdog = watchdog(
        "children_of_a_program_that_was_started_without_streams_work",
        LIMIT,
    );
    for subset in subsets() {
        let report = ScratchFile::new(&format!("started-without-{subset}"));
        let close: String = subset.chars().map(|digit| format!(" {digit}>&-")).collect();
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {close}"));
        let output = shell
            .arg(STREAMS)
            .arg(report.path())
            .arg("")
            .output()
            .unwrap();
        assert!(output.status.success(), "without {subset}: {output:?}");
        assert_eq!(report.read(), EXPECTED, "without {subset}: {output:?}");
    }
}

#[test]
fn children_of_a_program_that_closed_its_streams_work() {
    let _watchdog = watchdog("children_of_a_program_that_closed_its_streams_work", LIMIT);
    for subset in subsets() {
        let report = ScratchFile::new(&format!("closed-{subset}"));
        let output = program(STREAMS)
            .arg(report.path())
            .arg(&subset)
            .output()
            .unwrap();
        assert!(output.status.success(), "without {subset}: {output:?}");
        assert_eq!(report.read(), EXPECTED, "without {subset}: {output:?}");
    }
}

/// The same before `main`, where std has not opened them yet.
#[test]
fn children_of_a_test_that_closed_its_streams_work() {
    let _watchdog = watchdog("children_of_a_test_that_closed_its_streams_work", LIMIT);
    #[mproc::entry]
    fn print_into_nothing(path: &Path) -> Result<(String, bool), Failure> {
        let mut file = File::options().create(true).append(true).open(path)?;
        println!("printed");
        eprintln!("printed");
        print!("without an end of line");
        file.write_all(b"written")?;
        Ok((
            std::fs::read_to_string(path)?,
            Facts::of_this_process().streams_open,
        ))
    }
    #[mproc::entry]
    fn close_and_start(subset: &str, path: &Path) -> Result<(String, bool), Failure> {
        for digit in subset.chars() {
            nix::unistd::close(digit.to_digit(10).unwrap() as i32)?;
        }
        print_into_nothing::spawn(path)?.join()?
    }
    for subset in subsets() {
        let scratch = ScratchFile::new(&format!("test-closed-{subset}"));
        let process = close_and_start::process(&subset, scratch.path());
        let child = process
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .start()
            .unwrap();
        let (text, open) = child.join().unwrap().unwrap();
        assert_eq!((text.as_str(), open), ("written", true), "without {subset}");
        assert_eq!(scratch.read(), "written", "without {subset}");
    }
}

#[mproc::entry]
fn converse() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    println!("out: {line}");
    eprintln!("err: {line}");
    Ok(line)
}

#[test]
fn piped_streams_are_talked_to() {
    let _watchdog = watchdog("piped_streams_are_talked_to", LIMIT);
    let child = converse::process()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .start()
        .unwrap();
    let mut stdin = child.take_stdin().unwrap();
    assert!(child.take_stdin().is_none(), "it is taken once");
    stdin.write_all(b"a line\nnot read").unwrap();
    let stdout = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
    let stderr = std::io::read_to_string(child.take_stderr().unwrap()).unwrap();
    assert_eq!(
        (stdout.as_str(), stderr.as_str()),
        ("out: a line\n\n", "err: a line\n\n")
    );
    assert_eq!(child.join().unwrap().unwrap(), "a line\n");
    // std ignores SIGPIPE in every program: a peer that is gone is an error.
    // Not at once: a child that another test is starting has copies of all our descriptors until it executes.
    let mut seen = None;
    eventually(|| {
        seen = stdin.write_all(b"nobody reads this").err();
        seen.is_some()
    });
    assert_eq!(seen.unwrap().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn streams_that_are_not_piped_cannot_be_taken() {
    let _watchdog = watchdog("streams_that_are_not_piped_cannot_be_taken", LIMIT);
    let child = converse::process()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .start()
        .unwrap();
    assert!(child.take_stdin().is_none());
    assert!(child.take_stdout().is_none());
    assert!(child.take_stderr().is_none());
    // stdin is null unless told otherwise: the end at once.
    assert_eq!(child.join().unwrap().unwrap(), "");
}

#[test]
fn streams_can_be_files() {
    let _watchdog = watchdog("streams_can_be_files", LIMIT);
    let open = |name: &str| {
        let scratch = ScratchFile::new(name);
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(scratch.path())
            .unwrap()
    };
    let (mut input, mut output) = (open("input"), open("output"));
    input.write_all(b"from a file\n").unwrap();
    input.rewind().unwrap();
    let child = converse::process()
        .stdin(input)
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .start()
        .unwrap();
    assert_eq!(child.join().unwrap().unwrap(), "from a file\n");
    output.rewind().unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out: from a file\n\nerr: from a file\n\n");
}

/// The streams of the test are lent on to the child in another order.
#[test]
fn streams_can_be_the_parents_in_another_order() {
    let _watchdog = watchdog("streams_can_be_the_parents_in_another_order", LIMIT);
    #[mproc::entry]
    fn cross() -> Result<(), Failure> {
        use std::os::fd::AsFd;
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let process = converse::process()
            .stdin(Stdio::inherit())
            .stdout(err.as_fd().try_clone_to_owned()?)
            .stderr(out.as_fd().try_clone_to_owned()?);
        process.start()?.join()??;
        Ok(())
    }
    let process = cross::process().stdin(Stdio::piped());
    let child = process
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .start()
        .unwrap();
    child.take_stdin().unwrap().write_all(b"x").unwrap();
    let stdout = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
    let stderr = std::io::read_to_string(child.take_stderr().unwrap()).unwrap();
    assert_eq!((stdout.as_str(), stderr.as_str()), ("err: x\n", "out: x\n"));
    child.join().unwrap().unwrap();
}

#[test]
fn a_child_that_floods_a_pipe_waits_for_its_reader_alone() {
    let _watchdog = watchdog(
        "a_child_that_floods_a_pipe_waits_for_its_reader_alone",
        LIMIT,
    );
    #[mproc::entry]
    fn flood(times: usize) {
        for _ in 0..times {
            println!("{}", "x".repeat(999));
        }
    }
    let child = flood::process(2000).stdout(Stdio::piped()).start().unwrap();
    let text = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
    assert_eq!(text.len(), 2_000_000);
    child.join().unwrap();
    // Nobody reads, and it is told so: std turns that into a panic of `println!`.
    let child = flood::process(2000)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .start()
        .unwrap();
    drop(child.take_stdout());
    let error = child.join().unwrap_err();
    assert!(
        error.panic().unwrap().message().contains("Broken pipe"),
        "{error}"
    );
}

/// What has no end of line yet is written when the child ends.
#[test]
fn the_last_output_is_flushed() {
    let _watchdog = watchdog("the_last_output_is_flushed", LIMIT);
    #[mproc::entry]
    fn mumble(how: u8) {
        print!("without an end of line");
        match how {
            0 => {}
            1 => std::process::exit(0),
            _ => panic!("at the end"),
        }
    }
    for how in 0..3 {
        let process = mumble::process(how)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = process.start().unwrap();
        let text = std::io::read_to_string(child.take_stdout().unwrap()).unwrap();
        assert_eq!(text, "without an end of line");
    }
}

#[mproc::entry]
fn variables() -> HashMap<OsString, OsString> {
    std::env::vars_os().collect()
}

fn own_variables() -> HashMap<OsString, OsString> {
    std::env::vars_os().collect()
}

#[test]
fn the_environment_is_inherited_and_changed_in_order() {
    let _watchdog = watchdog("the_environment_is_inherited_and_changed_in_order", LIMIT);
    let inherited = variables::spawn().unwrap().join().unwrap();
    assert_eq!(inherited, own_variables());

    let changed = variables::process()
        .env("MPROC_TEST", "first")
        .env("MPROC_TEST", "second")
        .env("MPROC_REMOVED", "x")
        .env_remove("MPROC_REMOVED")
        .env_remove("PATH")
        .env_remove("NEVER_THERE")
        .env("MPROC_BACK", "x")
        .env_remove("MPROC_BACK")
        .env("MPROC_BACK", "again")
        .start()
        .unwrap();
    let mut expected = own_variables();
    expected.remove(OsStr::new("PATH"));
    expected.insert("MPROC_TEST".into(), "second".into());
    expected.insert("MPROC_BACK".into(), "again".into());
    assert_eq!(changed.join().unwrap(), expected);
}

#[test]
fn a_cleared_environment_has_what_was_set_after() {
    let _watchdog = watchdog("a_cleared_environment_has_what_was_set_after", LIMIT);
    let child = variables::process()
        .env("BEFORE", "x")
        .env_clear()
        .start()
        .unwrap();
    assert!(child.join().unwrap().is_empty());
    let child = variables::process()
        .env("BEFORE", "x")
        .env_clear()
        .env("AFTER", "y")
        .start()
        .unwrap();
    assert_eq!(
        child.join().unwrap(),
        HashMap::from([("AFTER".into(), "y".into())])
    );
}

#[test]
fn a_child_of_a_child_with_a_cleared_environment_boots() {
    let _watchdog = watchdog("a_child_of_a_child_with_a_cleared_environment_boots", LIMIT);
    #[mproc::entry]
    fn nested() -> Result<usize, Failure> {
        let inherited = variables::spawn()?.join()?.len();
        let cleared = variables::process().env_clear().start()?.join()?.len();
        Ok(inherited + cleared)
    }
    let child = nested::process().env_clear().start().unwrap();
    assert_eq!(child.join().unwrap().unwrap(), 0);
}

#[test]
fn peculiar_variables_arrive_as_they_are() {
    let _watchdog = watchdog("peculiar_variables_arrive_as_they_are", LIMIT);
    let pairs = [
        ("EMPTY", b"".as_slice()),
        ("EQUALS", b"a=b=c"),
        ("LINES", b"a\nb"),
        ("NO_TEXT", b"\xff\xfe"),
        ("with space", b"x"),
    ];
    let mut process = variables::process().env_clear();
    for (key, value) in pairs {
        process = process.env(key, OsStr::from_bytes(value));
    }
    let got = process.start().unwrap().join().unwrap();
    let expected = pairs.map(|(key, value)| (key.into(), OsStr::from_bytes(value).to_owned()));
    assert_eq!(got, HashMap::from(expected));
}

#[test]
fn a_large_environment_is_inherited() {
    let _watchdog = watchdog("a_large_environment_is_inherited", LIMIT);
    let value = "x".repeat(4000);
    let mut process = variables::process().env_clear();
    for number in 0..250 {
        process = process.env(format!("VARIABLE_{number}"), &value);
    }
    assert_eq!(process.start().unwrap().join().unwrap().len(), 250);
}

#[mproc::entry]
fn directory() -> PathBuf {
    std::env::current_dir().unwrap()
}

#[test]
fn the_directory_is_inherited_or_set() {
    let _watchdog = watchdog("the_directory_is_inherited_or_set", LIMIT);
    let own = std::env::current_dir().unwrap();
    assert_eq!(directory::spawn().unwrap().join().unwrap(), own);
    let at = |path: &str| {
        directory::process()
            .current_dir(path)
            .start()
            .unwrap()
            .join()
            .unwrap()
    };
    assert_eq!(at("/"), Path::new("/"));
    assert_eq!(at("/proc/self/.."), Path::new("/proc"));
    // As in `chdir`: from where the parent is.
    assert_eq!(at("."), own);
    assert_eq!(at(".."), own.parent().unwrap());
    for (path, os_error) in [("/no/such", 2), ("/proc/version", 20), ("", 2)] {
        let error = directory::process().current_dir(path).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start);
        assert_eq!(
            error.io_error().unwrap().raw_os_error(),
            Some(os_error),
            "{error}"
        );
    }
}

/// Where the parent's directory is gone, too.
#[test]
fn a_directory_that_was_deleted_is_inherited() {
    let _watchdog = watchdog("a_directory_that_was_deleted_is_inherited", LIMIT);
    #[mproc::entry]
    fn lose_directory(path: &Path) -> Result<bool, Failure> {
        #[mproc::entry]
        fn is_lost() -> bool {
            std::env::current_dir().is_err()
        }
        std::fs::create_dir(path)?;
        std::env::set_current_dir(path)?;
        std::fs::remove_dir(path)?;
        Ok(is_lost::spawn()?.join()?)
    }
    let scratch = ScratchFile::new("lost");
    assert!(
        lose_directory::spawn(scratch.path())
            .unwrap()
            .join()
            .unwrap()
            .unwrap()
    );
}

const ORDINARY: Facts = Facts {
    blocked: 0,
    handled: false,
    sigpipe_ignored: true,
    sighup_ignored: true,
    streams_open: true,
};

#[test]
fn a_child_starts_without_blocked_signals_and_handlers() {
    let _watchdog = watchdog("a_child_starts_without_blocked_signals_and_handlers", LIMIT);
    #[mproc::entry]
    fn facts() -> Facts {
        Facts::of_this_process()
    }
    // In a process of its own: signals are everybody's.
    #[mproc::entry]
    fn facts_of_child() -> (Facts, Facts) {
        become_peculiar();
        (
            Facts::of_this_process(),
            facts::spawn().unwrap().join().unwrap(),
        )
    }
    let (peculiar, child) = facts_of_child::spawn().unwrap().join().unwrap();
    assert!(peculiar.handled && peculiar.blocked != 0, "{peculiar:?}");
    assert_eq!(child, ORDINARY);
}

#[test]
fn a_child_of_an_ordinary_program_is_the_same() {
    let _watchdog = watchdog("a_child_of_an_ordinary_program_is_the_same", LIMIT);
    let expected = format!("same arguments: true\n{ORDINARY:?}\n{ORDINARY:?}\n");
    assert_eq!(stdout_of(program(FACTS).output().unwrap()), expected);
}

#[test]
fn peculiar_arguments_are_untouched() {
    let _watchdog = watchdog("peculiar_arguments_are_untouched", LIMIT);
    let arguments = ["", "a b", "--help", "-", "ünïcode", "line\nfeed", ""];
    let no_text = OsStr::from_bytes(b"\xff\x80");
    for name in [FACTS, "another name", ""] {
        let mut command = program(FACTS);
        command.arg0(name).args(arguments).arg(no_text).arg("last");
        let text = stdout_of(command.output().unwrap());
        assert!(text.starts_with("same arguments: true\n"), "{text}");
    }
}

#[test]
fn a_test_has_the_arguments_of_its_harness() {
    let _watchdog = watchdog("a_test_has_the_arguments_of_its_harness", LIMIT);
    #[mproc::entry]
    fn arguments() -> Vec<OsString> {
        std::env::args_os().collect()
    }
    assert!(
        arguments::spawn()
            .unwrap()
            .join()
            .unwrap()
            .into_iter()
            .eq(std::env::args_os())
    );
}

/// A program in a directory of its own, whose file can be replaced.
struct Installed {
    _scratch: Directory,
    file: PathBuf,
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Installed {
    fn new(name: &str) -> Self {
        let scratch = ScratchFile::new(name);
        std::fs::create_dir(scratch.path()).unwrap();
        let file = scratch.path().join("program");
        std::fs::copy(REPLACED, &file).unwrap();
        Self {
            _scratch: Directory(scratch.path().to_owned()),
            file,
        }
    }

    fn replace(&self) {
        let newer = self.file.with_extension("new");
        std::fs::copy("/bin/false", &newer).unwrap();
        std::fs::rename(newer, &self.file).unwrap();
    }
}

#[test]
fn children_are_the_program_that_was_started_whatever_became_of_its_file() {
    let _watchdog = watchdog(
        "children_are_the_program_that_was_started_whatever_became_of_its_file",
        LIMIT,
    );
    let installed = Installed::new("replaced");
    let mut running = Command::new(&installed.file)
        .stdin(StdStdio::piped())
        .stdout(StdStdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = running.stdin.take().unwrap();
    let mut stdout = BufReader::new(running.stdout.take().unwrap());
    let mut ask = |text: &str| {
        writeln!(stdin, "{text}").unwrap();
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask("as installed"), "AS INSTALLED\n");
    installed.replace();
    assert_eq!(ask("replaced"), "REPLACED\n");
    std::fs::remove_file(&installed.file).unwrap();
    assert_eq!(ask("deleted"), "DELETED\n");
    std::fs::remove_dir_all(installed.file.parent().unwrap()).unwrap();
    assert_eq!(ask("directory deleted"), "DIRECTORY DELETED\n");
    drop(stdin);
    assert!(running.wait().unwrap().success());
}
