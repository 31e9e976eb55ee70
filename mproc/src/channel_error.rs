//! What sending and receiving can fail with.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind};
use crate::wire::WireError;
use crate::wire::codec::CodecError;

/// Why a value could not be encoded: something in it cannot travel.
#[derive(Debug)]
pub struct EncodeError(pub(crate) CodecError);

/// Why bytes from another process are not the value they were taken for.
#[derive(Debug)]
pub struct DecodeError(pub(crate) Box<WireError>);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for EncodeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for DecodeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Why a value was not sent. It is in here, and whatever is in it works as before, pipe ends too.
///
/// Converts into [`Error`](crate::Error), which drops the value, so that `?` works.
#[non_exhaustive]
pub enum SendError<T> {
    /// There is no room now. Only from the `try_` forms.
    Full(T),
    /// The time was over before there was room. Nothing of the value has been sent.
    Timeout(T),
    /// Nobody is left to receive it.
    Disconnected(T),
    /// The queue was closed.
    Closed(T),
    /// Something in the value cannot be encoded.
    Encode(T, EncodeError),
    /// This end has been sent to another process, and is there now.
    Moved(T),
    /// The system refused: no memory, no room for a descriptor.
    Io(T, io::Error),
}

impl<T> SendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value)
            | Self::Timeout(value)
            | Self::Disconnected(value)
            | Self::Closed(value)
            | Self::Encode(value, _)
            | Self::Moved(value)
            | Self::Io(value, _) => value,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Full(_) => "there is no room for another message",
            Self::Timeout(_) => "there was no room for the message in time",
            Self::Disconnected(_) => "nobody is left to receive the message",
            Self::Closed(_) => "the queue is closed",
            Self::Encode(..) => "the message cannot be encoded",
            Self::Moved(_) => "this end has been sent to another process",
            Self::Io(..) => "the message could not be sent",
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self {
            Self::Encode(_, error) => write!(f, ": {error}"),
            Self::Io(_, error) => write!(f, ": {error}"),
            _ => Ok(()),
        }
    }
}

/// Without the value, which need not be `Debug`.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Full(_) => "Full",
            Self::Timeout(_) => "Timeout",
            Self::Disconnected(_) => "Disconnected",
            Self::Closed(_) => "Closed",
            Self::Encode(..) => "Encode",
            Self::Moved(_) => "Moved",
            Self::Io(..) => "Io",
        };
        write!(f, "{name}({self})")
    }
}

impl<T> StdError for SendError<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Encode(_, error) => error.source(),
            Self::Io(_, error) => error.source(),
            _ => None,
        }
    }
}

impl<T> From<SendError<T>> for Error {
    fn from(error: SendError<T>) -> Self {
        let text = error.text();
        match error {
            SendError::Full(_) => Self::new(ErrorKind::Full, text),
            SendError::Timeout(_) => Self::new(ErrorKind::Timeout, text),
            SendError::Disconnected(_) => Self::new(ErrorKind::Disconnected, text),
            SendError::Closed(_) => Self::new(ErrorKind::Closed, text),
            SendError::Encode(_, error) => Self::new(ErrorKind::Encode, text).caused_by(error),
            SendError::Moved(_) => Self::new(ErrorKind::Moved, text),
            SendError::Io(_, error) => Self::io(text, error),
        }
    }
}

/// Why nothing was received.
///
/// Converts into [`Error`](crate::Error), so that `?` works.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// There is nothing now. Only from the `try_` forms.
    Empty,
    /// The time was over before a whole message was there. What has arrived of one is kept for the next call.
    Timeout,
    /// The end: everything that was sent has been received, and nobody is left to send more.
    #[doc(alias = "EOFError")]
    Disconnected,
    /// The end of a queue that was closed: everything in it has been taken.
    Closed,
    /// A message could not be decoded. It is used up; the next one can be received.
    Decode(DecodeError),
    /// This end has been sent to another process, and is there now.
    Moved,
    /// The next message is bytes where a value was asked for, or the other way round. It is still there.
    WrongKind,
    /// The next message is longer than was asked for. It is still there.
    #[non_exhaustive]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The message does not fit the buffer. It is in here.
    #[doc(alias = "BufferTooShort")]
    TooShort(Vec<u8>),
    /// Another process wrote what no mproc writes.
    Broken(String),
    /// The system refused: no memory, no room for a descriptor.
    Io(io::Error),
}

