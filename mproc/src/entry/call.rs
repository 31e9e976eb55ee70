//! An entry bound to its arguments.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::arguments::{Incoming, Undecodable};
use super::registry::{self, Key, Registration, Served};
use crate::Fd;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Child, Process};
use crate::wire::Message;
use crate::wire::message::Body;

/// An entry bound to its arguments: a value that can be kept, cloned, sent to another process and run there.
///
/// Made by `bind` of an entry. The arguments are encoded there; an argument that cannot be is an error of whatever the call
/// is given to: [`start`](Process::start), [`run`](Self::run), or the encoding of the call itself.
///
/// Arguments of more than 32 KiB are held in sealed memory outside the heap, which clones and copies in other processes share.
///
/// # Examples
///
/// ```
/// use mproc::Call;
///
/// #[mproc::entry]
/// fn square(x: i64) -> i64 { x * x }
///
/// #[mproc::entry]
/// fn run_all(calls: Vec<Call<i64>>) -> Vec<i64> {
///     calls.into_iter().map(|call| call.run().unwrap()).collect()
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let calls = (1..=3).map(square::bind).collect();
/// assert_eq!(run_all::spawn(calls)?.join()?, [1, 4, 9]);
/// # Ok(())
/// # }
/// ```
pub struct Call<R> {
    registration: &'static Registration,
    arguments: Result<Arc<Message>, Arc<Error>>,
    result: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    pub(super) fn new(
        registration: &'static Registration,
        arguments: Result<Arc<Message>, Arc<Error>>,
    ) -> Self {
        Self {
            registration,
            arguments,
            result: PhantomData,
        }
    }

    /// The entry's name: module path and function, or the name given in `#[entry(name = "…")]`.
    pub fn name(&self) -> &'static str {
        self.registration.name
    }

    /// A process that will run this call, to be configured and started.
    pub fn process(self) -> Process<R> {
        Process::new(self)
    }

    /// Why this call cannot be sent, if it cannot.
    pub(crate) fn check(&self) -> Result<()> {
        self.arguments
            .as_ref()
            .map(|_| ())
            .map_err(|error| rebuilt(error))
    }
}

impl<R: 'static> Call<R> {
    /// Runs the call in a process of its own.
    ///
    /// # Errors
    ///
    /// See [`Process::start`].
    pub fn spawn(self) -> Result<Child<R>> {
        self.process().start()
    }

    /// Runs the call here, in this thread. A panic of the function is a panic here.
    ///
    /// # Errors
    ///
    /// If an argument could not be encoded where the call was bound, or cannot be decoded here.
    pub fn run(self) -> Result<R> {
        let incoming = Incoming::new(self.arguments.map_err(|error| rebuilt(&error))?);
        let value = incoming
            .and_then(self.registration.invoke)
            .map_err(|error| undecodable(self.registration, &error))?;
        // A `Call` is typed by the macro or by its receiver's declaration, and only the latter can be wrong.
        value
            .downcast()
            .map(|value| *value)
            .map_err(|_| wrong_result::<R>(self.registration))
    }
}

fn undecodable(registration: &Registration, error: &Undecodable) -> Error {
    Error::new(ErrorKind::Decode, error.describe(registration.name))
}

fn wrong_result<R>(registration: &Registration) -> Error {
    let text = format!(
        "the entry `{}` does not return `{}`",
        registration.name,
        std::any::type_name::<R>()
    );
    Error::new(ErrorKind::SignatureMismatch, text)
}

/// Errors are not `Clone`; a call that failed to encode is, and each use of it is told.
fn rebuilt(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

impl<R> Clone for Call<R> {
    fn clone(&self) -> Self {
        Self {
            registration: self.registration,
            arguments: self.arguments.clone(),
            result: PhantomData,
        }
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.arguments {
            Ok(message) => write!(f, "Call({}, {message:?})", self.name()),
            Err(error) => write!(f, "Call({}, {error})", self.name()),
        }
    }
}

/// The call as bytes and handles.
#[derive(Serialize, Deserialize)]
struct Travelling<'a> {
    key: Key<'a>,
    signature: u64,
    arguments: TravellingArguments,
    handles: Vec<Fd>,
}

#[derive(Serialize, Deserialize)]
enum TravellingArguments {
    Inline(Bytes),
    Blob(Fd, usize),
}

/// Bytes that serde is told to be bytes, or it would go through them one by one.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }

            /// JSON, for one, has no bytes and writes numbers.
            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = numbers.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

impl<R> Serialize for Call<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.arguments.as_ref().map_err(S::Error::custom)?;
        let (body, handles) = message.parts();
        let arguments = match body {
            Body::Inline(bytes) => TravellingArguments::Inline(Bytes(bytes.clone())),
            Body::Blob(fd, length) => {
                TravellingArguments::Blob(Fd::shared(Arc::clone(fd)), *length)
            }
        };
        let handles = handles
            .iter()
            .map(|fd| Fd::shared(Arc::clone(fd)))
            .collect();
        let key = self.registration.key();
        Travelling {
            key,
            signature: self.registration.signature(),
            arguments,
            handles,
        }
        .serialize(serializer)
    }
}

impl Travelling<'_> {
    fn resolve<R>(self) -> Result<Call<R>> {
        let registration = registry::find(&self.key, self.signature)?;
        let body = match self.arguments {
            TravellingArguments::Inline(Bytes(bytes)) => Body::Inline(bytes),
            TravellingArguments::Blob(fd, length) => Body::Blob(fd.into_shared(), length),
        };
        let handles: Vec<Arc<OwnedFd>> = self.handles.into_iter().map(Fd::into_shared).collect();
        Ok(Call::new(
            registration,
            Ok(Arc::new(Message::from_parts(body, handles))),
        ))
    }
}

impl<'de, R> Deserialize<'de> for Call<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Travelling::deserialize(deserializer)?
            .resolve()
            .map_err(D::Error::custom)
    }
}

/// A call as a child receives it: its entry is looked up when it is run, so that what goes wrong keeps its kind.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct AnyCall(Travelling<'static>);

impl AnyCall {
    /// Finds the entry.
    pub(crate) fn resolve(self) -> Result<Resolved> {
        self.0.resolve().map(Resolved)
    }
}

/// A call whose result type is known to its entry alone.
pub(crate) struct Resolved(Call<()>);

impl Resolved {
    /// The function's own name, as it stands in the logs.
    pub(crate) fn short_name(&self) -> &'static str {
        let name = self.0.name();
        name.rsplit("::").next().unwrap_or(name)
    }

    /// Calls the function and encodes what it returns.
    pub(crate) fn serve(self) -> Result<Served> {
        let registration = self.0.registration;
        let arguments = self.0.arguments.map_err(|error| rebuilt(&error))?;
        let served = Incoming::new(arguments).and_then(registration.serve);
        served.map_err(|error| undecodable(registration, &error))
    }
}
