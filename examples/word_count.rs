//! Counts the words of files, each file in a process of its own.
//!
//! ```text
//! cargo run --release --example word_count -- FILES…
//! ```
//!
//! prints a table: the file, its words, the process that counted them, and the time from the start of that process to its
//! result. As many processes run at once as there are processors. Without FILES it takes the documents of this repository.
//!
//! ```text
//! cargo run --release --example word_count -- --crash README.md
//! ```
//!
//! makes the process of one file crash, with a real segmentation fault. That row says so, as does the row of a directory or
//! of a file that may not be read; the others are counted all the same. The exit code is 1 if anything failed.
//!
//! ```text
//! cargo run --release --example word_count -- --pool FILES…
//! ```
//!
//! counts them on a pool, a worker for each processor, which is for many small files: a process is started once for all of them. The table is the
//! same, but several rows have the same process, the time is that of the counting alone, and the last row says how many processes took part. A crash is still one row: another
//! worker goes on with the other files.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use mproc::{Failure, Pool};
use serde::{Deserialize, Serialize};

/// Words are what stands between white space. Bytes are enough to see that, whatever the encoding.
#[mproc::entry]
fn count_words(file: &OsStr, crash: bool) -> Result<u64, Failure> {
    if crash {
        segmentation_fault();
    }
    let (mut words, mut in_word) = (0, false);
    for byte in BufReader::new(File::open(file)?).bytes() {
        let was_in_word = in_word;
        in_word = !byte?.is_ascii_whitespace();
        words += u64::from(in_word && !was_in_word);
    }
    Ok(words)
}

/// What a worker of a pool found out about a file.
#[derive(Serialize, Deserialize)]
struct Count {
    words: u64,
    process: u32,
    time: Duration,
}

/// A file, and whether to crash at it.
#[mproc::entry]
fn count_on_a_pool((file, crash): (OsString, bool)) -> Result<Count, Failure> {
    let started = Instant::now();
    Ok(Count {
        words: count_words(&file, crash)?,
        process: process::id(),
        time: started.elapsed(),
    })
}

mproc::main! {
    fn main() -> Result<ExitCode, Failure> {
        let Arguments { files, crashing, on_a_pool } = arguments()?;
        let started = Instant::now();
        let rows = if on_a_pool {
            count_all_on_a_pool(&files, crashing.as_deref())?
        } else {
            count_all(&files, crashing.as_deref())
        };
        io::stdout().write_all(table(&rows, started.elapsed()).as_bytes())?;
        Ok(ExitCode::from(u8::from(failures(&rows) > 0)))
    }
}

/// Counts every file in its own process, as many at once as there are processors.
fn count_all<'a>(files: &'a [OsString], crashing: Option<&OsStr>) -> Vec<Row<'a>> {
    let rows: Vec<OnceLock<Row>> = files.iter().map(|_| OnceLock::new()).collect();
    let waiting = Mutex::new(files.iter().zip(&rows));
    let next = || waiting.lock().expect("no thread panics here").next();
    thread::scope(|scope| {
        for _ in 0..mproc::cpu_count().min(files.len()) {
            scope.spawn(|| {
                while let Some((file, row)) = next() {
                    let crash = crashing == Some(file);
                    row.get_or_init(|| Row::of(file, crash));
                }
            });
        }
    });
    rows.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// Counts every file on a pool. Files go to workers in chunks; a crash costs the one file at which it happened.
fn count_all_on_a_pool<'a>(
    files: &'a [OsString],
    crashing: Option<&OsStr>,
) -> Result<Vec<Row<'a>>, Failure> {
    let workers = mproc::cpu_count().min(files.len()).max(1);
    let pool = Pool::new(workers)?;
    let chunk = files.len().div_ceil(4 * workers).clamp(1, 32);
    let items = files
        .iter()
        .map(|file| (file.clone(), crashing == Some(file)));
    let calls = pool.calls().chunk_size(chunk);
    let counts = calls.imap::<count_on_a_pool, _>(items);
    let rows = files.iter().zip(counts).map(|(file, count)| {
        let (words, process, time) = match count {
            Ok(Ok(count)) => (Ok(count.words), Some(count.process), Some(count.time)),
            Ok(Err(failure)) => (Err(failure.to_string()), None, None),
            Err(error) => (Err(error.to_string()), error.process_id(), None),
        };
        Row {
            file,
            words,
            process,
            time,
        }
    });
    Ok(rows.collect())
}

