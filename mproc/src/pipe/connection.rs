//! Both directions in one value.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytemuck::Pod;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{IntoIter, Iter, Receiver, Sender};
use crate::channel_error::{RecvError, SendError};
use crate::error::Result;

/// One end of a [`duplex`](crate::duplex) pipe: sends `S` and receives `R`.
///
/// A *unique* handle, made of a [`Sender`] and a [`Receiver`], whose documentation says what happens when a peer dies, what its
/// errors are, and what waiting for its descriptor means. It is watched for receiving.
///
/// Two processes that each wait for room before they receive wait for each other, as with any pair of pipes.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Connection<S, R> {
    // Dropped first, so that whoever sees the end of what we sent finds nobody to receive, too.
    receiver: Receiver<R>,
    sender: Sender<S>,
}

impl<S, R> Connection<S, R> {
    pub(super) fn new(sender: Sender<S>, receiver: Receiver<R>) -> Self {
        Self { receiver, sender }
    }

    /// The two directions, to be used by two threads, or sent to two processes.
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        (self.sender, self.receiver)
    }

    /// See [`Sender::send_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::result::Result<(), SendError<()>> {
        self.sender.send_bytes(bytes)
    }

    /// See [`Sender::try_send_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> std::result::Result<(), SendError<()>> {
        self.sender.try_send_bytes(bytes)
    }

    /// See [`Sender::send_bytes_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_bytes_timeout(
        &mut self,
        bytes: &[u8],
        timeout: Duration,
    ) -> std::result::Result<(), SendError<()>> {
        self.sender.send_bytes_timeout(bytes, timeout)
    }

    /// See [`Receiver::recv_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_bytes(&mut self, max: usize) -> std::result::Result<Vec<u8>, RecvError> {
        self.receiver.recv_bytes(max)
    }

    /// See [`Receiver::recv_bytes_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_bytes_timeout(
        &mut self,
        max: usize,
        timeout: Duration,
    ) -> std::result::Result<Vec<u8>, RecvError> {
        self.receiver.recv_bytes_timeout(max, timeout)
    }

    /// See [`Receiver::recv_bytes_into`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_bytes_into<P: Pod>(
        &mut self,
        buffer: &mut [P],
    ) -> std::result::Result<usize, RecvError> {
        self.receiver.recv_bytes_into(buffer)
    }

    /// See [`Receiver::recv_bytes_into_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_bytes_into_timeout<P: Pod>(
        &mut self,
        buffer: &mut [P],
        timeout: Duration,
    ) -> std::result::Result<usize, RecvError> {
        self.receiver.recv_bytes_into_timeout(buffer, timeout)
    }

    /// See [`Receiver::poll`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        self.receiver.poll(timeout)
    }

    /// See [`Receiver::watch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn watch(&self) -> Result<BorrowedFd<'_>> {
        self.receiver.watch()
    }

    /// Closes both directions, as dropping it does.
    pub fn close(self) {}
}

impl<S: Serialize, R> Connection<S, R> {
    /// See [`Sender::send`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn send(&mut self, value: S) -> std::result::Result<(), SendError<S>> {
        self.sender.send(value)
    }

    /// See [`Sender::try_send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_send(&mut self, value: S) -> std::result::Result<(), SendError<S>> {
        self.sender.try_send(value)
    }

    /// See [`Sender::send_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_timeout(
        &mut self,
        value: S,
        timeout: Duration,
    ) -> std::result::Result<(), SendError<S>> {
        self.sender.send_timeout(value, timeout)
    }
}

impl<S, R: DeserializeOwned> Connection<S, R> {
    /// See [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn recv(&mut self) -> std::result::Result<R, RecvError> {
        self.receiver.recv()
    }

    /// See [`Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_recv(&mut self) -> std::result::Result<R, RecvError> {
        self.receiver.try_recv()
    }

    /// See [`Receiver::recv_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> std::result::Result<R, RecvError> {
        self.receiver.recv_timeout(timeout)
    }

    /// What is received, one after the other, until the end.
    pub fn iter(&mut self) -> Iter<'_, R> {
        self.receiver.iter()
    }
}

impl<'a, S, R: DeserializeOwned> IntoIterator for &'a mut Connection<S, R> {
    type Item = std::result::Result<R, RecvError>;
    type IntoIter = Iter<'a, R>;

    fn into_iter(self) -> Iter<'a, R> {
        self.iter()
    }
}

impl<S, R: DeserializeOwned> IntoIterator for Connection<S, R> {
    type Item = std::result::Result<R, RecvError>;
    type IntoIter = IntoIter<R>;

    /// What is received until the end. The sending direction is closed.
    fn into_iter(self) -> IntoIter<R> {
        self.receiver.into_iter()
    }
}

impl<S, R> fmt::Debug for Connection<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("sender", &self.sender)
            .field("receiver", &self.receiver)
            .finish()
    }
}

/// Makes the receiving side *watched*, see [there](Receiver#waiting-for-it).
///
/// # Panics
///
/// Where [`watch`](Self::watch) gives an error.
impl<S, R> AsFd for Connection<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}
