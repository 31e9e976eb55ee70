//! Blobs that are written once and sent anywhere without being copied.

use std::fmt;
use std::io::Write;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytemuck::Pod;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Fd;
use crate::error::{Error, Result};
use crate::sys::{self, PAGE, SealedBytes};

/// Bytes that never change, shared by all processes that have them.
///
/// A *shared* handle. Sending it takes the same time whatever its length: what travels is a descriptor of memory that is sealed
/// against every change, and what arrives is that memory, mapped and not copied; pages that nobody looks at cost nothing there. Shorter ones than a
/// page travel inside the message.
///
/// It derefs to `&[u8]`; [`as_slice_of`](Self::as_slice_of) looks at the bytes as numbers.
///
/// # If a peer dies
///
/// Nothing happens to the bytes. The memory goes with the last process that has it, and with the last unread message that carries it.
///
/// # Examples
///
/// ```
/// use mproc::SharedBytes;
///
/// #[mproc::entry]
/// fn count(text: &SharedBytes, letter: u8) -> usize {
///     text.iter().filter(|&&byte| byte == letter).count()
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let text = SharedBytes::new("banana ".repeat(10_000))?;
/// let counts = [count::spawn(&text, b'a')?, count::spawn(&text, b'n')?];
/// let [a, n] = counts.map(|child| child.join().unwrap());
/// assert_eq!((a, n), (30_000, 20_000));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedBytes(Place);

#[derive(Clone)]
enum Place {
    Here(Arc<[u8]>),
    Mapped(Arc<OwnedFd>, Arc<SealedBytes>),
}

impl SharedBytes {
    /// Copies the bytes, once.
    ///
    /// # Errors
    ///
    /// If there is no memory, no room for a descriptor, or a limit of file sizes (`RLIMIT_FSIZE`) is in the way.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        Self::write(bytes.len(), |to| to.write_all(bytes))
    }

    /// Copies numbers, as they are in memory.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_slice<T: Pod>(numbers: &[T]) -> Result<Self> {
        Self::new(bytemuck::cast_slice(numbers))
    }

    /// What `write` writes: about so many bytes, or more, or fewer.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and what `write` fails with.
    pub fn write(
        about: usize,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<Self> {
        let failed = |error| Error::io("shared bytes could not be made", error);
        if about < PAGE {
            let mut bytes = Vec::with_capacity(about);
            write(&mut bytes).map_err(failed)?;
            if bytes.len() < PAGE {
                return Ok(Self(Place::Here(bytes.into())));
            }
            return Self::new(bytes);
        }
        let mut memory = sys::Memfd::new().map_err(failed)?;
        let mut counted = Counted {
            to: &mut memory,
            length: 0,
        };
        write(&mut counted).map_err(failed)?;
        let length = counted.length;
        let fd = memory.seal().map_err(failed)?;
        let bytes = SealedBytes::map(fd.as_fd(), length).map_err(failed)?;
        Ok(Self(Place::Mapped(Arc::new(fd), Arc::new(bytes))))
    }

    /// The bytes as numbers: `None` if they are not a whole number of them. (In a message shorter than a page they may also not be
    /// aligned for them.)
    pub fn as_slice_of<T: Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self).ok()
    }
}

/// Counts what is written.
struct Counted<'w> {
    to: &'w mut sys::Memfd,
    length: usize,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.length += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Here(bytes) => bytes,
            Place::Mapped(_, bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len())
    }
}

#[derive(Serialize, Deserialize)]
enum Travelling {
    Here(#[serde(with = "plain")] Arc<[u8]>),
    Mapped(Fd, u64),
}

/// Bytes as bytes, and not as numbers one by one.
mod plain {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[u8]>, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Arc<[u8]>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(bytes.into())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl Serialize for SharedBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Place::Here(bytes) => Travelling::Here(Arc::clone(bytes)),
            Place::Mapped(fd, bytes) => {
                Travelling::Mapped(Fd::shared(Arc::clone(fd)), bytes.len() as u64)
            }
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Travelling::deserialize(deserializer)? {
            Travelling::Here(bytes) => Place::Here(bytes),
            Travelling::Mapped(fd, length) => {
                let length = usize::try_from(length).map_err(D::Error::custom)?;
                let fd = fd.into_shared();
                let bytes = SealedBytes::map(fd.as_fd(), length).map_err(D::Error::custom)?;
                Place::Mapped(fd, Arc::new(bytes))
            }
        }))
    }
}
