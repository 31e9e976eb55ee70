//! Starting this program again, as `posix_spawn` does it, with what that call lacks: a pidfd without a race, a death line
//! armed before the first instruction of the new program, and no descriptor that was not asked for.
//!
//! The child of `clone(CLONE_VM | CLONE_VFORK)` runs on a stack of its own in *our* memory until it executes, while the calling
//! thread stands still and all others go on. So between `clone` and `execve` ([`in_child`]) nothing may allocate, lock,
//! panic, or touch memory that other threads may be using: only system calls, on what was prepared before. Signals are
//! blocked around the call and handlers reset in the child before it unblocks them, or a handler of ours would run in it.
//!
//! # The death line
//!
//! A pipe that is never written. The parent holds the only write end; when the parent process ends, whatever ended it, the
//! kernel closes that, and the hang-up raises the signal that the child asked for with `F_SETSIG`: `SIGKILL`. Unlike
//! `PR_SET_PDEATHSIG` it follows the parent *process* and not the thread that called, and it needs no thread. The setting
//! belongs to the open file description, so it is made before `execve` and survives it: no moment of the new program is
//! uncovered. A parent that dies between `clone` and the arming is found by looking after arming.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::libc::{self, c_char, c_int, c_void};

/// What the child does for its standard stream.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Inherit,
    Null,
    Descriptor(BorrowedFd<'a>),
}

/// The child's end of the death line and the parent's.
#[derive(Clone, Copy)]
pub(crate) struct Armed<'a> {
    pub(crate) read: BorrowedFd<'a>,
    pub(crate) write: BorrowedFd<'a>,
    /// Whether the parent's end kills the child; else the child can only look.
    pub(crate) kills: bool,
}

pub(crate) struct Plan<'a> {
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    pub(crate) current_dir: Option<&'a CStr>,
    pub(crate) stdio: [Source<'a>; 3],
    pub(crate) line: Armed<'a>,
    /// Kept open in the child under the same number, beside the standard streams and the line. All are above 2.
    pub(crate) control: BorrowedFd<'a>,
}

/// Which step failed, and how.
#[derive(Debug)]
pub(crate) struct LaunchError {
    step: Step,
    pub(crate) os: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Clone,
    Arm,
    Stdio,
    CurrentDir,
    Descriptors,
    Execute,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = self.os.raw_os_error().unwrap_or_default();
        f.write_str(match (self.step, errno) {
            (Step::Clone, libc::EAGAIN) => {
                "the limit of processes is reached (see `ulimit -u` and the cgroup's pids.max)"
            }
            (Step::Clone, libc::EMFILE) => {
                "the limit of open descriptors is reached (see `ulimit -n`)"
            }
            (Step::Clone, _) => "the system refused to make a process",
            (Step::Arm, _) => "the child could not be tied to the life of this process",
            (Step::Stdio, _) => "a standard stream could not be put in place",
            (Step::CurrentDir, _) => "the current directory of the child could not be set",
            (Step::Descriptors, libc::ENOSYS | libc::EINVAL) => {
                "close_range is missing: Linux 5.16 or newer is needed"
            }
            (Step::Descriptors, _) => "the descriptors of the child could not be set",
            (Step::Execute, libc::E2BIG) => {
                "the arguments or the environment are too large (see execve(2))"
            }
            (Step::Execute, libc::ENOENT) => {
                "/proc/self/exe cannot be executed: /proc has to be mounted"
            }
            (Step::Execute, _) => "/proc/self/exe cannot be executed",
        })
    }
}

