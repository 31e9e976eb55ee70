//! What can go wrong, as one opaque type that answers questions.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::process::{ExitStatus, Process};

/// The result of most of mproc's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call of mproc failed.
///
/// [`kind`](Self::kind) tells the sort of thing, the other methods give its particulars; `source()` is the cause underneath,
/// where there is one. `Display` is one line. `Debug`, which `fn main() -> mproc::Result<()>` prints, is that line, the
/// causes, and the backtrace of a panic in a child.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn divide(a: i64, b: i64) -> i64 { a / b }
///
/// # fn main() -> mproc::Result<()> {
/// let error = divide::spawn(1, 0)?.join().unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.panic().unwrap().message(), "attempt to divide by zero");
/// assert_eq!(error.exit_code(), Some(101));
/// # Ok(())
/// # }
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    who: Option<(String, u32)>,
    status: Option<ExitStatus>,
    panic: Option<Panic>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    unstarted: Option<Box<dyn Any + Send + Sync>>,
}

/// The sort of thing that an [`Error`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A process was to be started before [`main!`](crate::main), [`freeze_support`](crate::freeze_support) or the test
    /// boot ran; nothing was started.
    NotBooted,
    /// Processes start processes start processes, 64 deep; nothing was started.
    TooDeep,
    /// The program is ending and starts nothing more.
    Exiting,
    /// Two entries carry the same explicit name.
    DuplicateEntry,
    /// A call names an entry that this program does not have.
    UnknownEntry,
    /// A call was made for an entry with other types than the entry of that name has here.
    SignatureMismatch,
    /// A value could not be encoded. It was an argument if this comes from a start, a result if it comes from a join.
    Encode,
    /// Bytes from another process could not be decoded.
    Decode,
    /// The system refused to start a process. [`Error::io_error`] is its answer.
    Start,
    /// The function panicked in its process.
    Panicked,
    /// The process ended by `exit(n)` before its function returned a value, for n = 0 too.
    Exited,
    /// The process was killed by a signal before its function returned a value.
    Killed,
    /// The value was already taken by an earlier join.
    AlreadyJoined,
    /// There is no room for a message now.
    Full,
    /// There is no message now.
    Empty,
    /// The time was over.
    Timeout,
    /// Nobody is left at the other end.
    Disconnected,
    /// The queue is closed.
    Closed,
    /// A unique handle was used after it had been sent to another process.
    Moved,
    /// A message of bytes was received as a value, or the other way round.
    WrongKind,
    /// A message is longer than what it was to be received into, or a value than the room there is for it.
    TooLong,
    /// There is nothing at this index.
    OutOfRange,
    /// Items of a queue went down with the processes that worked on them.
    Abandoned,
    /// `task_done` was called more often than there were items.
    NotTaken,
    /// Something is guarded by another lock than the one whose guard was given.
    NotHeld,
    /// A process died while it held a lock, which was acquired, and is released again.
    OwnerDied,
    /// Somebody holds the lock now, or there is no permit.
    WouldBlock,
    /// A thread would have waited for itself.
    Deadlock,
    /// A thread has ended with a lock whose guard it had forgotten.
    Leaked,
    /// There are as many already as there can be: locks of a thread, holders of a semaphore.
    TooMany,
    /// The barrier is broken.
    Broken,
    /// The lock that this needs is not held by the calling thread.
    NotOwned,
    /// A semaphore was released more often than it was acquired.
    OverReleased,
    /// A task of a pool was cancelled.
    Cancelled,
    /// The pool was closed or terminated before it came to this task.
    ShutDown,
    /// The system refused something else. [`Error::io_error`] is its answer.
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            who: None,
            status: None,
            panic: None,
            source: None,
            unstarted: None,
        }))
    }

    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        Self::new(ErrorKind::Io, message).caused_by(source)
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn of_process(mut self, name: &str, id: u32, status: Option<ExitStatus>) -> Self {
        self.0.who = Some((name.to_owned(), id));
        self.0.status = status;
        self
    }

    pub(crate) fn panicked(panic: Panic) -> Self {
        let mut error = Self::new(ErrorKind::Panicked, format!("panicked: {}", panic.message));
        error.0.panic = Some(panic);
        error
    }

    pub(crate) fn with_panic(mut self, panic: Panic) -> Self {
        self.0.panic = Some(panic);
        self
    }

    /// Errors are not `Clone`; one that several are to be told is written out again, without its source.
    pub(crate) fn again(&self) -> Self {
        let mut message = self.0.message.clone();
        let mut source = self.source();
        while let Some(error) = source {
            message = format!("{message}: {error}");
            source = error.source();
        }
        let mut error = Self::new(self.0.kind, message);
        error.0.who = self.0.who.clone();
        error.0.status = self.0.status;
        error.0.panic = self.0.panic.clone();
        error
    }

    pub(crate) fn handing_back<R: 'static>(mut self, process: Process<R>) -> Self {
        self.0.unstarted = Some(Box::new(process));
        self
    }

    /// Without the process that is handed back, where nobody could do anything with it, and the handles in it.
    pub(crate) fn handing_nothing_back(mut self) -> Self {
        self.0.unstarted = None;
        self
    }

    /// The sort of thing that went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if the function panicked in its process.
    pub fn is_panic(&self) -> bool {
        self.0.panic.is_some()
    }

    /// The panic, with its place and backtrace.
    pub fn panic(&self) -> Option<&Panic> {
        self.0.panic.as_ref()
    }

    /// The signal that ended the process, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.0.status.and_then(|status| status.signal())
    }

    /// The exit code of the process that this error is about, with -n for signal n; `None` if it is about none.
    #[doc(alias = "exitcode")]
    pub fn exit_code(&self) -> Option<i32> {
        self.0.status.map(|status| status.exit_code())
    }

    /// The name of the process that this error is about.
    pub fn process_name(&self) -> Option<&str> {
        self.0.who.as_ref().map(|(name, _)| name.as_str())
    }

    /// The process id of the process that this error is about.
    pub fn process_id(&self) -> Option<u32> {
        self.0.who.as_ref().map(|(_, id)| *id)
    }

    /// The operating system's answer, if the cause was one.
    pub fn io_error(&self) -> Option<&io::Error> {
        let mut source: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref() {
                return Some(error);
            }
            source = error.source();
        }
        None
    }

    /// Gives back the process whose start failed, with its arguments and the handles in them: it can be started again.
    ///
    /// # Errors
    ///
    /// This error itself, if it comes from something else than a start, or from that of another result type.
    pub fn into_process<R: 'static>(mut self) -> Result<Process<R>> {
        match self
            .0
            .unstarted
            .take()
            .map(|any| any.downcast::<Process<R>>())
        {
            Some(Ok(process)) => Ok(*process),
            Some(Err(other)) => {
                self.0.unstarted = Some(other);
                Err(self)
            }
            None => Err(self),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, id)) = &self.0.who {
            write!(f, "process `{name}` (pid {id}) ")?;
        }
        f.write_str(&self.0.message)?;
        // The causes are short and say what to do; a reader of one line is to see them.
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(panic) = &self.0.panic {
            write!(f, "\n\nin thread `{}`", panic.thread)?;
            if let Some(location) = &panic.location {
                write!(f, " at {location}")?;
            }
            if let Some(backtrace) = &panic.backtrace {
                write!(f, ", backtrace:\n{backtrace}")?;
            }
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A panic that happened in another process.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Panic {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
    pub(crate) backtrace: Option<String>,
    pub(crate) thread: String,
}

impl Panic {
    /// The message that `panic!` was given; a payload that is no text is described as such.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// `file:line:column` of the panic.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// The stack at the panic. It is taken always, unless the environment variable `RUST_BACKTRACE` is `0`.
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }

    /// The name of the thread that panicked, `main` for the one that runs the entry.
    pub fn thread(&self) -> &str {
        &self.thread
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
