//! Queues whose items are accounted for until they are done.
//!
//! # Accounting
//!
//! How many items were put and how many were taken is what the lane's two marks count anyway. Beside them stand how many
//! were done, and for each process that takes items its *hand*: how many it has taken and not done. A process holds the
//! kernel's lock on the byte of the file that belongs to its hand, so whether it lives is a question with an exact answer.
//!
//! A hand is counted up *before* the item is gone from the queue, in the consumers' turn, and down *after* the item was
//! counted as done. So what the living have in their hands is never less than what it seems, and what was taken, is not done, and
//! is in no living hand, was abandoned: `taken - done - living hands`, computed in the consumers' turn. What a dead
//! process had counted does not matter, so it may have died between any two of these steps.
//!
//! How many were done and how many abandoned stand in one word, so that who settles them may die, too.
//!
//! # Putting back
//!
//! A queue that [puts back](JoinableQueue::put_back) keeps what is in a hand in a [drawer](super::drawer). Whoever finds a dead hand then
//! puts back what is in its drawer, counts that as done and the rest as abandoned. One process does so at a time: it holds the kernel's lock
//! on one more byte of the file. For the others the dead one is alive until then.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Queue;
use super::core::{Core, FIRST_PAUSE, LONGEST_PAUSE, SHORT, Taking};
use super::drawer::{Drawer, Estate, make_void};
use super::words::{HANDS, MOST_PUT_BACK, TaskWords};
use crate::Fd;
use crate::channel_error::{Patience, RecvError, SendError, Trouble};
use crate::error::{Error, ErrorKind, Result};
use crate::shm::atomic::Ordering;
use crate::shm::lane::{HasLane, MOST_FRAMES};
use crate::sys::{self, Deadline};

/// A [`Queue`] that knows when all its items are done: [`join`](Self::join) waits for it.
///
/// Each item that was got is to be reported with [`task_done`](Self::task_done), or got as a [`Job`], which does so when it is dropped.
///
/// # If a peer dies
///
/// As for [`Queue`]; and items that a process had got and not done when it died, or when it dropped its last handle, are *abandoned*: `join`
/// is an error at once that says how many, instead of waiting for ever. Exactly those count that went down with it: an item that was still in
/// the queue goes to another process, if there is one. The error stays until one calls [`mark_consistent`](Self::mark_consistent); then `join`
/// waits for the others. When there are unfinished items and nobody else is left who could take them, by the same rule as for
/// [`get`](Queue#if-a-peer-dies), `join` is an error, too.
///
/// At most 320 processes can take items of one such queue at a time.
///
/// # Examples
///
/// ```
/// use mproc::JoinableQueue;
///
/// #[mproc::entry]
/// fn work(tasks: JoinableQueue<u32>) {
///     while let Ok(task) = tasks.get_job() {
///         println!("working on {}", *task);
///     }                                        // each is done here, when its job is dropped
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let tasks = JoinableQueue::new()?;
/// let child = work::spawn(tasks.clone())?;
/// for task in 0..3 {
///     tasks.put(task)?;
/// }
/// tasks.join()?;                               // all three have been worked on
/// tasks.close();
/// # child.join()
/// # }
/// ```
pub struct JoinableQueue<T> {
    queue: Queue<T>,
    tasks: Arc<Tasks>,
}

/// What this process knows of its hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    None,
    /// A thread looks for one.
    Sought,
    /// A thread makes this one ours; its byte is locked.
    Being(usize),
    Hand(usize),
}

impl Own {
    /// Its place, also if a thread is still at it: locks of our own on its byte are not to be seen.
    fn index(self) -> Option<usize> {
        match self {
            Self::None | Self::Sought => None,
            Self::Being(index) | Self::Hand(index) => Some(index),
        }
    }

    fn hand(self) -> Option<usize> {
        match self {
            Self::Hand(hand) => Some(hand),
            _ => None,
        }
    }
}

/// What this process has of the accounting.
struct Tasks {
    core: Arc<Core>,
    /// Never locked for long.
    hand: Mutex<Own>,
    /// A thread has taken up a hand, or has not.
    taken_up: Condvar,
    /// Of a queue that puts back: what is in the hand.
    drawer: Mutex<Option<Drawer>>,
    /// One thread at a time, see `as_executor`.
    executor: Mutex<()>,
    /// Rung when the last item is done, if somebody waits for that.
    finished: Arc<OwnedFd>,
}

/// As many as there are of the core for one handle: its queue's, and that of its tasks.
const OWN: usize = 2;

const DONE: u64 = MOST_FRAMES as u64;
const ABANDONED_AT: u32 = 30;

/// The file's byte of a hand. The first one is the holders'.
fn byte_of(hand: usize) -> u64 {
    1 + hand as u64
}

/// The file's byte of who puts back.
const EXECUTOR: u64 = 1 + HANDS as u64;

impl Tasks {
    fn words(&self) -> &TaskWords {
        &self.core.words().tasks.0
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.core.memory().file().as_fd()
    }

    /// Taken and not done.
    fn in_hands(&self, settled: u64) -> u32 {
        let head = self.core.words().lane().head();
        head.count().wrapping_sub((settled & DONE) as u32) & MOST_FRAMES
    }

    /// Put and not done.
    fn unfinished(&self, settled: u64) -> u32 {
        let tail = self.core.words().lane().tail();
        tail.count().wrapping_sub((settled & DONE) as u32) & MOST_FRAMES
    }