/// Starts this program again. Returns the child's number and a descriptor that stands for it whatever becomes of the number.
pub(crate) fn launch(plan: &Plan<'_>) -> Result<(u32, OwnedFd), LaunchError> {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(plan.arguments), pointers(plan.environment));
    let mut prepared = Prepared {
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        current_dir: plan.current_dir.map_or(ptr::null(), CStr::as_ptr),
        stdio: plan.stdio.map(|source| match source {
            Source::Inherit => INHERIT,
            Source::Null => NULL,
            Source::Descriptor(fd) => fd.as_raw_fd(),
        }),
        line_read: plan.line.read.as_raw_fd(),
        line_write: plan.line.write.as_raw_fd(),
        line_kills: plan.line.kills,
        control: plan.control.as_raw_fd(),
        failed: None,
    };

    // 32 KiB: `in_child` needs about one in a debug build. Not on our own stack: the calling thread's may be small.
    #[repr(align(16))]
    struct Stack(#[expect(dead_code, reason = "used by address")] [u8; 32 * 1024]);
    let mut stack = Box::<Stack>::new_uninit();
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;

    let mask = block_all_signals();
    // SAFETY:
    // - the stack is ours, aligned, and outlives the child's use of it: CLONE_VFORK holds this thread until the child has
    //   executed or ended.
    // - `prepared` and what it points to stay borrowed by this frame, and only the child touches them meanwhile.
    // - with CLONE_PIDFD the kernel writes the descriptor where the parent's thread id would go; `pidfd` is a C int.
    // - `in_child` keeps to the rules in the module's documentation.
    let pid = unsafe {
        libc::clone(
            in_child,
            stack.as_mut_ptr().add(1).cast::<c_void>(),
            flags,
            (&raw mut prepared).cast::<c_void>(),
            &raw mut pidfd,
            ptr::null_mut::<c_void>(),
            ptr::null_mut::<c_int>(),
        )
    };
    let clone_error = io::Error::last_os_error();
    restore_signals(mask);

    if pid == -1 {
        return Err(LaunchError {
            step: Step::Clone,
            os: clone_error,
        });
    }
    // SAFETY: the kernel has made this descriptor for us alone.
    let mut pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // Out of the numbers of standard streams, or a program that has closed its own would print into it. If there is no room
    // for another number, that is no reason to give up a process that has started.
    if pidfd.as_raw_fd() <= 2
        && let Ok(moved) = pidfd.try_clone()
    {
        pidfd = moved;
    }
    // Read through a pointer: the child has written behind the compiler's back.
    // SAFETY: the child has executed or ended, so nobody else touches `prepared`.
    let failed = unsafe { (&raw const prepared.failed).read_volatile() };
    if let Some((step, errno)) = failed {
        collect(&pidfd);
        return Err(LaunchError {
            step,
            os: io::Error::from_raw_os_error(errno),
        });
    }
    Ok((pid as u32, pidfd))
}

const INHERIT: RawFd = -1;
const NULL: RawFd = -2;

/// All that [`in_child`] reads, as plain numbers and pointers, and the one word that it writes.
struct Prepared {
    arguments: *const *const c_char,
    environment: *const *const c_char,
    current_dir: *const c_char,
    stdio: [RawFd; 3],
    line_read: RawFd,
    line_write: RawFd,
    line_kills: bool,
    control: RawFd,
    failed: Option<(Step, c_int)>,
}

/// What the child does between `clone` and `execve`. System calls only: see the module's documentation.
extern "C" fn in_child(prepared: *mut c_void) -> c_int {
    let prepared = prepared.cast::<Prepared>();
    // SAFETY: `launch` passed a pointer to a `Prepared` that lives and stands still. `errno` is the standing thread's, which
    // does not look at it.
    unsafe {
        let failed = match until_execute(&*prepared) {
            Ok(never) => match never {},
            Err(Ended::Orphaned) => None,
            Err(Ended::Failed(step)) => Some((step, *libc::__errno_location())),
        };
        (&raw mut (*prepared).failed).write_volatile(failed);
        libc::_exit(127)
    }
}

enum Ended {
    /// The parent is gone, and nobody is left to tell.
    Orphaned,
    Failed(Step),
}

/// # Safety
///
/// Only in a child of `clone(CLONE_VM | CLONE_VFORK)` with all signals blocked. The pointers in `prepared` are valid, null
/// terminated lists of C strings.
unsafe fn until_execute(prepared: &Prepared) -> Result<std::convert::Infallible, Ended> {
    let check = |result: c_int, step: Step| {
        if result == -1 {
            Err(Ended::Failed(step))
        } else {
            Ok(result)
        }
    };
    // SAFETY: each call takes numbers, or pointers that `launch` prepared and that outlive this process's use of them.
    unsafe {
        reset_signal_handlers();

        // This process has copies of all our descriptors until it executes, the write end of the line among them. Drop that
        // one BEFORE looking whether the line is dead, or it would be our own copy that keeps it alive.
        libc::close(prepared.line_write);
        if prepared.line_kills {
            let line = prepared.line_read;
            check(libc::fcntl(line, libc::F_SETOWN, libc::getpid()), Step::Arm)?;
            check(libc::fcntl(line, F_SETSIG, libc::SIGKILL), Step::Arm)?;
            check(libc::fcntl(line, libc::F_SETFL, libc::O_ASYNC), Step::Arm)?;
            // Look AFTER arming: a parent that died earlier has sent no signal.
            let mut look = libc::pollfd {
                fd: line,
                events: libc::POLLIN,
                revents: 0,
            };
            if libc::poll(&mut look, 1, 0) == 1 {
                return Err(Ended::Orphaned);
            }
        }

        for (target, &source) in (0..).zip(&prepared.stdio) {
            match source {
                INHERIT => {}
                NULL => {
                    let null = check(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR), Step::Stdio)?;
                    // It lands on `target` itself, or below it, where streams were closed.
                    if null != target {
                        check(libc::dup2(null, target), Step::Stdio)?;
                        libc::close(null);
                    }
                }
                source => {
                    check(libc::dup2(source, target), Step::Stdio)?;
                }
            }
        }

        if !prepared.current_dir.is_null() {
            check(libc::chdir(prepared.current_dir), Step::CurrentDir)?;
        }

        // A descriptor that some library left inheritable stays with us; the child gets what it was given.
        let all = libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        check(all as c_int, Step::Descriptors)?;
        check(
            libc::fcntl(prepared.line_read, libc::F_SETFD, 0),
            Step::Descriptors,
        )?;
        check(
            libc::fcntl(prepared.control, libc::F_SETFD, 0),
            Step::Descriptors,
        )?;

        // As std's Command: the new program starts with nothing blocked.
        restore_signals(0);
        libc::execve(
            c"/proc/self/exe".as_ptr(),
            prepared.arguments,
            prepared.environment,
        );
        Err(Ended::Failed(Step::Execute))
    }
}

