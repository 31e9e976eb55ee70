//! Where the consumers of a queue find the crates of its producers.
//!
//! Any process may be the one that takes an item, so the [crates](crate::courier) of a queue are handed in at an *office*, a socket that
//! all holders have, and stay there as long as they are in use.
//!
//! # If a process dies here
//!
//! A crate is found by looking, like a packet, at one after the other, and nothing is moved for that. A crate whose maker packs another or
//! is dead, and which is empty, is at its end, and thrown away when it is noticed. To reach the one behind others, those are handed in again,
//! each *before* it is taken out: who dies in between leaves it there twice, which the next to come this way mends.
//!
//! Packets whose items are not there any more are *litter*: one who died after packing, before its item was visible, left it, or
//! one who died after taking, before throwing away. What is in it is kept alive, which an end of a pipe or a queue shows to others. The
//! next taker of descriptors from that crate throws it away; and whoever finds the queue empty, and that more was packed than thrown away, [clears it
//! up](Office::clear_up).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::words::CourierWords;
use crate::courier::{self, Label, Packer, invalid, is_at_end};
use crate::shm::atomic::Ordering;
use crate::sys::{self, Received};
use crate::wire::Handles;

/// As many crates as the office holds, with room to hand some in again.
const OFFICE: u64 = 200;

/// The socket that all holders have: one end to hand in, one to fetch.
pub(super) struct Office {
    pub(super) counter: Arc<OwnedFd>,
    pub(super) shelf: Arc<OwnedFd>,
}

impl CourierWords {
    /// The number of another crate, if there may be one.
    fn next_crate(&self) -> io::Result<u64> {
        let made = self.made.load(Ordering::Relaxed);
        if made.saturating_sub(self.gone.load(Ordering::Relaxed)) >= OFFICE {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "too many messages with descriptors are unread",
            ));
        }
        Ok(self.made.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// Whether there may be packets of no item, when there are no items.
    #[inline]
    pub(super) fn has_litter(&self) -> bool {
        self.packed.load(Ordering::Relaxed) != self.thrown_away.load(Ordering::Relaxed)
    }
}

impl Office {
    pub(super) fn new() -> io::Result<Self> {
        let (counter, shelf) = sys::seqpacket_pair()?;
        Ok(Self {
            counter: Arc::new(counter),
            shelf: Arc::new(shelf),
        })
    }

    /// Packs the descriptors of an item. The caller has the producers' turn.
    pub(super) fn pack(
        &self,
        words: &CourierWords,
        packer: &mut Packer,
        handles: &[Arc<OwnedFd>],
    ) -> io::Result<Label> {
        // Counted BEFORE it is packed: who dies in between has left litter that is none, and not the other way round.
        words.packed.fetch_add(1, Ordering::Relaxed);
        let mut is_numbered = false;
        let label = packer.pack(
            self.counter.as_fd(),
            || {
                let id = words.next_crate()?;
                is_numbered = true;
                Ok(id)
            },
            handles,
        );
        if label.is_err() {
            words.packed.fetch_sub(1, Ordering::Relaxed);
            if is_numbered {
                words.gone.fetch_add(1, Ordering::Relaxed);
            }
        }
        label
    }

    /// Looks at the crates, in the order in which they stand there, until `stop` says so of one.
    ///
    /// Only for one process at a time: the socket remembers where it is looked at.
    fn each(&self, mut stop: impl FnMut(u64, OwnedFd) -> bool) -> io::Result<()> {
        sys::peek_from_the_first(self.shelf.as_fd())?;
        while let Some((id, fd)) = self.peek()? {
            if stop(id, fd) {
                break;
            }
        }
        Ok(())
    }

