//! Sleeping on words of shared memory, and being woken when a process dies.
//!
//! # Robust operations
//!
//! The kernel keeps for each thread a pointer to the list of robust locks that it holds, which libc registers, and in it the
//! word of an operation that is under way (`list_op_pending`). When a thread dies, however it does, the kernel looks at that
//! word: if its lower 30 bits are the thread's id, the thread held it as a lock, which is freed, marked, and one sleeper is
//! woken; if they are zero, one sleeper is woken, because the dead thread may have taken a wake-up with it. See the comment
//! in `handle_futex_death`, kernel/futex/core.c.
//!
//! [`Pending`] uses the second field alone; the list is for words that are held while code of users runs (see
//! [`perch`](super::perch)). It never links anything into libc's list, so it needs no room beside the word, and
//! nothing that another process writes is ever followed as a pointer. It covers one word at a time.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::named::{is_ending, start_of};
use super::poll::Deadline;

/// Part of a locked word: somebody sleeps on it. Kept set always, so that the kernel wakes somebody when the owner dies.
pub(crate) const WAITERS: u32 = libc::FUTEX_WAITERS;

/// Where a locked word holds the id of the owning thread.
pub(crate) const OWNER: u32 = libc::FUTEX_TID_MASK;

/// What the kernel puts into the word of a dead owner.
pub(crate) const OWNER_DIED: u32 = libc::FUTEX_OWNER_DIED;

/// Wakes up to `count` threads, of whatever process, that sleep on `word`. Returns how many.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
    // SAFETY: the kernel uses the address as a name only.
    let woken = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE,
            count.min(i32::MAX as u32),
        )
    };
    usize::try_from(woken).unwrap_or(0)
}

/// Why a sleep ended. Whatever it was, the sleeper looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// By somebody, a signal, or because a word had changed before the sleep began.
    Perhaps,
    /// The deadline has passed.
    TimedOut,
}

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// `FUTEX2_SIZE_U32`: a word of 32 bits, not private to this process.
const SIZE_32: u32 = 2;

/// As many words as [`wait_any`] takes: what the kernel does.
pub(crate) const MOST_WORDS: usize = 128;

/// As many as need no list on the heap.
const FEW_WORDS: usize = 4;

/// Sleeps until somebody wakes one of `words`, unless one of them has another value than expected by then.
pub(crate) fn wait_any(words: &[(&AtomicU32, u32)], deadline: Deadline) -> io::Result<Woken> {
    const EMPTY: Waiter = Waiter {
        value: 0,
        address: 0,
        flags: SIZE_32,
        reserved: 0,
    };
    let mut few = [EMPTY; FEW_WORDS];
    let mut many = Vec::new();
    let waiters = if words.len() <= FEW_WORDS {
        &mut few[..words.len()]
    } else {
        many.resize(words.len().min(MOST_WORDS), EMPTY);
        &mut many[..]
    };
    for (waiter, (word, expected)) in waiters.iter_mut().zip(words) {
        waiter.value = u64::from(*expected);
        waiter.address = word.as_ptr() as u64;
    }
    let remaining = deadline.remaining();
    if remaining == Some(Duration::ZERO) {
        return Ok(Woken::TimedOut);
    }
    let end = remaining.map(monotonic_in);
    let end = end.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `waiters` is as long as said and, like `end`, lives through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len() as libc::c_uint,
            0,
            end,
            libc::CLOCK_MONOTONIC,
        )
    };
    if result != -1 {
        return Ok(Woken::Perhaps);
    }
    match Errno::last() {
        Errno::EAGAIN | Errno::EINTR => Ok(Woken::Perhaps),
        Errno::ETIMEDOUT => Ok(Woken::TimedOut),
        Errno::ENOSYS | Errno::EPERM => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the system call futex_waitv (Linux 5.16) is not available, or a sandbox refuses it",
        )),
        error => Err(error.into()),
    }
}

fn monotonic_in(remaining: Duration) -> libc::timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let nanoseconds = now.tv_nsec as u64 + u64::from(remaining.subsec_nanos());
    let seconds = remaining.as_secs() + nanoseconds / 1_000_000_000;
    libc::timespec {
        tv_sec: now
            .tv_sec
            .saturating_add(libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX)),
        tv_nsec: (nanoseconds % 1_000_000_000) as _,
    }
}

/// `struct robust_list_head`.
#[repr(C)]
pub(super) struct RobustList {
    /// The first entry, or, if there is none, this head itself.
    pub(super) list: AtomicPtr<u8>,
    pub(super) futex_offset: libc::c_long,
    pending: AtomicPtr<u8>,
}

/// What a thread has to know of itself. Zeroes: nothing yet.
struct Known {
    epoch: Cell<u32>,
    thread: Cell<u32>,
    list: Cell<*const RobustList>,
}

/// The kernel's numbers of threads are below 2²² (`PID_MAX_LIMIT`, include/linux/threads.h).
const NUMBER_BITS: u32 = 22;