    fn settled(&self) -> u64 {
        self.words().settled.load(Ordering::SeqCst)
    }

    /// This process's hand.
    fn hand(&self, patience: Patience) -> io::Result<usize> {
        let deadline = patience.deadline().unwrap_or(Deadline::after(SHORT));
        let mut own = self.own_hand();
        // Another thread may be at it, which may take long.
        while let Own::Being(_) | Own::Sought = *own {
            let left = deadline.remaining().unwrap_or(Duration::MAX);
            if left == Duration::ZERO {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let waited = self.taken_up.wait_timeout(own, left);
            own = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Own::Hand(hand) = *own {
            return Ok(hand);
        }
        *own = Own::Sought;
        drop(own);
        let found = self.find_hand(deadline);
        *self.own_hand() = found.as_ref().map_or(Own::None, |&hand| Own::Hand(hand));
        self.taken_up.notify_all();
        if found.is_ok() {
            // Whoever joins has to watch this process from now on.
            self.wake_joiners();
        }
        found
    }

    fn find_hand(&self, deadline: Deadline) -> io::Result<usize> {
        for index in 0..HANDS {
            // One that is locked is alive. One that is not is free, or its process has died, and then what it counted is over.
            if !sys::lock_byte(self.file(), byte_of(index), true)? {
                continue;
            }
            *self.own_hand() = Own::Being(index);
            if let Err(error) = self.take_up(index, deadline) {
                // Or whoever joins would take the dead one whose hand it was for alive.
                sys::unlock_byte(self.file(), byte_of(index));
                return Err(error);
            }
            return Ok(index);
        }
        Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("{HANDS} processes take items of this queue already"),
        ))
    }

