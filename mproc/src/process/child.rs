//! A started process: waiting for it, stopping it, and its value.
//!
//! # How an end becomes known
//!
//! The kernel makes a process's pidfd readable when it ends, for all who poll it and for ever. So each waiter polls for
//! itself, and whoever looks first collects the child and publishes its status in [`Inner::ended`]; nobody waits for another
//! thread's wake-up, and a waiter that goes away takes nothing with it.
//!
//! # Who holds what
//!
//! [`CHILDREN`] holds every child until it has been collected: its [`Inner`] keeps the write end of the death line, and must
//! not be dropped while the child is to live. Handles hold it through a [`Claim`]; when the last claim on a child that still
//! runs is gone, the [`reaper`] collects the child when it ends, so that it does not stay a zombie.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::record::{Refusal, Reply, kind};
use super::status::ExitStatus;
use super::{exit, reaper};
use crate::error::{Error, ErrorKind, Panic, Result};
use crate::sys::{self, Deadline};
use crate::wire::message::MAX_HANDLES;
use crate::wire::{Message, WireError};

/// Every child that has not been collected, by process id.
static CHILDREN: Mutex<BTreeMap<u32, Arc<Inner>>> = Mutex::new(BTreeMap::new());

/// No code of users runs under our locks, so a poisoned one means no more than that some thread was unlucky.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this process knows of one child.
pub(super) struct Inner {
    /// Who started it. In a process forked from that one, it is nobody's child.
    pub(super) parent: u32,
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) daemon: bool,
    pub(super) detached: bool,
    pub(super) pidfd: OwnedFd,
    /// Closed with this value, and with the process: either ends the child, unless it is detached.
    pub(super) _line: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) stdio: Mutex<[Option<OwnedFd>; 3]>,
    pub(super) collecting: Mutex<()>,
    pub(super) ended: OnceLock<ExitStatus>,
    /// What all handles share.
    pub(super) claim: Mutex<Weak<Claim>>,
}

impl Inner {
    /// The child's status, if it has ended.
    pub(super) fn look(&self) -> Option<ExitStatus> {
        if let Some(status) = self.ended.get() {
            return Some(*status);
        }
        // Looked at first, because in a process that was forked from ours this is nobody's child: `waitid` would say so, and
        // a child that lives would be taken for lost.
        if !sys::is_readable(self.pidfd.as_fd()) {
            return None;
        }
        let collecting = lock(&self.collecting);
        let first = self.ended.get().is_none();
        if first {
            let status = match sys::reap(self.pidfd.as_fd()) {
                Ok(Some(status)) => ExitStatus::new(status),
                // Its tracer has to hear of its end before we do.
                Ok(None) => return None,
                Err(_) => match sys::status_after_foreign_reap(self.pidfd.as_fd()) {
                    sys::ForeignReap::Status(status) => ExitStatus::new(status),
                    sys::ForeignReap::Lost => ExitStatus::LOST,
                    sys::ForeignReap::UnderWay => return None,
                },
            };
            // OK to ignore: it is set under the lock, and was not.
            let _ = self.ended.set(status);
        }
        drop(collecting);
        let status = *self.ended.get()?;
        if first {
            // Somebody else may have collected it long ago, and the number may be another child's by now.
            let mut children = lock(&CHILDREN);
            if children
                .get(&self.id)
                .is_some_and(|child| std::ptr::eq(&**child, self))
            {
                children.remove(&self.id);
            }
            drop(children);
            if !exit::is_under_way() {
                log::debug!(target: "mproc", "process {} (pid {}) ended with {status}", self.name, self.id);
            }
        }
        Some(status)
    }

    /// Waits for the end, until the deadline.
    pub(super) fn wait(&self, deadline: Deadline) -> Result<Option<ExitStatus>> {
        let mut pause = Duration::ZERO;
        loop {
            if let Some(status) = self.look() {
                crate::logging::flush(deadline);
                return Ok(Some(status));
            }
            let ended = sys::wait_readable(self.pidfd.as_fd(), deadline)
                .map_err(|error| Error::io("waiting for a process failed", error))?;
            if !ended {
                return Ok(None);
            }
            // From here on the look succeeds, with two exceptions, and neither has anything to sleep on: a debugger that has
            // yet to hear of the end, and somebody else's `wait` that the kernel is in the middle of.
            if !deadline.sleep(pause) {
                return Ok(None);
            }
            pause = (2 * pause).clamp(Duration::from_micros(20), Duration::from_millis(10));
        }
    }

