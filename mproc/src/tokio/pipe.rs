//! Pipes whose receiving end is awaited.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ::tokio::io::unix::AsyncFd;
use bytemuck::Pod;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ready::{Look, found, look, register};
use crate::channel_error::{RecvError, SendError};
use crate::error::Result;
use crate::pipe;

/// The receiving end of a pipe, to be awaited.
///
/// Made by [`into_async`](crate::Receiver::into_async). It belongs to the runtime that it was made in. Dropping it closes the end.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (mut tx, rx) = mproc::pipe()?;
/// let mut rx = rx.into_async()?;
/// tx.send("hello".to_string())?;
/// assert_eq!(rx.recv().await?, "hello");
/// tx.close();
/// assert!(rx.next().await.is_none());
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Receiver<T> {
    ready: AsyncFd<OwnedFd>,
    end: pipe::Receiver<T>,
}

impl<T> pipe::Receiver<T> {
    /// Makes this end one that tasks await, and [watches](Self#waiting-for-it) it. What has come and was not received is still there.
    ///
    /// With the cargo feature `tokio`.
    ///
    /// # Errors
    ///
    /// If there is no room for a descriptor, or this end was sent to another process. It is closed then.
    ///
    /// # Panics
    ///
    /// [Outside a runtime](crate::tokio#panics).
    pub fn into_async(self) -> Result<Receiver<T>> {
        let ready = register(self.watch()?)?;
        Ok(Receiver { ready, end: self })
    }
}

impl<T> Receiver<T> {
    /// Receives bytes, of at most `max` bytes. See [`recv_bytes`](crate::Receiver::recv_bytes).
    ///
    /// A future that is dropped before it was ready has taken nothing.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv_bytes(&mut self, max: usize) -> std::result::Result<Vec<u8>, RecvError> {
        let Self { ready, end } = self;
        receive(ready, || {
            let answer = end.recv_bytes_timeout(max, Duration::ZERO);
            settled(answer, &*end)
        })
        .await
    }

    /// Receives bytes into `buffer` and says how many. See [`recv_bytes_into`](crate::Receiver::recv_bytes_into).
    ///
    /// A future that is dropped before it was ready has taken nothing, though the buffer may have been written to.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv_bytes_into<P: Pod>(
        &mut self,
        buffer: &mut [P],
    ) -> std::result::Result<usize, RecvError> {
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(buffer);
        let Self { ready, end } = self;
        receive(ready, || {
            let answer = end.recv_bytes_into_timeout(buffer, Duration::ZERO);
            settled(answer, &*end)
        })
        .await
    }

    /// The end for threads again, with all that has come and was not received.
    pub fn into_inner(self) -> pipe::Receiver<T> {
        self.end
    }

    /// Closes this end, as dropping it does.
    pub fn close(self) {}
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Receives a value. See [`recv`](crate::Receiver::recv).
    ///
    /// A future that is dropped before it was ready has taken nothing.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv(&mut self) -> std::result::Result<T, RecvError> {
        let Self { ready, end } = self;
        receive(ready, || {
            let answer = end.try_recv();
            settled(answer, &*end)
        })
        .await
    }

    /// Receives a value if one is there.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](crate::Receiver::try_recv).
    pub fn try_recv(&mut self) -> std::result::Result<T, RecvError> {
        self.end.try_recv()
    }

    /// The next value, `None` at the end. An error other than the end is an item.
    ///
    /// A future that is dropped before it was ready has taken nothing.
    pub async fn next(&mut self) -> Option<std::result::Result<T, RecvError>> {
        until_end(self.recv().await)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.end.fmt(f)
    }
}

/// One end of a duplex pipe, to be awaited for what comes.
///
/// Made by [`into_async`](crate::Connection::into_async). It belongs to the runtime that it was made in. Dropping it closes both
/// directions.
///
/// Sending is not awaited: it is done at once, unless the pipe is full.
///
/// # Examples
///
/// ```
/// use mproc::Connection;
///
/// #[mproc::entry]
/// fn measure(mut texts: Connection<usize, String>) -> Result<(), mproc::Failure> {
///     while let Ok(text) = texts.recv() {
///         texts.send(text.len())?;
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let (ours, theirs) = mproc::duplex()?;
/// let mut child = measure::spawn(theirs)?;
/// let mut ours = ours.into_async()?;
/// ours.send("hello".to_string())?;
/// assert_eq!(ours.recv().await?, 5);
/// ours.close();
/// child.join_async().await??;
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Connection<S, R> {
    ready: AsyncFd<OwnedFd>,
    end: pipe::Connection<S, R>,
}

