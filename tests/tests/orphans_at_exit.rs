//! However a program ends by itself, its daemons are terminated and its other children waited for, as in Python.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use mproc_tests::{dose, eventually, runs, watchdog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);

struct Ending {
    program: Child,
    /// What lets the other child end.
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    daemon: u32,
    other: u32,
    detached: u32,
}

/// Starts the program and waits until its `main` has nothing more to do than to end.
fn start(how: &[&str]) -> Ending {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ending"))
        .args(how)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let stdin = program.stdin.take().expect("piped");
    let mut stdout = BufReader::new(program.stdout.take().expect("piped"));
    let mut line = || {
        let mut line = String::new();
        stdout.read_line(&mut line).expect("reads");
        line.trim_end().to_owned()
    };
    let [daemon, other, detached] = ["daemon ", "other ", "detached "].map(|what| {
        let line = line();
        let id = line.strip_prefix(what).expect("in this order");
        id.parse::<u32>().expect("a number")
    });
    assert_eq!(line(), "main ends");
    Ending {
        program,
        stdin,
        stdout,
        daemon,
        other,
        detached,
    }
}

/// Lets the other child go and waits for the end of the program. Returns what was printed after the end of its `main`.
fn finish(mut ending: Ending, expected_code: Option<i32>) -> String {
    drop(ending.stdin);
    let status = ending.program.wait().expect("waits");
    assert_eq!(status.code(), expected_code, "{status}");
    let mut rest = String::new();
    ending.stdout.read_to_string(&mut rest).expect("reads");
    eventually(|| !runs(ending.daemon) && !runs(ending.other));
    assert!(
        runs(ending.detached),
        "a detached child is none of the end's business"
    );
    kill(Pid::from_raw(ending.detached as i32), Signal::SIGKILL).expect("it runs");
    rest
}

fn end(how: &str, expected_code: i32) {
    let mut ending = start(&[how]);
    // The daemon goes first, while the other one still runs. Not before that is let go can the program end.
    eventually(|| !runs(ending.daemon));
    assert!(runs(ending.other));
    assert_eq!(ending.program.try_wait().expect("looks"), None);
    assert_eq!(finish(ending, Some(expected_code)), "other ends\n");
}

#[test]
fn main_returns() {
    let _watchdog = watchdog("main_returns", LIMIT);
    end("returns", 0);
}

#[test]
fn main_returns_after_dropping_its_handles() {
    let _watchdog = watchdog("main_returns_after_dropping_its_handles", LIMIT);
    end("dropped", 0);
}

#[test]
fn main_returns_an_error() {
    let _watchdog = watchdog("main_returns_an_error", LIMIT);
    end("errs", 1);
}

#[test]
fn main_panics() {
    let _watchdog = watchdog("main_panics", LIMIT);
    end("panics", 101);
}

#[test]
fn main_exits() {
    let _watchdog = watchdog("main_exits", LIMIT);
    end("exits", 3);
}

#[test]
fn a_thread_exits() {
    let _watchdog = watchdog("a_thread_exits", LIMIT);
    end("exits-in-a-thread", 4);
}

#[test]
fn after_an_abort_nobody_is_waited_for() {
    let _watchdog = watchdog("after_an_abort_nobody_is_waited_for", LIMIT);
    // Whether the other child came to print its line before it was killed is chance.
    finish(start(&["aborts"]), None);
}

/// A daemon that ignores SIGTERM has its grace, which is waited for beside the other children, and is killed then.
#[test]
fn a_stubborn_daemon_does_not_keep_the_program() {
    let _watchdog = watchdog("a_stubborn_daemon_does_not_keep_the_program", LIMIT);
    let ending = start(&["returns", "stubborn"]);
    assert_eq!(finish(ending, Some(0)), "other ends\n");
}

#[test]
fn a_program_that_exits_while_it_starts_children_ends() {
    let _watchdog = watchdog("a_program_that_exits_while_it_starts_children_ends", LIMIT);
    for _ in 0..dose(10, 1000) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ending"));
        let output = program
            .arg("while-starting")
            .output()
            .expect("the program runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(7), ""));
    }
}
