//! How descriptors travel beside messages that are in memory.
//!
//! Memory holds no descriptors; sockets do, but each holds few packets. So whoever sends messages with descriptors packs them
//! into a *crate*, a socket of its own with a packet for each message, and hands the crate's other end over, through a socket
//! that both sides have, when it begins it. The message says in which crate its packet is, and under which number.
//!
//! # If a process dies here
//!
//! A receiver *looks* at the packet, which gives it descriptors of its own, then takes the message, then throws the packet away: one that
//! dies before it takes the message leaves both, and one that dies after that leaves a packet with an old number, which the
//! next one throws away. A sender that dies after packing and before its message is visible leaves a packet without a message, in
//! a crate that nobody packs any more.
//!
//! For more than 253 descriptors in one message there is a socket of its own in the packet, and that is looked through in the same way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::{self, MAX_DESCRIPTORS_PER_PACKET, Received};
use crate::wire::Handles;
use crate::wire::message::MAX_HANDLES;

/// As many messages as go into one crate: a socket of the usual size holds about 270 packets.
const CRATE: u32 = 200;

/// What a message's payload begins with if it has descriptors: crate and number.
pub(crate) const LABEL: usize = 16;

/// Where to find the packet of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) crate_id: u64,
    number: u64,
}

impl Label {
    pub(crate) fn to_bytes(self) -> [u8; LABEL] {
        let mut bytes = [0; LABEL];
        bytes[..8].copy_from_slice(&self.crate_id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (crate_id, rest) = bytes.split_first_chunk()?;
        let number = rest.first_chunk()?;
        Some(Self {
            crate_id: u64::from_le_bytes(*crate_id),
            number: u64::from_le_bytes(*number),
        })
    }
}

pub(crate) fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// What a sender keeps: the crate that it packs.
#[derive(Default)]
pub(crate) struct Packer {
    crate_id: u64,
    into: Option<OwnedFd>,
    packed: u32,
    number: u64,
}

impl Packer {
    /// Packs the descriptors of one message. `next_id` gives the number of another crate, if there may be one, and `counter` is where
    /// its other end is handed over.
    pub(crate) fn pack(
        &mut self,
        counter: BorrowedFd<'_>,
        mut next_id: impl FnMut() -> io::Result<u64>,
        handles: &[Arc<OwnedFd>],
    ) -> io::Result<Label> {
        if handles.len() > MAX_HANDLES {
            let text = format!(
                "{} descriptors in one message, which holds {MAX_HANDLES}",
                handles.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let own;
        let (packet, fds): (u8, Vec<BorrowedFd<'_>>) =
            if handles.len() <= MAX_DESCRIPTORS_PER_PACKET {
                (0, handles.iter().map(|fd| fd.as_fd()).collect())
            } else {
                own = in_a_socket(handles)?;
                (1, vec![own.as_fd()])
            };
        self.number += 1;
        let mut bytes = [0; 9];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8] = packet;
        if self.packed < CRATE
            && let Some(into) = &self.into
        {
            match sys::send_packet(into.as_fd(), &[&bytes], &fds, false) {
                Ok(()) => {
                    self.packed += 1;
                    return Ok(self.label());
                }
                Err(error) if error.raw_os_error() == Some(TOO_MANY_REFERENCES) => {
                    return Err(error);
                }
                // Its packets are larger than usual, or nobody has its other end any more.
                Err(_) => {}
            }
        }
        let (into, other) = sys::seqpacket_pair()?;
        // Packed first and handed over then: one that cannot be packed is not seen by anybody.
        sys::send_packet(into.as_fd(), &[&bytes], &fds, false)?;
        let id = next_id()?;
        sys::send_packet(counter, &[&id.to_le_bytes()], &[other.as_fd()], false)?;
        // Closing the last one is what tells that nothing more will be packed into it.
        self.into = Some(into);
        self.crate_id = id;
        self.packed = 1;
        Ok(self.label())
    }

    fn label(&self) -> Label {
        Label {
            crate_id: self.crate_id,
            number: self.number,
        }
    }
}

/// ETOOMANYREFS: the kernel's limit of descriptors in flight.
const TOO_MANY_REFERENCES: i32 = 109;

/// Puts many descriptors into a socket, which is then one.
fn in_a_socket(handles: &[Arc<OwnedFd>]) -> io::Result<OwnedFd> {
    let (into, other) = sys::seqpacket_pair()?;
    for some in handles.chunks(MAX_DESCRIPTORS_PER_PACKET) {
        let some: Vec<_> = some.iter().map(|fd| fd.as_fd()).collect();
        sys::send_packet(into.as_fd(), &[&[0]], &some, false)?;
    }
    Ok(other)
}

/// Looks at them. They stay where they are, and go with the packet that the socket is in.
fn out_of_a_socket(socket: BorrowedFd<'_>, count: usize) -> io::Result<Vec<OwnedFd>> {
    sys::peek_from_the_first(socket)?;
    let mut arrived = Vec::new();
    while arrived.len() < count {
        match sys::peek_packet(socket, &mut [0; 8], &mut arrived) {
            Ok(Received::Packet { .. }) => {}
            Ok(Received::End) => return Err(invalid("descriptors are missing")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(invalid("descriptors are missing"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(arrived)
}

/// Looks at the descriptors of a message. They stay where they are until [`throw_away`].
pub(crate) fn look(from: BorrowedFd<'_>, label: Label, count: usize) -> io::Result<Handles> {
    let mut packet = [0; 9];
    loop {
        let number = match sys::receive_bare(from, &mut packet, true) {
            Ok(Received::Packet { length: 9 }) => {
                u64::from_le_bytes(*packet.first_chunk().expect("nine bytes"))
            }
            Ok(_) => return Err(invalid("descriptors are missing")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(invalid("descriptors are missing"));
            }
            Err(error) => return Err(error),
        };
        if number > label.number {
            return Err(invalid(
                "the descriptors of a message went with a process that was killed",
            ));
        }
        if number == label.number {
            break;
        }
        // Of a message that came to nothing, or whose taker died before it came to this.
        sys::receive_bare(from, &mut packet, false)?;
    }
    let mut arrived = Vec::new();
    sys::peek_packet(from, &mut packet, &mut arrived)?;
    if packet[8] != 0 {
        let [own] =
            <[OwnedFd; 1]>::try_from(arrived).map_err(|_| invalid("descriptors are missing"))?;
        arrived = out_of_a_socket(own.as_fd(), count)?;
    }
    if arrived.len() != count {
        return Err(invalid("descriptors are missing"));
    }
    Ok(arrived.into_iter().map(Arc::new).collect())
}

/// Throws away the packet of a message that has been taken.
pub(crate) fn throw_away(from: BorrowedFd<'_>, label: Label) {
    let mut packet = [0; 9];
    // OK to ignore errors: a packet that stays is thrown away by the next one.
    while let Ok(Received::Packet { .. }) = sys::receive_bare(from, &mut packet, true) {
        let number = u64::from_le_bytes(*packet.first_chunk().expect("nine bytes"));
        if number > label.number {
            break;
        }
        let _ = sys::receive_bare(from, &mut packet, false);
    }
}

/// Throws away all packets of a crate.
pub(crate) fn empty(crate_end: BorrowedFd<'_>) {
    let mut packet = [0; 9];
    while let Ok(Received::Packet { .. }) = sys::receive_bare(crate_end, &mut packet, false) {}
}

/// Whether a crate is empty and nobody packs it any more.
pub(crate) fn is_at_end(crate_end: BorrowedFd<'_>) -> bool {
    let mut packet = [0; 9];
    matches!(
        sys::receive_bare(crate_end, &mut packet, true),
        Ok(Received::End)
    )
}
