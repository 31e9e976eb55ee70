//! Where the consumers of a queue find the crates of its producers.
//!
//! Any process may be the one that takes an item, so the [crates](crate::courier) of a queue are handed in at an *office*, a socket that
//! all holders have, and stay there as long as they are in use.
//!
//! # If a process dies here
//!
//! A crate is fetched by looking, like a packet. To reach the one behind it, the first is handed in again *before* it is taken out; who
//! dies in between leaves it there twice, which is noticed by none. A crate whose maker packs another or is dead, and which is empty, is at
//! its end, and thrown away by whoever meets it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::words::CourierWords;
use crate::courier::{self, Label, invalid, is_at_end};
use crate::shm::atomic::Ordering;
use crate::sys::{self, Received};
use crate::wire::Handles;

/// As many crates as the office holds, with room to hand one in again.
const OFFICE: u64 = 200;

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

impl CourierWords {
    /// The number of another crate, if there may be one.
    pub(super) fn next_crate(&self) -> io::Result<u64> {
        let made = self.made.load(Ordering::Relaxed);
        if made.saturating_sub(self.gone.load(Ordering::Relaxed)) >= OFFICE {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "too many messages with descriptors are unread",
            ));
        }
        Ok(self.made.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
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
        courier::look(from, label, count)
    }

    /// Throws away the packet of an item that has been taken, and its crate if that was the last.
    pub(super) fn done(&mut self, office: &Office, words: &CourierWords, label: Label) {
        let Some(index) = self.crates.iter().position(|(id, _)| *id == label.crate_id) else {
            return;
        };
        let from = self.crates[index].1.as_fd();
        courier::throw_away(from, label);
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
                // Those that were emptied before their maker was done with them are at their end by now.
                self.crates.retain(|(_, fd)| !is_at_end(fd.as_fd()));
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
