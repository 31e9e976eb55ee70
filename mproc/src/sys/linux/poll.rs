//! Waiting for descriptors, with deadlines.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// The moment a wait has to end; `Deadline::NEVER` has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) const NEVER: Self = Self(None);

    /// A duration too long for the clock is no deadline at all.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// Sleeps for `pause`, no longer than to the deadline. False if that had passed already.
    pub(crate) fn sleep(self, pause: Duration) -> bool {
        let remaining = self.remaining().unwrap_or(Duration::MAX);
        if pause > Duration::ZERO && remaining == Duration::ZERO {
            return false;
        }
        std::thread::sleep(pause.min(remaining));
        true
    }

    /// This deadline, or `timeout` from now if that is earlier.
    pub(crate) fn within(self, timeout: Duration) -> Self {
        match (self.0, Self::after(timeout).0) {
            (Some(one), Some(other)) => Self(Some(one.min(other))),
            (one, other) => Self(one.or(other)),
        }
    }

    /// This deadline, or `timeout` from now if that is later.
    pub(crate) fn at_least(self, timeout: Duration) -> Self {
        match (self.0, Self::after(timeout).0) {
            (Some(one), Some(other)) => Self(Some(one.max(other))),
            _ => Self::NEVER,
        }
    }

    /// Whether it has passed.
    pub(crate) fn is_over(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// What is left of it; `None` without a deadline.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0
            .map(|end| end.saturating_duration_since(Instant::now()))
    }
}

/// Waits until `fd` is readable or hung up. Returns whether it was before the deadline passed.
///
/// Any number of threads may wait on the same descriptor.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    loop {
        let timeout = deadline.remaining();
        match ppoll(&mut fds, timeout.map(TimeSpec::from_duration), None) {
            Ok(0) | Err(Errno::EINTR) if timeout == Some(Duration::ZERO) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until at least one of `fds` is readable or hung up, and gives the indices of all that are; none after the deadline.
pub(crate) fn wait_many(fds: &[BorrowedFd<'_>], deadline: Deadline) -> io::Result<Vec<usize>> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    loop {
        let timeout = deadline.remaining();
        match ppoll(&mut polled, timeout.map(TimeSpec::from_duration), None) {
            Ok(0) | Err(Errno::EINTR) if timeout == Some(Duration::ZERO) => return Ok(Vec::new()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                let ready = polled.iter().enumerate();
                let ready = ready.filter(|(_, fd)| fd.any().unwrap_or(false));
                return Ok(ready.map(|(index, _)| index).collect());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether `fd` is readable or hung up now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable(fd, Deadline(Some(Instant::now()))).unwrap_or(false)
}

/// Whether every other end of this pipe is closed; of a pidfd, whether its process is gone from the kernel's table (Linux 6.9).
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    loop {
        match ppoll(
            &mut fds,
            Some(TimeSpec::from_duration(Duration::ZERO)),
            None,
        ) {
            Err(Errno::EINTR) => {}
            Ok(_) => {
                return fds[0]
                    .revents()
                    .is_some_and(|seen| seen.contains(PollFlags::POLLHUP));
            }
            Err(_) => return false,
        }
    }
}

/// Many descriptors watched by one thread, each reported once under its key.
pub(crate) struct Watch {
    epoll: OwnedFd,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a flag, touches no memory.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: made by the call above for us alone.
        let epoll = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        Ok(Self { epoll })
    }

    /// Reports `key` once, when `fd` becomes readable; from any thread, also while another one waits.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLONESHOT) as u32,
            u64: key,
        };
        // SAFETY: `event` lives through the call, and both descriptors are borrowed for it.
        let result = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &mut event,
            )
        };
        if result == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Waits for the next key.
    pub(crate) fn next(&self) -> io::Result<u64> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        loop {
            // SAFETY: room for one event is passed together with the count one.
            let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &mut event, 1, -1) };
            match count {
                1 => return Ok(event.u64),
                -1 if Errno::last() != Errno::EINTR => return Err(io::Error::last_os_error()),
                _ => {}
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
