//! Words that a thread holds while code of users runs: in libc's list of robust locks, so that the kernel frees and marks them when
//! the thread dies.
//!
//! The kernel walks the list through the address space of the dying thread, and finds each word at one fixed distance from its
//! entry, which libc chose for its own mutexes. So an entry has to lie beside its word. If both were shared, whoever else has the memory
//! could write the entry, and make this process, or its kernel, follow addresses of his choice. But they only have to be *near*: a
//! [`Perch`] maps the shared page, and right behind it a private one, in such a way that the word is among the last bytes of the first,
//! and the entry among the first bytes of the second. Every process that maps the word has an entry of its own for it.
//!
//! ```text
//!          shared page (the file)                    private page
//! … ─────────────────┬────────┬──────────────║────────┬────────┬────────┬─ …
//!                    │  word  │ 20 or 24     ║  prev  │  next  │ linker │
//! … ─────────────────┴────────┴──────────────║────────┴────────┴────────┴─ …
//!                    └──── futex_offset (libc's: glibc 32, musl 28) ┘
//! ```
//!
//! Entries are doubly linked in the way of glibc and musl (both: `prev` right before `next`, links point at `next`), so that their own
//! robust mutexes may come and go among ours.
//!
//! # Invariants
//!
//! 1. An entry is in the list of at most one thread, its *linker*, and only that thread touches it. Whatever the shared word says: whoever
//!    has the memory may have made two threads believe that they hold it.
//! 2. `linker`, which is private, too, is 0 exactly while the entry is in no list; it may be left over from a thread that ended, or from before
//!    a `fork`. It names a thread by its incarnation, which no other thread gets; numbers of threads come again, and the entry of one that
//!    ended leads into memory that is gone.
//! 3. A perch whose entry is in a list is never unmapped: who drops it forgets it.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::time::Duration;

use nix::libc;

use super::futex::{RobustThread, number_in};
use super::poll::Deadline;
use super::shared::PAGE;

/// How many words a thread may have linked. The kernel looks at 2048 entries; libc is to have some, too.
pub(crate) const MOST_LINKED: u32 = 2000;

/// Behind so many bytes of the private page stands `next`; `prev` is before it.
const NEXT: usize = size_of::<usize>();

/// From an entry to its word, in libc's mutexes; compared with what libc has registered.
const DISTANCE: isize = if cfg!(target_env = "musl") { -28 } else { -32 };

/// Where in its page a word is.
pub(crate) const fn place_of_word() -> usize {
    ((PAGE + NEXT) as isize + DISTANCE) as usize
}

const _: () = assert!(place_of_word().is_multiple_of(4));
const _: () = assert!(NEXT <= 8);
const _: () = assert!(place_of_word() + size_of::<u32>() <= PAGE);
const _: () = assert!(place_of_word() >= PAGE - TAIL + 40);

/// The last bytes of the page, in which the word is, and in front of it room for 40 bytes.
pub(crate) const TAIL: usize = 64;

/// A shared page whose last bytes hold a word that can be linked, mapped together with the entry for it.
pub(crate) struct Perch {
    /// Of two pages.
    address: NonNull<u8>,
    word: NonNull<AtomicU32>,
}

// SAFETY: a mapping belongs to the process and not to a thread; what is in it are atomics.
unsafe impl Send for Perch {}
// SAFETY: as above.
unsafe impl Sync for Perch {}

/// The thread holds as many as it can.
#[derive(Debug)]
pub(crate) struct TooMany;

/// Another thread of this process has linked the word: somebody has changed shared memory who had no right to.
#[derive(Debug)]
pub(crate) struct Usurped;

impl From<Usurped> for io::Error {
    fn from(Usurped: Usurped) -> Self {
        Self::new(
            io::ErrorKind::InvalidData,
            "the shared memory of a lock was changed by somebody who does not hold it",
        )
    }
}

