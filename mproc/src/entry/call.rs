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
use crate::wire::handles::OUTSIDE;
use crate::wire::message::Body;
use crate::wire::unique::{NotMoved, Single};
use crate::wire::{Brief, Message};

/// An entry bound to its arguments: a value that can be kept, cloned, sent to another process and run there.
///
/// Made by `bind` of an entry. The arguments are encoded there; an argument that cannot be is an error of whatever the call
/// is given to: [`start`](Process::start), [`run`](Self::run), or the encoding of the call itself.
///
/// A call whose arguments hold a unique handle, such as the end of a pipe, can be used once: run, started or sent. A clone is
/// the same call in that. Using it again is an error of kind [`Encode`](crate::ErrorKind::Encode). If it is dropped unused, or
/// its start fails and the [`Process`] that comes back is dropped, a handle that was lent to it is usable again where it was.
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
    arguments: Result<Bound, Arc<Error>>,
    result: PhantomData<fn() -> R>,
}

/// The arguments, shared by clones of a call.
#[derive(Clone)]
enum Bound {
    /// Bytes, and nothing else: few enough to be copied with a call, which is cheaper than to share what is hardly ever cloned.
    Plain(Brief),
    Reusable(Arc<Message>),
    /// Something in them is unique, so there is one use for all clones.
    Once(Arc<Single<Message>>),
}

/// Encoded arguments, for who sends them on by itself.
pub(crate) enum Load {
    /// Bytes, and nothing else.
    Plain(Brief),
    Message(Arc<Message>),
    /// With something that can be sent once.
    Once(Box<Message>),
}

const USED: &str = "this call carries a unique handle and has been used";

impl Bound {
    fn new(message: Message, unique: bool) -> Self {
        if unique {
            return Self::Once(Arc::new(Single::new(message)));
        }
        match message.into_plain() {
            Ok(bytes) => Self::Plain(bytes.into()),
            Err(message) => Self::Reusable(Arc::new(message)),
        }
    }

    /// The arguments, to be read in this process.
    fn into_message(self) -> Result<Arc<Message>> {
        match self {
            Self::Plain(bytes) => Ok(Arc::new(plain(bytes.into()))),
            Self::Reusable(message) => Ok(message),
            Self::Once(message) => match message.take() {
                Some(message) => Ok(Arc::new(message.arrived())),
                None => Err(used()),
            },
        }
    }

    /// What goes into the message that is being encoded.
    fn travelling<E: serde::ser::Error>(&self) -> Result<(TravellingArguments, Vec<Fd>), E> {
        match self {
            Self::Plain(bytes) => {
                let bytes = TravellingArguments::Inline(Bytes(bytes.to_vec()));
                Ok((bytes, Vec::new()))
            }
            Self::Reusable(message) => Ok(travelling(message)),
            // What moved into this call is gone once the message around it is.
            Self::Once(message) => {
                message
                    .park(travelling, Message::commit)
                    .map_err(|reason| match reason {
                        NotMoved::AlreadySent => E::custom(USED),
                        NotMoved::OutsideMessage => E::custom(OUTSIDE),
                    })
            }
        }
    }

    fn is_used(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Reusable(_) => false,
            Self::Once(message) => message.with(|_| ()).is_none(),
        }
    }
}

fn plain(bytes: Vec<u8>) -> Message {
    Message::from_parts(Body::Inline(bytes), Vec::new())
}

fn used() -> Error {
    Error::new(ErrorKind::Encode, USED)
}

impl<R> Call<R> {
    /// With `unique`, the call can be used once, which is always so if something unique has moved into `arguments` here.
    pub(super) fn new(
        registration: &'static Registration,
        arguments: Result<Message>,
        unique: bool,
    ) -> Self {
        let bound = |message: Message| {
            let unique = unique || message.is_unique();
            Bound::new(message, unique)
        };
        Self {
            registration,
            arguments: arguments.map(bound).map_err(Arc::new),
            result: PhantomData,
        }
    }

