//! Seats in shared memory, each held by a thread while code of users runs: a permit, a wait, a part in a barrier. The kernel marks the
//! seats of a thread that dies, so nobody waits for it.
//!
//! A file: a page of words of whoever uses this, then a page for each seat, because each has to be a [perch](crate::sys::Perch). Pages of
//! seats that were never used have no memory behind them. Who finds a seat for itself is alone in doing so: it has a lock of its user's.
//!
//! # State
//!
//! | word of a seat           | meaning            | changed by          | if that process dies here                      |
//! |--------------------------|--------------------|---------------------|------------------------------------------------|
//! | 0                        | free               | claim               | it stays free                                  |
//! | owner + WAITERS          | held               | vacate              | the kernel marks it, and wakes one who sleeps on it |
//! | WAITERS + OWNER_DIED     | its holder died    | clear               | it stays so                                    |
//!
//! `used` is how many seats from the first have memory; it grows before the seat behind it is claimed.
//!
//! A seat is linked BEFORE its word is stored and unlinked AFTER it was cleared: in between, the kernel finds a word that is not the
//! thread's, and leaves it alone. So no operation has to be pending for a seat, and whoever claims one may have its own word pending.

use std::io;
#[cfg(not(mproc_model))]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
#[cfg(not(mproc_model))]
use std::sync::OnceLock;

use crate::shm::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(mproc_model)]
use crate::shm::memory::{Memory, PageOfWords};
#[cfg(not(mproc_model))]
use crate::shm::memory::{Memory, PageOfWords, Segment};
#[cfg(not(mproc_model))]
use crate::sys::{self, PAGE, SharedMapping};
use crate::sys::{OWNER, OWNER_DIED, Perch, RobustThread, WAITERS};

/// How many seats there can be.
pub(crate) const SEATS: u32 = if cfg!(mproc_model) { 3 } else { 1024 };

/// What a user's words have for the roster.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct RosterWords {
    used: AtomicU32,
    /// How many seats all who sleep are known to look at, see [`Roster::claim`].
    listed: AtomicU32,
    #[cfg(mproc_model)]
    seats: [ModelSeat; SEATS as usize],
}

#[cfg(mproc_model)]
#[derive(Debug, Default)]
struct ModelSeat {
    seat: Seat,
    word: AtomicU32,
}

/// Words that have a roster behind them.
pub(crate) trait HasRoster: PageOfWords {
    fn roster(&self) -> &RosterWords;
}

/// What a seat says of its holder. What it means is its user's business.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Seat {
    pub(crate) count: AtomicU32,
    pub(crate) state: AtomicU32,
    /// Of the holder.
    pub(crate) process: AtomicU32,
    pub(crate) ticket: AtomicU64,
}

/// The file, as one process has it.
pub(crate) struct Roster<Words> {
    memory: Memory<Words>,
    #[cfg(not(mproc_model))]
    seats: SharedMapping,
    /// Of the seats that threads of this process have had.
    #[cfg(not(mproc_model))]
    perches: Box<[OnceLock<Perch>]>,
}

/// There is no seat left.
#[derive(Debug)]
pub(crate) enum Unseated {
    TooMany,
    Io(io::Error),
}

impl From<io::Error> for Unseated {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(not(mproc_model))]
impl<Words: HasRoster> Roster<Words> {
    const LENGTH: u64 = (1 + SEATS as u64) * PAGE as u64;

    pub(crate) fn create() -> io::Result<Self> {
        let file = sys::sparse_file(Self::LENGTH, PAGE as u64)?;
        Self::open(Arc::new(file))
    }

    /// A file that another process made.
    pub(crate) fn open(file: Arc<OwnedFd>) -> io::Result<Self> {
        if sys::shared_file_size(file.as_fd())? < Self::LENGTH {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "shared memory that is too short",
            ));
        }
        let length = SEATS as usize * PAGE;
        let seats = SharedMapping::new(file.as_fd(), PAGE as u64, length, true, false)?;
        Ok(Self {
            memory: Memory::open(file)?,
            seats,
            perches: (0..SEATS).map(|_| OnceLock::new()).collect(),
        })
    }

    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        self.memory.file()
    }

    fn page(&self, index: u32) -> std::ptr::NonNull<u8> {
        assert!(index < SEATS);
        // SAFETY: inside the mapping, as just compared.
        unsafe { self.seats.address().add(index as usize * PAGE) }
    }

    pub(crate) fn seat(&self, index: u32) -> &Seat {
        // SAFETY:
        // - mapped: `seats` lives as long as `self`, and the file, which `open` has measured, cannot shrink.
        // - inside: `page` has compared.
        // - bytes:  atomics, valid for any.
        // - others: they are atomics.
        unsafe { self.page(index).cast().as_ref() }
    }

    /// The robust word of a seat.
    pub(crate) fn word(&self, index: u32) -> &AtomicU32 {
        let place = sys::place_of_word();
        // SAFETY: as above; the place is inside the page and aligned, or no handle could be made.
        unsafe { self.page(index).add(place).cast().as_ref() }
    }

    /// The perch of a seat, mapped if need be, with memory behind it.
    fn perch(&self, index: u32) -> io::Result<&Perch> {
        if let Some(perch) = self.perches[index as usize].get() {
            return Ok(perch);
        }
        let page = Segment {
            first: 1 + index,
            pages: 1,
        };
        self.memory.allocate(page)?;
        let perch = Perch::new(self.memory.file().as_fd(), page.start())?;
        Ok(self.perches[index as usize].get_or_init(|| perch))
    }

    /// Whether the calling thread has linked it through this mapping.
    fn is_linked_by(&self, index: u32, thread: RobustThread) -> bool {
        self.perches[index as usize]
            .get()
            .is_some_and(|perch| perch.is_linked_by(thread))
    }
}

