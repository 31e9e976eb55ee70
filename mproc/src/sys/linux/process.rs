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

/// The monotonic clock, which is the same in all processes.
pub(crate) fn monotonic_nanoseconds() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How much memory this process has that is there. 0 if the system does not say.
pub(crate) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * super::PAGE as u64
}

/// Makes this process nicer to others, or less. OK to fail: being less nice is a privilege.
pub(crate) fn add_niceness(niceness: i32) {
    if niceness != 0 {
        // SAFETY: takes a number.
        unsafe { libc::nice(niceness) };
    }
}

fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: a set of processors is bits, of which none is set here, and lives through the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of_val(&set), &mut set) == 0).then_some(set)
    }
}

/// The core for the `number`th of `count` processes that are to be spread over those that this one may use; none if there are not
/// enough of them.
pub(crate) fn nth_core(number: u32, count: u32) -> Option<u32> {
    let set = affinity()?;
    // SAFETY: the set is initialized, and has that many bits.
    let cores = (0..libc::CPU_SETSIZE as u32)
        .filter(|&core| unsafe { libc::CPU_ISSET(core as usize, &set) });
    let cores: Vec<u32> = cores.collect();
    (count as usize <= cores.len()).then(|| cores[number as usize % cores.len()])
}

/// Another of the cores that this thread may use than the one it is on, if there is one.
pub(crate) fn other_core() -> Option<u32> {
    let set = affinity()?;
    let here = core();
    let count = libc::CPU_SETSIZE as u32;
    // SAFETY: the set is initialized, and has that many bits.
    (1..count)
        .map(|step| (here + step) % count)
        .find(|&core| unsafe { libc::CPU_ISSET(core as usize, &set) })
}

/// Moves this thread to a core, and lets it go from there wherever it could before.
pub(crate) fn move_to_core(core: u32) {
    let Some(before) = affinity() else { return };
    // SAFETY: as in `affinity`; the bit is one of them.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core as usize, &mut set);
        if libc::sched_setaffinity(0, size_of_val(&set), &set) == 0 {
            libc::sched_setaffinity(0, size_of_val(&before), &before);
        }
    }
}
