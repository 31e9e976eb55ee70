//! Arguments on their way: encoded one by one where the call is bound, decoded one by one where it runs.

use std::borrow::Borrow;
use std::fmt;
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
pub fn wire<T: Serialize + for<'de> Deserialize<'de>>() -> Wire<T> {
    Carrier {
        encode: |value, to| to.put(value),
        decode: codec::decode,
    }
}

/// A parameter of type `&U`.
pub fn lent<U: Lend + Serialize + ?Sized>(_: impl MayBeLent<U>) -> Carrier<U, U::Owned>
where
    U::Owned: for<'de> Deserialize<'de>,
{
    Carrier {
        encode: |value, to| to.put(value),
        decode: codec::decode,
    }
}

/// Lends what arrived to the function that asked for a reference.
pub fn lend<U: Lend + ?Sized>(owned: &U::Owned) -> &U {
    owned.borrow()
}

/// The arguments of one call, being encoded. The first error is kept, and returned by whatever the call is given to.
#[derive(Debug)]
pub struct Arguments {
    registration: &'static Registration,
    encoded: Result<Encoding, (&'static str, CodecError)>,
}

struct Encoding(Outgoing);

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("arguments")
    }
}

impl Arguments {
    /// No arguments yet.
    pub fn new<E: Entry>() -> Self {
        Self {
            registration: registry::registration::<E>(),
            encoded: Ok(Encoding(Outgoing::default())),
        }
    }

    /// The next argument.
    pub fn put<G: ?Sized, T>(
        &mut self,
        parameter: &'static str,
        carrier: Carrier<G, T>,
        value: &G,
    ) {
        if let Ok(Encoding(outgoing)) = &mut self.encoded
            && let Err(error) = (carrier.encode)(value, outgoing)
        {
            self.encoded = Err((parameter, error));
        }
    }

    /// The arguments of many calls, one behind the other.
    pub(crate) fn gathering<E: Entry>() -> Self {
        Self {
            registration: registry::registration::<E>(),
            encoded: Ok(Encoding(Outgoing::gathering())),
        }
    }

    /// All arguments of a call are there, which begin at byte `from` of what was gathered: how many bytes there are now, if these are plain. Otherwise the
    /// call is taken out again.
    #[inline]
    pub(crate) fn gathered(&mut self, from: usize) -> Result<usize, Call<()>> {
        match &mut self.encoded {
            Ok(Encoding(outgoing)) if outgoing.is_plain_from(from) => Ok(outgoing.gathered().len()),
            _ => Err(self.take_out(from)),
        }
    }

    #[cold]
    fn take_out(&mut self, from: usize) -> Call<()> {
        let encoded = match &mut self.encoded {
            Ok(Encoding(outgoing)) => Ok(Encoding(outgoing.split_off(from))),
            // What was gathered before is gone, and so is the whole of it: an error ends a map.
            failed => std::mem::replace(failed, Ok(Encoding(Outgoing::gathering()))),
        };
        Self {
            registration: self.registration,
            encoded,
        }
        .into_call()
    }

    /// Takes the bytes that were gathered.
    pub(crate) fn take_gathered(&mut self) -> Vec<u8> {
        match &mut self.encoded {
            Ok(Encoding(outgoing)) => {
                let bytes = outgoing.gathered();
                let room = Vec::with_capacity(bytes.len());
                std::mem::replace(bytes, room)
            }
            Err(_) => Vec::new(),
        }
    }

    /// All arguments are there.
    pub fn into_call<R>(self) -> Call<R> {
        let name = self.registration.name;
        let message = self.encoded.map_err(|(parameter, error)| {
            let text = format!("the argument `{parameter}` of `{name}` cannot be sent");
            Error::new(ErrorKind::Encode, text).caused_by(error)
        });
        let message = message.and_then(|Encoding(outgoing)| {
            outgoing.finish().map_err(|error| {
                Error::new(
                    ErrorKind::Encode,
                    format!("the arguments of `{name}` cannot be sent"),
                )
                .caused_by(error)
            })
        });
        Call::new(self.registration, message, false)
    }
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
        let reading = message.read().map_err(|error| Undecodable {
            parameter: None,
            cause: error.into(),
        })?;
        Ok(Self(Source::Message(Some(reading))))
    }

    /// Plain bytes, of which each call in turn has its [part](Self::go_to).
    pub(crate) fn over(bytes: Vec<u8>) -> Self {
        Self(Source::Plain(bytes, 0..0))
    }

    /// The arguments of the next call among plain bytes.
    pub(crate) fn go_to(&mut self, part: Range<usize>) {
        if let Source::Plain(_, at) = &mut self.0 {
            *at = part;
        }
    }

    /// Four of the plain bytes, as a number.
    pub(crate) fn word_at(&self, at: usize) -> Option<u32> {
        let Source::Plain(bytes, _) = &self.0 else {
            return None;
        };
        let word = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*word))
    }

    /// The plain bytes, to be used again.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self.0 {
            Source::Plain(bytes, _) => bytes,
            Source::Message(_) => Vec::new(),
        }
    }

    /// The next argument.
    pub fn take<G: ?Sized, T>(
        &mut self,
        parameter: &'static str,
        carrier: Carrier<G, T>,
    ) -> Result<T, Undecodable> {
        let taken = match &mut self.0 {
            Source::Message(reading) => reading
                .as_mut()
                .expect("the macros take before they finish")
                .take_with(carrier.decode),
            Source::Plain(bytes, at) => {
                let mut rest = &bytes[at.clone()];
                let taken = (carrier.decode)(&mut rest);
                at.start = at.end - rest.len();
                taken
            }
        };
        taken.map_err(|cause| Undecodable {
            parameter: Some(parameter),
            cause: cause.into(),
        })
    }

    /// All arguments have been taken. Lets go of the message BEFORE the function runs, or the handles in it would stay open
    /// here for as long as it runs, and nobody would see the end of a pipe that the function closed.
    pub fn finish(&mut self) -> Result<(), Undecodable> {
        let finished = match &mut self.0 {
            Source::Message(reading) => reading.take().expect("the macros finish once").finish(),
            Source::Plain(_, at) if at.start == at.end => return Ok(()),
            Source::Plain(_, at) => Err(WireError::Unexpected(format!(
                "{} bytes are left over",
                at.len()
            ))),
        };
        finished.map_err(|cause| Undecodable {
            parameter: None,
            cause,
        })
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

/// Arguments that could not be decoded.
#[derive(Debug)]
pub struct Undecodable {
    parameter: Option<&'static str>,
    cause: WireError,
}

impl Undecodable {
    pub(crate) fn describe(&self, entry: &str) -> String {
        match self.parameter {
            Some(parameter) => format!(
                "the argument `{parameter}` of `{entry}` could not be decoded: {}",
                self.cause
            ),
            None => format!(
                "the arguments of `{entry}` could not be decoded: {}",
                self.cause
            ),
        }
    }
}
