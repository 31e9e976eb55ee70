//! A lock that is held while code of users runs: what [`Lock`](crate::Lock), [`RLock`](crate::RLock) and everything that is guarded by
//! one have in common.
//!
//! A page of shared memory with a [robust word](Robust) in its last bytes. Without contention, taking it is one compare-exchange and
//! freeing it one exchange; beside them stand some stores into memory that no other process has.
//!
//! # State
//!
//! | words                    | meaning                              | changed by            | if that process dies here                                |
//! |--------------------------|--------------------------------------|-----------------------|----------------------------------------------------------|
//! | word 0                   | free                                 | acquire               | the kernel wakes one sleeper (pending)                   |
//! | word owner + WAITERS     | held                                 | release               | the kernel frees and marks it, and wakes one sleeper     |
//! | word WAITERS + OWNER_DIED | free; its owner died with it        | acquire, which is told | as for 0: the mark stays                                |
//! | `depth`                  | how often the owner holds it, less 1 | the owner             | whoever is told begins at 0                              |
//! | `process`                | of the owner; 0: free, or about to be | the owner            | whoever is told reads it first                           |
//! | `inconsistent`           | an owner died, and nobody has said that the data are right again | the owner | it stays                  |
//! | `guards_data`            | `inconsistent` is to be kept         | anybody, once         | –                                                        |
//!
//! # Dying
//!
//! From before the compare-exchange until the word is in the thread's [list](crate::sys::Perch), and from before it leaves the list until
//! a sleeper was woken, the word is *pending*; in between the list covers it. So the kernel knows of it at every instruction, and does what
//! [`robust`](super::robust) argues for pending words. `inconsistent` is set after the word was taken from the dead, and before anybody is
//! told: who dies before that leaves the mark in the word.
//!
//! # Ordering
//!
//! *held*: taking the word is SeqCst, and so is freeing it, so what was written under the lock is seen under it. The kernel frees with a
//! full barrier. All other words are read and written under the lock, or are read as hints.

#[cfg(not(mproc_model))]
use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;
#[cfg(not(mproc_model))]
use std::os::fd::{AsFd, OwnedFd};
#[cfg(not(mproc_model))]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::bell::Bell;
use super::robust::{OwnerDied, Robust};
use crate::shm::atomic::{AtomicU32, AtomicU64, Ordering, word};
#[cfg(mproc_model)]
use crate::shm::memory::{Memory, PageOfWords};
use crate::sys::{self, Deadline, OWNER, Perch, RobustThread, TooMany, Woken};
#[cfg(not(mproc_model))]
use crate::sys::{PAGE, TAIL};

/// In front of the word, on the same cache line: whoever has the word has these.
#[repr(C)]
#[derive(Debug, Default)]
struct LockWords {
    bell: Bell,
    /// Of the owner: its process, and in the lower half when that began.
    process: AtomicU64,
    depth: AtomicU32,
    inconsistent: AtomicU32,
    guards_data: AtomicU32,
    recursive: AtomicU32,
    sound: AtomicU32,
    /// In which the numbers of threads are those of threads.
    namespace: AtomicU32,
}

/// `inconsistent` if nobody knows by whom.
const UNKNOWN: u32 = u32::MAX;

/// What a page has to say to be taken for a lock.
#[cfg(not(mproc_model))]
const SOUND: u32 = 0x6d4c_4f43;

#[cfg(not(mproc_model))]
const _: () = assert!(size_of::<LockWords>() <= 40);

/// The lock, as one process has it.
pub(crate) struct LockCore {
    #[cfg(not(mproc_model))]
    file: Arc<OwnedFd>,
    #[cfg(mproc_model)]
    memory: Memory<ModelPage>,
    perch: ManuallyDrop<Perch>,
}

/// What a model has in place of the page.
#[cfg(mproc_model)]
#[derive(Debug, Default)]
pub(crate) struct ModelPage {
    words: LockWords,
    word: AtomicU32,
}

