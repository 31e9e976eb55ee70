//! What a process was started with, as the kernel tells it.

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};
use serde::{Deserialize, Serialize};

/// Signals and streams of a process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The mask of blocked signals.
    pub blocked: u64,
    /// Whether the signals that [`become_peculiar`] handles have a handler.
    pub handled: bool,
    /// As std has it in every program.
    pub sigpipe_ignored: bool,
    /// Whether a signal that its parent ignored is ignored, as `exec` has it in every program.
    pub sighup_ignored: bool,
    /// Whether descriptors 0 to 2 are open.
    pub streams_open: bool,
}

impl Facts {
    /// Those of the calling process.
    pub fn of_this_process() -> Self {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
        let set = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a line");
            u64::from_str_radix(line.trim(), 16).expect("a set of signals")
        };
        let holds = |set: u64, signal: Signal| set & 1 << (signal as i32 - 1) != 0;
        let (handled, ignored) = (set("SigCgt:"), set("SigIgn:"));
        let open = |number: &i32| {
            std::fs::exists(format!("/proc/self/fd/{number}")).is_ok_and(|open| open)
        };
        Self {
            blocked: set("SigBlk:"),
            handled: HANDLED.iter().any(|signal| holds(handled, *signal)),
            sigpipe_ignored: holds(ignored, Signal::SIGPIPE),
            sighup_ignored: holds(ignored, Signal::SIGHUP),
            streams_open: (0..3).all(|number| open(&number)),
        }
    }
}

const HANDLED: [Signal; 3] = [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGCHLD];

/// Blocks every signal and handles some, as embedders and runtimes do; ignores SIGHUP, as `nohup` does.
pub fn become_peculiar() {
    extern "C" fn nothing(_: libc::c_int) {}
    for handled in HANDLED {
        // SAFETY: the handler does nothing.
        unsafe { signal(handled, SigHandler::Handler(nothing)) }.expect("a handler is set");
    }
    // SAFETY: no handler runs at all.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.expect("a signal is ignored");
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .expect("signals are blocked");
}