    /// Makes a hand ours whose byte we have locked.
    fn take_up(&self, index: usize, deadline: Deadline) -> io::Result<()> {
        let hand = &self.words().hands[index].0;
        let process = u64::from(std::process::id()) << 32;
        // Not while somebody counts.
        let store = || {
            self.core.in_consumers_turn(deadline, || {
                hand.store(process, Ordering::SeqCst);
            })
        };
        if !self.puts_back() {
            return store();
        }
        // What a dead process had in it has to be put back first, and whoever did so has to be done with its drawer.
        loop {
            let taken_up = self.as_executor(|| {
                if hand.load(Ordering::SeqCst) != 0 {
                    self.execute(None, deadline)?;
                }
                let drawer = Drawer::new(self.core.memory().file(), index)?;
                *self.drawer() = Some(drawer);
                store()
            })?;
            if taken_up {
                return Ok(());
            }
            if deadline.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn puts_back(&self) -> bool {
        self.words().put_back.load(Ordering::Relaxed) != 0
    }

    fn drawer(&self) -> MutexGuard<'_, Option<Drawer>> {
        self.drawer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the consumers' turn, before an item is gone from the queue: it is in our hand from now on.
    fn hold(&self, hand: usize, taking: &Taking<'_>, is_job: bool) -> io::Result<()> {
        let words = self.words();
        if self.puts_back() {
            let last = words.taking.load(Ordering::SeqCst);
            let (last_hand, last_number) = ((last >> 32) as usize, last as u32);
            let is_anothers = (1..=HANDS).contains(&last_hand) && last_hand != 1 + hand;
            if last_number == taking.number && is_anothers {
                // Who was to take it before us has not come to it.
                make_void(self.core.memory(), last_hand - 1, last_number)?;
            }
            let ours = (1 + hand as u64) << 32 | u64::from(taking.number);
            words.taking.store(ours, Ordering::SeqCst);
            if let Some(drawer) = &mut *self.drawer() {
                drawer.keep(taking, is_job)?;
            }
        }
        words.hands[hand].0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn wake_joiners(&self) {
        if self.words().joiners.load(Ordering::SeqCst) != 0 {
            sys::ring(self.finished.as_fd());
        }
    }

    /// Counts one item as done: this one, or any. False: none was taken.
    fn done(&self, number: Option<u32>) -> bool {
        let words = self.words();
        let mut drawer = self.puts_back().then(|| self.drawer());
        if let Some(drawer) = &drawer
            && number.is_none()
            && !drawer.as_ref().is_some_and(Drawer::has_any)
        {
            return false; // Which one it is has to be known, or it would be put back.
        }
        let settled = words
            .settled
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |settled| {
                (self.in_hands(settled) > 0).then(|| advanced(settled, 1))
            });
        if settled.is_err() {
            return false;
        }
        let own = self.own_hand().hand();
        let less = |hand: usize| {
            words.hands[hand]
                .0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |hand| {
                    (hand as u32 > 0).then(|| hand - 1)
                })
                .is_ok()
        };
        // What one process took another may report; then it is any hand's.
        if !own.is_some_and(less) {
            let _ = (0..HANDS).any(less);
        }
        if let Some(drawer) = drawer.as_mut().and_then(|drawer| drawer.as_mut()) {
            drawer.settle(number);
        }
        drop(drawer);
        // All may be done. Or one who joins has looked for the dead between our two steps, and has seen one too many in our hand; it
        // has to look again before the last is done, and when the queue is empty is soon enough.
        if self.core.is_empty() {
            self.wake_joiners();
        }
        true
    }

    /// Does something that only one does at a time, or gives false if somebody else is at it.
    fn as_executor(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        // Threads that share a handle share its locks on the file.
        let Ok(_here) = self.executor.try_lock() else {
            return Ok(false);
        };
        if !sys::lock_byte(self.file(), EXECUTOR, true)? {
            return Ok(false);
        }
        let done = act();
        sys::unlock_byte(self.file(), EXECUTOR);
        done.map(|()| true)
    }

    /// Puts back what was in the hands of the dead. For the executor.
    fn execute(&self, own: Option<usize>, deadline: Deadline) -> io::Result<()> {
        let words = self.words();
        let most = words
            .put_back
            .load(Ordering::Relaxed)
            .min(u32::from(MOST_PUT_BACK)) as u8;
        let mut dead = Vec::new();
        for (index, hand) in words.hands.iter().enumerate() {
            let value = hand.0.load(Ordering::SeqCst);
            if value != 0
                && own != Some(index)
                && !sys::is_byte_locked(self.file(), byte_of(index))?
            {
                dead.push(index);
            }
        }
        if dead.is_empty() {
            // What was not seen as dropped the last time, because somebody alive was between its two steps, is now.
            return self.settle(deadline, |_| Ok(true), 0);
        }
        // Nobody is about to take anything while this is looked at.
        let (head, taking) = self.core.in_consumers_turn(deadline, || {
            let head = self.core.words().lane().head().count();
            (head, words.taking.load(Ordering::SeqCst))
        })?;
        let mut put_back = 0;
        let mut estates = Vec::new();
        for &index in &dead {
            let is_void = taking == (1 + index as u64) << 32 | u64::from(head);
            let void = is_void.then_some(head);
            let Some(mut estate) = Estate::find(self.core.memory().file(), index, void) else {
                continue;
            };
            while let Some(left) = estate.next()? {
                let again = left.times < most;
                if again {
                    self.core.put_back(&left.payload, left.times + 1)?;
                }
                estate.pass(left, again);
            }
            put_back += estate.put_back();
            estates.push(estate);
        }
        self.settle(deadline, |index| Ok(!dead.contains(&index)), put_back)?;
        estates.into_iter().for_each(Estate::give_back);
        Ok(())
    }

    fn own_hand(&self) -> MutexGuard<'_, Own> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for hands of the dead and settles what was in them. False: somebody else is at it.
    fn settle_the_dead(&self, deadline: Deadline) -> io::Result<bool> {
        if self.puts_back() {
            let own = self.own_hand().index();
            return self.as_executor(|| self.execute(own, deadline));
        }
        // Asked for each: a thread may take up a hand meanwhile.
        let lives = |index| {
            let is_own = self.own_hand().index() == Some(index);
            Ok(is_own || sys::is_byte_locked(self.file(), byte_of(index))?)
        };
        self.settle(deadline, lives, 0).map(|()| true)
    }

    /// Counts as done what was in the hands of those who do not live, and as abandoned what of that was not put back. Nobody does so twice
    /// at a time where anything is put back.
    fn settle(
        &self,
        deadline: Deadline,
        lives: impl Fn(usize) -> io::Result<bool>,
        put_back: u32,
    ) -> io::Result<()> {
        let words = self.words();
        self.core.in_consumers_turn(deadline, || {
            let mut living = 0_u32;
            let mut dead = Vec::new();
            for (index, hand) in words.hands.iter().enumerate() {
                let value = hand.0.load(Ordering::SeqCst);
                if value == 0 {
                    continue;
                }
                if lives(index)? {
                    living = living.saturating_add(value as u32);
                } else {
                    dead.push(hand);
                }
            }
            // Before it is used: who dies after this counts it twice, and not never.
            let mut credit = words.credit.load(Ordering::SeqCst).saturating_add(put_back);
            words.credit.store(credit, Ordering::SeqCst);
            let mut used = 0;
            let _ = words
                .settled
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |settled| {
                    used = 0; // It may be tried again, and then be for nothing.
                    let taken = self.in_hands(settled);
                    // A count that wraps is that of somebody who is between its two steps: more in hands than taken.
                    let dropped = match taken.checked_sub(living) {
                        Some(dropped @ 1..) => dropped,
                        _ => return None,
                    };
                    used = credit.min(dropped);
                    let settled = advanced(settled, u64::from(dropped));
                    Some(settled.wrapping_add(u64::from(dropped - used) << ABANDONED_AT))
                });
            // Somebody alive, or newly dead, may have been between its two steps; then as much is dropped later, and it was put back now. If there is
            // nobody, what is left over came twice.
            credit = if living == 0 { 0 } else { credit - used };
            words.credit.store(credit, Ordering::SeqCst);
            for hand in dead {
                hand.0.store(0, Ordering::SeqCst);
            }
            Ok(())
        })?
    }

    fn join(&self, deadline: Deadline) -> Result<bool, JoinError> {
        let words = self.words();
        self.core.used_here();
        words.joiners.fetch_add(1, Ordering::SeqCst);
        let joined = self.join_enlisted(deadline);
        words.joiners.fetch_sub(1, Ordering::SeqCst);
        // We may have silenced what others had yet to hear.
        self.wake_joiners();
        joined
    }