// SAFETY: atomics only; a model makes its words.
#[cfg(mproc_model)]
unsafe impl PageOfWords for ModelPage {}

/// How it was acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acquired {
    Clean,
    /// From a dead owner, or after one whose data nobody has mended. The process, as far as it is known.
    OwnerDied(u32),
}

/// Why it was not.
#[derive(Debug)]
pub(crate) enum NotAcquired {
    WouldBlock,
    TimedOut,
    /// The calling thread holds it, and would wait for itself.
    Deadlock,
    TooMany,
    /// The thread that held it has ended, and its process goes on: so the guard was forgotten, and perhaps what it lends is still used there.
    Leaked(u32),
    Io(io::Error),
}

impl From<io::Error> for NotAcquired {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TooMany> for NotAcquired {
    fn from(TooMany: TooMany) -> Self {
        Self::TooMany
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    None,
    Until(Deadline),
}

impl Patience {
    pub(crate) const FOREVER: Self = Self::Until(Deadline::NEVER);

    pub(crate) fn of(timeout: std::time::Duration) -> Self {
        Self::Until(Deadline::after(timeout))
    }
}

#[cfg(not(mproc_model))]
fn not_a_lock() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "shared memory without a lock")
}

/// The locks that this process has sent or received, by their files. While it has one, no other file has its number.
#[cfg(not(mproc_model))]
struct Known {
    locks: BTreeMap<(u64, u64), Weak<LockCore>>,
    /// Those whose guards were forgotten, and then their handles dropped. If one comes back, it is to be the same: a thread that holds it
    /// would wait for itself otherwise.
    kept: BTreeMap<(u64, u64), Arc<LockCore>>,
    /// Above so many, the ones that are gone are thrown away.
    many: usize,
}

#[cfg(not(mproc_model))]
static KNOWN: Mutex<Known> = Mutex::new(Known {
    locks: BTreeMap::new(),
    kept: BTreeMap::new(),
    many: 16,
});

#[cfg(not(mproc_model))]
fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(mproc_model))]
impl Known {
    fn get(&self, identity: &(u64, u64)) -> Option<&Weak<LockCore>> {
        self.locks.get(identity)
    }

    fn insert(&mut self, identity: (u64, u64), core: &Arc<LockCore>) {
        if self.locks.len() >= self.many {
            self.locks.retain(|_, lock| lock.strong_count() > 0);
            self.many = (2 * self.locks.len()).max(16);
        }
        self.locks.insert(identity, Arc::downgrade(core));
    }
}

#[cfg(not(mproc_model))]
impl LockCore {
    /// A new lock, in a file that has room for `room` more bytes behind the lock's page.
    pub(crate) fn create(recursive: bool, guards_data: bool, room: u64) -> io::Result<Self> {
        let file = sys::shared_file(PAGE as u64 + room)?;
        Self::make(Arc::new(file), recursive, guards_data)
    }

    /// A new lock at the beginning of a file of zeroes, which this process may come to know once more, by its name.
    pub(crate) fn create_in(file: Arc<OwnedFd>) -> io::Result<Arc<Self>> {
        let core = Arc::new(Self::make(file, false, false)?);
        core.file_to_send()?;
        Ok(core)
    }

    fn make(file: Arc<OwnedFd>, recursive: bool, guards_data: bool) -> io::Result<Self> {
        let core = Self::map(file)?;
        let words = core.words();
        words
            .recursive
            .store(u32::from(recursive), Ordering::Relaxed);
        words
            .guards_data
            .store(u32::from(guards_data), Ordering::Relaxed);
        words
            .namespace
            .store(sys::number_space(), Ordering::Relaxed);
        words.sound.store(SOUND, Ordering::Release);
        Ok(core)
    }

    /// The lock of a file that arrived in a message. If this process has it already, it is that: a thread that holds it through one handle
    /// holds it through all.
    pub(crate) fn open(file: Arc<OwnedFd>) -> io::Result<Arc<Self>> {
        let size = sys::shared_file_size(file.as_fd())?;
        Self::open_of(file, size)
    }