/// The number in an incarnation.
pub(super) fn number_in(incarnation: u64) -> u32 {
    incarnation as u32 & ((1 << NUMBER_BITS) - 1)
}

/// How many threads of this process have looked at themselves.
static INCARNATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Without a destructor, so that it is there to the thread's very end, and is read without a check.
    static KNOWN: Known = const {
        Known { epoch: Cell::new(0), thread: Cell::new(0), list: Cell::new(std::ptr::null()) }
    };
    /// Its number in the lower [`NUMBER_BITS`], and above it one that no other thread of this process gets, ever. Beside `KNOWN`, which is passed in registers.
    static INCARNATION: Cell<u64> = const { Cell::new(0) };
    /// See [`RobustThread::owner`].
    static OWNER_MARK: Cell<u64> = const { Cell::new(0) };
    /// How many words of ours are in the list.
    static LINKED: Cell<u32> = const { Cell::new(0) };
}

/// This thread, with its id and its robust list.
#[derive(Clone, Copy)]
pub(crate) struct RobustThread {
    epoch: u32,
    thread: u32,
    list: *const RobustList,
}

impl RobustThread {
    /// The calling thread.
    #[inline]
    pub(crate) fn current() -> io::Result<Self> {
        let epoch = KNOWN.with(|known| known.epoch.get());
        if epoch == 0 || epoch != epoch_now() {
            Self::look()?;
        }
        // Read after that, not given by it: so what a thread knows goes from its place to registers, and not by way of the stack.
        Ok(KNOWN.with(|known| Self {
            epoch: known.epoch.get(),
            thread: known.thread.get(),
            list: known.list.get(),
        }))
    }

    #[cold]
    fn look() -> io::Result<()> {
        let epoch = epoch()?;
        let list = match robust_list()? {
            list if list.is_null() => {
                register_robust_list();
                robust_list()?
            }
            list => list,
        };
        if list.is_null() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this thread has no list of robust locks: it was not made by libc",
            ));
        }
        // SAFETY: takes nothing and touches no memory.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
        let incarnation = INCARNATIONS.fetch_add(1, Ordering::Relaxed) + 1;
        INCARNATION.set(incarnation << NUMBER_BITS | u64::from(thread));
        OWNER_MARK.set(own_mark(epoch));
        KNOWN.with(|known| {
            known.list.set(list);
            known.thread.set(thread);
            known.epoch.set(epoch);
        });
        // In the child of a `fork`, what the parent had linked is not.
        LINKED.set(0);
        Ok(())
    }

    /// The id of the process.
    #[inline]
    pub(crate) fn process(self) -> u32 {
        self.epoch
    }

    /// The head of libc's list.
    #[inline]
    pub(super) fn list(self) -> &'static RobustList {
        // SAFETY: libc keeps the head of the list in memory of the thread, for as long as it runs.
        unsafe { &*self.list }
    }

    /// How many words of ours are in the list.
    #[inline]
    pub(super) fn linked(self) -> u32 {
        LINKED.get()
    }

    #[inline]
    pub(super) fn set_linked(self, linked: u32) {
        LINKED.set(linked);
    }

    /// The process, and in the lower half the moment of its start, as far as 32 bits go: what an owner leaves in a lock.
    #[inline]
    pub(crate) fn owner(self) -> u64 {
        OWNER_MARK.get()
    }

    /// What tells this thread from all others that this process has had, and in the child of a `fork` from those of its parent.
    #[inline]
    pub(super) fn incarnation(self) -> u64 {
        INCARNATION.get()
    }

    /// The kernel's number of this thread.
    #[inline]
    pub(crate) fn id(self) -> u32 {
        self.thread
    }

    /// Lets the kernel look after `word` if this thread dies before the value returned is dropped.
    #[inline]
    pub(crate) fn pending(self, word: &AtomicU32) -> Pending<'_> {
        let list = self.list();
        let entry = (word.as_ptr() as usize).wrapping_sub(list.futex_offset as usize);
        let before = list.pending.load(Ordering::Relaxed);
        // The kernel reads this when the thread dies, so what counts is the order of the thread's own instructions.
        list.pending.store(entry as *mut u8, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        Pending {
            list,
            before,
            word: PhantomData,
        }
    }
}

/// An operation under way, which the kernel completes if the thread dies.
pub(crate) struct Pending<'w> {
    list: &'static RobustList,
    before: *mut u8,
    word: PhantomData<(&'w AtomicU32, *mut ())>,
}

impl Drop for Pending<'_> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        self.list.pending.store(self.before, Ordering::Relaxed);
    }
}

/// A process, and in the lower half 32 bits of when it began; those are 0 if that cannot be found out.
fn own_mark(process: u32) -> u64 {
    static OWN: AtomicU64 = AtomicU64::new(0);
    let known = OWN.load(Ordering::Relaxed);
    if (known >> 32) as u32 == process {
        return known;
    }
    let start = start_of(process).ok().flatten().unwrap_or(0);
    let mark = u64::from(process) << 32 | u64::from(start as u32);
    OWN.store(mark, Ordering::Relaxed);
    mark
}