    fn join_enlisted(&self, deadline: Deadline) -> Result<bool, JoinError> {
        let mut pause = FIRST_PAUSE;
        loop {
            // BEFORE anything is looked at: whoever rings after this is heard.
            sys::silence(self.finished.as_fd());
            let alone_at_it = match self.settle_the_dead(deadline) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
                settled => settled.map_err(JoinError::Io)?,
            };
            let settled = self.settled();
            let unfinished = self.unfinished(settled);
            let abandoned = settled >> ABANDONED_AT;
            if unfinished == 0 || abandoned != 0 {
                // Others may be asleep, and it may be we who found out.
                self.wake_joiners();
                return match abandoned {
                    0 => Ok(true),
                    count => Err(JoinError::Abandoned { count }),
                };
            }
            let perhaps_last = self.core.is_perhaps_last();
            // Asked each time: other handles of this process come and go, too.
            if perhaps_last
                && self.core.is_alone(OWN)
                && !self.core.others_hold().map_err(JoinError::Io)?
            {
                // What there was may have been done before the last one left.
                match self.unfinished(self.settled()) {
                    0 => continue,
                    count if count == unfinished => {
                        let count = u64::from(count);
                        return Err(JoinError::Disconnected { count });
                    }
                    _ => continue,
                }
            }
            let (watched, all) = self.watch_hands();
            // Looked at again, now that the watching has begun.
            if self.unfinished(self.settled()) == 0
                || self.settled() >> ABANDONED_AT != 0
                || alone_at_it && self.has_dead_hand().map_err(JoinError::Io)?
            {
                continue;
            }
            let mut fds = vec![self.finished.as_fd()];
            let mut until = deadline;
            if alone_at_it {
                fds.extend(watched.iter().map(|pidfd| pidfd.as_fd()));
            } else {
                // Whoever is at it rings when it is done, unless it dies.
                until = until.within(FIRST_PAUSE);
            }
            if !all {
                until = until.within(UNSEEN);
            }
            if perhaps_last {
                until = until.within(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
            sys::wait_many(&fds, until).map_err(JoinError::Io)?;
            // Asked whatever was ready: somebody who is dead and not yet collected is so every time.
            if deadline.is_over() {
                let settled = self.settled();
                return Ok(self.unfinished(settled) == 0 && settled >> ABANDONED_AT == 0);
            }
        }
    }

    /// Descriptors that tell of the deaths of those who take items, and whether they are all.
    fn watch_hands(&self) -> (Vec<OwnedFd>, bool) {
        let own = std::process::id();
        let mut all = true;
        let mut watched = Vec::new();
        for hand in &self.words().hands {
            let process = (hand.0.load(Ordering::SeqCst) >> 32) as u32;
            if process == 0 || process == own {
                continue;
            }
            // Whose number it is by now is looked at afterwards: if the hand's byte is still locked, it was the right one.
            match sys::open_process(process) {
                Ok(pidfd) => watched.push(pidfd),
                Err(_) => all = false,
            }
        }
        (watched, all)
    }

    /// Whether a process died with items in its hand.
    fn has_dead_hand(&self) -> io::Result<bool> {
        let own = self.own_hand().index();
        for (index, hand) in self.words().hands.iter().enumerate() {
            let counts = hand.0.load(Ordering::SeqCst) as u32 != 0 && own != Some(index);
            if counts && !sys::is_byte_locked(self.file(), byte_of(index))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// How long a wait for processes that cannot be watched, because they are in another namespace, goes without looking.
const UNSEEN: Duration = Duration::from_millis(100);

/// `count` more are done.
fn advanced(settled: u64, count: u64) -> u64 {
    settled & !DONE | settled.wrapping_add(count) & DONE
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if self.core.is_a_copy() {
            return;
        }
        let own = *self.hand.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(hand) = own.hand() {
            let word = &self.words().hands[hand].0;
            // Nothing in it: free for another one. Otherwise it is found, and settled, as that of a dead process.
            let process = u64::from(std::process::id()) << 32;
            let _ = word.compare_exchange(process, 0, Ordering::SeqCst, Ordering::SeqCst);
            sys::unlock_byte(self.file(), byte_of(hand));
        }
        // Whoever joins looks whether it is the last one now.
        self.wake_joiners();
    }
}

/// Why [`JoinableQueue::join`] failed.
///
/// Converts into [`Error`](crate::Error), so that `?` works.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// These items went down with the processes that had got them, and never will be done. Others may be unfinished.
    #[non_exhaustive]
    Abandoned {
        /// How many, since the queue was made or last marked consistent.
        count: u64,
    },
    /// Items are unfinished, and nobody else holds the queue who could take them or has taken them.
    #[non_exhaustive]
    Disconnected {
        /// How many.
        count: u64,
    },
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned { count: 1 } => {
                f.write_str("an item went down with the process that had got it")
            }
            Self::Abandoned { count } => {
                write!(
                    f,
                    "{count} items went down with the processes that had got them"
                )
            }
            Self::Disconnected { count } => {
                write!(
                    f,
                    "{count} items are unfinished and nobody is left to work on them"
                )
            }
            Self::Io(error) => write!(f, "a queue could not be joined: {error}"),
        }
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Abandoned { .. } | Self::Disconnected { .. } => None,
            Self::Io(error) => error.source(),
        }
    }
}

impl From<JoinError> for Error {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Io(error) => Self::io("a queue could not be joined", error),
            JoinError::Disconnected { .. } => Self::new(ErrorKind::Disconnected, error.to_string()),
            JoinError::Abandoned { .. } => Self::new(ErrorKind::Abandoned, error.to_string()),
        }
    }
}

impl<T> JoinableQueue<T> {
    /// A queue without a bound.
    ///
    /// # Errors
    ///
    /// If there is no memory or no room for a descriptor.
    pub fn new() -> Result<Self> {
        Self::of(Queue::new()?)
    }