    /// As above, of a file that has a name.
    pub(crate) fn open_named(file: Arc<OwnedFd>) -> io::Result<Arc<Self>> {
        let size = sys::steady_file_size(file.as_fd(), true)?;
        Self::open_of(file, size)
    }

    fn open_of(file: Arc<OwnedFd>, size: u64) -> io::Result<Arc<Self>> {
        if size < PAGE as u64 {
            return Err(not_a_lock());
        }
        let identity = sys::file_identity(file.as_fd())?;
        let mut known = known();
        if let Some(core) = known.kept.get(&identity) {
            return Ok(Arc::clone(core));
        }
        if let Some(core) = known.get(&identity).and_then(Weak::upgrade) {
            return Ok(core);
        }
        let core = Arc::new(Self::map(file)?);
        if core.words().sound.load(Ordering::Acquire) != SOUND {
            return Err(not_a_lock());
        }
        // 0: it could not be found out, here or there.
        let (its, ours) = (
            core.words().namespace.load(Ordering::Relaxed),
            sys::number_space(),
        );
        if its != 0 && ours != 0 && its != ours {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the lock is of processes in another PID namespace (another container): threads there have the numbers of threads here",
            ));
        }
        known.insert(identity, &core);
        Ok(core)
    }

    /// The file: what another process needs. From here on it may come back, and is then known.
    pub(crate) fn file_to_send(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        let identity = sys::file_identity(self.file.as_fd())?;
        known().insert(identity, self);
        Ok(Arc::clone(&self.file))
    }

    fn map(file: Arc<OwnedFd>) -> io::Result<Self> {
        let perch = ManuallyDrop::new(Perch::new(file.as_fd(), 0)?);
        Ok(Self { file, perch })
    }

    /// The file, with whatever stands behind the lock's page.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Whether both are one lock. A process has each once.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    #[inline]
    fn state(&self) -> &AtomicU32 {
        self.perch.word()
    }

    #[inline]
    fn words(&self) -> &LockWords {
        // SAFETY:
        // - mapped: the perch lives as long as `self`; the file is at least a page long and cannot shrink.
        // - inside: `TAIL` bytes before the page's end, of which the word has the last; see the assertion above.
        // - bytes:  atomics, valid for any.
        // - others: they are atomics.
        unsafe { self.perch.page().add(PAGE - TAIL).cast().as_ref() }
    }
}

#[cfg(not(mproc_model))]
impl Drop for LockCore {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let perch = unsafe { ManuallyDrop::take(&mut self.perch) };
        if !perch.is_linked() {
            return;
        }
        let Ok(identity) = sys::file_identity(self.file.as_fd()) else {
            return; // It stays mapped, see `Perch`.
        };
        let kept = Arc::new(Self {
            file: Arc::clone(&self.file),
            perch: ManuallyDrop::new(perch),
        });
        // The lock of `known` is free: nothing that may be held is dropped under it.
        let before = known().kept.insert(identity, kept);
        drop(before);
    }
}

#[cfg(mproc_model)]
impl LockCore {
    /// A new lock.
    pub(crate) fn over(memory: Memory<ModelPage>, guards_data: bool) -> Self {
        let perch = ManuallyDrop::new(Perch::of(&memory.words().word));
        let core = Self { memory, perch };
        if guards_data {
            core.set_guards_data();
        }
        core
    }

    /// The same, as another process of a model has it.
    pub(crate) fn elsewhere(&self) -> Self {
        let memory = self.memory.elsewhere();
        let perch = ManuallyDrop::new(Perch::of(&memory.words().word));
        Self { memory, perch }
    }

    pub(crate) fn state(&self) -> &AtomicU32 {
        &self.memory.words().word
    }

    fn words(&self) -> &LockWords {
        &self.memory.words().words
    }
}