    /// Closes our ends of the child's pipes that nobody has taken and, from here on, nobody will.
    pub(super) fn close_pipes(&self) {
        *lock(&self.stdio) = [None, None, None];
    }

    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        if self.look().is_some() {
            return Ok(());
        }
        sys::send_signal(self.pidfd.as_fd(), signal).map_err(|error| {
            Error::io("the signal could not be sent", error).of_process(&self.name, self.id, None)
        })
    }
}

/// Enters a child that has just been started.
pub(super) fn register(inner: Inner) -> AnyChild {
    let inner = Arc::new(inner);
    lock(&CHILDREN).insert(inner.id, Arc::clone(&inner));
    AnyChild::claim(inner)
}

/// Collects children that have ended, as Python does at every start.
pub(super) fn collect_ended() {
    while let Some(id) = sys::ended_child() {
        let child = lock(&CHILDREN).get(&id).cloned();
        match child {
            Some(child) => _ = child.look(),
            // Not ours, and not ours to collect; it hides others behind it, so look at each.
            None => {
                snapshot().iter().for_each(|child| _ = child.look());
                return;
            }
        }
    }
}

/// The children of this process that have not been collected.
pub(super) fn snapshot() -> Vec<Arc<Inner>> {
    let this = sys::process_id();
    lock(&CHILDREN)
        .values()
        .filter(|child| child.parent == this)
        .cloned()
        .collect()
}

pub(super) fn active() -> Vec<AnyChild> {
    let mut children = snapshot();
    children.retain(|child| child.look().is_none());
    children.into_iter().map(AnyChild::claim).collect()
}

/// The hold that all handles on a child share.
pub(super) struct Claim(Arc<Inner>);

impl Drop for Claim {
    fn drop(&mut self) {
        if self.0.look().is_none() {
            // As std's `Child` does, or a child that reads to the end of its stdin would never end.
            self.0.close_pipes();
            reaper::collect_later(Arc::clone(&self.0));
        }
    }
}

/// A child whose result type is forgotten, so that different children live in one list; clones are the same child.
///
/// Everything that can be done with a started process from any thread, any number of times, also after its end. A [`Child`]
/// derefs to it. Dropping one leaves the process running.
///
/// # If a peer dies
///
/// The child's death is what this is about: however it dies, the waiters get its status. If *this* process dies, the child is
/// killed, unless it is detached. The kernel does that; no cleanup code has to run.
#[derive(Clone)]
pub struct AnyChild(Arc<Claim>);

impl AnyChild {
    fn claim(inner: Arc<Inner>) -> Self {
        let mut shared = lock(&inner.claim);
        let claim = shared
            .upgrade()
            .unwrap_or_else(|| Arc::new(Claim(Arc::clone(&inner))));
        *shared = Arc::downgrade(&claim);
        drop(shared);
        Self(claim)
    }

    fn inner(&self) -> &Inner {
        &self.0.0
    }

    /// The name given or made up when the process was described.
    pub fn name(&self) -> &str {
        &self.inner().name
    }