#[cfg(mproc_model)]
impl<Words: HasRoster> Roster<Words> {
    pub(crate) fn open(file: Arc<OwnedFd>) -> io::Result<Self> {
        Ok(Self {
            memory: Memory::open(file)?,
        })
    }

    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            memory: self.memory.elsewhere(),
        }
    }

    pub(crate) fn seat(&self, index: u32) -> &Seat {
        &self.words().roster().seats[index as usize].seat
    }

    pub(crate) fn word(&self, index: u32) -> &AtomicU32 {
        &self.words().roster().seats[index as usize].word
    }

    fn perch(&self, index: u32) -> io::Result<Perch> {
        Ok(Perch::of(self.word(index)))
    }

    fn is_linked_by(&self, _index: u32, _thread: RobustThread) -> bool {
        true
    }
}

impl<Words: HasRoster> Roster<Words> {
    #[inline]
    pub(crate) fn words(&self) -> &Words {
        self.memory.words()
    }

    /// How many seats there are to look at.
    pub(crate) fn used(&self) -> u32 {
        let used = &self.words().roster().used;
        used.load(Ordering::SeqCst).min(SEATS)
    }

    /// The value of a seat's word.
    pub(crate) fn state(&self, index: u32) -> u32 {
        self.word(index).load(Ordering::SeqCst)
    }

    pub(crate) fn is_held(&self, index: u32) -> bool {
        self.state(index) & OWNER != 0
    }

    /// Whether its holder died.
    pub(crate) fn is_dead(&self, index: u32) -> bool {
        self.state(index) & (OWNER | OWNER_DIED) == OWNER_DIED
    }

    /// The first seat of a dead holder.
    pub(crate) fn first_dead(&self) -> Option<u32> {
        (0..self.used()).find(|index| self.is_dead(*index))
    }

    /// The seat that the calling thread has.
    pub(crate) fn seat_of(&self, thread: RobustThread) -> Option<u32> {
        (0..self.used()).find(|index| self.is_held_by(*index, thread))
    }

    /// Whether the calling thread has this seat.
    pub(crate) fn is_held_by(&self, index: u32, thread: RobustThread) -> bool {
        self.state(index) & OWNER == thread.id() && self.is_linked_by(index, thread)
    }

    /// Finds a free seat for the calling thread and has `prepare` fill it in before it is its. Whoever sleeps on the words of seats has to begin anew
    /// when there are more: `listen_anew` wakes them all, before such a seat is taken.
    pub(crate) fn claim(
        &self,
        thread: RobustThread,
        listen_anew: impl FnOnce(),
        prepare: impl FnOnce(&Seat),
    ) -> Result<u32, Unseated> {
        thread.can_link().map_err(|_| Unseated::TooMany)?;
        let used = self.used();
        let index = (0..used)
            .find(|index| self.state(*index) == 0)
            .unwrap_or(used);
        if index >= SEATS {
            return Err(Unseated::TooMany);
        }
        let perch = self.perch(index)?;
        let words = self.words().roster();
        if index == used {
            words.used.store(used + 1, Ordering::SeqCst);
        }
        if index >= words.listed.load(Ordering::SeqCst) {
            listen_anew();
            // Only AFTER that: if this thread dies before, the next one wakes them.
            words.listed.store(index + 1, Ordering::SeqCst);
        }
        let seat = self.seat(index);
        seat.process.store(thread.process(), Ordering::Release);
        prepare(seat);
        #[cfg(not(mproc_model))]
        thread.link(perch).map_err(io::Error::from)?;
        #[cfg(mproc_model)]
        thread.link(&perch).map_err(io::Error::from)?;
        self.word(index)
            .store(thread.id() | WAITERS, Ordering::SeqCst);
        Ok(index)
    }

    /// The calling thread, which has the seat, leaves it.
    pub(crate) fn vacate(&self, thread: RobustThread, index: u32) {
        self.word(index).store(0, Ordering::SeqCst);
        #[cfg(not(mproc_model))]
        if let Some(perch) = self.perches[index as usize].get() {
            thread.unlink(perch);
        }
        #[cfg(mproc_model)]
        thread.unlink(&Perch::of(self.word(index)));
    }

    /// Frees the seat of a dead holder.
    pub(crate) fn clear(&self, index: u32) {
        self.word(index).store(0, Ordering::SeqCst);
    }
}
