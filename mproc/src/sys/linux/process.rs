//! Facts about this process, and the end of others.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::libc;

pub(crate) fn process_id() -> u32 {
    std::process::id()
}

pub(crate) fn effective_user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Runs `handler` when this process ends by `exit`: return from `main`, a panic in it, or `std::process::exit`.
pub(crate) fn at_exit(handler: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the handler is a plain function that lives as long as the program; mproc is not unloadable code.
    match unsafe { libc::atexit(handler) } {
        0 => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::OutOfMemory)),
    }
}

/// Names the calling thread, and with it, on the main thread, the process in `ps` and `top`.
pub(crate) fn set_thread_name(name: &CString) {
    // SAFETY: PR_SET_NAME reads at most 16 bytes of a C string, which ends in a zero wherever it is cut.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// The arguments of this program as the kernel keeps them: right also where std has not been told them, as in a
/// constructor under musl.
pub(crate) fn program_arguments() -> Vec<OsString> {
    let from_std: Vec<OsString> = std::env::args_os().collect();
    if !from_std.is_empty() {
        return from_std;
    }
    let mut bytes = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect()
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawStatus {
    Exited(i32),
    Signaled { signal: i32, core_dumped: bool },
}

/// Collects an ended child without waiting. `None`: it has not ended, or a tracer has to collect it first. `ECHILD`: somebody
/// else has collected it.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<RawStatus>> {
    loop {
        // SAFETY: `siginfo_t` is plain data for which zeroes are valid; the kernel fills it in.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pidfd.as_raw_fd() as libc::id_t;
        // SAFETY: `info` lives through the call, and the pidfd is borrowed for it.
        let result =
            unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, libc::WEXITED | libc::WNOHANG) };
        if result == -1 {
            match Errno::last() {
                Errno::EINTR => continue,
                error => return Err(error.into()),
            }
        }
        // SAFETY: after a successful waitid these fields are the ones filled in (zero when there was nothing to report).
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        return Ok(Some(match info.si_code {
            libc::CLD_EXITED => RawStatus::Exited(status),
            code => RawStatus::Signaled {
                signal: status,
                core_dumped: code == libc::CLD_DUMPED,
            },
        }));
    }
}

/// Some child that has ended and has not been collected, whoever started it. Collects nothing.
pub(crate) fn ended_child() -> Option<u32> {
    // SAFETY: `siginfo_t` is plain data for which zeroes are valid; the kernel fills it in.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` lives through the call; after success its pid is filled in, zero when there was nothing to report.
    let id = unsafe {
        if libc::waitid(libc::P_ALL, 0, &mut info, flags) == -1 {
            return None;
        }
        info.si_pid()
    };
    u32::try_from(id).ok().filter(|id| *id != 0)
}

/// What is known of a child that somebody else collected: a `SIGCHLD` that is ignored, or a foreign `wait`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ForeignReap {
    Status(RawStatus),
    /// The kernel has not kept it.
    Lost,
    /// The other one's `wait` has begun and not ended. Or, in a process that was forked, the child is not ours.
    UnderWay,
}

/// Asks the kernel for the status of a child that somebody else collected.
///
/// Linux 6.15 and newer keep it for holders of a pidfd (`PIDFD_GET_INFO`); before that it is lost.
pub(crate) fn status_after_foreign_reap(pidfd: BorrowedFd<'_>) -> ForeignReap {
    /// `struct pidfd_info` of linux/pidfd.h up to the field needed; the size travels in the request number.
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    const _: () = assert!(size_of::<PidfdInfo>() == 64);
    // `_IOWR(0xFF, 11, struct pidfd_info)`
    let request = (3_u32 << 30) | ((size_of::<PidfdInfo>() as u32) << 16) | (0xFF << 8) | 11;
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // Looked at BEFORE asking. The kernel keeps the status before it lets the process go, and the pidfd hangs up with that;
    // the other way round, the process could go between question and look, and its status would be taken for lost.
    let gone = super::poll::is_hung_up(pidfd);
    // SAFETY: the request number carries the size of `info`, and the kernel writes no more than that.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), request as libc::Ioctl, &mut info) };
    // A kernel that lets the process go between its own two looks knows neither the status nor the process: ESRCH. Any other
    // error is that of a kernel without this request.
    let unknown = if result == 0 {
        info.mask & PIDFD_INFO_EXIT == 0
    } else if Errno::last() == Errno::ESRCH {
        true
    } else {
        return ForeignReap::Lost;
    };
    if unknown {
        return if gone {
            ForeignReap::Lost
        } else {
            ForeignReap::UnderWay
        };
    }
    ForeignReap::Status(if libc::WIFEXITED(info.exit_code) {
        RawStatus::Exited(libc::WEXITSTATUS(info.exit_code))
    } else {
        let core_dumped = libc::WCOREDUMP(info.exit_code);
        RawStatus::Signaled {
            signal: libc::WTERMSIG(info.exit_code),
            core_dumped,
        }
    })
}

/// Sends a signal to exactly this process, whatever became of its number. One that has ended is left in peace.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo means what `kill` sends; no memory is touched.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The number of the processor that this thread is on.
pub(crate) fn core() -> u32 {
    // SAFETY: takes and touches nothing.
    unsafe { libc::sched_getcpu() }.cast_unsigned()
}

/// A pidfd of the process that has this number now.
pub(crate) fn open_process(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers, touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made by the call above for us alone; close-on-exec by itself.
    super::descriptor::above_stdio(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