impl<S, R> pipe::Connection<S, R> {
    /// Makes this end one that tasks await. See [`Receiver::into_async`](crate::Receiver::into_async).
    ///
    /// With the cargo feature `tokio`.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// [Outside a runtime](crate::tokio#panics).
    pub fn into_async(self) -> Result<Connection<S, R>> {
        let ready = register(self.watch()?)?;
        Ok(Connection { ready, end: self })
    }
}

impl<S, R> Connection<S, R> {
    /// The two directions, to be used by two tasks.
    pub fn split(self) -> (pipe::Sender<S>, Receiver<R>) {
        let Self { ready, end } = self;
        let (sender, end) = end.split();
        (sender, Receiver { ready, end })
    }

    /// See [`Receiver::recv_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv_bytes(&mut self, max: usize) -> std::result::Result<Vec<u8>, RecvError> {
        let Self { ready, end } = self;
        receive(ready, || {
            let answer = end.recv_bytes_timeout(max, Duration::ZERO);
            settled(answer, &*end)
        })
        .await
    }

    /// See [`Receiver::recv_bytes_into`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv_bytes_into<P: Pod>(
        &mut self,
        buffer: &mut [P],
    ) -> std::result::Result<usize, RecvError> {
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(buffer);
        let Self { ready, end } = self;
        receive(ready, || {
            let answer = end.recv_bytes_into_timeout(buffer, Duration::ZERO);
            settled(answer, &*end)
        })
        .await
    }

    /// Sends bytes, and blocks the thread while the pipe is full. See [`Sender::send_bytes`](crate::Sender::send_bytes).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::result::Result<(), SendError<()>> {
        self.end.send_bytes(bytes)
    }

    /// See [`Sender::try_send_bytes`](crate::Sender::try_send_bytes).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> std::result::Result<(), SendError<()>> {
        self.end.try_send_bytes(bytes)
    }

    /// The end for threads again, with all that has come and was not received.
    pub fn into_inner(self) -> pipe::Connection<S, R> {
        self.end
    }

    /// Closes both directions, as dropping it does.
    pub fn close(self) {}
}

impl<S: Serialize, R> Connection<S, R> {
    /// Sends a value, and blocks the thread while the pipe is full. See [`Sender::send`](crate::Sender::send).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send(&mut self, value: S) -> std::result::Result<(), SendError<S>> {
        self.end.send(value)
    }

    /// See [`Sender::try_send`](crate::Sender::try_send).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_send(&mut self, value: S) -> std::result::Result<(), SendError<S>> {
        self.end.try_send(value)
    }
}

impl<S, R: DeserializeOwned> Connection<S, R> {
    /// See [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn recv(&mut self) -> std::result::Result<R, RecvError> {
        let Self { ready, end } = self;
        receive(ready, || {
            let answer = end.try_recv();
            settled(answer, &*end)
        })
        .await
    }

    /// See [`Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_recv(&mut self) -> std::result::Result<R, RecvError> {
        self.end.try_recv()
    }

    /// See [`Receiver::next`].
    pub async fn next(&mut self) -> Option<std::result::Result<R, RecvError>> {
        until_end(self.recv().await)
    }
}

impl<S, R> fmt::Debug for Connection<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

type Received<T> = std::result::Result<T, RecvError>;

async fn receive<T>(
    ready: &AsyncFd<OwnedFd>,
    ask: impl FnMut() -> Look<Received<T>>,
) -> Received<T> {
    let lost = |error: io::Error| Err(RecvError::Io(error));
    found(ready, ask).await.unwrap_or_else(lost)
}

/// What a receive that does not wait says, and if that is nothing, what the descriptor does.
fn settled<T>(answer: Received<T>, end: impl AsFd) -> Look<Received<T>> {
    match answer {
        Err(RecvError::Empty | RecvError::Timeout) => look(None, end),
        answer => Look::Found(answer),
    }
}

fn until_end<T>(received: Received<T>) -> Option<Received<T>> {
    match received {
        Err(RecvError::Disconnected) => None,
        item => Some(item),
    }
}