    /// A queue of at most `capacity` items.
    ///
    /// # Errors
    ///
    /// As [`Queue::bounded`].
    pub fn bounded(capacity: usize) -> Result<Self> {
        Self::of(Queue::bounded(capacity)?)
    }

    /// Has the queue put back what went down with a process that had got it and not done it: others get it then.
    ///
    /// The same item is put back `times` times at most; then it counts as abandoned, so that one on which every process dies does not kill
    /// for ever. What is put back comes behind all others, also where the queue is full or closed.
    ///
    /// So items come at least once, and not at most once: one whose process dies in the moment in which it was done may come again. Items
    /// with descriptors in them (pipe ends, queues) cannot be put back, and count as abandoned. Each item is copied once more when it is
    /// taken, and [`task_done`](Self::task_done) takes the item for done that this process got first without a job; whoever has several
    /// in hand gets [jobs](Self::get_job). What one process got another cannot report.
    ///
    /// Deaths are found out at once by whoever is in [`join`](Self::join), and otherwise within a second by whoever waits in a `get`, which
    /// looks as often.
    ///
    /// # Errors
    ///
    /// If `times` is 0 or more than 200, or the queue is in use already.
    ///
    /// # Examples
    ///
    /// ```
    /// use mproc::JoinableQueue;
    ///
    /// #[mproc::entry]
    /// fn work(tasks: JoinableQueue<u32>) {
    ///     while let Ok(task) = tasks.get_job() {
    ///         if task.deaths() == 0 && *task == 1 {
    ///             std::process::abort();               // the other one does it
    ///         }
    ///     }
    /// }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let tasks = JoinableQueue::new()?.put_back(3)?;
    /// let workers = [work::spawn(tasks.clone())?, work::spawn(tasks.clone())?];
    /// for task in 0..3 {
    ///     tasks.put(task)?;
    /// }
    /// tasks.join()?;                                   // all three have been worked on
    /// tasks.close();
    /// # for worker in workers {
    /// #     worker.wait()?;
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "redeliver")]
    #[doc(alias = "acks_late")]
    pub fn put_back(self, times: u32) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::Io, why));
        if !(1..=u32::from(MOST_PUT_BACK)).contains(&times) {
            return refuse("an item can be put back 1 to 200 times");
        }
        let is_new = self.is_alone()
            && self.is_empty()
            && self.tasks.in_hands(self.tasks.settled()) == 0
            && *self.tasks.own_hand() == Own::None
            && !self.queue.core.was_sent();
        if !is_new {
            return refuse(
                "a queue that puts items back has to do so from its beginning; call `put_back` where it is made",
            );
        }
        self.tasks.words().put_back.store(times, Ordering::SeqCst);
        Ok(self)
    }

    fn of(queue: Queue<T>) -> Result<Self> {
        let finished =
            sys::doorbell().map_err(|error| Error::io("a queue could not be made", error))?;
        Ok(Self::with(queue, Arc::new(finished)))
    }

    fn with(queue: Queue<T>, finished: Arc<OwnedFd>) -> Self {
        let tasks = Tasks {
            core: Arc::clone(&queue.core),
            hand: Mutex::new(Own::None),
            taken_up: Condvar::new(),
            drawer: Mutex::new(None),
            executor: Mutex::new(()),
            finished,
        };
        Self {
            queue,
            tasks: Arc::new(tasks),
        }
    }

    #[cfg(all(test, not(mproc_model)))]
    pub(super) fn memory(&self) -> &crate::shm::memory::Memory<super::words::QueueWords> {
        self.queue.core.memory()
    }

    /// See [`Queue::len`].
    #[doc(alias = "qsize")]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// See [`Queue::is_empty`].
    #[doc(alias = "empty")]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// See [`Queue::is_full`].
    #[doc(alias = "full")]
    pub fn is_full(&self) -> bool {
        self.queue.is_full()
    }

    /// See [`Queue::capacity`].
    pub fn capacity(&self) -> Option<usize> {
        self.queue.capacity()
    }

    /// See [`Queue::close`]. Items that are in it are still to be done.
    pub fn close(&self) {
        self.queue.close();
    }

    /// See [`Queue::is_closed`].
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// See [`Queue::watch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn watch(&self) -> Result<BorrowedFd<'_>> {
        self.queue.watch()
    }

    /// How many items were put and are not done.
    pub fn unfinished(&self) -> usize {
        self.tasks.unfinished(self.tasks.settled()) as usize
    }

    /// Says that one item that was got has been done.
    ///
    /// What one process got another may report.
    ///
    /// # Errors
    ///
    /// [`NotTaken`](ErrorKind::NotTaken): all items that were got are done already.
    pub fn task_done(&self) -> Result<()> {
        if self.tasks.done(None) {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::NotTaken,
                "task_done() called too many times",
            ))
        }
    }

    /// Waits until every item that was put has been got and done.
    ///
    /// # Errors
    ///
    /// - [`JoinError::Abandoned`]: items went down with the process that had got them. Told at once, while others may be unfinished.
    /// - [`JoinError::Disconnected`]: nobody is left who could do the rest.
    pub fn join(&self) -> Result<(), JoinError> {
        self.tasks.join(Deadline::NEVER).map(|_| ())
    }

    /// Whether this is the only handle here.
    fn is_alone(&self) -> bool {
        self.queue.core.is_alone(OWN)
    }

    /// Waits, `timeout` at most; false if there are unfinished items then.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool, JoinError> {
        self.tasks.join(Deadline::after(timeout))
    }

    /// Forgets that items were abandoned, and gives their number: `join` is no error any more on their account.
    pub fn mark_consistent(&self) -> u64 {
        let settled = self.tasks.words().settled.fetch_and(DONE, Ordering::SeqCst);
        settled >> ABANDONED_AT
    }
}

