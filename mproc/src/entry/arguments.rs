//! Arguments on their way: encoded one by one where the call is bound, decoded one by one where it runs.

use std::borrow::Borrow;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Entry;
use super::call::Call;
use super::lend::{Lend, MayBeLent};
use super::registry::{self, Registration};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::codec::{self, CodecError};
use crate::wire::message::Reading;
use crate::wire::{Message, Outgoing, WireError};

/// How one argument travels: given as `G`, taken as `T`.
///
/// A pair of functions instead of trait bounds, so that the bounds are demanded at one place, which the macro puts on the
/// type that the user has to change.
pub struct Carrier<G: ?Sized, T> {
    pub(crate) encode: fn(&G, &mut Outgoing) -> Result<(), CodecError>,
    pub(crate) encode_short: fn(&G, &mut Short<'_>) -> Result<(), CodecError>,
    pub(crate) decode: fn(&mut &[u8]) -> Result<T, CodecError>,
}

/// The carrier of a value that is given and taken as the same type.
pub type Wire<T> = Carrier<T, T>;

impl<G: ?Sized, T> fmt::Debug for Carrier<G, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<Self>())
    }
}

/// A parameter or result of type `T`.
#[inline]
pub fn wire<T: Serialize + for<'de> Deserialize<'de>>() -> Wire<T> {
    Carrier {
        encode,
        encode_short,
        decode: codec::decode,
    }
}

// Inlined by force, here and in what it calls: a function behind a pointer is not considered soon enough, and one that is called costs a number as much as
// all the rest.
#[inline(always)]
fn encode<G: Serialize + ?Sized>(value: &G, to: &mut Outgoing) -> Result<(), CodecError> {
    to.put(value)
}

#[inline(always)]
fn encode_short<G: Serialize + ?Sized>(value: &G, to: &mut Short<'_>) -> Result<(), CodecError> {
    codec::encode(value, to)
}

/// A place for the arguments of many short calls, one behind the other. How far it has been filled stays in registers, where each call would otherwise wait for the
/// one before to be stored.
pub struct Short<'b> {
    left: &'b mut [u8],
}

impl fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Short({} bytes left)", self.left.len())
    }
}

impl<'b> Short<'b> {
    #[inline(always)]
    pub(crate) fn over(bytes: &'b mut [u8]) -> Self {
        Self { left: bytes }
    }

    /// Whether there is no more room; also after a write that failed, which the encoder counts, if the value's own code does not tell.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        self.left.is_empty()
    }

    /// The next argument. False: there is no room, or it cannot be encoded.
    #[inline(always)]
    pub fn put<G: ?Sized, T>(&mut self, carrier: Carrier<G, T>, value: &G) -> bool {
        (carrier.encode_short)(value, self).is_ok()
    }
}

impl Write for Short<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline(always)]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match std::mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            Some((to, left)) => {
                to.copy_from_slice(bytes);
                self.left = left;
                Ok(())
            }
            None => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A parameter of type `&U`.
#[inline]
pub fn lent<U: Lend + Serialize + ?Sized>(_: impl MayBeLent<U>) -> Carrier<U, U::Owned>
where
    U::Owned: for<'de> Deserialize<'de>,
{
    Carrier {
        encode,
        encode_short,
        decode: codec::decode,
    }
}

/// Lends what arrived to the function that asked for a reference.
#[inline]
pub fn lend<U: Lend + ?Sized>(owned: &U::Owned) -> &U {
    owned.borrow()
}

