//! A message: bytes of any length and any number of descriptors, sent as packets that a kill cannot tear.
//!
//! Up to [`INLINE`] bytes travel inside the packet. More are written to a memfd while they are encoded, which is sealed and
//! travels as one more descriptor: so no message of any size waits for its reader, and a reader maps it instead of copying
//! it. A packet carries at most 253 descriptors; when there are more, packets with nothing but descriptors go ahead.
//!
//! # If the sender dies
//!
//! A packet is there whole or not at all. Of a message in several packets the last one counts: without it, the reader sees
//! the end of the stream, and what came before is closed.

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::WireError;
use super::codec::{self, CodecError};
use super::handles::{self, Attached, Handles};
use super::unique::Moved;
use crate::sys;

/// 32 KiB: a packet is copied in and out by the kernel; from about here a memfd that is mapped is cheaper (bench `spawn`).
pub(crate) const INLINE: usize = 32 * 1024;

/// 1 MiB: as much as is encoded before it is written on to the memfd.
const CHUNK: usize = 1024 * 1024;

/// How many descriptors a message may carry. A socket of Linux's default size holds four times as many, so that no message
/// waits for its reader.
pub(crate) const MAX_HANDLES: usize = 64 * sys::MAX_DESCRIPTORS_PER_PACKET;

/// A message under construction. What is unique in it comes back if it is dropped.
#[derive(Default)]
pub(crate) struct Outgoing {
    to: Spill,
    attached: Attached,
}

/// Where its bytes go.
#[derive(Default)]
struct Spill {
    bytes: Vec<u8>,
    spilled: Option<(sys::Memfd, usize)>,
    /// Whether the bytes stay here, however many they are.
    gathers: bool,
}

impl Outgoing {
    /// One in which plain encodings are gathered, one behind the other.
    pub(crate) fn gathering() -> Self {
        let mut outgoing = Self::default();
        outgoing.to.gathers = true;
        outgoing
    }

    /// The bytes that were gathered.
    #[inline]
    pub(crate) fn gathered(&mut self) -> &mut Vec<u8> {
        &mut self.to.bytes
    }

    /// Whether what was gathered from byte `from` on is nothing but bytes, and few enough to travel as they are.
    #[inline]
    pub(crate) fn is_plain_from(&self, from: usize) -> bool {
        self.attached.is_empty() && self.to.bytes.len() - from <= INLINE
    }

    /// Whether all of it is nothing but bytes, and few enough to travel as they are.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.to.spilled.is_none() && self.is_plain_from(0)
    }

    /// What has been encoded, of what [is plain](Self::is_plain).
    #[inline]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.to.bytes
    }

    /// Takes what was gathered from byte `from` on, to be a message of its own.
    #[cold]
    pub(crate) fn split_off(&mut self, from: usize) -> Self {
        let mut other = Self::default();
        other.to.bytes = self.to.bytes.split_off(from);
        other.attached = std::mem::take(&mut self.attached);
        other
    }

    /// Appends one value and the handles inside it. After an error the message is not to be sent.
    #[inline(always)]
    pub(crate) fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let Self { to, attached } = self;
        handles::attaching(attached, || codec::encode(value, to))
    }

    pub(crate) fn finish(self) -> io::Result<Message> {
        let Self { mut to, attached } = self;
        let body = if to.spilled.is_none() && to.bytes.len() <= INLINE {
            Body::Inline(to.bytes)
        } else {
            to.spill_with(&[])?;
            let Some((memfd, length)) = to.spilled else {
                unreachable!("spill has made it")
            };
            Body::Blob(Arc::new(memfd.seal()?), length)
        };
        let (handles, moved) = attached.into_parts();
        Ok(Message {
            body,
            handles,
            moved,
        })
    }
}

impl Spill {
    /// Moves what has been encoded so far to the memfd, and `more` after it.
    fn spill_with(&mut self, more: &[u8]) -> io::Result<()> {
        let (memfd, length) = match &mut self.spilled {
            Some(spilled) => spilled,
            none => none.insert((sys::Memfd::new()?, 0)),
        };
        memfd.write_all(&self.bytes)?;
        memfd.write_all(more)?;
        *length += self.bytes.len() + more.len();
        self.bytes.clear();
        Ok(())
    }