impl<T: Serialize> JoinableQueue<T> {
    /// See [`Queue::put`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put(&self, item: T) -> Result<(), SendError<T>> {
        self.queue.put(item)
    }

    /// See [`Queue::try_put`].
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, item: T) -> Result<(), SendError<T>> {
        self.queue.try_put(item)
    }

    /// See [`Queue::put_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.queue.put_timeout(item, timeout)
    }
}

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Gets an item, and its number.
    fn get_within(
        &self,
        patience: Patience,
        is_job: bool,
        number: &Cell<Option<Taken>>,
    ) -> Result<T, RecvError> {
        let tasks = &self.tasks;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => Trouble::TimedOut.receiving(patience),
            _ => RecvError::Io(error),
        };
        let hand = tasks.hand(patience).map_err(failed)?;
        let before = |taking: &Taking<'_>| {
            tasks.hold(hand, taking, is_job)?;
            number.set(Some(Taken {
                number: taking.number,
                times: taking.put_back,
            }));
            Ok(())
        };
        if !tasks.puts_back() {
            return self.queue.get_with(OWN, patience, before);
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let slice = match patience {
                Patience::None => Patience::None,
                Patience::Until(deadline) => Patience::Until(deadline.within(pause)),
            };
            pause = (2 * pause).min(LONGEST_PAUSE);
            let error = match self.queue.get_with(OWN, slice, before) {
                Err(
                    error @ (RecvError::Empty
                    | RecvError::Timeout
                    | RecvError::Closed
                    | RecvError::Disconnected),
                ) => error,
                got => return got,
            };
            // Nobody tells who sleeps that somebody died who had taken something.
            if tasks.has_dead_hand().map_err(RecvError::Io)? {
                tasks
                    .settle_the_dead(Deadline::after(SHORT))
                    .map_err(failed)?;
                if !self.queue.is_empty() {
                    continue;
                }
            }
            let in_time = match patience {
                Patience::None => false,
                Patience::Until(deadline) => deadline.remaining() != Some(Duration::ZERO),
            };
            if !(in_time && matches!(error, RecvError::Timeout)) {
                return Err(error);
            }
        }
    }

    fn get_item(&self, patience: Patience) -> Result<T, RecvError> {
        self.get_within(patience, false, &Cell::new(None))
    }

    fn get_job_within(&self, patience: Patience) -> Result<Job<T>, RecvError> {
        let undone = Undone {
            tasks: &self.tasks,
            taken: Cell::new(None),
        };
        let item = self.get_within(patience, true, &undone.taken)?;
        let taken = undone.taken.take().expect("what was got was taken");
        Ok(Job {
            item: Some(item),
            taken,
            queue: self.clone(),
        })
    }

    /// See [`Queue::get`]. The item is to be reported with [`task_done`](Self::task_done), also one that could not be decoded.
    ///
    /// # Errors
    ///
    /// As there, and if too many processes take items.
    pub fn get(&self) -> Result<T, RecvError> {
        self.get_item(Patience::FOREVER)
    }

    /// See [`Queue::try_get`].
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<T, RecvError> {
        self.get_item(Patience::None)
    }

    /// See [`Queue::get_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        self.get_item(Patience::of(timeout))
    }

    /// Gets the next item as a job, which is done when it is dropped. One that could not be decoded is done, too.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_job(&self) -> Result<Job<T>, RecvError> {
        self.get_job_within(Patience::FOREVER)
    }

    /// Gets the next item as a job if there is one.
    ///
    /// # Errors
    ///
    /// As [`try_get`](Self::try_get).
    pub fn try_get_job(&self) -> Result<Job<T>, RecvError> {
        self.get_job_within(Patience::None)
    }

    /// Gets the next item as a job if there is one in time.
    ///
    /// # Errors
    ///
    /// As [`get_timeout`](Self::get_timeout).
    pub fn get_job_timeout(&self, timeout: Duration) -> Result<Job<T>, RecvError> {
        self.get_job_within(Patience::of(timeout))
    }

    /// What is got, one item after the other, until the queue is closed and empty, or nobody else is left. Each is to be
    /// reported.
    pub fn iter(&self) -> TaskIter<'_, T> {
        TaskIter(self)
    }

    /// The same as jobs: each item is done when its job is dropped.
    pub fn jobs(&self) -> Jobs<'_, T> {
        Jobs(self)
    }
}

/// What a joinable queue gives until its end. An error other than the end is an item.
#[derive(Debug)]
pub struct TaskIter<'a, T>(&'a JoinableQueue<T>);

impl<T: DeserializeOwned> Iterator for TaskIter<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.get() {
            Err(RecvError::Closed | RecvError::Disconnected) => None,
            item => Some(item),
        }
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a JoinableQueue<T> {
    type Item = Result<T, RecvError>;
    type IntoIter = TaskIter<'a, T>;

    fn into_iter(self) -> TaskIter<'a, T> {
        self.iter()
    }
}

/// What a joinable queue gives until its end, as jobs. An error other than the end is an item.
#[derive(Debug)]
pub struct Jobs<'a, T>(&'a JoinableQueue<T>);

