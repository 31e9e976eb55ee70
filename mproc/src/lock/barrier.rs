//! Waiting for each other.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::sync::barrier::{Arrived, BarrierCore, Cause, NotPassed};
use crate::sync::roster::Roster;
use crate::sys::Deadline;
use crate::{Call, Fd};

/// A place where so many parties wait for each other, and pass together, again and again.
///
/// A *shared* handle, see [`Lock`](crate::Lock). A party is a thread of any process. It costs a descriptor, and two pages for each party;
/// there can be 1024.
///
/// # If a peer dies
///
/// A barrier is *broken* when a party dies inside [`wait`](Self::wait), or at any time after it took part in a pass: it will not come
/// again, and the others would wait for ever. All who wait, also those asleep already (with more than 124 parties, within a second), and all
/// who come later, get [`Broken`](BarrierError::Broken), which names the process, until somebody calls [`reset`](Self::reset). A thread
/// that panics past its handle of the barrier counts as dead. One that ends in peace just takes part no more, and what it has left others
/// may take over; one that was killed before its first `wait` is not known to the barrier: use [`wait_timeout`](Self::wait_timeout).
///
/// # Examples
///
/// ```
/// use mproc::{Barrier, Failure};
///
/// #[mproc::entry]
/// fn step(barrier: &Barrier) -> Result<u32, Failure> {
///     for _ in 0..10 {
///         barrier.wait()?;
///     }
///     Ok(barrier.wait()?)
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let barrier = Barrier::new(2)?;
/// let one = step::spawn(&barrier)?;
/// let other = step::spawn(&barrier)?;
/// // One of them comes first and one last.
/// assert_eq!(one.join()?.unwrap() + other.join()?.unwrap(), 1);
/// # Ok(())
/// # }
/// ```
pub struct Barrier {
    core: Arc<BarrierCore>,
    action: Option<Call<()>>,
    timeout: Option<Duration>,
}

/// Why a [`Barrier`] was not passed.
#[derive(Debug)]
#[non_exhaustive]
pub enum BarrierError {
    /// It is broken, or was while this party waited.
    Broken {
        /// The process that broke it: by dying, by a time-out, by aborting; `None` if this party waited when it was reset.
        process_id: Option<u32>,
        /// Whether that process died.
        died: bool,
    },
    /// The time of this party was over. That broke the barrier, unless it came while the last pass was not over, the action before it still running, or
    /// could not even ask, since one that was changing the barrier has been stopped (`SIGSTOP`): see [`is_broken`](Barrier::is_broken).
    Timeout,
    /// There are 1024 parties already, or this thread holds 2000 locks.
    TooMany,
    /// The system refused.
    Io(io::Error),
}

thread_local! {
    /// The barriers in whose passes this thread has taken part.
    static PARTS: RefCell<Parts> = const { RefCell::new(Parts(Vec::new())) };
}

struct Parts(Vec<Arc<BarrierCore>>);

impl Drop for Parts {
    /// The thread ends in peace.
    fn drop(&mut self) {
        for core in self.0.drain(..) {
            // OK to ignore: then the others take it for dead.
            let _ = core.retire();
        }
    }
}

impl Barrier {
    /// A barrier for so many parties, at least one.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor, or `parties` is 0 or more than 1024.
    pub fn new(parties: u32) -> Result<Self> {
        if !(1..=1024).contains(&parties) {
            return Err(Error::new(
                ErrorKind::TooMany,
                format!("a barrier for {parties} parties cannot be made; 1 to 1024 can"),
            ));
        }
        let roster =
            Roster::create().map_err(|error| Error::io("a barrier could not be made", error))?;
        let core = BarrierCore::over(roster);
        core.begin(parties);
        Ok(Self {
            core: Arc::new(core),
            action: None,
            timeout: None,
        })
    }

    /// Has a call made in each pass, by the party that comes last, before anybody leaves. If it panics, the barrier is broken. Handles that were cloned
    /// or sent before do not know of it.
    #[must_use]
    pub fn action(mut self, action: Call<()>) -> Self {
        self.action = Some(action);
        self
    }

    /// Bounds each [`wait`](Self::wait) that has no bound of its own.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Waits until all parties wait. Gives each of them another number, 0 for the first who came, so that one of them can be chosen for something.
    ///
    /// # Errors
    ///
    /// - [`Broken`](BarrierError::Broken): the barrier is broken, or was while this one waited.
    /// - [`TooMany`](BarrierError::TooMany), [`Io`](BarrierError::Io).
    ///
    /// # Panics
    ///
    /// If the action panics, here; the others get `Broken`.
    pub fn wait(&self) -> Result<u32, BarrierError> {
        self.wait_until(self.timeout.map_or(Deadline::NEVER, Deadline::after))
    }

