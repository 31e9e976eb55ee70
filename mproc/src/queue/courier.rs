//! How descriptors travel beside a queue's items.
//!
//! Items are in memory, which holds no descriptors; sockets do, but each holds few messages, and any process may be the one that
//! takes an item. So each process that puts items with descriptors packs them into a *crate*, a socket of its own with a
//! packet for each item, and hands the crate's other end in at the *office*, a socket that all holders have. The item says in
//! which crate its packet is, and under which number. Whoever takes an item fetches the crate it has not seen yet from the office.
//!
//! # If a process dies here
//!
//! Nothing is taken out before it is no longer needed. A consumer *looks* at the packet, which gives it descriptors of its own, then
//! takes the item, then throws the packet away: one that dies before it takes the item leaves both, and one that dies after that
//! leaves a packet with an old number, which the next one throws away. A crate is fetched by looking, too, and to reach the
//! one behind it, the first is handed in again before it is taken out; who dies in between leaves it there twice, which is
//! noticed by none. A producer that dies after packing and before its item is visible leaves a packet without an item,
//! in a crate that nobody packs any more. A crate whose maker packs another or is dead, and which is empty, is at its end, and thrown away by
//! whoever meets it.
//!
//! Only for more than 253 descriptors in one item is there a socket of its own, which is emptied while it is received: such an item
//! is lost with the consumer that was taking it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::words::CourierWords;
use crate::shm::atomic::Ordering;
use crate::sys::{self, MAX_DESCRIPTORS_PER_PACKET, Received};
use crate::wire::Handles;
use crate::wire::message::MAX_HANDLES;

/// As many items as go into one crate: a socket of the usual size holds about 270 packets.
const CRATE: u32 = 200;

/// As many crates as the office holds, with room to hand one in again.
const OFFICE: u64 = 200;

/// What an item's payload begins with if it has descriptors: crate and number.
pub(super) const LABEL: usize = 16;

/// Where to find the packet of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    crate_id: u64,
    number: u64,
}

