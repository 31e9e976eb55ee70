//! A program that starts children without an end, to be killed at any moment. It ends with its stdin, too, so that it does
//! not outlive a test that failed. The tests are in `tests/orphans.rs`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mproc::{Child, Result};

#[mproc::entry]
fn sleep_for_ever(large: &str) -> usize {
    loop {
        std::thread::sleep(Duration::from_secs(3600 + large.len() as u64));
    }
}

#[mproc::entry]
fn return_at_once(large: &str) -> String {
    large.to_owned()
}

/// Starts children of its own, which start children of their own.
#[mproc::entry]
fn breed(generations: u32) {
    let mut children = Vec::new();
    for daemon in [false, true] {
        if generations > 0 {
            let process = breed::process(generations - 1).daemon(daemon);
            children.push(process.start().expect("starts"));
        }
    }
    for child in children {
        // An error is a child that a test has killed.
        let _ = child.wait();
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Ignores what can be ignored.
#[mproc::entry]
fn be_stubborn() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for number in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGIO,
        Signal::SIGPIPE,
    ] {
        // SAFETY: ignoring runs no code.
        unsafe { signal(number, SigHandler::SigIgn) }.expect("can be ignored");
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

static STARTED: AtomicU64 = AtomicU64::new(0);

fn start_without_end() -> Result<()> {
    let large = "x".repeat(3 << 20);
    let mut kept: Vec<Child<usize>> = Vec::new();
    loop {
        match STARTED.fetch_add(1, Relaxed) % 6 {
            0 => drop(breed::spawn(2)?),
            1 => kept.push(sleep_for_ever::process("").daemon(true).start()?),
            2 => kept.push(sleep_for_ever::spawn(&large)?),
            3 => assert_eq!(return_at_once::spawn(&large)?.join()?.len(), large.len()),
            4 => drop(be_stubborn::spawn()?),
            _ => {
                for child in kept.drain(..) {
                    child.kill()?;
                    child.wait()?;
                }
                // Those without a handle are ended by way of the list.
                for child in mproc::active_children() {
                    child.kill()?;
                }
            }
        }
    }
}

mproc::main! {
    fn main() {
        let threads = std::env::args().nth(1).map_or(1, |count| count.parse().expect("a number"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                mproc_tests::kill_myself();
            });
            for _ in 0..threads {
                // With two threads, one kills what the other is waiting for. That is an error, and no reason to end.
                scope.spawn(|| loop {
                    let _ = start_without_end();
                });
            }
        });
    }
}