impl<T: DeserializeOwned> Iterator for Jobs<'_, T> {
    type Item = Result<Job<T>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.get_job() {
            Err(RecvError::Closed | RecvError::Disconnected) => None,
            item => Some(item),
        }
    }
}

/// An item of a [`JoinableQueue`] that is done when this is dropped, also by a panic.
///
/// If the process dies while it holds one, the item is abandoned.
pub struct Job<T> {
    /// `None` once it was taken out.
    item: Option<T>,
    taken: Taken,
    queue: JoinableQueue<T>,
}

/// Which item was taken.
#[derive(Debug, Clone, Copy)]
struct Taken {
    number: u32,
    times: u8,
}

/// An item, if one was taken, that is done when this is dropped: also by a panic, in decoding it or in dropping it.
struct Undone<'a> {
    tasks: &'a Tasks,
    taken: Cell<Option<Taken>>,
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.get() {
            self.tasks.done(Some(taken.number));
        }
    }
}

impl<T> Job<T> {
    /// How often a process died that had got this item: 0, unless the queue [puts back](JoinableQueue::put_back).
    pub fn deaths(&self) -> u32 {
        u32::from(self.taken.times)
    }

    /// The item, which counts as done from here on.
    pub fn into_inner(mut self) -> T {
        self.item.take().expect("taken out only here")
    }
}

impl<T> Deref for Job<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().expect("taken out only by value")
    }
}

impl<T> DerefMut for Job<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.as_mut().expect("taken out only by value")
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        let _undone = Undone {
            tasks: &self.queue.tasks,
            taken: Cell::new(Some(self.taken)),
        };
        // What dropping the item does belongs to the work.
        drop(self.item.take());
    }
}

impl<T: fmt::Debug> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Job").field(&self.item).finish()
    }
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            tasks: Arc::clone(&self.tasks),
        }
    }
}

/// As that of [`Queue`].
impl<T> AsFd for JoinableQueue<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Joinable{:?}, {} unfinished",
            self.queue,
            self.unfinished()
        )
    }
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Travelling<T> {
    queue: Queue<T>,
    finished: Fd,
}

impl<T> Serialize for JoinableQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let was_sent = self.queue.core.was_sent();
        let serialized = Travelling {
            queue: self.queue.clone(),
            finished: Fd::shared(Arc::clone(&self.tasks.finished)),
        }
        .serialize(serializer);
        if !was_sent {
            // Who joins here may be the last holder from now on, and has to look now and then.
            self.tasks.wake_joiners();
        }
        serialized
    }
}

impl<'de, T> Deserialize<'de> for JoinableQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let travelling = Travelling::deserialize(deserializer)?;
        Ok(Self::with(
            travelling.queue,
            travelling.finished.into_shared(),
        ))
    }
}

#[cfg(all(test, not(mproc_model)))]
mod tests {
    use super::*;
    use crate::wire::{decode_parts, encode_parts};

    /// The queue as another process would have it: with open files, and so locks, of its own.
    fn elsewhere(queue: &JoinableQueue<u64>) -> JoinableQueue<u64> {
        let mut bytes = Vec::new();
        let attached = encode_parts(queue, &mut bytes).expect("it travels");
        let mut handles = attached.handles().to_vec();
        attached.commit();
        decode_parts(&bytes, &mut handles).expect("it arrives")
    }

    /// Dies when the next item is in its drawer and its hand, and still in the queue.
    fn die_over_the_next(queue: &JoinableQueue<u64>) {
        let victim = elsewhere(queue);
        let hand = victim.tasks.hand(Patience::FOREVER).expect("a free one");
        let number = victim.queue.core.words().lane().head().count();
        let mut payload = Vec::new();
        encode_parts(&7_u64, &mut payload)
            .expect("a number")
            .commit();
        let taking = Taking {
            number,
            put_back: 0,
            payload: Some(&payload),
        };
        victim
            .tasks
            .hold(hand, &taking, true)
            .expect("there is memory");
        assert!(!queue.tasks.has_dead_hand().expect("can be asked"));
        drop(victim);
        assert!(queue.tasks.has_dead_hand().expect("can be asked"));
    }

    /// Whoever died over an item had not taken it, whether that is found out before another takes it or after.
    #[test]
    fn what_is_in_the_queue_is_not_put_back() {
        for found_out_before in [true, false] {
            for deaths in 1..4 {
                let queue = JoinableQueue::new().and_then(|queue| queue.put_back(5));
                let queue = queue.expect("a queue");
                // Whoever takes its first item looks for the dead.
                queue.put(6).expect("there is room");
                drop(queue.get_job().expect("an item"));
                for number in [7, 8] {
                    queue.put(number).expect("there is room");
                }
                (0..deaths).for_each(|_| die_over_the_next(&queue));
                if found_out_before {
                    let settled = queue.tasks.settle_the_dead(Deadline::NEVER);
                    assert!(settled.expect("nothing fails"));
                }
                let job = queue.get_job().expect("an item");
                assert_eq!((*job, job.deaths()), (7, 0));
                assert!(!queue.join_timeout(Duration::ZERO).expect("nothing is lost"));
                drop(job);
                assert_eq!(*queue.get_job().expect("an item"), 8);
                queue.join().expect("all is done");
                assert_eq!((queue.len(), queue.unfinished()), (0, 0));
                assert!(queue.try_get().is_err());
            }
        }
    }