impl Perch {
    /// Maps the page of the file at `offset`. The caller has made sure that the file is long enough and cannot shrink.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: u64) -> io::Result<Self> {
        let distance = RobustThread::current()?.list().futex_offset as isize;
        if distance != DISTANCE {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the robust mutexes of this libc have an unknown shape",
            ));
        }
        let address = map(fd, offset)?;
        // SAFETY: inside the first of the two pages, and aligned.
        let word = unsafe { address.add(place_of_word()).cast() };
        Ok(Self { address, word })
    }

    /// The shared page.
    #[inline]
    pub(crate) fn page(&self) -> NonNull<u8> {
        self.address
    }

    /// The word.
    #[inline]
    pub(crate) fn word(&self) -> &AtomicU32 {
        // SAFETY: mapped as long as `self`, by `new`; any bytes are a valid value; others change it atomically.
        unsafe { self.word.as_ref() }
    }

    #[inline]
    fn prev(&self) -> &AtomicPtr<u8> {
        // SAFETY: the first bytes of the private page, zeroes at first, used as this alone.
        unsafe { self.address.add(PAGE).cast().as_ref() }
    }

    #[inline]
    fn next(&self) -> &AtomicPtr<u8> {
        // SAFETY: as above, the next ones.
        unsafe { self.address.add(PAGE + NEXT).cast().as_ref() }
    }

    #[inline]
    fn linker(&self) -> &AtomicU64 {
        // SAFETY: as above, what follows, aligned to eight bytes.
        unsafe { self.address.add(PAGE + 16).cast().as_ref() }
    }

    /// Whether a thread of this process has it in its list, or had it at its end.
    pub(crate) fn is_linked(&self) -> bool {
        self.linker().load(Ordering::Relaxed) != 0
    }

    /// Whether the calling thread has it in its list.
    #[inline]
    pub(crate) fn is_linked_by(&self, thread: RobustThread) -> bool {
        self.linker().load(Ordering::Relaxed) == thread.incarnation()
    }
}

fn map(fd: BorrowedFd<'_>, offset: u64) -> io::Result<NonNull<u8>> {
    use std::os::fd::AsRawFd;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, private to this process; then one in place of its first page,
    // which nobody knows yet.
    unsafe {
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let both = libc::mmap(null_mut(), 2 * PAGE, access, private, -1, 0);
        if both == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let shared = libc::MAP_SHARED | libc::MAP_FIXED;
        let first = libc::mmap(both, PAGE, access, shared, fd.as_raw_fd(), offset as i64);
        if first == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            libc::munmap(both, 2 * PAGE);
            return Err(error);
        }
        Ok(NonNull::new_unchecked(both.cast()))
    }
}

impl Drop for Perch {
    fn drop(&mut self) {
        if self.is_linked() {
            return; // invariant 3
        }
        // SAFETY: made by `map`; whoever used the addresses borrowed this value, and no list leads here (invariant 2).
        unsafe { libc::munmap(self.address.as_ptr().cast(), 2 * PAGE) };
    }
}

/// The link before or behind: entries of libc's may have a mark in the lowest bit, which says of what sort they are.
fn unmarked(link: *mut u8) -> *mut u8 {
    link.map_addr(|address| address & !1)
}

/// The `prev` of an entry.
///
/// # Safety
///
/// `entry` is in the list of the calling thread, and not its head.
unsafe fn prev_of<'e>(entry: *mut u8) -> &'e AtomicPtr<u8> {
    // SAFETY: both libc's and ours have it right before `next`.
    unsafe { &*entry.sub(size_of::<usize>()).cast() }
}

impl RobustThread {
    /// Fails if `link` would.
    #[inline]
    pub(crate) fn can_link(self) -> Result<(), TooMany> {
        if self.linked() < MOST_LINKED {
            Ok(())
        } else {
            Err(TooMany)
        }
    }

