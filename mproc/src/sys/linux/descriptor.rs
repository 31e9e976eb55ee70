//! Descriptors: where they live, what they inherit.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

/// Moves a descriptor out of 0 to 2.
///
/// A program that closed its standard streams gets those numbers for whatever it opens next. A child's standard streams
/// are put in place by `dup2`, which would overwrite such a descriptor before its turn came.
pub(crate) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    let moved = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: `fcntl` has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// A second descriptor of the same open file, close-on-exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    above_stdio(fd.try_clone_to_owned()?)
}

/// A pipe: read end, write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((above_stdio(read)?, above_stdio(write)?))
}

/// Marks a descriptor that came through `exec` so that it goes no further.
pub(crate) fn set_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Opens `/dev/null` at those of 0 to 2 that are closed, as std does before `main`, so that no file opened later becomes
/// somebody's stderr.
#[cfg(feature = "test")]
pub(crate) fn open_stdio() {
    use nix::libc;

    for number in 0..3 {
        // SAFETY: F_GETFD takes a number and touches no memory; a closed number is an answer and not a fault.
        let closed = unsafe { libc::fcntl(number, libc::F_GETFD) } == -1;
        if closed {
            // SAFETY: the path is a C string. `open` takes the lowest free number, which is `number`, since those below
            // it are open by now. The descriptor is left open on purpose: it is a standard stream from here on.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        }
    }
}
