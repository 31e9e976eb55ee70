//! The receiving end of a pipe, as users hold it.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bytemuck::Pod;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::inlet::Inlet;
use super::travel::TravellingEnd;
use crate::channel_error::{Patience, RecvError};
use crate::error::{Error, Result};
use crate::wire::{Unique, decode_parts};

/// The receiving end of a [`pipe`](crate::pipe()).
///
/// A *unique* handle, as [`Sender`](crate::Sender) is. What has arrived of a message goes along when it moves.
///
/// Dropping it closes it: `send` at the other end is [`Disconnected`](crate::SendError::Disconnected).
///
/// # Waiting for it
///
/// `as_fd` makes this end *watched*: from then on its descriptor is readable exactly when there is a message, or the beginning of a long one, or
/// the end; it is right for `poll`, epoll of either trigger, and runtimes; it is not to be read from. Watching costs two descriptors and, each time the
/// pipe runs empty, two system calls. [`wait`](crate::wait()) does this for you.
///
/// # If a peer dies
///
/// If the sender dies, whenever that is, this gets every message that was sent, whole and in order, and then the end. If a process dies
/// that holds this end, what it had not received is gone with it.
pub struct Receiver<T> {
    /// Boxed, as the sender's.
    end: Unique<Box<Inlet>>,
    /// What `as_fd` gives: readable when one of the two bells is, or when the writer's has hung up.
    watch: OnceCell<OwnedFd>,
    values: PhantomData<fn() -> T>,
}

impl<T> Receiver<T> {
    pub(super) fn new(inlet: Inlet) -> Self {
        Self {
            end: Unique::new(Box::new(inlet)),
            watch: OnceCell::new(),
            values: PhantomData,
        }
    }

    #[inline]
    fn inlet(&mut self) -> std::result::Result<&mut Inlet, RecvError> {
        self.end.get_mut().map(Box::as_mut).ok_or(RecvError::Moved)
    }

    /// Receives bytes that were sent with [`send_bytes`](crate::Sender::send_bytes), of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// - [`TooLong`](RecvError::TooLong): the message is longer. It stays.
    /// - [`WrongKind`](RecvError::WrongKind): the message is a value. It stays.
    /// - [`Disconnected`](RecvError::Disconnected): the end.
    /// - [`Moved`](RecvError::Moved), [`Broken`](RecvError::Broken), [`Io`](RecvError::Io).
    pub fn recv_bytes(&mut self, max: usize) -> std::result::Result<Vec<u8>, RecvError> {
        self.inlet()?.receive_bytes(max, Patience::FOREVER)
    }

    /// Receives bytes if they come in time.
    ///
    /// # Errors
    ///
    /// As [`recv_bytes`](Self::recv_bytes), and [`Timeout`](RecvError::Timeout).
    pub fn recv_bytes_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> std::result::Result<Vec<u8>, RecvError> {
        self.inlet()?.receive_bytes(max, Patience::of(timeout))
    }

    /// Receives bytes into `buffer`, as whatever plain numbers it consists of, and says how many *bytes* there were. What is
    /// behind them in the buffer stays as it was.
    ///
    /// The fastest way to receive much: the bytes are copied once.
    ///
    /// # Errors
    ///
    /// As [`recv_bytes`](Self::recv_bytes); a message that does not fit is in the error,
    /// [`TooShort`](RecvError::TooShort).
    pub fn recv_bytes_into<P: Pod>(
        &mut self,
        buffer: &mut [P],
    ) -> std::result::Result<usize, RecvError> {
        let buffer = bytemuck::cast_slice_mut(buffer);
        self.inlet()?.receive_into(buffer, Patience::FOREVER)
    }

    /// Receives bytes into `buffer` if they come in time. What has come of a message when the time is over is kept for the next
    /// call, though the buffer may have been written to.
    ///
    /// # Errors
    ///
    /// As [`recv_bytes_into`](Self::recv_bytes_into), and [`Timeout`](RecvError::Timeout).
    pub fn recv_bytes_into_timeout<P: Pod>(
        &mut self,
        buffer: &mut [P],
        timeout: Duration,
    ) -> std::result::Result<usize, RecvError> {
        let buffer = bytemuck::cast_slice_mut(buffer);
        self.inlet()?.receive_into(buffer, Patience::of(timeout))
    }

