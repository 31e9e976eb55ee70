//! Descriptors as values: open files, sockets and listeners in arguments and results.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sys;
use crate::wire::handles::{self, OUTSIDE, Unclaimed};

/// An open file, socket, listener, or anything else that is a descriptor, as a value that travels to other processes.
///
/// It may stand anywhere in an argument or result: in structs, options, vectors, hundreds in one message. What arrives is
/// another descriptor of the *same* open file, as after `fork`: the file position and status flags are shared.
///
/// A clone is the same descriptor. The descriptor is closed when the last clone is gone; one that was given to a call is
/// gone here once the call is, so the reader of a pipe whose write end was sent to a child sees its end when the child closes it.
///
/// Serializing an `Fd` with anything but mproc is an error that says so: a number means nothing to another process.
///
/// # If a peer dies
///
/// The kernel closes its descriptors, also those that were still on their way to it.
///
/// # Examples
///
/// ```
/// use mproc::Fd;
/// use std::{fs::File, io::{Read, Write}};
///
/// #[mproc::entry]
/// fn write_to(file: Fd, text: &str) -> std::result::Result<(), mproc::Failure> {
///     Ok(file.into_inner::<File>()?.write_all(text.as_bytes())?)
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut reader, writer) = std::io::pipe()?;
/// write_to::spawn(Fd::from(std::os::fd::OwnedFd::from(writer)), "from the child")?.join()??;
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;                  // ends, because no writer is left
/// assert_eq!(text, "from the child");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Fd(Arc<OwnedFd>);

impl Fd {
    /// Takes the descriptor as whatever it is: `fd.into_inner::<File>()`, `TcpListener`, `UnixStream`, `OwnedFd`.
    ///
    /// Nothing checks that it *is* a listener: one that is not gives errors when it is used.
    ///
    /// # Errors
    ///
    /// If clones of this value exist, the descriptor has to be duplicated, for which there may be no room (`EMFILE`).
    pub fn into_inner<T: From<OwnedFd>>(self) -> io::Result<T> {
        match Arc::try_unwrap(self.0) {
            Ok(fd) => Ok(fd.into()),
            Err(shared) => Ok(sys::duplicate(shared.as_fd())?.into()),
        }
    }
}

impl Fd {
    pub(crate) fn shared(fd: Arc<OwnedFd>) -> Self {
        Self(fd)
    }

    pub(crate) fn into_shared(self) -> Arc<OwnedFd> {
        self.0
    }
}

impl<T: Into<OwnedFd>> From<T> for Fd {
    fn from(owner: T) -> Self {
        Self(Arc::new(owner.into()))
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fd").field(&self.0.as_raw_fd()).finish()
    }
}

impl Serialize for Fd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number =
            handles::attach(Arc::clone(&self.0)).ok_or_else(|| S::Error::custom(OUTSIDE))?;
        serializer.serialize_u32(number)
    }
}

impl<'de> Deserialize<'de> for Fd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match handles::claim(u32::deserialize(deserializer)?) {
            Ok(fd) => Ok(Self(fd)),
            Err(Unclaimed::OutsideMessage) => Err(D::Error::custom(OUTSIDE)),
            Err(Unclaimed::NoSuchHandle) => {
                Err(D::Error::custom("the message carries no such descriptor"))
            }
        }
    }
}
