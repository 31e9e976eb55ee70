//! Doorbells: a descriptor that is readable from when it is rung until it is silenced.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::descriptor::above_stdio;
use super::poll::Deadline;
use super::socket::{Received, receive_packet, send_packet};

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
    // OK to ignore: it is silent, or no doorbell.
    let _ = read_at_once(bell, &mut [0; 8]);
}

/// Reads what is there now. Never waits, also if somebody who has the same open file has cleared its `O_NONBLOCK`.
fn read_at_once(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<usize, Errno> {
    let room = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let here: libc::c_long = -1;
    let flags = libc::c_long::from(libc::RWF_NOWAIT);
    loop {
        // SAFETY: one part is passed, whose address and length belong together and live through the call.
        let result = unsafe {
            let room = std::ptr::from_ref(&room);
            libc::syscall(
                libc::SYS_preadv2,
                fd.as_raw_fd(),
                room,
                1,
                here,
                here,
                flags,
            )
        };
        match Errno::result(result) {
            Ok(count) => return Ok(count as usize),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A bell on which one process sleeps: a kernel pipe, which wakes in one system call on each side, and hangs up when nobody is left
/// to ring it. The end that listens, and the end that rings.
///
/// Whoever rings keeps the listening end open, too, or ringing a dead process would raise SIGPIPE.
pub(crate) fn sleigh_bell() -> io::Result<(OwnedFd, OwnedFd)> {
    let (listen, strike) = super::descriptor::pipe()?;
    // A bell that has been rung 64 Ki times without being heard is not waited for.
    fcntl(strike.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((listen, strike))
}

/// Rings a [`sleigh_bell`].
pub(crate) fn strike(bell: BorrowedFd<'_>) {
    loop {
        // SAFETY: one byte is passed together with its address.
        let result = unsafe { libc::write(bell.as_raw_fd(), [0_u8].as_ptr().cast(), 1) };
        if result != -1 || Errno::last() != Errno::EINTR {
            return;
        }
    }
}

/// Takes the rings out of a [`sleigh_bell`] that nobody sleeps on. Says whether there were any.
pub(crate) fn unstrike(bell: BorrowedFd<'_>) -> bool {
    let mut waiting: libc::c_int = 0;
    // SAFETY: the request writes one number to the address given.
    let result = unsafe { libc::ioctl(bell.as_raw_fd(), libc::FIONREAD as _, &mut waiting) };
    if result != 0 || waiting <= 0 {
        return false;
    }
    // Those who ring have this end, too, and may have taken the rings meanwhile. Kernels before 6.5 do not know it of pipes.
    let read = match read_at_once(bell, &mut [0; 256]) {
        Err(Errno::EOPNOTSUPP) => read_rings(bell),
        read => read,
    };
    read.is_ok_and(|count| count > 0)
}

/// Reads some rings. 0: nobody is left to ring.
fn read_rings(bell: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut rings = [0_u8; 256];
    // SAFETY: room for as many bytes is passed together with its address.
    let result = unsafe { libc::read(bell.as_raw_fd(), rings.as_mut_ptr().cast(), rings.len()) };
    Errno::result(result).map(|count| count as usize)
}

/// What a wait heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The bell, or what stands for it.
    Bell,
    /// A signal: look again.
    Signal,
    /// Every other end is closed.
    HungUp,
    TimedOut,
}

/// Sleeps until a [`sleigh_bell`] is rung or hangs up.
pub(crate) fn listen(bell: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Heard> {
    if deadline.remaining().is_some() {
        match wait_for(bell, PollFlags::POLLIN, deadline)? {
            Heard::Bell | Heard::Signal => {}
            heard => return Ok(heard),
        }
        return Ok(if unstrike(bell) {
            Heard::Bell
        } else {
            Heard::Signal
        });
    }
    match read_rings(bell) {
        Ok(0) => Ok(Heard::HungUp),
        Ok(_) => Ok(Heard::Bell),
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(Heard::Signal),
        Err(error) => Err(error.into()),
    }
}

/// Waits until something is to be read from the line, or it hangs up.
pub(crate) fn wait_line(line: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Heard> {
    wait_for(line, PollFlags::POLLIN, deadline)
}

/// Rings at the other end of a line. Never waits: a line that is full of rings rings, and one that hangs up is found out by the next wait.
pub(crate) fn ring_line(line: BorrowedFd<'_>) {
    let _ = send_packet(line, &[&[0]], &[], false);
}

/// Takes the rings out of a line. Whatever else came is closed.
pub(crate) fn empty_line(line: BorrowedFd<'_>) {
    let mut packet = [0; 8];
    let mut strays = Vec::new();
    // As many as it can hold, or a peer that rings on and on would keep us here.
    for _ in 0..1024 {
        match receive_packet(line, &mut packet, &mut strays, false) {
            Ok(Received::Packet { .. }) => strays.clear(),
            _ => return,
        }
    }
}

/// Whether nobody is left at the other end.
pub(crate) fn has_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let now = Deadline::after(Duration::ZERO);
    Ok(wait_for(fd, PollFlags::empty(), now)? == Heard::HungUp)
}

fn wait_for(fd: BorrowedFd<'_>, events: PollFlags, deadline: Deadline) -> io::Result<Heard> {
    let mut fds = [PollFd::new(fd, events)];
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

/// Waits until something can be sent on the line, or it hangs up.
pub(crate) fn wait_writable(line: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Heard> {
    wait_for(line, PollFlags::POLLOUT, deadline)
}

/// One descriptor that is readable when one of two bells is, or hangs up: an epoll instance with both in it.
pub(crate) fn either(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes a flag, touches no memory.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made by the call above for us alone.
    let epoll = above_stdio(unsafe { OwnedFd::from_raw_fd(fd) })?;
    for fd in [one, other] {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 0,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who has the same open file makes it one that waits.
    #[test]
    fn silence_never_waits() {
        let bell = doorbell().unwrap();
        fcntl(bell.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        for _ in 0..2 {
            silence(bell.as_fd());
            ring(bell.as_fd());
            ring(bell.as_fd());
            let now = Deadline::after(Duration::ZERO);
            assert_eq!(
                wait_for(bell.as_fd(), PollFlags::POLLIN, now).unwrap(),
                Heard::Bell
            );
            silence(bell.as_fd());
            assert_eq!(
                wait_for(bell.as_fd(), PollFlags::POLLIN, now).unwrap(),
                Heard::TimedOut
            );
        }
        // What a peer passes off as a doorbell, and is none.
        let (read, _write) = sleigh_bell().unwrap();
        silence(read.as_fd());
    }

    #[test]
    fn rings_are_taken_out_once() {
        let (listen, ring) = sleigh_bell().unwrap();
        assert!(!unstrike(listen.as_fd()));
        for _ in 0..300 {
            strike(ring.as_fd());
        }
        assert!(unstrike(listen.as_fd()));
        assert!(unstrike(listen.as_fd()));
        assert!(!unstrike(listen.as_fd()));
    }
}