    /// Puts the word into the list of this thread, which is the calling one. From here on, if the thread dies while the word has its id, the
    /// kernel frees the word, marks it, and wakes one who sleeps on it.
    #[inline]
    pub(crate) fn link(self, perch: &Perch) -> Result<(), Usurped> {
        let linker = perch.linker();
        if let Err(other) =
            linker.compare_exchange(0, self.incarnation(), Ordering::Acquire, Ordering::Relaxed)
        {
            take_over(perch, other)?;
        }
        let list = self.list();
        let head = std::ptr::from_ref(list).cast_mut().cast::<u8>();
        let entry = std::ptr::from_ref(perch.next()).cast_mut().cast::<u8>();
        let first = list.list.load(Ordering::Relaxed);
        perch.next().store(first, Ordering::Relaxed);
        perch.prev().store(head, Ordering::Relaxed);
        // What the kernel finds when the thread dies is what its own instructions have stored, in their order.
        compiler_fence(Ordering::SeqCst);
        if unmarked(first) != head {
            // SAFETY: the head leads to entries of this thread's list.
            unsafe { prev_of(unmarked(first)) }.store(entry, Ordering::Relaxed);
        }
        list.list.store(entry, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.set_linked(self.linked() + 1);
        Ok(())
    }

    /// Takes the word out of the list, if this thread has put it there.
    #[inline]
    pub(crate) fn unlink(self, perch: &Perch) {
        if !perch.is_linked_by(self) {
            return;
        }
        let head = std::ptr::from_ref(self.list()).cast_mut().cast::<u8>();
        let next = perch.next().load(Ordering::Relaxed);
        let prev = perch.prev().load(Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: both are entries of this thread's list, or its head, whose first field is its `next`: private memory tells (see above), which
        // only the linker changes, and that we are (invariants 1 and 2).
        unsafe {
            if unmarked(next) != head {
                prev_of(unmarked(next)).store(prev, Ordering::Relaxed);
            }
            (*unmarked(prev).cast::<AtomicPtr<u8>>()).store(next, Ordering::Relaxed);
        }
        compiler_fence(Ordering::SeqCst);
        perch.linker().store(0, Ordering::Release);
        self.set_linked(self.linked().saturating_sub(1));
    }
}

/// Makes the calling thread the linker of an entry that has one. (It is asked for once more, because what is passed here would not stay in registers
/// where this is not called: 15 ns for each lock.)
#[cold]
fn take_over(perch: &Perch, other: u64) -> Result<(), Usurped> {
    let thread = RobustThread::current().map_err(|_| Usurped)?;
    if other == thread.incarnation() {
        // Left over from a hold that ended when the word was not ours any more.
        thread.unlink(perch);
    }
    let mut other = perch.linker().load(Ordering::Relaxed);
    // One that has just ended is there for a moment after the kernel has freed its words. One that has our number is not there.
    let patience = Deadline::after(Duration::from_secs(1));
    while other != 0 {
        let number = number_in(other);
        if number == thread.id() || !is_own_thread(number) {
            break;
        }
        if patience.is_over() {
            return Err(Usurped);
        }
        std::thread::yield_now();
        other = perch.linker().load(Ordering::Relaxed);
    }
    perch
        .linker()
        .compare_exchange(
            other,
            thread.incarnation(),
            Ordering::Acquire,
            Ordering::Relaxed,
        )
        .map(drop)
        .map_err(|_| Usurped)
}

/// Whether a thread of that number is one of this process.
pub(crate) fn is_own_thread(thread: u32) -> bool {
    // SAFETY: signal 0 does nothing but ask.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::shared_file;

    /// A thread ended with the entry in its list, and another has its number now: where the entry leads is followed no more.
    #[test]
    fn what_a_thread_of_the_same_number_left_is_not_followed() {
        let file = shared_file(PAGE as u64).unwrap();
        let perch = Perch::new(file.as_fd(), 0).unwrap();
        let thread = RobustThread::current().unwrap();
        let before = thread.linked();
        let nowhere = std::ptr::without_provenance_mut(0x10);
        perch.next().store(nowhere, Ordering::Relaxed);
        perch.prev().store(nowhere, Ordering::Relaxed);
        let left_over = thread.incarnation() ^ 1 << 40;
        assert_eq!(number_in(left_over), thread.id());
        perch.linker().store(left_over, Ordering::Relaxed);
        assert!(!perch.is_linked_by(thread));
        thread.unlink(&perch);
        thread.link(&perch).unwrap();
        assert!(perch.is_linked_by(thread));
        assert_eq!(thread.linked(), before + 1);
        thread.unlink(&perch);
        assert!(!perch.is_linked());
        assert_eq!(thread.linked(), before);
    }
}