    /// What does not decode without a panic.
    #[derive(Serialize)]
    struct Rotten;

    impl<'de> Deserialize<'de> for Rotten {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            std::panic::resume_unwind(Box::new("rotten"))
        }
    }

    /// What does not go without a panic.
    #[derive(Serialize, Deserialize)]
    struct Sticky(bool);

    impl Drop for Sticky {
        fn drop(&mut self) {
            if self.0 {
                std::panic::resume_unwind(Box::new("sticky"));
            }
        }
    }

    #[test]
    fn a_job_is_done_by_a_panic_over_its_item() {
        let queue = JoinableQueue::new().expect("a queue");
        queue.put(Rotten).expect("there is room");
        let get = || drop(queue.get_job());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(get)).is_err());
        queue.join().expect("all is done");

        let queue = JoinableQueue::new().expect("a queue");
        queue.put(Sticky(false)).expect("there is room");
        let mut job = queue.get_job().expect("an item");
        job.0 = true;
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(job))).is_err());
        queue.join().expect("all is done");
    }

    /// The last holder is told, also if it was not when it fell asleep.
    #[test]
    fn other_handles_may_go_while_it_waits() {
        for sent_before in [true, false] {
            let queue = JoinableQueue::new().expect("a queue");
            let early = sent_before.then(|| elsewhere(&queue));
            let clone = queue.clone();
            let go = move || {
                std::thread::sleep(Duration::from_millis(50));
                drop(early);
                drop(elsewhere(&clone));
            };
            let going = std::thread::spawn(go);
            let got = queue.get();
            assert!(matches!(got, Err(RecvError::Disconnected)), "{got:?}");
            going.join().expect("it does not panic");
        }
        let queue = JoinableQueue::new().expect("a queue");
        queue.put(1).expect("there is room");
        let clone = queue.clone();
        let going = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(elsewhere(&clone));
        });
        let joined = queue.join();
        assert!(
            matches!(joined, Err(JoinError::Disconnected { count: 1 })),
            "{joined:?}"
        );
        going.join().expect("it does not panic");
    }

    /// One who dies while it puts back leaves an item to come twice, and none to be missed.
    #[test]
    fn putting_back_may_be_interrupted() {
        let queue = JoinableQueue::new().and_then(|queue| queue.put_back(5));
        let queue = queue.expect("a queue");
        (0..4).for_each(|number| queue.put(number).expect("there is room"));
        let victim = elsewhere(&queue);
        (0..4).for_each(|_| std::mem::forget(victim.get_job().expect("an item")));
        let hand = victim.tasks.hand(Patience::FOREVER).expect("its own");
        // Jobs hold their queue; as a dead process, it is gone all the same.
        sys::unlock_byte(victim.tasks.file(), byte_of(hand));
        let file = queue.tasks.core.memory().file();
        let mut estate = Estate::find(file, hand, None).expect("a drawer");
        // The first is put back; the second is put, and its death comes before it is passed.
        for pass in [true, false] {
            let left = estate.next().expect("in order").expect("an item");
            queue
                .tasks
                .core
                .put_back(&left.payload, left.times + 1)
                .expect("there is memory");
            if pass {
                estate.pass(left, true);
            }
        }
        drop(estate);
        assert!(!queue.join_timeout(Duration::ZERO).expect("nothing is lost"));
        let numbers: Vec<_> = (0..5).map(|_| *queue.get_job().expect("an item")).collect();
        assert_eq!(numbers, [0, 1, 1, 2, 3]);
        queue.join().expect("all is done");
        assert!(queue.try_get().is_err());
    }

    /// The first thread waits for a turn that another process keeps; its process's other threads have deadlines of their own.
    #[test]
    fn a_thread_that_takes_up_the_hand_keeps_no_other_beyond_its_deadline() {
        use std::sync::Barrier;

        let queue = JoinableQueue::<u64>::new().unwrap();
        queue.put(1).unwrap();
        let (taken, over) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let act = || {
                    taken.wait();
                    over.wait();
                };
                queue.queue.core.in_consumers_turn(Deadline::NEVER, act)
            });
            taken.wait();
            let patient = scope.spawn(|| queue.get());
            while *queue.tasks.own_hand() == Own::None {
                std::thread::yield_now();
            }
            let soon = Duration::from_millis(1);
            assert!(matches!(queue.get_timeout(soon), Err(RecvError::Timeout)));
            assert!(matches!(queue.join_timeout(soon), Ok(false)));
            assert!(!patient.is_finished());
            over.wait();
            assert_eq!(patient.join().unwrap().unwrap(), 1);
        });
    }

    #[test]
    fn a_hand_that_is_none_is_no_place_in_the_file() {
        let queue = JoinableQueue::<u64>::new().unwrap().put_back(1).unwrap();
        queue.put(1).unwrap();
        let words = &queue.queue.core.words().tasks.0;
        words
            .taking
            .store(u64::from(u32::MAX) << 32, Ordering::SeqCst);
        let length = || std::fs::metadata(path_of(&queue)).unwrap().len();
        assert_eq!(queue.get().unwrap(), 1);
        // The drawers stand behind the lane, of which next to nothing has memory.
        assert!(length() <= 2 * crate::shm::lane::SPAN, "{}", length());
    }

    fn path_of(queue: &JoinableQueue<u64>) -> String {
        use std::os::fd::AsRawFd;

        format!("/proc/self/fd/{}", queue.tasks.file().as_raw_fd())
    }
}