/// The arguments of one call, being encoded. The first error is kept, and returned by whatever the call is given to.
pub struct Arguments {
    registration: &'static Registration,
    encoded: Outgoing,
    failed: Option<(&'static str, CodecError)>,
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arguments")
            .field("of", &self.registration.name)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Arguments {
    /// No arguments yet.
    pub fn new<E: Entry>() -> Self {
        Self {
            registration: registry::registration::<E>(),
            encoded: Outgoing::default(),
            failed: None,
        }
    }

    /// The next argument.
    #[inline(always)]
    pub fn put<G: ?Sized, T>(
        &mut self,
        parameter: &'static str,
        carrier: Carrier<G, T>,
        value: &G,
    ) {
        if self.failed.is_none()
            && let Err(error) = (carrier.encode)(value, &mut self.encoded)
        {
            self.failed = Some((parameter, error));
        }
    }

    /// The arguments of many calls, one behind the other.
    pub(crate) fn gathering<E: Entry>() -> Self {
        Self {
            registration: registry::registration::<E>(),
            encoded: Outgoing::gathering(),
            failed: None,
        }
    }

    /// Gathers the arguments of calls that have no handles, of `length` bytes each, until there is no next one, or `most` of them, or as many `bytes` altogether, for which
    /// room is made. Gives how many, and what came next and is not such a call.
    #[inline]
    pub(crate) fn gather_alike<E: Entry>(
        &mut self,
        calls: &mut impl Iterator<Item = E::Args>,
        length: usize,
        most: usize,
        bytes: usize,
    ) -> Alike<E::Args> {
        let gathered = self.encoded.gathered();
        let before = gathered.len();
        if before >= bytes {
            return Alike {
                count: 0,
                other: None,
                is_over: false,
            };
        }
        gathered.resize(bytes, 0);
        let mut alike = Alike {
            count: 0,
            other: None,
            is_over: false,
        };
        let mut left = &mut gathered[before..];
        while alike.count < most && !left.is_empty() {
            let Some(call) = calls.next() else {
                alike.is_over = true;
                break;
            };
            let room = left.len();
            let mut short = Short { left: &mut *left };
            let is_short = E::put_short(&call, &mut short);
            let used = room - short.left.len();
            if !is_short || used != length {
                alike.other = Some(call);
                break;
            }
            alike.count += 1;
            left = &mut left[used..];
        }
        let end = bytes - left.len();
        gathered.truncate(end);
        alike
    }

    /// Forgets what was gathered behind the first `bytes`.
    #[inline]
    pub(crate) fn rewind(&mut self, bytes: usize) {
        self.encoded.gathered().truncate(bytes);
    }

    /// All arguments of a call are there, which begin at byte `from` of what was gathered: how many bytes there are now, if these are plain. Otherwise the
    /// call is taken out again.
    #[inline]
    pub(crate) fn gathered(&mut self, from: usize) -> Result<usize, Call<()>> {
        if self.failed.is_none() && self.encoded.is_plain_from(from) {
            return Ok(self.encoded.gathered().len());
        }
        Err(self.take_out(from))
    }

    #[cold]
    fn take_out(&mut self, from: usize) -> Call<()> {
        Self {
            registration: self.registration,
            encoded: self.encoded.split_off(from),
            failed: self.failed.take(),
        }
        .into_call()
    }

    /// Takes the bytes that were gathered.
    pub(crate) fn take_gathered(&mut self) -> Vec<u8> {
        let bytes = self.encoded.gathered();
        let room = Vec::with_capacity(bytes.len());
        std::mem::replace(bytes, room)
    }

    /// All arguments are there.
    #[inline]
    pub fn into_call<R>(self) -> Call<R> {
        if self.failed.is_none() && self.encoded.is_plain() {
            return Call::plain(self.registration, self.encoded.into_bytes());
        }
        self.into_call_of_message()
    }

    #[inline(never)]
    fn into_call_of_message<R>(self) -> Call<R> {
        let name = self.registration.name;
        let message = match self.failed {
            Some((parameter, error)) => {
                let text = format!("the argument `{parameter}` of `{name}` cannot be sent");
                Err(Error::new(ErrorKind::Encode, text).caused_by(error))
            }
            None => self.encoded.finish().map_err(|error| {
                let text = format!("the arguments of `{name}` cannot be sent");
                Error::new(ErrorKind::Encode, text).caused_by(error)
            }),
        };
        Call::new(self.registration, message, false)
    }
}

/// What was [gathered](Arguments::gather_alike).
pub(crate) struct Alike<A> {
    pub(crate) count: usize,
    pub(crate) other: Option<A>,
    pub(crate) is_over: bool,
}

/// The arguments of one call, being decoded.
pub struct Incoming(Source);

enum Source {
    /// `None`: finished.
    Message(Option<Reading>),
    /// A frame of plain calls, and where in it the one is that is being decoded.
    Plain(Vec<u8>, Range<usize>),
}

impl Incoming {
    pub(crate) fn new(message: Arc<Message>) -> Result<Self, Undecodable> {
        let reading = message.read();
        let reading = reading.map_err(|error| Undecodable::whole(error.into()))?;
        Ok(Self(Source::Message(Some(reading))))
    }

    /// Plain bytes, of which each call in turn has its [part](Self::go_to).
    pub(crate) fn over(bytes: Vec<u8>) -> Self {
        Self(Source::Plain(bytes, 0..0))
    }

    /// The arguments of the next call among plain bytes.
    #[inline]
    pub(crate) fn go_to(&mut self, part: Range<usize>) {
        if let Source::Plain(_, at) = &mut self.0 {
            *at = part;
        }
    }

    /// All plain bytes, if they are.
    #[inline]
    pub(crate) fn plain_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Source::Plain(bytes, _) => Some(bytes),
            Source::Message(_) => None,
        }
    }

