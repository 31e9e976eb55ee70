//! The sending end of a pipe, as users hold it.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::outlet::{KEPT, Outlet};
use super::travel::TravellingEnd;
use super::words::kind;
use crate::channel_error::{EncodeError, Patience, SendError};
use crate::wire::{Unique, encode_parts};

/// The sending end of a [`pipe`](crate::pipe()).
///
/// A *unique* handle: there is one of it, and serializing it into an argument, a result or a message moves it there. Until that message
/// is sent, and if it never is, it comes back: a failed start, `send` or `put` hands back a value whose ends still work. Encoding an end
/// that has been sent is an error, and an entry cannot borrow one.
///
/// Dropping it closes it: the receiver gets what was sent, and then the end.
///
/// # If a peer dies
///
/// If the process that holds this end dies, whenever that is, the receiver gets every message whose `send` had returned, perhaps the
/// one being sent, whole, and then the end. If the receiver dies, `send` is [`Disconnected`](SendError::Disconnected), at the latest
/// when the pipe is full: what had been sent before may not have been received, as with any pipe.
///
/// If the receiver's process is stopped, `send` waits once the pipe is full; [`send_timeout`](Self::send_timeout) bounds that.
pub struct Sender<T> {
    /// Boxed, so that it is small where it goes: into enums, messages, and the errors that hand it back.
    end: Unique<Box<Outlet>>,
    values: PhantomData<fn(T)>,
}

impl<T> Sender<T> {
    pub(super) fn new(outlet: Outlet) -> Self {
        Self {
            end: Unique::new(Box::new(outlet)),
            values: PhantomData,
        }
    }

    /// Sends bytes as they are, without serializing them. The other side takes them with [`recv_bytes`](crate::Receiver::recv_bytes).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError<()>> {
        self.send_bytes_within(bytes, Patience::FOREVER)
    }

    /// Sends bytes if there is room for them now; see [`try_send`](Self::try_send).
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError<()>> {
        self.send_bytes_within(bytes, Patience::None)
    }

    /// Sends bytes if that can be done in time; see [`send_timeout`](Self::send_timeout).
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_bytes_timeout(
        &mut self,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<(), SendError<()>> {
        self.send_bytes_within(bytes, Patience::of(timeout))
    }

    fn send_bytes_within(&mut self, bytes: &[u8], patience: Patience) -> Result<(), SendError<()>> {
        let outlet = self.end.get_mut().ok_or(SendError::Moved(()))?;
        outlet
            .mouth
            .send(kind::BYTES, kind::LONG_BYTES, bytes, &[], patience)
            .map_err(|trouble| trouble.sending((), patience))
    }

    /// Closes this end, as dropping it does.
    pub fn close(self) {}
}

impl<T: Serialize> Sender<T> {
    /// Sends a value. Waits while the pipe is full.
    ///
    /// A message of more than 256 KiB goes through in parts, while the receiver takes them.
    ///
    /// # Errors
    ///
    /// Nothing has been sent, the receiver sees nothing of it, and the value is handed back:
    ///
    /// - [`Disconnected`](SendError::Disconnected): nobody is left to receive it.
    /// - [`Encode`](SendError::Encode): something in it cannot travel.
    /// - [`Moved`](SendError::Moved): this end was sent to another process.
    /// - [`Io`](SendError::Io): the system refused.
    #[inline]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.send_within(value, Patience::FOREVER)
    }

    /// Sends a value if there is room for all of it now.
    ///
    /// What is longer than the two megabytes that a pipe holds never fits; [`send_timeout`](Self::send_timeout) is for that.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Full`](SendError::Full).
    pub fn try_send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.send_within(value, Patience::None)
    }

    /// Sends a value if that can be done in time. A long message that could be sent in part only is taken back.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Timeout`](SendError::Timeout).
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.send_within(value, Patience::of(timeout))
    }

    #[inline]
    fn send_within(&mut self, value: T, patience: Patience) -> Result<(), SendError<T>> {
        let Some(outlet) = self.end.get_mut() else {
            return Err(SendError::Moved(value));
        };
        let Outlet { mouth, scratch } = &mut **outlet;
        scratch.clear();
        let attached = match encode_parts(&value, scratch) {
            Ok(attached) => attached,
            Err(error) => return Err(SendError::Encode(value, EncodeError(error))),
        };
        let handles = attached.handles();
        let sent = mouth.send(kind::VALUE, kind::LONG_VALUE, scratch, handles, patience);
        if scratch.capacity() > KEPT {
            *scratch = Vec::new();
        }
        match sent {
            Ok(()) => {
                attached.commit();
                Ok(())
            }
            Err(trouble) => {
                drop(attached);
                Err(trouble.sending(value, patience))
            }
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(outlet) = self.end.get_mut() {
            outlet.mouth.close();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.end.with(|_| ()) {
            Some(()) => "Sender",
            None => "Sender(moved)",
        })
    }
}

/// Moves the end into the message.
impl<T> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.end
            .serialize_with(serializer, |outlet| TravellingEnd::of_outlet(outlet))
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let outlet = TravellingEnd::deserialize(deserializer)?
            .into_outlet()
            .map_err(D::Error::custom)?;
        Ok(Self::new(outlet))
    }
}