    /// As [`wait`](Self::wait), until the time is over: then the barrier is broken for all.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), and [`Timeout`](BarrierError::Timeout).
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<u32, BarrierError> {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> Result<u32, BarrierError> {
        let waiting = match self.core.arrive(deadline, self.action.is_some()) {
            Ok(Arrived::Passed(index)) => {
                self.note_part();
                return Ok(index);
            }
            Ok(Arrived::Wait(waiting)) => {
                self.note_part();
                return self.core.wait(waiting, deadline).map_err(in_words);
            }
            Ok(Arrived::Act(waiting)) => waiting,
            Err(error) => return Err(in_words(error)),
        };
        self.note_part();
        if let Some(action) = &self.action
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| action.clone().run()))
                .map_err(Some)
                .and_then(|ran| ran.map_err(|_| None))
        {
            // OK to ignore: what went wrong is told below.
            let _ = self.core.abort(Cause::Panicked);
            return match panic {
                Some(panic) => resume_unwind(panic),
                None => Err(self.why_broken()),
            };
        }
        self.core.acted(waiting).map_err(in_words)
    }

    fn why_broken(&self) -> BarrierError {
        BarrierError::Broken {
            process_id: Some(std::process::id()),
            died: false,
        }
    }

    /// Remembers to leave the barrier in peace at the end of the thread.
    fn note_part(&self) {
        let note = |parts: &RefCell<Parts>| {
            let mut parts = parts.borrow_mut();
            if !parts.0.iter().any(|core| Arc::ptr_eq(core, &self.core)) {
                parts.0.push(Arc::clone(&self.core));
            }
        };
        // OK to ignore: the thread is ending, and then it is taken for dead.
        let _ = PARTS.try_with(note);
    }

    /// Breaks the barrier: all who wait, and all who come, get [`Broken`](BarrierError::Broken), until it is reset.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn abort(&self) -> Result<()> {
        self.core
            .abort(Cause::Aborted)
            .map_err(|error| Error::io("a barrier could not be aborted", error))
    }

    /// Mends the barrier for those who come; those who wait get [`Broken`](BarrierError::Broken).
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn reset(&self) -> Result<()> {
        self.core
            .reset()
            .map_err(|error| Error::io("a barrier could not be reset", error))
    }

    /// How many have to wait for a pass.
    pub fn parties(&self) -> u32 {
        self.core.parties()
    }

    /// How many wait now.
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> u32 {
        self.core.waiting()
    }

    /// Whether it is broken.
    #[doc(alias = "broken")]
    pub fn is_broken(&self) -> bool {
        self.core.is_broken()
    }
}

fn in_words(error: NotPassed) -> BarrierError {
    match error {
        NotPassed::Broken(cause, process) => BarrierError::Broken {
            process_id: (process != 0).then_some(process),
            died: cause == Cause::Died || cause == Cause::Panicked,
        },
        NotPassed::TimedOut => BarrierError::Timeout,
        NotPassed::TooMany => BarrierError::TooMany,
        NotPassed::Io(error) => BarrierError::Io(error),
    }
}

impl Clone for Barrier {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            action: self.action.clone(),
            timeout: self.timeout,
        }
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        if std::thread::panicking() && self.core.takes_part() {
            // OK to ignore: it is the best that can be done for the others.
            let _ = self.core.abort(Cause::Panicked);
        } else if Arc::strong_count(&self.core) == 2 {
            // This one and that of a thread, perhaps of this one: nobody here can wait any more.
            let forget = |parts: &RefCell<Parts>| {
                let mut parts = parts.borrow_mut();
                let place = parts
                    .0
                    .iter()
                    .position(|core| Arc::ptr_eq(core, &self.core));
                place.map(|place| parts.0.swap_remove(place))
            };
            if let Ok(Some(core)) = PARTS.try_with(forget) {
                // OK to ignore: then the others take it for dead.
                let _ = core.retire();
            }
        }
    }
}

impl BarrierError {
    /// The process that died and so broke the barrier, if that was the cause.
    pub fn dead_process(&self) -> Option<u32> {
        match self {
            Self::Broken {
                process_id,
                died: true,
            } => *process_id,
            _ => None,
        }
    }
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken {
                process_id: Some(id),
                died: true,
            } => write!(
                f,
                "the barrier is broken: a party of it (pid {id}) died; `reset` mends it"
            ),
            Self::Broken {
                process_id: Some(id),
                ..
            } => write!(
                f,
                "the barrier was broken by a party of it (pid {id}); `reset` mends it"
            ),
            Self::Broken { .. } => f.write_str("the barrier was reset while this party waited"),
            Self::Timeout => f.write_str("the others did not come in time"),
            Self::TooMany => f.write_str("the barrier has 1024 parties, or this thread 2000 locks"),
            Self::Io(error) => write!(f, "waiting at a barrier failed: {error}"),
        }
    }
}

impl StdError for BarrierError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Io(error) => error.source(),
            _ => None,
        }
    }
}

impl From<BarrierError> for Error {
    fn from(error: BarrierError) -> Self {
        let kind = match &error {
            BarrierError::Broken { .. } => ErrorKind::Broken,
            BarrierError::Timeout => ErrorKind::Timeout,
            BarrierError::TooMany => ErrorKind::TooMany,
            BarrierError::Io(_) => ErrorKind::Io,
        };
        let text = error.to_string();
        match error {
            BarrierError::Io(error) => Self::io("waiting at a barrier failed", error),
            _ => Self::new(kind, text),
        }
    }
}

/// `<Barrier(parties=3, waiting=1)>`, or `broken`.
impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Barrier(parties={}, ", self.parties())?;
        match self.is_broken() {
            true => f.write_str("broken)>"),
            false => write!(f, "waiting={})>", self.waiting()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Travelling {
    file: Fd,
    action: Option<Call<()>>,
    timeout: Option<Duration>,
}

impl Serialize for Barrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Travelling {
            file: Fd::shared(Arc::clone(self.core.roster().file())),
            action: self.action.clone(),
            timeout: self.timeout,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let travelling = Travelling::deserialize(deserializer)?;
        let roster = Roster::open(travelling.file.into_shared()).map_err(D::Error::custom)?;
        Ok(Self {
            core: Arc::new(BarrierCore::over(roster)),
            action: travelling.action,
            timeout: travelling.timeout,
        })
    }
}
