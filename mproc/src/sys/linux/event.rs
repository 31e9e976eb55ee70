//! Doorbells: a descriptor that is readable from when it is rung until it is silenced.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::descriptor::above_stdio;
use super::poll::Deadline;

/// A new doorbell, silent.
pub(crate) fn doorbell() -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers, touches no memory.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made by the call above for us alone.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the doorbell readable. Never waits and never fails: one that has been rung 2⁶⁴ times is readable already, and a
/// descriptor that a broken peer passed off as a doorbell harms the peer alone.
pub(crate) fn ring(bell: BorrowedFd<'_>) {
    let one = 1_u64.to_ne_bytes();
    loop {
        // SAFETY: eight bytes are passed together with their address.
        let result = unsafe { libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        if result != -1 || Errno::last() != Errno::EINTR {
            return;
        }
    }
}

/// Makes the doorbell unreadable until it is rung again.
pub(crate) fn silence(bell: BorrowedFd<'_>) {
    let mut count = [0_u8; 8];
    loop {
        // SAFETY: room for eight bytes is passed together with its address.
        let result =
            unsafe { libc::read(bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        if result != -1 || Errno::last() != Errno::EINTR {
            return;
        }
    }
}

/// What [`wait_bell`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The bell, or a signal: look again.
    Bell,
    /// Every other end of the line is closed.
    HungUp,
    TimedOut,
}

/// Waits until the bell rings or the line hangs up, and silences the bell. `line_rings` says that what can be read from the
/// line counts as the bell.
pub(crate) fn wait_bell(
    bell: Option<BorrowedFd<'_>>,
    line: BorrowedFd<'_>,
    line_rings: bool,
    deadline: Deadline,
) -> io::Result<Heard> {
    let on_line = if line_rings {
        PollFlags::POLLIN
    } else {
        PollFlags::empty()
    };
    let mut both = [
        PollFd::new(line, on_line),
        PollFd::new(bell.unwrap_or(line), PollFlags::POLLIN),
    ];
    let fds = if bell.is_some() {
        &mut both[..]
    } else {
        &mut both[..1]
    };
    let timeout = deadline.remaining();
    match ppoll(fds, timeout.map(TimeSpec::from_duration), None) {
        Ok(0) if timeout.is_some() => return Ok(Heard::TimedOut),
        Ok(0) => return Ok(Heard::Bell),
        Err(Errno::EINTR) if timeout == Some(Duration::ZERO) => return Ok(Heard::TimedOut),
        Err(Errno::EINTR) => return Ok(Heard::Bell),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let seen = |index: usize| both[index].revents().unwrap_or(PollFlags::empty());
    if seen(0).intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
        return Ok(Heard::HungUp);
    }
    if let Some(bell) = bell
        && seen(1).contains(PollFlags::POLLIN)
    {
        silence(bell);
    }
    Ok(Heard::Bell)
}

/// Waits until something can be sent on the line, or it hangs up.
pub(crate) fn wait_writable(line: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Heard> {
    let mut fds = [PollFd::new(line, PollFlags::POLLOUT)];
    let timeout = deadline.remaining();
    match ppoll(&mut fds, timeout.map(TimeSpec::from_duration), None) {
        Ok(0) if timeout.is_some() => Ok(Heard::TimedOut),
        Err(Errno::EINTR) if timeout == Some(Duration::ZERO) => Ok(Heard::TimedOut),
        Ok(0) | Err(Errno::EINTR) => Ok(Heard::Bell),
        Ok(_) => match fds[0].revents() {
            Some(seen) if seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) => {
                Ok(Heard::HungUp)
            }
            _ => Ok(Heard::Bell),
        },
        Err(error) => Err(error.into()),
    }
}

/// One descriptor that is readable when `bell` is, or when `line` is hung up: an epoll instance with both in it.
pub(crate) fn either(bell: BorrowedFd<'_>, line: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes a flag, touches no memory.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made by the call above for us alone.
    let epoll = above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })?;
    // Of the line only the hang-up, which is always reported: descriptors that wait in it are not messages.
    for (fd, events) in [(bell, libc::EPOLLIN as u32), (line, 0)] {
        let mut event = libc::epoll_event { events, u64: 0 };
        // SAFETY: `event` lives through the call, and all descriptors are open.
        let result = unsafe {
            libc::epoll_ctl(
                epoll.as_fd().as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &mut event,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(epoll)
}