    fn write_or_spill(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > INLINE {
            // It will be in the memfd anyway, so a copy in between would be for nothing.
            return self.spill_with(bytes);
        }
        if self.bytes.len() + bytes.len() > CHUNK {
            self.spill_with(&[])?;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Spill {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.gathers {
            self.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_or_spill(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends the encoding of one value to `bytes`. Gives what is attached to it: the descriptors inside the value, and what has
/// moved into the message.
///
/// This is [`Outgoing`] for who has a place for bytes of any length. After an error, `bytes` is as it was.
#[inline]
pub(crate) fn encode_parts<T: Serialize + ?Sized>(
    value: &T,
    bytes: &mut Vec<u8>,
) -> Result<Attached, CodecError> {
    let before = bytes.len();
    let mut attached = Attached::default();
    let encoded = handles::attaching(&mut attached, || codec::encode(value, bytes));
    if let Err(error) = encoded {
        bytes.truncate(before);
        return Err(error);
    }
    Ok(attached)
}

/// Decodes one value and nothing after it. Descriptors that the value does not claim are closed.
// The error is boxed and the handles are lent, so that nothing but the value is moved where nothing fails and nothing travels.
#[inline]
pub(crate) fn decode_parts<T: DeserializeOwned>(
    mut bytes: &[u8],
    handles: &mut Handles,
) -> Result<T, Box<WireError>> {
    let decoded = handles::providing(handles, || codec::decode(&mut bytes));
    if !handles.is_empty() {
        handles.clear();
    }
    match decoded {
        Ok(value) if bytes.is_empty() => Ok(value),
        Ok(_) => Err(Box::new(left_over_after::<T>(bytes.len()))),
        Err(error) => Err(Box::new(error.into())),
    }
}

#[cold]
fn left_over_after<T>(left: usize) -> WireError {
    let after = std::any::type_name::<T>();
    WireError::Unexpected(format!(
        "after a value of type `{after}`, {left} bytes are left over"
    ))
}

/// A finished message. Sending does not use it up, and does not decide about what has moved into it:
/// [`commit`](Self::commit) does.
pub(crate) struct Message {
    body: Body,
    handles: Handles,
    moved: Moved,
}

/// The bytes of a message.
pub(crate) enum Body {
    Inline(Vec<u8>),
    /// A sealed memfd and its length.
    Blob(Arc<OwnedFd>, usize),
}

/// What each packet begins with. `kind` is its user's; `MORE` marks one that only brings descriptors ahead.
struct Header {
    kind: u8,
    flags: u8,
    length: u64,
}

const HEADER: usize = 12;
const MAGIC: [u8; 2] = *b"mp";
const MORE: u8 = 1;
const BLOB: u8 = 2;

impl Header {
    fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.kind;
        bytes[3] = self.flags;
        bytes[4..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (&[kind, flags], rest) = rest.split_first_chunk()?;
        let (length, []) = rest.split_first_chunk()? else {
            return None;
        };
        (*magic == MAGIC).then_some(Self {
            kind,
            flags,
            length: u64::from_le_bytes(*length),
        })
    }
}

impl Message {
    /// The message that holds `value`.
    pub(crate) fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, WireError> {
        let mut outgoing = Outgoing::default();
        outgoing.put(value)?;
        Ok(outgoing.finish()?)
    }

    /// Sends the message under a number that tells its receiver what it is. With `wait` false, a full socket is `EAGAIN`.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, kind: u8, wait: bool) -> io::Result<()> {
        let (bytes, blob, length) = match &self.body {
            Body::Inline(bytes) => (bytes.as_slice(), None, bytes.len()),
            Body::Blob(fd, length) => (&[][..], Some(fd), *length),
        };
        let descriptors: Vec<BorrowedFd<'_>> = blob
            .into_iter()
            .chain(&self.handles)
            .map(|fd| fd.as_fd())
            .collect();
        if self.handles.len() > MAX_HANDLES {
            let text = format!(
                "{} descriptors in one message, which holds {MAX_HANDLES}",
                self.handles.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut flags = if blob.is_some() { BLOB } else { 0 };
        let mut packets = descriptors
            .chunks(sys::MAX_DESCRIPTORS_PER_PACKET)
            .peekable();
        loop {
            let descriptors = packets.next().unwrap_or_default();
            let last = packets.peek().is_none();
            flags = if last { flags & !MORE } else { flags | MORE };
            let header = Header {
                kind,
                flags,
                length: length as u64,
            }
            .to_bytes();
            let bytes = if last { bytes } else { &[] };
            sys::send_packet(socket, &[&header, bytes], descriptors, wait)?;
            if last {
                return Ok(());
            }
        }
    }

    /// Receives the next message and its kind; `None` at the end of the stream. With `wait` false, an empty socket is `EAGAIN`.
    ///
    /// A message with more than `most` descriptors is refused: whoever is at the other end is not to fill our table.
    pub(crate) fn receive(
        socket: BorrowedFd<'_>,
        most: usize,
        wait: bool,
    ) -> io::Result<Option<(u8, Self)>> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        let mut descriptors = Vec::new();
        let mut packet = vec![0_u8; HEADER + INLINE];
        loop {
            let before = descriptors.len();
            let length = match sys::receive_packet(socket, &mut packet, &mut descriptors, wait)? {
                sys::Received::Packet { length } => length,
                sys::Received::End => return Ok(None),
            };
            let (header, bytes) = packet[..length]
                .split_at_checked(HEADER)
                .unwrap_or_default();
            let header = Header::from_bytes(header)
                .ok_or_else(|| invalid("a packet that is not mproc's"))?;
            if descriptors.len() > most {
                return Err(invalid("a message with too many descriptors"));
            }
            if header.flags & MORE != 0 {
                if descriptors.len() == before {
                    return Err(invalid("a packet that announces more and brings nothing"));
                }
                continue;
            }
            let mut handles: Handles = descriptors.into_iter().map(Arc::new).collect();
            let claimed = usize::try_from(header.length)
                .map_err(|_| invalid("a message longer than memory"))?;
            let body = if header.flags & BLOB == 0 {
                if claimed != bytes.len() {
                    return Err(invalid("a packet of another length than it claims"));
                }
                let length = HEADER + claimed;
                packet.truncate(length);
                packet.drain(..HEADER);
                Body::Inline(packet)
            } else {
                if handles.is_empty() {
                    return Err(invalid("a packet that lacks the memory it announces"));
                }
                Body::Blob(handles.remove(0), claimed)
            };
            return Ok(Some((header.kind, Self::from_parts(body, handles))));
        }
    }

    /// The bytes, if there is nothing else and they are few.
    pub(crate) fn into_plain(self) -> Result<Vec<u8>, Self> {
        match self.body {
            Body::Inline(bytes) if self.handles.is_empty() && self.moved.is_empty() => Ok(bytes),
            _ => Err(self),
        }
    }

    /// What a message consists of, for another encoding of it.
    pub(crate) fn parts(&self) -> (&Body, &Handles) {
        (&self.body, &self.handles)
    }

    /// A message put together again.
    pub(crate) fn from_parts(body: Body, handles: Handles) -> Self {
        Self {
            body,
            handles,
            moved: Moved::default(),
        }
    }

    /// Whether something unique has moved into this message: then it may be sent or read once.
    pub(crate) fn is_unique(&self) -> bool {
        !self.moved.is_empty()
    }

    /// The message has been sent. What moved into it is gone from here.
    pub(crate) fn commit(self) {
        self.into_moved().commit();
    }

    /// Lets go of the message itself, and keeps what has moved into it for a later decision.
    pub(crate) fn into_moved(self) -> Moved {
        self.moved
    }

    /// Length of the bytes and number of the handles.
    pub(crate) fn size(&self) -> (usize, usize) {
        let length = match &self.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Blob(_, length) => *length,
        };
        (length, self.handles.len())
    }

    /// What moved into the message is gone from where it was: the message is going to be read here.
    pub(crate) fn arrived(mut self) -> Self {
        std::mem::take(&mut self.moved).commit();
        self
    }

    /// Opens the message for reading. It can be read more than once; a handle read twice is the same open file.
    ///
    /// Who reads a [unique](Self::is_unique) message has to see to it that nobody else does, and that it has
    /// [arrived](Self::arrived).
    pub(crate) fn read(self: Arc<Self>) -> io::Result<Reading> {
        let handles = self.handles.clone();
        let bytes = match &self.body {
            Body::Inline(_) => Bytes::Inline(self),
            Body::Blob(fd, length) => Bytes::Blob(sys::SealedBytes::map(fd.as_fd(), *length)?),
        };
        Ok(Reading {
            bytes,
            position: 0,
            handles,
        })
    }

    /// Reads a message that holds one value and nothing after it.
    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, WireError> {
        let mut reading = Arc::new(self.arrived()).read()?;
        let value = reading.take()?;
        match reading.left() {
            0 => Ok(value),
            left => Err(left_over_after::<T>(left)),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, handles) = self.size();
        write!(f, "{bytes} bytes, {handles} handles")
    }
}

enum Bytes {
    Inline(Arc<Message>),
    Blob(sys::SealedBytes),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(message) => match &message.body {
                Body::Inline(bytes) => bytes,
                Body::Blob(..) => unreachable!("`read` has matched the body"),
            },
            Self::Blob(bytes) => bytes,
        }
    }
}

/// A message being read, value by value.
pub(crate) struct Reading {
    bytes: Bytes,
    position: usize,
    handles: Handles,
}

impl Reading {
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> Result<T, CodecError> {
        self.take_with(codec::decode)
    }

    pub(crate) fn take_with<T>(
        &mut self,
        decode: impl FnOnce(&mut &[u8]) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        let mut rest = &self.bytes[self.position..];
        let before = rest.len();
        let value = handles::providing(&mut self.handles, || decode(&mut rest))?;
        self.position += before - rest.len();
        Ok(value)
    }

    /// The end of the message must have been reached: bytes left over mean that it was not what its reader took it for.
    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.left() {
            0 => Ok(()),
            left => Err(WireError::Unexpected(format!("{left} bytes are left over"))),
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }
}
