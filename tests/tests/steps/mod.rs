//! Kills a process after any number of instructions of an operation, by single-stepping it as a debugger does.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};

use mproc::{Child, Process};
use mproc_tests::{Dice, dose};
use nix::libc;

use crate::queue_shared::Words;

/// Words of the stage.
pub(crate) const READY: usize = 0;
const GO: usize = 1;
pub(crate) const COUNT: usize = 64;

/// In the child: does `act` between two marks at which the one that steps can see that it begins and ends. Whatever has to be made once was
/// made before.
pub(crate) fn stepped<T>(words: &Words, act: impl FnOnce() -> T) -> T {
    words[READY].store(1, Release);
    while words[GO].load(Acquire) == 0 {
        std::hint::spin_loop();
    }
    mark();
    let result = act();
    mark();
    result
}

#[inline(never)]
fn mark() {
    // SAFETY: a signal, which the debugger that waits for it takes away.
    unsafe { libc::raise(libc::SIGTRAP) };
}

fn ptrace(request: libc::c_uint, pid: i32, data: usize) {
    // SAFETY: requests that touch no memory of this process.
    let result = unsafe { libc::ptrace(request, pid, 0_usize, data) };
    assert_ne!(result, -1, "{}", io::Error::last_os_error());
}

/// The signal with which it has stopped.
fn stopped(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status lives through the call.
    let result = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
    assert_eq!(result, pid, "{}", io::Error::last_os_error());
    assert!(libc::WIFSTOPPED(status), "it has ended: {status:x}");
    libc::WSTOPSIG(status)
}

/// Whether it stopped at a mark, and not after a step.
fn is_at_mark(pid: i32) -> bool {
    // SAFETY: the information lives through the call, and zeroes are one.
    unsafe {
        let mut information: libc::siginfo_t = std::mem::zeroed();
        let place = std::ptr::from_mut(&mut information);
        let result = libc::ptrace(libc::PTRACE_GETSIGINFO, pid, 0_usize, place);
        assert_ne!(result, -1, "{}", io::Error::last_os_error());
        // Sent by a process, and not by the processor.
        information.si_code == libc::SI_TKILL
    }
}

/// Runs the operation of a new process, and kills it after `steps` instructions. `None`: it has come to its end before, after so many.
fn kill_after(process: Process<()>, words: &Words, steps: usize) -> (Child<()>, Option<usize>) {
    words[READY].store(0, Release);
    words[GO].store(0, Release);
    let child = process.daemon(true).start().unwrap();
    let pid = child.id() as i32;
    while words[READY].load(Acquire) == 0 {
        assert!(child.is_alive(), "it has ended: {:?}", child.wait());
        std::thread::yield_now();
    }
    ptrace(libc::PTRACE_SEIZE, pid, 0);
    words[GO].store(1, Release);
    while !(stopped(pid) == libc::SIGTRAP && is_at_mark(pid)) {
        ptrace(libc::PTRACE_CONT, pid, 0);
    }
    let mut taken = 0;
    let ended = loop {
        if taken == steps {
            break None;
        }
        ptrace(libc::PTRACE_SINGLESTEP, pid, 0);
        taken += 1;
        let signal = stopped(pid);
        if signal == libc::SIGTRAP && is_at_mark(pid) {
            break Some(taken);
        }
    };
    // A stopped process that is traced dies, too.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "{status}");
    (child, ended)
}

/// Kills the operation of `process` at many of its instructions, from the first to the last; `check` is told the process that died.
pub(crate) fn kill_at_each_step(
    test: &str,
    words: &Words,
    mut process: impl FnMut() -> Process<()>,
    mut check: impl FnMut(u32),
) {
    let mut dice = Dice::new(test);
    let (child, length) = kill_after(process(), words, usize::MAX);
    check(child.id());
    let length = length.expect("it ends");
    let kills = dose(12, 2000).min(length);
    eprintln!("{test}: {length} instructions, {kills} kills");
    let stride = length.div_ceil(kills);
    for kill in 0..kills {
        // Some are killed after it: there may be more instructions at other times.
        let steps = kill * stride + dice.below(stride as u64) as usize;
        let (child, _) = kill_after(process(), words, steps);
        check(child.id());
    }
}