    /// The process id. Once the process has ended, another may get the number; none of these methods confuses them.
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.inner().id
    }

    /// Whether the end of this program terminates the process instead of waiting for it.
    pub fn daemon(&self) -> bool {
        self.inner().daemon
    }

    /// Waits for the end of the process and tells how it ended. The answer stays the same for ever.
    ///
    /// What the process inherited to its own children, pipes above all, does not delay this: it is the end of the process
    /// itself. Neither does a large result that nobody has taken. A piped stdin that nobody has taken is closed first, so that
    /// a process that reads it to its end does end; a piped stdout is for you to read, or the process waits for its reader.
    ///
    /// # Errors
    ///
    /// If the system refuses to wait.
    #[doc(alias = "join")]
    pub fn wait(&self) -> Result<ExitStatus> {
        drop(self.take_stdin());
        let status = self.inner().wait(Deadline::NEVER)?;
        Ok(status.expect("a wait without a deadline ends with a status"))
    }

    /// Waits for the end of the process, `timeout` at most; `None` if it still runs then. Zero is a look.
    ///
    /// # Errors
    ///
    /// If the system refuses to wait.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.inner().wait(Deadline::after(timeout))
    }

    /// Whether the process still runs.
    pub fn is_alive(&self) -> bool {
        self.inner().look().is_none()
    }

    /// `None` while the process runs, then its code, or -n if signal n ended it.
    #[doc(alias = "exitcode")]
    pub fn exit_code(&self) -> Option<i32> {
        self.inner().look().map(ExitStatus::exit_code)
    }

    /// Sends SIGTERM. The process ends without running destructors or exit handlers, unless it handles the signal.
    ///
    /// Its own children are killed with it. A process that has ended is left in peace.
    ///
    /// # Errors
    ///
    /// If the system refuses, for example because the process runs as another user by now.
    pub fn terminate(&self) -> Result<()> {
        self.inner().signal(sys::SIGTERM)
    }

    /// Sends SIGKILL, which cannot be handled.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> Result<()> {
        self.inner().signal(sys::SIGKILL)
    }

    /// Sends SIGINT, as Ctrl-C does.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn interrupt(&self) -> Result<()> {
        self.inner().signal(sys::SIGINT)
    }

    /// Ends the process: SIGTERM, then SIGKILL if it still runs after `grace`. Returns how it ended.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate) and [`wait`](Self::wait).
    pub fn shutdown(&self, grace: Duration) -> Result<ExitStatus> {
        self.terminate()?;
        if let Some(status) = self.wait_timeout(grace)? {
            return Ok(status);
        }
        self.kill()?;
        self.wait()
    }

    /// The write end of the process's standard input, if it was [`piped`](super::Stdio::piped) and has not been taken.
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        lock(&self.inner().stdio)[0].take().map(ChildStdin::from)
    }

    /// The read end of the process's standard output, if it was [`piped`](super::Stdio::piped) and has not been taken.
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        lock(&self.inner().stdio)[1].take().map(ChildStdout::from)
    }

    /// The read end of the process's standard error, if it was [`piped`](super::Stdio::piped) and has not been taken.
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        lock(&self.inner().stdio)[2].take().map(ChildStderr::from)
    }
}

/// A pidfd: readable once the process has ended, and for ever after. Python's `sentinel`.
impl AsFd for AnyChild {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().pidfd.as_fd()
    }
}

/// `<Process(Process-1, started, pid=411)>`, `<Process(Process-1, stopped[SIGTERM], pid=411, exit_code=-15)>`.
impl fmt::Debug for AnyChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Process({}, ", self.name())?;
        match self.inner().look() {
            None => write!(f, "started, pid={}", self.id())?,
            Some(status) => {
                f.write_str("stopped")?;
                if let Some(name) = status.signal().and_then(sys::signal_name) {
                    write!(f, "[{name}]")?;
                }
                write!(f, ", pid={}, exit_code={}", self.id(), status.exit_code())?;
            }
        }
        write!(f, "{})>", if self.daemon() { ", daemon" } else { "" })
    }
}

/// A started process that will return an `R`.
///
/// Derefs to [`AnyChild`], which waits, signals and tells; this adds the value. Dropping it leaves the process running; it is
/// collected when it ends, and when the program ends it is waited for (a daemon: terminated).
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn square(x: i64) -> i64 { x * x }
///
/// # fn main() -> mproc::Result<()> {
/// let children: Vec<mproc::Child<i64>> = (0..3).map(square::spawn).collect::<mproc::Result<_>>()?;
/// let mut sum = 0;
/// for child in children {
///     sum += child.join()?;
/// }
/// assert_eq!(sum, 5);
/// # Ok(())
/// # }
/// ```
pub struct Child<R> {
    any: AnyChild,
    taken: bool,
    result: PhantomData<fn() -> R>,
}

impl<R> Child<R> {
    pub(super) fn new(any: AnyChild) -> Self {
        Self {
            any,
            taken: false,
            result: PhantomData,
        }
    }

    /// Forgets the result type. The value will be dropped unread.
    pub fn into_any(self) -> AnyChild {
        self.any
    }
}

