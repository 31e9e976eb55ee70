//! A program that ends while it has children. The tests are in `tests/orphans_at_exit.rs`.
//!
//!     ending <how> [stubborn]
//!
//! prints `daemon <pid>`, `other <pid>` and `detached <pid>`, then `main ends`, and ends as it is told. The other child waits for the
//! end of stdin and then prints `other ends`.
//!
//!     ending while-starting
//!
//! exits while other threads start children as fast as they can.

use std::io::{Read, Write};
use std::time::Duration;

use mproc::{Child, Stdio};
use nix::sys::signal::{SigHandler, Signal, signal};

fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .expect("somebody reads");
}

#[mproc::entry]
fn run_for_ever(stubborn: bool) {
    if stubborn {
        // SAFETY: ignoring runs no code.
        unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.expect("SIGTERM can be ignored");
    }
    std::io::stdout().write_all(b".").expect("somebody reads");
    std::io::stdout().flush().expect("somebody reads");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[mproc::entry]
fn end_with_stdin() {
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("reads");
    say("other ends");
}

/// Lives until it is killed, or not much longer than a test that failed.
#[mproc::entry]
fn outlive() {
    std::thread::sleep(Duration::from_secs(300));
}

fn start() -> mproc::Result<[mproc::AnyChild; 3]> {
    let stubborn = std::env::args().nth(2).is_some();
    let daemon: Child<()> = run_for_ever::process(stubborn)
        .daemon(true)
        .stdout(Stdio::piped())
        .start()?;
    daemon
        .take_stdout()
        .expect("piped")
        .read_exact(&mut [0])
        .expect("the daemon is ready");
    let other = end_with_stdin::process().stdin(Stdio::inherit()).start()?;
    let detached = outlive::process()
        .detached()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .start()?;
    Ok([daemon.into_any(), other.into_any(), detached.into_any()])
}

#[mproc::entry]
fn return_at_once() {}

/// Exits in the middle of starts: some happen before, some are refused, and some are cut off.
fn exit_while_starting() -> ! {
    for thread in 0..4 {
        std::thread::spawn(move || {
            loop {
                match return_at_once::process().daemon(thread % 2 == 0).start() {
                    Ok(child) if thread == 0 => drop(child.wait()),
                    Ok(child) => drop(child),
                    Err(error) => assert_eq!(error.kind(), mproc::ErrorKind::Exiting, "{error}"),
                }
            }
        });
    }
    return_at_once::spawn()
        .expect("starts")
        .join()
        .expect("joins");
    std::process::exit(7)
}

mproc::main! {
    fn main() -> Result<(), &'static str> {
        if std::env::args().nth(1).is_some_and(|how| how == "while-starting") {
            exit_while_starting();
        }
        let children = start().expect("starts");
        for (what, child) in ["daemon", "other", "detached"].iter().zip(&children) {
            say(&format!("{what} {}", child.id()));
        }
        let how = std::env::args().nth(1).expect("how to end");
        if how == "dropped" {
            drop(children);
        }
        say("main ends");
        match how.as_str() {
            "returns" | "dropped" => Ok(()),
            "errs" => Err("an error that is part of a test"),
            "panics" => panic!("a panic that is part of a test"),
            "exits" => std::process::exit(3),
            "exits-in-a-thread" => {
                std::thread::spawn(|| std::process::exit(4)).join().expect("never returns");
                Ok(())
            }
            "aborts" => std::process::abort(),
            other => panic!("no such thing: {other}"),
        }
    }
}