    fn peek(&self) -> io::Result<Option<(u64, OwnedFd)>> {
        let mut packet = [0; 8];
        let mut arrived = Vec::new();
        match sys::peek_packet(self.shelf.as_fd(), &mut packet, &mut arrived) {
            Ok(Received::Packet { length: 8 }) => {}
            Ok(_) => return Err(invalid("a crate that is none")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let fd = arrived.pop();
        let fd = fd.ok_or_else(|| invalid("a crate that is none"))?;
        Ok(Some((u64::from_le_bytes(packet), fd)))
    }

    /// Throws away the crates that are at their end, and those that stand there a second time.
    fn tidy(&self, words: &CourierWords) -> io::Result<()> {
        let made = words.made.load(Ordering::Relaxed);
        let mut crates: Vec<(u64, bool)> = Vec::new();
        self.each(|id, fd| {
            let is_useless = is_at_end(fd.as_fd()) || crates.iter().any(|known| known.0 == id);
            crates.push((id, is_useless));
            false
        })?;
        let mut left = crates.iter().filter(|(_, is_useless)| !is_useless).count() as u64;
        let behind_last = crates.iter().rposition(|(_, is_useless)| *is_useless);
        for (_, is_useless) in &crates[..behind_last.map_or(0, |last| last + 1)] {
            if !is_useless {
                sys::peek_from_the_first(self.shelf.as_fd())?;
                let Some((id, fd)) = self.peek()? else { break };
                // Handed in again BEFORE it is taken out: whoever dies in between leaves it twice and not never.
                let again = sys::send_packet(
                    self.counter.as_fd(),
                    &[&id.to_le_bytes()],
                    &[fd.as_fd()],
                    false,
                );
                if again.is_err() {
                    // Too many descriptors are under way; it goes another time.
                    left = crates.len() as u64;
                    break;
                }
            }
            sys::receive_bare(self.shelf.as_fd(), &mut [0; 8], false)?;
        }
        // Set, not counted: so whatever the dead have not counted does not add up. Crates that came meanwhile are among `left` and not in
        // `made`: too few are allowed then, until the next time.
        words
            .gone
            .store(made.saturating_sub(left), Ordering::Relaxed);
        Ok(())
    }

    /// Throws away all packets. For who has the producers' turn, when there is no item, and nobody in the consumers' turn.
    pub(super) fn clear_up(&self, words: &CourierWords) -> io::Result<()> {
        let packed = words.packed.load(Ordering::Relaxed);
        self.each(|_, fd| {
            courier::empty(fd.as_fd());
            false
        })?;
        words.thrown_away.store(packed, Ordering::Relaxed);
        self.tidy(words)
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
            // OK to ignore: it is thrown away another time.
            let _ = office.tidy(words);
        }
        words.thrown_away.fetch_add(1, Ordering::Relaxed);
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
                office.each(|this, fd| {
                    let is_it = this == id;
                    if is_it {
                        found = Some(fd);
                    }
                    is_it
                })?;
                let found = found.ok_or_else(|| invalid("descriptors are missing"))?;
                // Those that were emptied before their maker was done with them are at their end by now, and nobody else looks at them
                // again: they are thrown away here.
                let before = self.crates.len();
                self.crates.retain(|(_, fd)| !is_at_end(fd.as_fd()));
                if self.crates.len() < before {
                    // OK to ignore: as in `done`.
                    let _ = office.tidy(words);
                }
                if self.crates.len() >= KEPT {
                    self.crates.remove(0);
                }
                self.crates.push((id, found));
                self.crates.len() - 1
            }
        };
        Ok(self.crates[index].1.as_fd())
    }
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use std::fs::File;

    use super::*;

    const NULL: &str = "/dev/null";

    fn handle() -> Vec<Arc<OwnedFd>> {
        vec![Arc::new(File::open(NULL).unwrap().into())]
    }

    fn packed(office: &Office, words: &CourierWords, packer: &mut Packer) -> Label {
        office.pack(words, packer, &handle()).unwrap()
    }

    fn hand_in_again(office: &Office) {
        sys::peek_from_the_first(office.shelf.as_fd()).unwrap();
        let (id, fd) = office.peek().unwrap().unwrap();
        let (counter, bytes) = (office.counter.as_fd(), id.to_le_bytes());
        sys::send_packet(counter, &[&bytes], &[fd.as_fd()], false).unwrap();
    }

    fn ids(office: &Office) -> Vec<u64> {
        let mut ids = Vec::new();
        office
            .each(|id, _| {
                ids.push(id);
                false
            })
            .unwrap();
        ids
    }

    #[test]
    fn a_crate_that_stands_there_twice_hides_none() {
        let (office, words) = (Office::new().unwrap(), CourierWords::default());
        let (mut one, mut other) = (Packer::default(), Packer::default());
        packed(&office, &words, &mut one);
        hand_in_again(&office); // as one does that is then killed
        let label = packed(&office, &words, &mut other);
        let mut fetcher = Fetcher::default();
        assert_eq!(fetcher.look(&office, &words, label, 1).unwrap().len(), 1);
        office.tidy(&words).unwrap();
        assert_eq!(ids(&office), [2, 1]);
        assert_eq!(words.gone.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn crates_at_their_end_are_thrown_away_wherever_they_stand() {
        let (office, words) = (Office::new().unwrap(), CourierWords::default());
        let mut packers: [Packer; 4] = Default::default();
        let labels = packers
            .each_mut()
            .map(|packer| packed(&office, &words, packer));
        let [first, second, third, fourth] = packers;
        drop((second, fourth));
        let mut fetcher = Fetcher::default();
        for label in [labels[3], labels[1]] {
            fetcher.look(&office, &words, label, 1).unwrap();
            fetcher.done(&office, &words, label);
        }
        let mut left = ids(&office);
        left.sort_unstable();
        assert_eq!(left, [1, 3]);
        assert_eq!(words.gone.load(Ordering::Relaxed), 2);
        drop((first, third));
    }

    /// Taken one by one as they are put, each crate is empty before its maker is done with it.
    #[test]
    fn crates_that_were_emptied_early_are_thrown_away() {
        let (office, words) = (Office::new().unwrap(), CourierWords::default());
        let (mut packer, mut fetcher) = (Packer::default(), Fetcher::default());
        for _ in 0..3 * 200 * OFFICE {
            let label = packed(&office, &words, &mut packer);
            fetcher.look(&office, &words, label, 1).unwrap();
            fetcher.done(&office, &words, label);
        }
        assert!(ids(&office).len() <= 2, "{:?}", ids(&office));
    }

    #[test]
    fn litter_goes() {
        let (office, words) = (Office::new().unwrap(), CourierWords::default());
        let mut packer = Packer::default();
        let (inside, outside) = sys::seqpacket_pair().unwrap();
        let label = office
            .pack(&words, &mut packer, &[Arc::new(inside)])
            .unwrap();
        assert!(words.has_litter());
        // Whoever had taken it is killed here.
        office.clear_up(&words).unwrap();
        assert!(!words.has_litter());
        let end = sys::receive_bare(outside.as_fd(), &mut [0; 8], true);
        assert!(
            matches!(end, Ok(Received::End)),
            "what was in it is still open"
        );
        // The crate is used on.
        let next = packed(&office, &words, &mut packer);
        assert_eq!(next.crate_id, label.crate_id);
        assert_eq!(
            Fetcher::default()
                .look(&office, &words, next, 1)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn what_cannot_be_handed_in_uses_no_room_up() {
        let (office, words) = (Office::new().unwrap(), CourierWords::default());
        let closed = Office {
            counter: Arc::clone(&office.counter),
            shelf: Arc::clone(&office.counter),
        };
        drop(office);
        for _ in 0..2 * OFFICE {
            let error = closed
                .pack(&words, &mut Packer::default(), &handle())
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
        assert!(!words.has_litter());
    }
}