/// Not in libc for all targets: `F_SETSIG` of fcntl(2).
const F_SETSIG: c_int = 10;

/// Handlers are lost in `execve` anyway; here they have to go before signals are unblocked. Ignored ones stay ignored,
/// except SIGPIPE, which std ignores in every program and which each program is to decide for itself.
///
/// # Safety
///
/// Only in a child that has its own table of handlers.
unsafe fn reset_signal_handlers() {
    // SAFETY: sigaction with valid pointers to its own plain data, for which zeroes mean SIG_DFL and an empty mask. Numbers
    // that libc keeps for itself are refused and left alone.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut current: libc::sigaction = std::mem::zeroed();
        for signal in 1..=64 {
            if libc::sigaction(signal, ptr::null(), &mut current) == 0 {
                let handled =
                    current.sa_sigaction != libc::SIG_DFL && current.sa_sigaction != libc::SIG_IGN;
                if handled || signal == libc::SIGPIPE {
                    libc::sigaction(signal, &default, ptr::null_mut());
                }
            }
        }
    }
}

/// Blocks every signal, also those that libc keeps for itself and that its own functions leave open. Returns the old mask.
fn block_all_signals() -> u64 {
    let mut old = 0_u64;
    // SAFETY: the kernel's set is 8 bytes; both pointers are to 8 bytes that live through the call.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &u64::MAX,
            &mut old,
            size_of::<u64>(),
        )
    };
    old
}

fn restore_signals(mask: u64) {
    // SAFETY: as above.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &mask,
            ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// Waits for a child that is on its way out, so that it leaves no zombie.
fn collect(pidfd: &OwnedFd) {
    // SAFETY: `siginfo_t` is plain data for which zeroes are valid, and lives through the call.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd() as libc::id_t,
            &mut info,
            libc::WEXITED,
        ) == -1
            && *libc::__errno_location() == libc::EINTR
        {}
    }
}
