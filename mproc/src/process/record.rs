//! What parent and child say to each other over the control socket.
//!
//! The parent says one thing, before the child exists: its [`Record`], with the call. The child says one thing, before it
//! exits: its [`Reply`]. In a build with `panic = "abort"` the panic hook says it. If there are several, the last one counts.

use serde::{Deserialize, Serialize};

use crate::entry::call::{AnyCall, Call};
use crate::error::{Error, ErrorKind, Panic};

/// Kinds of messages on the control socket.
pub(crate) mod kind {
    /// Parent to child: the [`Record`](super::Record).
    pub(crate) const RECORD: u8 = 1;
    /// Child to parent: what the function returned, encoded.
    pub(crate) const VALUE: u8 = 2;
    /// Child to parent: a [`Panic`](crate::error::Panic).
    pub(crate) const PANIC: u8 = 3;
    /// Child to parent: a [`Refusal`](super::Refusal).
    pub(crate) const REFUSAL: u8 = 4;
}

/// Who the child is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) name: String,
    /// `[1, 2]` for the second child of the first child of the program.
    pub(crate) path: Vec<u32>,
    pub(crate) daemon: bool,
    pub(crate) parent: Parent,
    pub(crate) logging: Option<crate::logging::Forwarding>,
}

/// Who started it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parent {
    pub(crate) name: String,
    pub(crate) id: u32,
}

/// What the parent sends.
#[derive(Serialize)]
#[serde(bound = "")] // or serde would ask for `R: Serialize`, and only the call travels
pub(crate) struct Record<'a, R> {
    pub(crate) person: &'a Person,
    pub(crate) call: &'a Call<R>,
}

/// The same, as the child gets it.
#[derive(Deserialize)]
pub(crate) struct ReceivedRecord {
    pub(crate) person: Person,
    pub(crate) call: AnyCall,
}

/// Why the child returned no value though nothing panicked or died.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    reason: Reason,
    text: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Reason {
    Encode,
    Decode,
    UnknownEntry,
    SignatureMismatch,
    DuplicateEntry,
}

impl Refusal {
    pub(crate) fn new(error: &Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::Encode => Reason::Encode,
            ErrorKind::UnknownEntry => Reason::UnknownEntry,
            ErrorKind::SignatureMismatch => Reason::SignatureMismatch,
            ErrorKind::DuplicateEntry => Reason::DuplicateEntry,
            _ => Reason::Decode,
        };
        Self {
            reason,
            text: error.to_string(),
        }
    }

    pub(crate) fn into_error(self) -> Error {
        let kind = match self.reason {
            Reason::Encode => ErrorKind::Encode,
            Reason::Decode => ErrorKind::Decode,
            Reason::UnknownEntry => ErrorKind::UnknownEntry,
            Reason::SignatureMismatch => ErrorKind::SignatureMismatch,
            Reason::DuplicateEntry => ErrorKind::DuplicateEntry,
        };
        Error::new(kind, format!("gave no value: {}", self.text))
    }
}

/// What came back.
pub(crate) enum Reply {
    Value(crate::wire::Message),
    Panic(Panic),
    Refusal(Refusal),
}