/// Whether the process that left this mark goes on, though a thread of it is dead.
///
/// The kernel frees a thread's locks while the process is still seen to run, so one that is on its way to its end has to be told from one
/// that goes on: it says so, but for the moment between taking notice of its end and beginning it. So one that seems to go on is looked at for a while.
///
/// One that executes another program goes on as well, though nothing that it had lent is left: from outside it is the same process.
pub(crate) fn goes_on(owner: u64) -> bool {
    let (process, start) = ((owner >> 32) as u32, owner as u32);
    if process == std::process::id() {
        return owner == own_mark(process);
    }
    if start == 0 {
        return false; // Not known.
    }
    let while_it_may_not_say = Deadline::after(Duration::from_millis(50));
    loop {
        let same = |found: Option<u64>| found.is_some_and(|found| found as u32 == start);
        if !start_of(process).is_ok_and(same) || is_ending(process) {
            return false;
        }
        if while_it_may_not_say.is_over() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn robust_list() -> io::Result<*const RobustList> {
    let mut list: *const RobustList = std::ptr::null();
    let mut length = 0_usize;
    // SAFETY: both places live through the call.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &mut list, &mut length) };
    Errno::result(result)?;
    if length != size_of::<RobustList>() {
        return Ok(std::ptr::null());
    }
    Ok(list)
}

/// musl registers a thread's list when the thread takes its first robust mutex.
fn register_robust_list() {
    // SAFETY: attribute and mutex are initialized before use, are not moved, and are used by this thread alone.
    unsafe {
        let mut attribute: libc::pthread_mutexattr_t = std::mem::zeroed();
        let mut mutex: libc::pthread_mutex_t = std::mem::zeroed();
        libc::pthread_mutexattr_init(&mut attribute);
        libc::pthread_mutexattr_setrobust(&mut attribute, libc::PTHREAD_MUTEX_ROBUST);
        libc::pthread_mutex_init(&mut mutex, &attribute);
        libc::pthread_mutex_lock(&mut mutex);
        libc::pthread_mutex_unlock(&mut mutex);
        libc::pthread_mutex_destroy(&mut mutex);
        libc::pthread_mutexattr_destroy(&mut attribute);
    }
}

/// A page that the kernel empties in the child of a `fork`: there, thread ids that were remembered are others'.
static EPOCH: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

#[inline]
fn epoch_word() -> Option<&'static AtomicU32> {
    // SAFETY: null, or a page mapped for good by `epoch`, used as this word only.
    unsafe { EPOCH.load(Ordering::Acquire).as_ref() }
}

#[inline]
fn epoch_now() -> u32 {
    epoch_word().map_or(0, |word| word.load(Ordering::Relaxed))
}

fn epoch() -> io::Result<u32> {
    if epoch_word().is_none() {
        // SAFETY: a new anonymous mapping disturbs nothing; the advice is about that page.
        let page = unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                super::shared::PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if page == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            if libc::madvise(page, super::shared::PAGE, libc::MADV_WIPEONFORK) == -1 {
                return Err(io::Error::last_os_error());
            }
            page
        };
        let set = EPOCH.compare_exchange(
            std::ptr::null_mut(),
            page.cast(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if set.is_err() {
            // SAFETY: ours, and another thread's page is in use.
            unsafe { libc::munmap(page, super::shared::PAGE) };
        }
    }
    let word = epoch_word().expect("set above");
    // The id of this process: another one in each fork.
    let own = std::process::id();
    let _ = word.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
    Ok(word.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_itself() {
        let here = RobustThread::current().unwrap();
        // A link to `<process>/task/<thread>`.
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        assert!(link.ends_with(here.id().to_string()), "{link:?}");
        let there = std::thread::spawn(|| RobustThread::current().unwrap().id());
        assert_ne!(there.join().unwrap(), here.id());
    }

    /// A thread that ends while it holds a word leaves it marked and free.
    #[test]
    fn the_kernel_looks_after_the_word_of_a_dead_thread() {
        let word: &'static AtomicU32 = Box::leak(Box::new(AtomicU32::new(0)));
        let id = std::thread::spawn(|| {
            let thread = RobustThread::current().unwrap();
            let pending = thread.pending(word);
            word.store(thread.id() | WAITERS, Ordering::SeqCst);
            std::mem::forget(pending);
            thread.id()
        })
        .join()
        .unwrap();
        assert_ne!(id, 0);
        // The kernel does it after the thread has told its joiner.
        while word.load(Ordering::SeqCst) & OWNER != 0 {
            std::thread::yield_now();
        }
        assert_eq!(
            word.load(Ordering::SeqCst),
            WAITERS | libc::FUTEX_OWNER_DIED
        );
    }
}