    /// With arguments that are bytes, and nothing else.
    #[inline]
    pub(super) fn plain(registration: &'static Registration, arguments: Vec<u8>) -> Self {
        Self {
            registration,
            arguments: Ok(Bound::Plain(arguments.into())),
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

    /// The same call, without the type of its result.
    pub(crate) fn erase(self) -> Call<()> {
        Call {
            registration: self.registration,
            arguments: self.arguments,
            result: PhantomData,
        }
    }

    /// The entry, and the encoded arguments, which are used up if they hold something unique.
    pub(crate) fn into_load(self) -> Result<(&'static Registration, Load)> {
        let load = match self.arguments.map_err(|error| rebuilt(&error))? {
            Bound::Plain(bytes) => Load::Plain(bytes),
            Bound::Reusable(message) => Load::Message(message),
            Bound::Once(message) => Load::Once(Box::new(message.take().ok_or_else(used)?)),
        };
        Ok((self.registration, load))
    }

    /// Why this call cannot be sent, if it cannot.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.arguments {
            Ok(bound) if bound.is_used() => Err(used()),
            Ok(_) => Ok(()),
            Err(error) => Err(rebuilt(error)),
        }
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
    /// If an argument could not be encoded where the call was bound, or cannot be decoded here, or if the call carries a
    /// unique handle and has been used.
    pub fn run(self) -> Result<R> {
        let arguments = self.arguments.map_err(|error| rebuilt(&error))?;
        let incoming = Incoming::new(arguments.into_message()?);
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
            Ok(Bound::Plain(bytes)) => {
                write!(f, "Call({}, {} bytes, 0 handles)", self.name(), bytes.len())
            }
            Ok(Bound::Reusable(message)) => write!(f, "Call({}, {message:?})", self.name()),
            Ok(Bound::Once(message)) => {
                let message = message.with(|message| format!("{message:?}, unique"));
                let message = message.as_deref().unwrap_or("used");
                write!(f, "Call({}, {message})", self.name())
            }
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
    /// Whether the call can be used once only.
    unique: bool,
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
        let bound = self.arguments.as_ref().map_err(S::Error::custom)?;
        let (arguments, handles) = bound.travelling()?;
        Travelling {
            key: self.registration.key(),
            signature: self.registration.signature(),
            arguments,
            handles,
            unique: matches!(bound, Bound::Once(_)),
        }
        .serialize(serializer)
    }
}

fn travelling(message: &Message) -> (TravellingArguments, Vec<Fd>) {
    let (body, handles) = message.parts();
    let arguments = match body {
        Body::Inline(bytes) => TravellingArguments::Inline(Bytes(bytes.clone())),
        Body::Blob(fd, length) => TravellingArguments::Blob(Fd::shared(Arc::clone(fd)), *length),
    };
    let handles = handles.iter().map(|fd| Fd::shared(Arc::clone(fd)));
    (arguments, handles.collect())
}

impl Travelling<'_> {
    fn resolve<R>(self) -> Result<Call<R>> {
        let registration = registry::find(&self.key, self.signature)?;
        let body = match self.arguments {
            TravellingArguments::Inline(Bytes(bytes)) => Body::Inline(bytes),
            TravellingArguments::Blob(fd, length) => Body::Blob(fd.into_shared(), length),
        };
        let handles: Vec<Arc<OwnedFd>> = self.handles.into_iter().map(Fd::into_shared).collect();
        let message = Message::from_parts(body, handles);
        Ok(Call::new(registration, Ok(message), self.unique))
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

impl From<Call<()>> for Resolved {
    fn from(call: Call<()>) -> Self {
        Self(call)
    }
}

impl Resolved {
    /// The call of an entry with arguments that have arrived.
    pub(crate) fn new(registration: &'static Registration, arguments: Message) -> Self {
        Self(Call::new(registration, Ok(arguments), false))
    }

    /// The function's own name, as it stands in the logs.
    pub(crate) fn short_name(&self) -> &'static str {
        let name = self.0.name();
        name.rsplit("::").next().unwrap_or(name)
    }

    /// Calls the function and encodes what it returns.
    pub(crate) fn serve(self) -> Result<Served> {
        let registration = self.0.registration;
        let arguments = self.0.arguments.map_err(|error| rebuilt(&error))?;
        let served = Incoming::new(arguments.into_message()?).and_then(registration.serve);
        served.map_err(|error| undecodable(registration, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::unique::fake::End;
    use crate::wire::{decode_parts, encode_parts};

    #[crate::entry(crate = crate)]
    fn hold(end: End, text: String) -> String {
        assert!(end.is_here());
        text
    }

    #[crate::entry(crate = crate)]
    fn borrow(ends: &[End]) -> usize {
        ends.iter().filter(|end| end.is_here()).count()
    }

    #[crate::entry(crate = crate)]
    fn run(call: Call<usize>) -> usize {
        call.run().expect("it is not used")
    }

    #[track_caller]
    fn is_used<T>(result: Result<T>) {
        match result {
            Ok(_) => panic!("it was used a second time"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Encode);
                assert!(error.to_string().contains(USED), "{error}");
            }
        }
    }

    #[test]
    fn a_call_that_is_dropped_gives_back_what_it_was_lent() {
        let (end, _) = End::new();
        let ends = vec![end];
        let call = borrow::bind(&ends);
        let copy = call.clone();
        drop(call);
        assert!(!ends[0].is_here());
        let error = borrow::bind(&ends).run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        drop(copy);
        assert!(ends[0].is_here());
        drop(borrow::process(&ends));
        assert_eq!(borrow::bind(&ends).run().unwrap(), 1);
        assert!(!ends[0].is_here());
    }

    #[test]
    fn arguments_that_fail_leave_everything_where_it_was() {
        let (end, open) = End::new();
        let ends = vec![end];
        let twice = run::bind(borrow::bind(&ends));
        let error = run::bind(borrow::bind(&ends)).run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(
            format!("{error:?}").contains("already been sent"),
            "{error:?}"
        );
        drop(twice);
        assert!(ends[0].is_here());
        assert_eq!(open.strong_count(), 1);
    }

    #[test]
    fn a_call_runs_here_once() {
        let (end, open) = End::new();
        let call = hold::bind(end, "text".to_owned());
        let copy = call.clone();
        assert_eq!(call.run().unwrap(), "text");
        assert_eq!(open.strong_count(), 0);
        assert_eq!(format!("{copy:?}"), format!("Call({}, used)", copy.name()));
        is_used(copy.clone().run());
        is_used(copy.clone().spawn());
        let error = encode_parts(&copy, &mut Vec::new())
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains(USED), "{error}");
    }

    #[test]
    fn a_call_starts_once() {
        let (end, open) = End::new();
        let ends = vec![end];
        let call = borrow::bind(&ends);
        let copy = call.clone();
        let child = call.spawn().unwrap();
        assert!(!ends[0].is_here());
        assert_eq!(open.strong_count(), 0);
        is_used(copy.clone().spawn());
        is_used(copy.run());
        assert_eq!(child.join().unwrap(), 1);
    }

    #[test]
    fn a_start_that_fails_can_be_repeated() {
        let (end, open) = End::new();
        let ends = vec![end];
        let process = borrow::process(&ends).current_dir("/nowhere/at/all");
        let error = process.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start);
        assert!(!ends[0].is_here(), "the process that came back has it");
        let process: Process<usize> = error.into_process().unwrap();
        let child = process.current_dir("/").start().unwrap();
        assert_eq!(open.strong_count(), 0);
        assert_eq!(child.join().unwrap(), 1);

        let (end, _) = End::new();
        let ends = vec![end];
        let process = borrow::process(&ends).current_dir("/nowhere/at/all");
        assert!(process.start().is_err());
        assert!(
            ends[0].is_here(),
            "the error has been dropped, and the process with it"
        );
    }

    #[test]
    fn a_call_inside_a_call_moves_with_it() {
        let (end, open) = End::new();
        let ends = vec![end];
        let inner = borrow::bind(&ends);
        let outer = run::bind(inner.clone());
        is_used(inner.clone().run());
        drop(outer);
        assert!(!ends[0].is_here(), "the inner call has it again");
        let outer = run::bind(inner.clone());
        assert_eq!(outer.clone().spawn().unwrap().join().unwrap(), 1);
        is_used(inner.run());
        is_used(outer.run());
        assert_eq!(open.strong_count(), 0);
    }

    #[test]
    fn a_call_that_arrives_is_used_once_as_well() {
        let (end, open) = End::new();
        let mut bytes = Vec::new();
        let call = hold::bind(end, "text".to_owned());
        let (mut handles, moved) = encode_parts(&call, &mut bytes).unwrap().into_parts();
        moved.commit();
        is_used(call.run());
        let call: Call<String> = decode_parts(&bytes, &mut handles).unwrap();
        let copy = call.clone();
        assert_eq!(call.run().unwrap(), "text");
        is_used(copy.run());
        assert_eq!(open.strong_count(), 0);
    }

    #[test]
    fn a_call_without_anything_unique_is_used_as_often_as_one_likes() {
        let call = borrow::bind(&[]);
        let outer = run::bind(call.clone());
        for _ in 0..2 {
            assert_eq!(outer.clone().run().unwrap(), 0);
            assert_eq!(call.clone().spawn().unwrap().join().unwrap(), 0);
        }
    }
}