impl Label {
    pub(super) fn to_bytes(self) -> [u8; LABEL] {
        let mut bytes = [0; LABEL];
        bytes[..8].copy_from_slice(&self.crate_id.to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (crate_id, rest) = bytes.split_first_chunk()?;
        let number = rest.first_chunk()?;
        Some(Self {
            crate_id: u64::from_le_bytes(*crate_id),
            number: u64::from_le_bytes(*number),
        })
    }
}

/// The socket that all holders have: one end to hand in, one to fetch.
pub(super) struct Office {
    pub(super) counter: Arc<OwnedFd>,
    pub(super) shelf: Arc<OwnedFd>,
}

impl Office {
    pub(super) fn new() -> io::Result<Self> {
        let (counter, shelf) = sys::seqpacket_pair()?;
        Ok(Self {
            counter: Arc::new(counter),
            shelf: Arc::new(shelf),
        })
    }
}

/// What a process keeps for putting: the crate that it packs.
#[derive(Default)]
pub(super) struct Packer {
    crate_id: u64,
    into: Option<OwnedFd>,
    packed: u32,
    number: u64,
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn too_many(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, text)
}

impl Packer {
    /// Packs the descriptors of one item. The caller has the producers' turn.
    pub(super) fn pack(
        &mut self,
        office: &Office,
        words: &CourierWords,
        handles: &[Arc<OwnedFd>],
    ) -> io::Result<Label> {
        if handles.len() > MAX_HANDLES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} descriptors in one message, which holds {MAX_HANDLES}",
                    handles.len()
                ),
            ));
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
        for attempt in 0..2 {
            let into = match &self.into {
                Some(into) if self.packed < CRATE && attempt == 0 => into,
                _ => self.begin(office, words)?,
            };
            match sys::send_packet(into.as_fd(), &[&bytes], &fds, false) {
                Ok(()) => {
                    self.packed += 1;
                    return Ok(Label {
                        crate_id: self.crate_id,
                        number: self.number,
                    });
                }
                // Its packets are larger than usual, or somebody else holds the crate's other end and closed it.
                Err(error) if attempt == 0 && error.raw_os_error() != Some(TOO_MANY_REFERENCES) => {
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the second attempt returns")
    }

    /// Begins another crate. Closing the last one is what tells that nothing more will be packed into it.
    fn begin(&mut self, office: &Office, words: &CourierWords) -> io::Result<&OwnedFd> {
        let made = words.made.load(Ordering::Relaxed);
        if made.saturating_sub(words.gone.load(Ordering::Relaxed)) >= OFFICE {
            return Err(too_many("too many messages with descriptors are unread"));
        }
        let (into, other) = sys::seqpacket_pair()?;
        let id = words.made.fetch_add(1, Ordering::Relaxed) + 1;
        sys::send_packet(
            office.counter.as_fd(),
            &[&id.to_le_bytes()],
            &[other.as_fd()],
            false,
        )?;
        self.crate_id = id;
        self.packed = 0;
        Ok(self.into.insert(into))
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

/// What a process keeps for taking: the crates it has seen.
#[derive(Default)]
pub(super) struct Fetcher {
    crates: Vec<(u64, OwnedFd)>,
}

/// As many crates as are kept open at a time.
const KEPT: usize = 64;

impl Fetcher {
    /// Looks at the descriptors of an item. They stay where they are until [`done`](Self::done).
    pub(super) fn look(
        &mut self,
        office: &Office,
        words: &CourierWords,
        label: Label,
        count: usize,
    ) -> io::Result<Handles> {
        let from = self.crate_of(office, words, label.crate_id)?;
        let mut packet = [0; 9];
        loop {
            let number = match sys::receive_bare(from, &mut packet, true)? {
                Received::Packet { length: 9 } => {
                    u64::from_le_bytes(*packet.first_chunk().expect("nine bytes"))
                }
                _ => return Err(invalid("descriptors are missing")),
            };
            if number > label.number {
                return Err(invalid(
                    "the descriptors of a message went with a process that was killed",
                ));
            }
            if number == label.number {
                break;
            }
            // Of an item whose taker died before it came to this.
            sys::receive_bare(from, &mut packet, false)?;
        }
        let mut arrived = Vec::new();
        sys::peek_packet(from, &mut packet, &mut arrived)?;
        if packet[8] != 0 {
            let [own] = <[OwnedFd; 1]>::try_from(arrived)
                .map_err(|_| invalid("descriptors are missing"))?;
            arrived = out_of_a_socket(own.as_fd(), count)?;
        }
        if arrived.len() != count {
            return Err(invalid("descriptors are missing"));
        }
        Ok(arrived.into_iter().map(Arc::new).collect())
    }

    /// Throws away the packet of an item that has been taken, and its crate if that was the last.
    pub(super) fn done(&mut self, office: &Office, words: &CourierWords, label: Label) {
        let Some(index) = self.crates.iter().position(|(id, _)| *id == label.crate_id) else {
            return;
        };
        let mut packet = [0; 9];
        let from = self.crates[index].1.as_fd();
        // OK to ignore errors: a packet that stays is thrown away by the next one.
        while let Ok(Received::Packet { .. }) = sys::receive_bare(from, &mut packet, true) {
            let number = u64::from_le_bytes(*packet.first_chunk().expect("nine bytes"));
            if number > label.number {
                break;
            }
            let _ = sys::receive_bare(from, &mut packet, false);
        }
        if is_at_end(from) {
            self.crates.swap_remove(index);
            // It is first in the office unless several processes pack; then those before it are handed in again.
            let _ = self.walk(office, words, |id, _| id == label.crate_id);
        }
    }

    fn crate_of(
        &mut self,
        office: &Office,
        words: &CourierWords,
        id: u64,
    ) -> io::Result<BorrowedFd<'_>> {
        let known = self.crates.iter().position(|(known, _)| *known == id);
        let index = match known {
            Some(index) => index,
            None => {
                let mut found = None;
                self.walk(office, words, |this, fd| {
                    if this == id
                        && let Some(fd) = fd.take()
                    {
                        found = Some(fd);
                        return true;
                    }
                    false
                })?;
                let found = found.ok_or_else(|| invalid("descriptors are missing"))?;
                if self.crates.len() >= KEPT {
                    self.crates.remove(0);
                }
                self.crates.push((id, found));
                self.crates.len() - 1
            }
        };
        Ok(self.crates[index].1.as_fd())
    }

    /// Goes through the office, once around at most, until `stop` says so of a crate, and throws away those at their end.
    fn walk(
        &mut self,
        office: &Office,
        words: &CourierWords,
        mut stop: impl FnMut(u64, &mut Option<OwnedFd>) -> bool,
    ) -> io::Result<()> {
        let mut first = None;
        for _ in 0..2 * OFFICE {
            let mut packet = [0; 8];
            let mut arrived = Vec::new();
            match sys::peek_packet(office.shelf.as_fd(), &mut packet, &mut arrived) {
                Ok(Received::Packet { length: 8 }) => {}
                Ok(_) => return Err(invalid("a crate that is none")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            let id = u64::from_le_bytes(packet);
            if first == Some(id) {
                return Ok(());
            }
            let mut fd = arrived.pop();
            let at_end = fd.as_ref().is_none_or(|fd| is_at_end(fd.as_fd()));
            if !at_end && stop(id, &mut fd) {
                return Ok(());
            }
            let mut stopped = false;
            if at_end {
                words.gone.fetch_add(1, Ordering::Relaxed);
                stopped = stop(id, &mut None);
            } else {
                first = first.or(Some(id));
                let Some(fd) = fd else { return Ok(()) };
                // Handed in again BEFORE it is taken out: whoever dies in between leaves it twice and not never.
                sys::send_packet(office.counter.as_fd(), &[&packet], &[fd.as_fd()], false)?;
            }
            sys::receive_bare(office.shelf.as_fd(), &mut packet, false)?;
            if stopped {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether a crate is empty and nobody packs it any more.
fn is_at_end(crate_end: BorrowedFd<'_>) -> bool {
    let mut packet = [0; 9];
    matches!(
        sys::receive_bare(crate_end, &mut packet, true),
        Ok(Received::End)
    )
}

fn out_of_a_socket(socket: BorrowedFd<'_>, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut arrived = Vec::new();
    while arrived.len() < count {
        match sys::receive_packet(socket, &mut [0; 8], &mut arrived, false)? {
            Received::Packet { .. } => {}
            Received::End => return Err(invalid("descriptors are missing")),
        }
    }
    Ok(arrived)
}