/// What became of one file.
struct Row<'a> {
    file: &'a OsStr,
    words: Result<u64, String>,
    process: Option<u32>,
    time: Option<Duration>,
}

impl<'a> Row<'a> {
    /// Starts the process and waits for it. However it ends, that is an answer.
    fn of(file: &'a OsStr, crash: bool) -> Self {
        let started = Instant::now();
        let child = count_words::process(file, crash).name(shown(file)).start();
        let process = child.as_ref().ok().map(|child| child.id());
        let words = match child.and_then(|child| child.join()) {
            Ok(Ok(words)) => Ok(words),
            Ok(Err(failure)) => Err(failure.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Self {
            file,
            words,
            process,
            time: Some(started.elapsed()),
        }
    }
}

/// A file's name as it can be shown on one line.
fn shown(file: &OsStr) -> String {
    file.to_string_lossy().replace(char::is_control, "?")
}

fn failures(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.words.is_err()).count()
}

fn table(rows: &[Row], time: Duration) -> String {
    let names = rows.iter().map(|row| shown(row.file).chars().count());
    let width = names.max().unwrap_or(0).max("total".len());
    let line = |name: &str, words: &str, process: &str, time: &str, reason: &str| {
        let line = format!("{name:width$}  {words:>12}  {process:>8}  {time:>9}  {reason}");
        line.trim_end().to_owned() + "\n"
    };

    let mut table = line("file", "words", "process", "time", "");
    for row in rows {
        let (words, reason) = match &row.words {
            Ok(words) => (words.to_string(), ""),
            Err(reason) => ("-".into(), reason.as_str()),
        };
        let process = row.process.map_or("-".into(), |id| id.to_string());
        let time = row.time.map_or("-".into(), |time| format!("{time:.1?}"));
        table += &line(&shown(row.file), &words, &process, &time, reason);
    }

    let words: u64 = rows.iter().flat_map(|row| &row.words).sum();
    let processes = rows.iter().filter_map(|row| row.process);
    let processes = processes.collect::<BTreeSet<_>>().len();
    let reason = match failures(rows) {
        0 => String::new(),
        failed => format!("{failed} of {} failed", rows.len()),
    };
    let (words, processes) = (words.to_string(), processes.to_string());
    table + &line("total", &words, &processes, &format!("{time:.1?}"), &reason)
}

struct Arguments {
    /// What to count.
    files: Vec<OsString>,
    /// Whose process is to crash. It is counted, too, if nobody named it otherwise.
    crashing: Option<OsString>,
    on_a_pool: bool,
}

fn arguments() -> io::Result<Arguments> {
    let (mut files, mut crashing, mut on_a_pool) = (Vec::new(), None, false);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--crash" {
            let missing = || io::Error::other("`--crash` is followed by a FILE");
            crashing = Some(arguments.next().ok_or_else(missing)?);
        } else if argument == "--pool" {
            on_a_pool = true;
        } else {
            files.push(argument);
        }
    }
    if files.is_empty() {
        files = documents()?;
    }
    if let Some(file) = crashing.as_ref().filter(|file| !files.contains(file)) {
        files.push(file.clone());
    }
    Ok(Arguments {
        files,
        crashing,
        on_a_pool,
    })
}

/// The documents of this repository, if it is still where the program was built, or else of the current directory.
fn documents() -> io::Result<Vec<OsString>> {
    let here = std::env::current_dir()?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = built.filter(|root| root.is_dir()).unwrap_or(&here);

    let mut documents = Vec::new();
    for folder in iter::once(root.to_owned()).chain(paths_in(root)?) {
        // What is no folder, or may not be read, has no documents for us.
        let mut paths = paths_in(&folder).unwrap_or_default();
        paths.retain(|path| path.extension() == Some("md".as_ref()) && path.is_file());
        documents.append(&mut paths);
    }
    documents.sort();
    let relative = |path: &PathBuf| path.strip_prefix(&here).unwrap_or(path).into();
    Ok(documents.iter().map(relative).collect())
}

fn paths_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

/// Does what a faulty C library does.
fn segmentation_fault() {
    // An address that is aligned, not null, and mapped in no process.
    let nowhere = std::ptr::without_provenance_mut::<u8>(16);
    // SAFETY: it is not sound, which is the point. The processor refuses the write and the kernel ends the process there, so
    // that nothing is left that could see the consequences; and the process is one that we may lose.
    unsafe { nowhere.write_volatile(1) };
}