    /// Whether there is a message, or the end; waits up to `timeout` for it. Zero is a look.
    ///
    /// # Errors
    ///
    /// If this end was sent to another process, or the system refuses to wait.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        let patience = if timeout.is_zero() {
            Patience::None
        } else {
            Patience::of(timeout)
        };
        Ok(self.inlet()?.poll(patience)?)
    }

    /// What [`as_fd`](AsFd::as_fd) gives, where an error can be told.
    ///
    /// # Errors
    ///
    /// If there is no room for a descriptor, or this end was sent to another process.
    pub fn watch(&self) -> Result<BorrowedFd<'_>> {
        self.end.with(|_| ()).ok_or(RecvError::Moved)?;
        if let Some(watch) = self.watch.get() {
            return Ok(watch.as_fd());
        }
        let made: Option<io::Result<OwnedFd>> = self.end.with(|inlet| inlet.watch());
        let watch = made
            .ok_or(RecvError::Moved)?
            .map_err(|error| Error::io("a pipe cannot be watched", error))?;
        Ok(self.watch.get_or_init(|| watch).as_fd())
    }

    /// Closes this end, as dropping it does.
    pub fn close(self) {}
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Receives a value. Waits until one is there.
    ///
    /// # Errors
    ///
    /// - [`Disconnected`](RecvError::Disconnected): the end. Everything that was sent has been received.
    /// - [`Decode`](RecvError::Decode): a message is not a `T`. It is used up.
    /// - [`WrongKind`](RecvError::WrongKind): the message is bytes. It stays.
    /// - [`Moved`](RecvError::Moved), [`Broken`](RecvError::Broken), [`Io`](RecvError::Io).
    #[inline]
    pub fn recv(&mut self) -> std::result::Result<T, RecvError> {
        self.recv_within(Patience::FOREVER)
    }

    /// Receives a value if one is there.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`Empty`](RecvError::Empty).
    pub fn try_recv(&mut self) -> std::result::Result<T, RecvError> {
        self.recv_within(Patience::None)
    }

    /// Receives a value if one comes in time. What has come of a long message is kept for the next call.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`Timeout`](RecvError::Timeout).
    pub fn recv_timeout(&mut self, timeout: Duration) -> std::result::Result<T, RecvError> {
        self.recv_within(Patience::of(timeout))
    }

    #[inline]
    fn recv_within(&mut self, patience: Patience) -> std::result::Result<T, RecvError> {
        let inlet = self.inlet()?;
        inlet.receive(patience)?;
        let (bytes, handles) = inlet.encoding();
        let value = decode_parts(bytes, handles);
        inlet.forget_encoding();
        Ok(value?)
    }

    /// What is received, one after the other, until the end.
    pub fn iter(&mut self) -> Iter<'_, T> {
        Iter(self)
    }
}

/// What a pipe gives until its end. An error other than the end is an item.
#[derive(Debug)]
pub struct Iter<'a, T>(&'a mut Receiver<T>);

impl<T: DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = std::result::Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.recv() {
            Err(RecvError::Disconnected) => None,
            item => Some(item),
        }
    }
}

/// What a pipe gives until its end, by its owner.
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

impl<T: DeserializeOwned> Iterator for IntoIter<T> {
    type Item = std::result::Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.iter().next()
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a mut Receiver<T> {
    type Item = std::result::Result<T, RecvError>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: DeserializeOwned> IntoIterator for Receiver<T> {
    type Item = std::result::Result<T, RecvError>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

/// Makes the end *watched*, see [there](Receiver#waiting-for-it).
///
/// # Panics
///
/// Where [`watch`](Receiver::watch) gives an error.
impl<T> AsFd for Receiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.watch() {
            Ok(watch) => watch,
            Err(error) => panic!("{error}; `watch` gives this as an error"),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Some(inlet) = self.end.get_mut() {
            inlet.close();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.end.with(|_| ()) {
            Some(()) => "Receiver",
            None => "Receiver(moved)",
        })
    }
}

/// Moves the end into the message.
impl<T> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.end
            .serialize_with(serializer, |inlet| TravellingEnd::of_inlet(inlet))
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let inlet = TravellingEnd::deserialize(deserializer)?
            .into_inlet()
            .map_err(D::Error::custom)?;
        Ok(Self::new(inlet))
    }
}
