//! The bells and lines of [`event.rs`](real) as a model checker sees them: rings that are counted, sleepers, and a hang-up when the process
//! at the other end is gone.
//!
//! What is at the two ends of a bell or a line of a model is one descriptor, which is nothing but its name. What a model does not use is the real thing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

// What the real thing finds in the module above it.
use super::{descriptor, poll, socket};

use super::futex::{Woken, alone, is_gone, may_die, sleep, wake_asleep};
use super::poll::Deadline;

#[path = "event.rs"]
mod real;

pub(crate) use real::{Heard, doorbell, either, ring, silence, sleigh_bell, wait_writable};

#[derive(Default)]
struct End {
    rings: u32,
    /// The process with which it hangs up.
    other: Option<usize>,
}

thread_local! {
    // Of the thread in which loom runs all those of a model.
    static ENDS: RefCell<BTreeMap<usize, End>> = RefCell::default();
}

/// By this, sleepers know it; no word of a model is at such an address.
fn address(fd: BorrowedFd<'_>) -> usize {
    fd.as_raw_fd() as usize
}

fn end<T>(fd: BorrowedFd<'_>, act: impl FnOnce(&mut End) -> T) -> T {
    ENDS.with_borrow_mut(|ends| act(ends.entry(address(fd)).or_default()))
}

/// From here on it is silent, and hangs up when that process of the model is gone.
#[cfg(test)]
pub(crate) fn hangs_up_with(fd: BorrowedFd<'_>, process: usize) {
    end(fd, |end| {
        *end = End {
            rings: 0,
            other: Some(process),
        }
    });
}

/// Wakes those who hear that a process is gone.
pub(super) fn hang_up(process: usize) {
    let addresses: Vec<usize> = ENDS.with_borrow(|ends| {
        let of_it = ends.iter().filter(|(_, end)| end.other == Some(process));
        of_it.map(|(address, _)| *address).collect()
    });
    for address in addresses {
        wake_asleep(address, u32::MAX);
    }
}

fn is_over(fd: BorrowedFd<'_>) -> bool {
    end(fd, |end| end.other).is_some_and(is_gone)
}

pub(crate) fn strike(bell: BorrowedFd<'_>) {
    may_die();
    alone(|| {
        end(bell, |end| end.rings += 1);
        wake_asleep(address(bell), u32::MAX);
    });
}

pub(crate) fn unstrike(bell: BorrowedFd<'_>) -> bool {
    may_die();
    alone(|| end(bell, |end| std::mem::take(&mut end.rings) > 0))
}

pub(crate) fn ring_line(line: BorrowedFd<'_>) {
    strike(line);
}

pub(crate) fn empty_line(line: BorrowedFd<'_>) {
    unstrike(line);
}

pub(crate) fn has_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(alone(|| is_over(fd)))
}

/// What is to be heard, if anything; `take` silences it.
fn hear(fd: BorrowedFd<'_>, take: bool) -> Option<Heard> {
    let rings = end(fd, |end| {
        let rings = end.rings;
        if take {
            end.rings = 0;
        }
        rings
    });
    match rings {
        0 if is_over(fd) => Some(Heard::HungUp),
        0 => None,
        _ => Some(Heard::Bell),
    }
}

fn wait(fd: BorrowedFd<'_>, deadline: Deadline, take: bool) -> io::Result<Heard> {
    let remaining = deadline.remaining();
    loop {
        may_die();
        let heard = alone(|| hear(fd, take));
        if let Some(heard) = heard {
            return Ok(heard);
        }
        if remaining == Some(Duration::ZERO) {
            return Ok(Heard::TimedOut);
        }
        let slept = sleep(
            || hear(fd, false).is_none(),
            vec![address(fd)],
            remaining.is_some(),
        );
        if slept == Woken::TimedOut {
            return Ok(Heard::TimedOut);
        }
    }
}

pub(crate) fn listen(bell: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Heard> {
    wait(bell, deadline, true)
}

pub(crate) fn wait_line(line: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Heard> {
    wait(line, deadline, false)
}