impl LockCore {
    #[inline]
    fn robust(&self) -> Robust<'_> {
        Robust {
            state: self.state(),
            bell: &self.words().bell,
        }
    }

    /// Whether this thread may acquire it again while it holds it.
    pub(crate) fn is_recursive(&self) -> bool {
        self.words().recursive.load(Ordering::Relaxed) != 0
    }

    /// From here on a death leaves it inconsistent until somebody says otherwise.
    pub(crate) fn set_guards_data(&self) {
        self.words().guards_data.store(1, Ordering::SeqCst);
    }

    /// The thread that holds it; 0: nobody.
    #[inline]
    pub(crate) fn owner(&self) -> u32 {
        self.state().load(Ordering::SeqCst) & OWNER
    }

    /// Whether the calling thread holds it.
    #[inline]
    pub(crate) fn is_mine(&self) -> bool {
        RobustThread::current().is_ok_and(|thread| self.owner() == thread.id())
    }

    /// How often its owner holds it. A hint unless that is the calling thread.
    pub(crate) fn levels(&self) -> u32 {
        match self.owner() {
            0 => 0,
            _ => self.words().depth.load(Ordering::Relaxed).saturating_add(1),
        }
    }

    /// Takes it.
    #[inline]
    pub(crate) fn acquire(&self, patience: Patience) -> Result<Acquired, NotAcquired> {
        let thread = RobustThread::current()?;
        // Asked of private memory, not of the word, which others may be writing.
        if self.perch.is_linked_by(thread) {
            return self.acquire_again(patience);
        }
        thread.can_link()?;
        let pending = thread.pending(word(self.state()));
        let robust = self.robust();
        let died = if robust.take_at_once(thread.id()) {
            OwnerDied(false)
        } else {
            match robust.try_take(thread.id()) {
                Some(died) => died,
                None => self.wait(thread.id(), patience)?,
            }
        };
        if let Err(usurped) = thread.link(&self.perch) {
            self.robust().free();
            return Err(NotAcquired::Io(usurped.into()));
        }
        drop(pending);
        let words = self.words();
        if died == OwnerDied(false) && words.inconsistent.load(Ordering::Relaxed) == 0 {
            words.process.store(thread.owner(), Ordering::Relaxed);
            return Ok(Acquired::Clean);
        }
        self.taken_from_the_dead(died)
    }

    #[cold]
    fn taken_from_the_dead(&self, died: OwnerDied) -> Result<Acquired, NotAcquired> {
        let thread = RobustThread::current()?;
        let words = self.words();
        let guards_data = words.guards_data.load(Ordering::SeqCst) != 0;
        let owner = words.process.load(Ordering::Relaxed);
        let process = (owner >> 32) as u32;
        // A slice that a forgotten guard has lent lives on with the process; another one to the same memory may not be there beside it.
        if guards_data && died == OwnerDied(true) && sys::goes_on(owner) {
            let _pending = thread.pending(word(self.state()));
            thread.unlink(&self.perch);
            self.robust().leave_to_the_next();
            return Err(NotAcquired::Leaked(process));
        }
        // The first who is told knows who it was; later ones know only that.
        let before = match words.inconsistent.load(Ordering::Relaxed) {
            0 => process,
            UNKNOWN => 0,
            process => process,
        };
        words.depth.store(0, Ordering::Relaxed);
        if guards_data {
            let before = if before == 0 { UNKNOWN } else { before };
            words.inconsistent.store(before, Ordering::Relaxed);
        }
        words.process.store(thread.owner(), Ordering::Relaxed);
        Ok(Acquired::OwnerDied(before))
    }

    #[cold]
    fn acquire_again(&self, patience: Patience) -> Result<Acquired, NotAcquired> {
        let words = self.words();
        if self.is_recursive() {
            let depth = words.depth.load(Ordering::Relaxed);
            let deeper = depth.checked_add(1).ok_or(NotAcquired::TooMany)?;
            words.depth.store(deeper, Ordering::Relaxed);
            return Ok(match words.inconsistent.load(Ordering::Relaxed) {
                0 => Acquired::Clean,
                UNKNOWN => Acquired::OwnerDied(0),
                process => Acquired::OwnerDied(process),
            });
        }
        match patience {
            Patience::None => Err(NotAcquired::WouldBlock),
            Patience::Until(deadline) => match deadline.remaining() {
                None => Err(NotAcquired::Deadlock),
                // Nobody else frees it, so what is left to do is to let the time pass.
                Some(remaining) => {
                    deadline.sleep(remaining);
                    Err(NotAcquired::TimedOut)
                }
            },
        }
    }

    #[cold]
    fn wait(&self, me: u32, patience: Patience) -> Result<OwnerDied, NotAcquired> {
        let Patience::Until(deadline) = patience else {
            return Err(NotAcquired::WouldBlock);
        };
        let robust = self.robust();
        let taken = robust.take_slowly(me, |ticket, state| {
            let words = [
                (robust.bell.word(), ticket.generation()),
                (word(robust.state), state),
            ];
            sys::wait_any(&words, deadline).map(|woken| woken != Woken::TimedOut)
        })?;
        taken.ok_or(NotAcquired::TimedOut)
    }

    /// Frees it once. Nothing happens if the calling thread does not hold it, as in a copy of the process made by `fork`.
    #[inline]
    pub(crate) fn release(&self) {
        let Ok(thread) = RobustThread::current() else {
            return;
        };
        if !self.perch.is_linked_by(thread) {
            return;
        }
        let words = self.words();
        let depth = words.depth.load(Ordering::Relaxed);
        if depth > 0 {
            words.depth.store(depth - 1, Ordering::Relaxed);
            return;
        }
        self.free(thread);
    }

    /// Frees it, however often this thread, which has it in its list, holds it.
    #[inline]
    fn free(&self, thread: RobustThread) {
        // Who dies between taking the word and saying who it is has not the name of the one before.
        self.words().process.store(0, Ordering::Relaxed);
        let _pending = thread.pending(word(self.state()));
        thread.unlink(&self.perch);
        // It is ours, unless somebody has changed it who had no right to.
        if self.state().load(Ordering::Relaxed) & OWNER == thread.id() {
            self.robust().free();
        }
    }

    /// Frees it altogether, and gives what [`restore`](Self::restore) needs. The calling thread holds it.
    pub(crate) fn release_all(&self) -> u32 {
        let depth = self.words().depth.swap(0, Ordering::Relaxed);
        if let Ok(thread) = RobustThread::current()
            && self.perch.is_linked_by(thread)
        {
            self.free(thread);
        }
        depth
    }

    /// The calling thread, which has just acquired it, holds it as often as before `release_all`.
    pub(crate) fn restore(&self, depth: u32) {
        self.words().depth.store(depth, Ordering::Relaxed);
    }

    /// The data are right again. The calling thread holds it.
    pub(crate) fn mark_consistent(&self) {
        self.words().inconsistent.store(0, Ordering::Relaxed);
    }

    /// The data may be half changed. The calling thread holds it.
    #[cfg(not(mproc_model))]
    #[cold]
    pub(crate) fn mark_inconsistent(&self) {
        let words = self.words();
        if words.guards_data.load(Ordering::SeqCst) != 0 {
            words
                .inconsistent
                .store(sys::process_id(), Ordering::Relaxed);
        }
    }

    /// Whether an owner died and nobody has mended the data.
    #[cfg(all(test, not(mproc_model)))]
    pub(crate) fn is_inconsistent(&self) -> bool {
        self.words().inconsistent.load(Ordering::Relaxed) != 0
    }
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use super::*;
    use crate::sys::SharedMapping;

    fn dies_with(core: &LockCore) {
        std::thread::scope(|scope| {
            scope.spawn(|| core.acquire(Patience::FOREVER).unwrap());
        });
        // Nobody has released it, and the kernel frees it when the thread has told its joiner.
        while core.owner() != 0 {
            std::thread::yield_now();
        }
    }

    /// As above, by the death of a whole process: one that began at another time.
    fn dies_with_its_process(core: &LockCore) {
        dies_with(core);
        let words = core.words();
        let owner = words.process.load(Ordering::Relaxed);
        words.process.store(owner ^ 1, Ordering::Relaxed);
    }

    #[test]
    fn what_guards_data_tells_everybody_until_it_is_mended() {
        let core = LockCore::create(true, true, 0).unwrap();
        dies_with_its_process(&core);
        let own = std::process::id();
        for _ in 0..3 {
            let told = core.acquire(Patience::FOREVER).unwrap();
            assert_eq!(told, Acquired::OwnerDied(own));
            // Again, as often as it is asked for.
            let again = core.acquire(Patience::FOREVER).unwrap();
            assert_eq!(again, Acquired::OwnerDied(own));
            core.release();
            core.release();
            assert!(core.is_inconsistent());
            // Another death on top.
            dies_with_its_process(&core);
        }
        core.acquire(Patience::FOREVER).unwrap();
        core.mark_consistent();
        core.release();
        assert_eq!(core.acquire(Patience::None).unwrap(), Acquired::Clean);
        core.release();
    }

    #[test]
    fn what_guards_nothing_tells_once() {
        let core = LockCore::create(false, false, 0).unwrap();
        dies_with(&core);
        assert!(matches!(
            core.acquire(Patience::None),
            Ok(Acquired::OwnerDied(_))
        ));
        core.release();
        assert_eq!(core.acquire(Patience::None).unwrap(), Acquired::Clean);
        core.release();
        // It becomes one that guards data, for all who have it.
        core.set_guards_data();
        dies_with_its_process(&core);
        for _ in 0..2 {
            let told = core.acquire(Patience::None).unwrap();
            assert!(matches!(told, Acquired::OwnerDied(_)));
            core.release();
        }
    }

    /// What the guard has lent may still be in use, so nobody else is lent the same.
    #[test]
    fn what_guards_data_stays_with_a_forgotten_guard_s_process() {
        let core = LockCore::create(false, true, 0).unwrap();
        dies_with(&core);
        let own = std::process::id();
        for patience in [Patience::None, Patience::FOREVER, Patience::None] {
            match core.acquire(patience) {
                Err(NotAcquired::Leaked(process)) => assert_eq!(process, own),
                other => panic!("{other:?}"),
            }
            assert_eq!(core.owner(), 0);
        }
        // Once that process has ended, it is as if it had died with it.
        let owner = core.words().process.load(Ordering::Relaxed);
        core.words().process.store(owner ^ 1, Ordering::Relaxed);
        assert_eq!(
            core.acquire(Patience::None).unwrap(),
            Acquired::OwnerDied(own)
        );
        core.release();
    }

    #[test]
    fn locks_of_other_number_spaces_are_refused() {
        let core = LockCore::create(false, false, 0).unwrap();
        core.words().namespace.store(1, Ordering::Relaxed);
        let refused = LockCore::open(Arc::clone(core.file()))
            .map(drop)
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }

    /// Whoever has the memory writes anything into it: locks may be held by two, or by nobody, and nothing worse.
    #[test]
    fn a_hostile_peer_can_break_the_lock_and_no_more() {
        let core = LockCore::create(true, true, 0).unwrap();
        let peer = SharedMapping::new(core.file().as_fd(), 0, PAGE, true, true).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let users: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..300 {
                            let patience = Patience::of(std::time::Duration::from_micros(200));
                            if core.acquire(patience).is_ok() {
                                core.release();
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut random = 0x9E37_79B9_7F4A_7C15_u64;
                while !stop.load(Ordering::Relaxed) {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let place = PAGE - TAIL + (random as usize >> 8) % 16 * 4;
                    let value = if random & 3 == 0 { random as u32 } else { 0 };
                    // SAFETY: inside the mapping, and aligned.
                    let word = unsafe { peer.address().add(place).cast::<AtomicU32>().as_ref() };
                    word.store(value, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            for user in users {
                user.join().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        // The lists of these threads are in order: another lock goes round.
        let other = LockCore::create(false, false, 0).unwrap();
        dies_with(&other);
        assert!(other.acquire(Patience::None).is_ok());
        other.release();
    }
}