    /// Four of the plain bytes, as a number.
    #[inline]
    pub(crate) fn word_at(&self, at: usize) -> u32 {
        let bytes = match &self.0 {
            Source::Plain(bytes, _) => &bytes[at..],
            Source::Message(_) => &[],
        };
        bytes.first_chunk().copied().map_or(0, u32::from_ne_bytes)
    }

    /// The plain bytes, to be used again.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self.0 {
            Source::Plain(bytes, _) => bytes,
            Source::Message(_) => Vec::new(),
        }
    }

    #[inline(never)]
    fn take_of_message<G: ?Sized, T>(
        &mut self,
        parameter: &'static str,
        carrier: Carrier<G, T>,
    ) -> Result<T, Undecodable> {
        let Source::Message(reading) = &mut self.0 else {
            unreachable!("`take` has looked");
        };
        let reading = reading
            .as_mut()
            .expect("the macros take before they finish");
        let taken = reading.take_with(carrier.decode);
        taken.map_err(|cause| Undecodable::at(parameter, cause))
    }

    #[inline(never)]
    fn finish_slowly(&mut self) -> Result<(), Undecodable> {
        let finished = match &mut self.0 {
            Source::Message(reading) => reading.take().expect("the macros finish once").finish(),
            Source::Plain(_, at) => return Err(left_over(at.len())),
        };
        finished.map_err(Undecodable::whole)
    }
}

/// Where the arguments of a call come from.
pub trait Takes {
    /// The next argument.
    fn take<G: ?Sized, T>(
        &mut self,
        parameter: &'static str,
        carrier: Carrier<G, T>,
    ) -> Result<T, Undecodable>;

    /// All arguments have been taken. Lets go of the message BEFORE the function runs, or the handles in it would stay open
    /// here for as long as it runs, and nobody would see the end of a pipe that the function closed.
    fn finish(&mut self) -> Result<(), Undecodable>;
}

impl Takes for Incoming {
    #[inline(always)]
    fn take<G: ?Sized, T>(
        &mut self,
        parameter: &'static str,
        carrier: Carrier<G, T>,
    ) -> Result<T, Undecodable> {
        if let Source::Plain(bytes, at) = &mut self.0 {
            let mut rest = bytes.get(at.clone()).unwrap_or_default();
            let taken = (carrier.decode)(&mut rest);
            at.start = at.end - rest.len();
            return taken.map_err(|cause| Undecodable::at(parameter, cause));
        }
        self.take_of_message(parameter, carrier)
    }

    #[inline]
    fn finish(&mut self) -> Result<(), Undecodable> {
        match &self.0 {
            Source::Plain(_, at) if at.start == at.end => Ok(()),
            _ => self.finish_slowly(),
        }
    }
}

/// Arguments that are plain bytes.
pub(crate) struct Plain<'b>(&'b [u8]);

impl<'b> Plain<'b> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }
}

impl Takes for Plain<'_> {
    #[inline(always)]
    fn take<G: ?Sized, T>(
        &mut self,
        parameter: &'static str,
        carrier: Carrier<G, T>,
    ) -> Result<T, Undecodable> {
        (carrier.decode)(&mut self.0).map_err(|cause| Undecodable::at(parameter, cause))
    }

    #[inline(always)]
    fn finish(&mut self) -> Result<(), Undecodable> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(left_over(left)),
        }
    }
}

#[cold]
fn left_over(bytes: usize) -> Undecodable {
    Undecodable::whole(WireError::Unexpected(format!(
        "{bytes} bytes are left over"
    )))
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

/// Arguments that could not be decoded.
// Boxed, so that nothing but the value is moved where nothing fails.
#[derive(Debug)]
pub struct Undecodable(Box<(Option<&'static str>, WireError)>);

impl Undecodable {
    #[cold]
    #[inline(never)]
    fn at(parameter: &'static str, cause: CodecError) -> Self {
        Self(Box::new((Some(parameter), cause.into())))
    }

    #[cold]
    fn whole(cause: WireError) -> Self {
        Self(Box::new((None, cause)))
    }

    pub(crate) fn describe(&self, entry: &str) -> String {
        let (parameter, cause) = &*self.0;
        match parameter {
            Some(parameter) => {
                format!("the argument `{parameter}` of `{entry}` could not be decoded: {cause}")
            }
            None => format!("the arguments of `{entry}` could not be decoded: {cause}"),
        }
    }
}