impl<R: DeserializeOwned> Child<R> {
    /// Waits for the end of the process and gives the value that its function returned, as written: if that is a `Result`,
    /// it is in here as one.
    ///
    /// A value that was returned is given even if the process was killed after that, while it was ending.
    ///
    /// A child that writes to a [piped](super::Stdio::piped) stream which nobody reads waits for a reader, and this for it:
    /// as with std's `wait`, take the stream and read it first.
    ///
    /// # Errors
    ///
    /// The process ended without a value: it [panicked](crate::ErrorKind::Panicked), with message, place and backtrace in the
    /// error; it was [killed](crate::ErrorKind::Killed) by a signal; it [exited](crate::ErrorKind::Exited), for code 0 too; its
    /// arguments or its value could not be [encoded](crate::ErrorKind::Encode) or [decoded](crate::ErrorKind::Decode).
    pub fn join(mut self) -> Result<R> {
        self.any.wait()?;
        self.take()
    }

    /// As [`join`](Self::join), for `timeout` at most; `None` if the process still runs then, and the child stays usable.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join). After a value or an error has been given, the next call is
    /// [`AlreadyJoined`](crate::ErrorKind::AlreadyJoined).
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>> {
        match self.any.wait_timeout(timeout)? {
            None => Ok(None),
            Some(_) => self.take().map(Some),
        }
    }

    fn take(&mut self) -> Result<R> {
        let inner = self.any.inner();
        let about =
            |error: Error| error.of_process(&inner.name, inner.id, inner.ended.get().copied());
        if std::mem::replace(&mut self.taken, true) {
            return Err(about(Error::new(
                ErrorKind::AlreadyJoined,
                "has already given its value",
            )));
        }
        match self.reply().map_err(about)? {
            Some(Reply::Value(message)) => message.decode().map_err(|error| {
                let text = "returned a value that could not be decoded";
                about(Error::new(ErrorKind::Decode, text).caused_by(error))
            }),
            Some(Reply::Panic(panic)) => Err(about(Error::panicked(panic))),
            Some(Reply::Refusal(refusal)) => Err(about(refusal.into_error())),
            None => Err(about(without_reply(inner.ended.get().copied()))),
        }
    }

    /// The last thing that the child said. It has ended, so all that it said is here.
    fn reply(&self) -> Result<Option<Reply>> {
        let broken = |error: WireError| {
            Error::new(
                ErrorKind::Decode,
                "sent a result that could not be received",
            )
            .caused_by(error)
        };
        /// More than any child says. What a forked copy of it may go on saying for ever does not hold up its parent.
        const MOST_REPLIES: usize = 1024;
        /// The handles of a value, and the memory that holds the rest of it.
        const MOST_DESCRIPTORS: usize = MAX_HANDLES + 1;
        let control = self.any.inner().control.as_fd();
        let mut last = None;
        for _ in 0..MOST_REPLIES {
            match Message::receive(control, MOST_DESCRIPTORS, false) {
                Ok(Some(received)) => last = Some(received),
                Ok(None) => break,
                // Nobody will say more, though a process that the child forked may hold its end of the socket open.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It ended without having read its record: there is nothing after that.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Err(broken(error.into())),
            }
        }
        let Some((kind, message)) = last else {
            return Ok(None);
        };
        Ok(Some(match kind {
            kind::VALUE => Reply::Value(message),
            kind::PANIC => Reply::Panic(message.decode::<Panic>().map_err(broken)?),
            kind::REFUSAL => Reply::Refusal(message.decode::<Refusal>().map_err(broken)?),
            _ => {
                return Err(Error::new(
                    ErrorKind::Decode,
                    "sent something else than a result",
                ));
            }
        }))
    }
}

fn without_reply(status: Option<ExitStatus>) -> Error {
    match status {
        Some(status) if status.signal().is_some() => {
            Error::new(ErrorKind::Killed, format!("was killed by {status}"))
        }
        Some(status) => Error::new(
            ErrorKind::Exited,
            format!("ended with {status} before its function returned a value"),
        ),
        None => Error::new(
            ErrorKind::Exited,
            "ended before its function returned a value",
        ),
    }
}

impl<R> Deref for Child<R> {
    type Target = AnyChild;

    fn deref(&self) -> &AnyChild {
        &self.any
    }
}

impl<R> AsFd for Child<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.any.as_fd()
    }
}

impl<R> fmt::Debug for Child<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}
