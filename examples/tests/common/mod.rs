//! Runs a program and keeps what it printed.
//!
//! Output ends when the last process that can write it has ended, so what a program returns here, with all that its children
//! printed, is complete. Nothing sleeps for that; a program that hangs is killed, and with it its children.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// What a program printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

/// The example that `cargo test` built beside this test.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test knows where it is");
    // target/debug/deps/programs-…  →  target/debug/examples/NAME
    let profile = test
        .ancestors()
        .nth(2)
        .expect("it is in a folder of cargo's");
    let program = profile.join("examples").join(name);
    assert!(
        program.exists(),
        "{program:?} is not built; `cargo test` without `--test` does that"
    );
    Command::new(program)
}

/// Starts a program whose output is kept.
pub(crate) fn start(command: &mut Command) -> Child {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits for the end of a program that was started, which has to come within `limit`. What `out` gives is its output.
pub(crate) fn finish(
    mut program: Child,
    out: impl Read + Send + 'static,
    limit: Duration,
) -> Printed {
    let err = program.stderr.take().expect("it is piped");

    let (finished, both_finished) = channel();
    let out = read_to_end(out, finished.clone());
    let err = read_to_end(err, finished);
    // The readers say nothing; when both have dropped their end, the output is complete.
    let ended = both_finished.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
    if !ended {
        program.kill().expect("it is ours");
    }
    let code = program.wait().expect("it is ours").code();
    let [out, err] = [out, err].map(|reader| reader.join().expect("it does not panic"));
    let printed = Printed {
        out: out.expect("standard output is UTF-8"),
        err: err.expect("standard error is UTF-8"),
        code,
    };
    assert!(ended, "it has not ended in {limit:?}: {printed:#?}");
    printed
}

/// Runs a program to its end, which has to come within `limit`.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Printed {
    let mut program = start(command);
    let out = program.stdout.take().expect("it is piped");
    finish(program, out, limit)
}

/// Runs a program to its end, with a limit for those that hang.
pub(crate) fn run(command: &mut Command) -> Printed {
    run_within(command, Duration::from_secs(300))
}

fn read_to_end(
    mut pipe: impl Read + Send + 'static,
    finished: Sender<()>,
) -> thread::JoinHandle<io::Result<String>> {
    thread::spawn(move || {
        let mut text = String::new();
        let read = pipe.read_to_string(&mut text);
        drop(finished);
        read.map(|_| text)
    })
}
