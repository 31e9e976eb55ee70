//! Why a lock was not acquired, or not as its last owner should have left it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind};
use crate::sync::lock::NotAcquired;

/// Why a lock was not acquired, or was, after its owner had died.
///
/// Like std's `PoisonError`, [`OwnerDied`](Self::OwnerDied) carries the guard: the lock is held. `?` into [`Error`](crate::Error) drops
/// it and leaves the mark of data that nobody has mended, so the next one is told again.
///
/// # Examples
///
/// ```
/// use mproc::{AcquireError, Lock};
///
/// # fn main() -> mproc::Result<()> {
/// let lock = Lock::new()?;
/// let guard = match lock.acquire() {
///     Ok(guard) => guard,
///     // Here would be the place to put right what the dead process has left half done.
///     Err(AcquireError::OwnerDied { guard, .. }) => guard,
///     Err(error) => return Err(error.into()),
/// };
/// # drop(guard);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub enum AcquireError<G> {
    /// The lock is held now, by this guard, and its last owner died while it held it. Whatever the lock guards may be half done.
    OwnerDied {
        /// Holds the lock.
        guard: G,
        /// The process that died, or panicked, or whose thread ended; 0 if that is not known, as of one that died within the instant of
        /// taking or freeing the lock.
        process_id: u32,
    },
    /// Somebody holds it. Only from the `try_` forms.
    WouldBlock,
    /// The time was over.
    Timeout,
    /// The calling thread holds it, and would wait for itself for ever.
    Deadlock,
    /// A thread has ended and left a guard behind that was forgotten (`std::mem::forget`, `Box::leak`), and its process goes on: what the guard has lent, a slice of
    /// an [`Array`](crate::Array) for instance, may still be used there. The lock is to be had when that process has ended.
    Leaked {
        /// The process that goes on.
        process_id: u32,
    },
    /// The thread holds 2000 locks or permits; the kernel looks after no more than 2048 when it dies.
    TooMany,
    /// The system refused.
    Io(io::Error),
}

impl<G> AcquireError<G> {
    pub(crate) fn of(error: NotAcquired) -> Self {
        match error {
            NotAcquired::WouldBlock => Self::WouldBlock,
            NotAcquired::TimedOut => Self::Timeout,
            NotAcquired::Deadlock => Self::Deadlock,
            NotAcquired::TooMany => Self::TooMany,
            NotAcquired::Leaked(process_id) => Self::Leaked { process_id },
            NotAcquired::Io(error) => Self::Io(error),
        }
    }

    /// The guard, if the lock is held now: from a dead owner.
    pub fn into_guard(self) -> Option<G> {
        match self {
            Self::OwnerDied { guard, .. } => Some(guard),
            _ => None,
        }
    }

    /// Whether the lock is held now, by the guard in here.
    pub fn is_owner_died(&self) -> bool {
        matches!(self, Self::OwnerDied { .. })
    }

    /// The same with another guard.
    pub(crate) fn map<H>(self, change: impl FnOnce(G) -> H) -> AcquireError<H> {
        match self {
            Self::OwnerDied { guard, process_id } => AcquireError::OwnerDied {
                guard: change(guard),
                process_id,
            },
            Self::WouldBlock => AcquireError::WouldBlock,
            Self::Timeout => AcquireError::Timeout,
            Self::Deadlock => AcquireError::Deadlock,
            Self::Leaked { process_id } => AcquireError::Leaked { process_id },
            Self::TooMany => AcquireError::TooMany,
            Self::Io(error) => AcquireError::Io(error),
        }
    }
}

impl<G> fmt::Display for AcquireError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerDied { process_id: 0, .. } => f.write_str("the last owner of the lock died while it held it"),
            Self::OwnerDied { process_id, .. } => write!(
                f,
                "the last owner of the lock (pid {process_id}) died while it held it"
            ),
            Self::WouldBlock => f.write_str("somebody holds the lock"),
            Self::Timeout => f.write_str("the lock was not to be had in time"),
            Self::Deadlock => f.write_str(
                "this thread holds the lock already and would wait for itself; an `RLock` may be acquired again",
            ),
            Self::Leaked { process_id } => write!(
                f,
                "a thread of process {process_id} has ended and left a guard behind that it had forgotten; the lock is to be had when that process has ended"
            ),
            Self::TooMany => f.write_str(
                "this thread holds 2000 locks and permits already; release some before acquiring more",
            ),
            Self::Io(error) => write!(f, "the lock could not be acquired: {error}"),
        }
    }
}

/// Without the guard, which need not be `Debug`.
impl<G> fmt::Debug for AcquireError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::OwnerDied { .. } => "OwnerDied",
            Self::WouldBlock => "WouldBlock",
            Self::Timeout => "Timeout",
            Self::Deadlock => "Deadlock",
            Self::Leaked { .. } => "Leaked",
            Self::TooMany => "TooMany",
            Self::Io(_) => "Io",
        };
        write!(f, "{name}({self})")
    }
}

impl<G> StdError for AcquireError<G> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Io(error) => error.source(),
            _ => None,
        }
    }
}

/// Drops the guard.
impl<G> From<AcquireError<G>> for Error {
    fn from(error: AcquireError<G>) -> Self {
        let kind = match &error {
            AcquireError::OwnerDied { .. } => ErrorKind::OwnerDied,
            AcquireError::WouldBlock => ErrorKind::WouldBlock,
            AcquireError::Timeout => ErrorKind::Timeout,
            AcquireError::Deadlock => ErrorKind::Deadlock,
            AcquireError::Leaked { .. } => ErrorKind::Leaked,
            AcquireError::TooMany => ErrorKind::TooMany,
            AcquireError::Io(_) => {
                let AcquireError::Io(error) = error else {
                    unreachable!("just matched")
                };
                return Self::io("the lock could not be acquired", error);
            }
        };
        Self::new(kind, error.to_string())
    }
}
