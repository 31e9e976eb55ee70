//! How a process ended.

use std::fmt;

use crate::sys::{self, RawStatus};

/// How a process ended: by `exit` with a code, or by a signal.
///
/// Codes of a process that mproc started: 0 returned, 1 returned `Err`, 101 panicked, n from `std::process::exit(n)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(Repr);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repr {
    Known(RawStatus),
    /// Somebody else collected the child, and the kernel does not keep its status.
    Lost,
}

impl ExitStatus {
    pub(crate) const LOST: Self = Self(Repr::Lost);

    pub(crate) fn new(status: RawStatus) -> Self {
        Self(Repr::Known(status))
    }

    /// True if the code is 0.
    pub fn success(self) -> bool {
        self.code() == Some(0)
    }

    /// The code given to `exit`, or `None` if a signal ended the process.
    pub fn code(self) -> Option<i32> {
        match self.0 {
            Repr::Known(RawStatus::Exited(code)) => Some(code),
            _ => None,
        }
    }

    /// The signal that ended the process, if one did.
    pub fn signal(self) -> Option<i32> {
        match self.0 {
            Repr::Known(RawStatus::Signaled { signal, .. }) => Some(signal),
            _ => None,
        }
    }

    /// True if a signal ended the process and left a core file.
    pub fn core_dumped(self) -> bool {
        matches!(
            self.0,
            Repr::Known(RawStatus::Signaled {
                core_dumped: true,
                ..
            })
        )
    }

    /// Both in one number, as Python's `exitcode`: n from `exit(n)`, -n for signal n.
    ///
    /// 255 if somebody else collected the child (a foreign `wait`, or `SIGCHLD` ignored) and the kernel is older than 6.15,
    /// which lets that be found out.
    #[doc(alias = "exitcode")]
    pub fn exit_code(self) -> i32 {
        match self.0 {
            Repr::Known(RawStatus::Exited(code)) => code,
            Repr::Known(RawStatus::Signaled { signal, .. }) => -signal,
            Repr::Lost => 255,
        }
    }
}

/// `exit code 3`, `signal 9 (SIGKILL)`.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Repr::Known(RawStatus::Exited(code)) => write!(f, "exit code {code}"),
            Repr::Known(RawStatus::Signaled { signal, .. }) => match sys::signal_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            Repr::Lost => f.write_str("an unknown status (somebody else collected the process)"),
        }
    }
}
