//! The SHA-256 checksums of all files in a folder, computed by a pool of processes, also while somebody kills its workers.
//!
//! ```text
//! cargo run --release --example checksums -- FOLDER
//! ```
//!
//! prints a line for each file, as `sha256sum` does, and then how many files and bytes there were and how many processes worked. A
//! file that may not be read is a line that says so. Without FOLDER it takes the sources of this repository. If that goes into a file, as with
//! `> SUMS`, a bar on the terminal shows how far it is.
//!
//! ```text
//! cargo run --release --example checksums -- --kill FOLDER
//! ```
//!
//! kills a worker with `SIGKILL` every few milliseconds. What it was at is tried again in another one, and the lines are the same.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#module-multiprocessing.pool>, where this hangs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mproc::{Failure, Pool};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a worker found out about a file.
#[derive(Serialize, Deserialize)]
struct Sum {
    checksum: String,
    bytes: u64,
    process: u32,
}

#[mproc::entry]
fn checksum(file: &Path) -> Result<Sum, Failure> {
    let mut file = File::open(file)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
    let (checksum, process) = (format!("{:x}", hash.finalize()), std::process::id());
    Ok(Sum {
        checksum,
        bytes,
        process,
    })
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let (mut kill, mut folder) = (false, None);
        for argument in std::env::args_os().skip(1) {
            if argument == "--kill" {
                kill = true;
            } else {
                folder = Some(PathBuf::from(argument));
            }
        }
        let folder = folder.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let mut files = Vec::new();
        find_files(&folder, &mut files)?;
        files.sort();

        let pool = Pool::new(mproc::cpu_count())?;
        let (is_over, killed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let printed = thread::scope(|scope| {
            if kill {
                scope.spawn(|| killer(&pool, &is_over, &killed));
            }
            let printed = print_all(&pool, &files);
            is_over.store(true, Ordering::Relaxed);
            printed
        });
        let (bytes, processes) = printed?;
        println!(
            "{} files, {bytes} bytes, {processes} processes, {} killed",
            files.len(),
            killed.into_inner()
        );
        Ok(())
    }
}

/// Prints a line for each file, in their order. Gives how many bytes they had, and how many processes worked.
fn print_all(pool: &Pool, files: &[PathBuf]) -> Result<(u64, usize), Failure> {
    // Lazy: no more are under way than keep the workers busy, however many files there are.
    let mut calls = pool.calls().retries(1000);
    if !io::stdout().is_terminal() {
        // Draws nothing unless stderr is a terminal.
        calls = calls.progress();
    }
    let mut out = io::stdout().lock();
    let (mut bytes, mut processes) = (0, BTreeSet::new());
    for (file, sum) in files
        .iter()
        .zip(calls.imap::<checksum, _>(files.iter().cloned()))
    {
        match sum? {
            Ok(sum) => {
                writeln!(out, "{}  {}", sum.checksum, file.display())?;
                bytes += sum.bytes;
                processes.insert(sum.process);
            }
            Err(failure) => writeln!(out, "{:64}  {}: {failure}", "-", file.display())?,
        }
    }
    Ok((bytes, processes.len()))
}

fn killer(pool: &Pool, is_over: &AtomicBool, killed: &AtomicUsize) {
    while !is_over.load(Ordering::Relaxed) {
        for worker in pool.workers() {
            if worker.kill().is_ok() {
                killed.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// All files in a folder and in those below it. Links are not followed.
fn find_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find_files(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