impl RecvError {
    fn text(&self) -> &'static str {
        match self {
            Self::Empty => "there is no message",
            Self::Timeout => "no message came in time",
            Self::Disconnected => "all messages were received and nobody is left to send more",
            Self::Closed => "the queue is closed and empty",
            Self::Decode(_) => "a message cannot be decoded",
            Self::Moved => "this end has been sent to another process",
            Self::WrongKind => {
                "the next message is of the other kind: values are received with `recv`, bytes with `recv_bytes`"
            }
            Self::TooLong { .. } => "the next message is longer than asked for",
            Self::TooShort(_) => "the message does not fit the buffer",
            Self::Broken(_) => "another process wrote what is no message",
            Self::Io(_) => "the message could not be received",
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self {
            Self::Decode(error) => write!(f, ": {error}"),
            Self::TooLong { length } => write!(f, ": {length} bytes"),
            Self::TooShort(message) => write!(f, ": {} bytes", message.len()),
            Self::Broken(text) => write!(f, ": {text}"),
            Self::Io(error) => write!(f, ": {error}"),
            _ => Ok(()),
        }
    }
}

impl StdError for RecvError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Decode(error) => error.source(),
            Self::Io(error) => error.source(),
            _ => None,
        }
    }
}

impl From<RecvError> for Error {
    fn from(error: RecvError) -> Self {
        let text = error.text();
        match error {
            RecvError::Empty => Self::new(ErrorKind::Empty, text),
            RecvError::Timeout => Self::new(ErrorKind::Timeout, text),
            RecvError::Disconnected => Self::new(ErrorKind::Disconnected, text),
            RecvError::Closed => Self::new(ErrorKind::Closed, text),
            RecvError::Decode(error) => Self::new(ErrorKind::Decode, text).caused_by(error),
            RecvError::Moved => Self::new(ErrorKind::Moved, text),
            RecvError::WrongKind => Self::new(ErrorKind::WrongKind, text),
            RecvError::TooLong { .. } | RecvError::TooShort(_) => {
                Self::new(ErrorKind::TooLong, error.to_string())
            }
            RecvError::Broken(_) => Self::new(ErrorKind::Decode, error.to_string()),
            RecvError::Io(error) => Self::io(text, error),
        }
    }
}

impl From<Box<WireError>> for RecvError {
    fn from(error: Box<WireError>) -> Self {
        Self::Decode(DecodeError(error))
    }
}

/// What the plumbing below a channel can meet. Each operation says it in its own words.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No room, or nothing there, and no time left.
    TimedOut,
    /// The other side is gone.
    Disconnected,
    /// The system, or nonsense in the memory (`InvalidData`).
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trouble {
    pub(crate) fn sending<T>(self, value: T, patience: Patience) -> SendError<T> {
        match self {
            Self::TimedOut if matches!(patience, Patience::None) => SendError::Full(value),
            Self::TimedOut => SendError::Timeout(value),
            Self::Disconnected => SendError::Disconnected(value),
            Self::Io(error) => SendError::Io(value, error),
        }
    }

    pub(crate) fn receiving(self, patience: Patience) -> RecvError {
        match self {
            Self::TimedOut if matches!(patience, Patience::None) => RecvError::Empty,
            Self::TimedOut => RecvError::Timeout,
            Self::Disconnected => RecvError::Disconnected,
            Self::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                RecvError::Broken(error.to_string())
            }
            Self::Io(error) => RecvError::Io(error),
        }
    }
}

/// How long an operation may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    Until(crate::sys::Deadline),
}

impl Patience {
    pub(crate) const FOREVER: Self = Self::Until(crate::sys::Deadline::NEVER);

    pub(crate) fn of(timeout: std::time::Duration) -> Self {
        Self::Until(crate::sys::Deadline::after(timeout))
    }

    /// The deadline of a wait that is about to begin; none may.
    pub(crate) fn deadline(self) -> Result<crate::sys::Deadline, Trouble> {
        match self {
            Self::None => Err(Trouble::TimedOut),
            Self::Until(deadline) => Ok(deadline),
        }
    }
}
