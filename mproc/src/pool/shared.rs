//! The pool: what its users and its drivers share.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::calls::Calls;
use super::drive::drive;
use super::group::{Group, Task};
use super::imap::{Imap, ImapUnordered};
use super::local::Local;
use super::lock;
use super::result::AsyncResult;
use crate::entry::{Call, Entry, Unary};
use crate::error::{Error, ErrorKind, Result};
use crate::process::{AnyChild, cpu_count};
use serde::de::DeserializeOwned;

/// Tasks that go to one worker together.
pub(super) struct Batch {
    pub(super) tasks: Vec<Task>,
    /// Whether it may go in a frame with other batches of its group.
    pub(super) mergeable: bool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Batch>,
    end: Option<End>,
}

enum End {
    Closed,
    Terminated,
    Failed(Error),
}

impl End {
    fn error(&self) -> Error {
        match self {
            Self::Closed => Error::new(ErrorKind::ShutDown, "the pool is closed"),
            Self::Terminated => Error::new(ErrorKind::ShutDown, "the pool was terminated"),
            Self::Failed(error) => error.again(),
        }
    }
}

/// One worker's place.
#[derive(Default)]
struct Seat {
    child: Option<AnyChild>,
    /// Whose tasks are in the worker's frame.
    running: Option<Arc<Group>>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    seats: Vec<Mutex<Seat>>,
    initializer: Option<Call<()>>,
    started: AtomicUsize,
}

impl Shared {
    pub(super) fn workers(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn start(&self) -> Result<Local> {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        Local::start(format!("PoolWorker-{number}"), self.initializer.clone())
    }

    /// Gives a worker its seat, so that it can be killed from elsewhere.
    pub(super) fn seat(&self, number: usize, child: AnyChild) {
        lock(&self.seats[number]).child = Some(child.clone());
        // Seated BEFORE looking, so that either we see the end of the pool, or it sees the worker.
        if self.is_over() {
            let _ = child.kill();
        }
    }

    pub(super) fn running(&self, number: usize, group: Option<Arc<Group>>) {
        lock(&self.seats[number]).running = group;
    }

    /// Whether the pool was terminated or has failed.
    pub(super) fn is_over(&self) -> bool {
        self.over().is_some()
    }

    /// Why tasks come to nothing, if they do.
    pub(super) fn over(&self) -> Option<Error> {
        match &lock(&self.state).end {
            None | Some(End::Closed) => None,
            Some(end) => Some(end.error()),
        }
    }

    pub(super) fn submit(&self, batches: impl Iterator<Item = Batch>) -> Result<()> {
        let mut state = lock(&self.state);
        if let Some(end) = &state.end {
            return Err(end.error());
        }
        let before = state.queue.len();
        state.queue.extend(batches);
        let more = state.queue.len() - before;
        drop(state);
        match more {
            1 => self.work.notify_one(),
            _ => self.work.notify_all(),
        }
        Ok(())
    }

    /// Puts tasks back in front, for another worker.
    pub(super) fn put_back(&self, tasks: Vec<Task>) {
        if tasks.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        let error = match &state.end {
            None | Some(End::Closed) => {
                // One by one: what killed a worker once may be among them.
                for task in tasks.into_iter().rev() {
                    let batch = Batch {
                        tasks: vec![task],
                        mergeable: true,
                    };
                    state.queue.push_front(batch);
                }
                drop(state);
                return self.work.notify_all();
            }
            Some(end) => end.error(),
        };
        drop(state);
        for task in tasks {
            task.resolve(Err(error.again()));
        }
    }

    /// The next tasks, all of one group: a batch, or several up to `window` tasks. None: the driver is to end.
    pub(super) fn next(&self, window: usize) -> Option<VecDeque<Task>> {
        let mut state = lock(&self.state);
        loop {
            if matches!(state.end, Some(End::Terminated | End::Failed(_))) {
                return None;
            }
            if let Some(first) = state.queue.pop_front() {
                let mut tasks = VecDeque::from(first.tasks);
                // What is left is enough for the others.
                while first.mergeable
                    && state.queue.len() > 2 * self.workers()
                    && let Some(next) = state.queue.front()
                    && next.mergeable
                    && tasks.len() + next.tasks.len() <= window
                    && Arc::ptr_eq(&next.tasks[0].group, &tasks[0].group)
                    && let Some(next) = state.queue.pop_front()
                {
                    tasks.extend(next.tasks);
                }
                return Some(tasks);
            }
            if state.end.is_some() {
                return None;
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes what has not begun of a group out of the queue, and ends the workers that run the rest.
    pub(super) fn cancel(&self, group: &Arc<Group>) {
        group.cancel();
        let mut state = lock(&self.state);
        let (ours, others): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition(|batch| Arc::ptr_eq(&batch.tasks[0].group, group));
        state.queue = others;
        drop(state);
        for task in ours.into_iter().flat_map(|batch| batch.tasks) {
            task.resolve(Err(cancelled()));
        }
        for seat in &self.seats {
            let seat = lock(seat);
            let runs = seat.running.as_ref();
            if runs.is_some_and(|running| Arc::ptr_eq(running, group))
                && let Some(child) = &seat.child
            {
                // OK to ignore: it has ended then.
                let _ = child.kill();
            }
        }
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        if state.end.is_none() {
            state.end = Some(End::Closed);
        }
        drop(state);
        self.work.notify_all();
    }

    /// Ends the pool at once. The first reason stays.
    fn end(&self, reason: End) {
        let mut state = lock(&self.state);
        if matches!(state.end, None | Some(End::Closed)) {
            state.end = Some(reason);
        }
        let queue = std::mem::take(&mut state.queue);
        let error = state
            .end
            .as_ref()
            .map_or_else(|| End::Closed.error(), End::error);
        drop(state);
        self.work.notify_all();
        for seat in &self.seats {
            if let Some(child) = &lock(seat).child {
                let _ = child.kill();
            }
        }
        for task in queue.into_iter().flat_map(|batch| batch.tasks) {
            task.resolve(Err(error.again()));
        }
    }

    pub(super) fn fail(&self, error: Error) {
        self.end(End::Failed(error));
    }
}

pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the task was cancelled")
}

/// Worker processes that take calls, one after the other, for as long as the pool lives.
///
/// Every task resolves exactly once: with its value, or with an [`Error`] that says whether it panicked, was killed or exited with its
/// worker, ran out of its time, was cancelled, or found the pool shut down. A worker that dies costs the task that it was executing, and is
/// replaced; tasks that had not begun are run by others.
///
/// The pool may be used from many threads. Dropping it [terminates](Self::terminate) it.
///
/// Each worker costs this process eleven descriptors, and a thread that sleeps while there is nothing to do.
///
/// # If a peer dies
///
/// If a worker dies, the task it was executing is an error of kind [`Killed`](ErrorKind::Killed) or [`Exited`](ErrorKind::Exited) with the
/// signal or exit code, unless it may be [retried](Calls::retries). If this process dies, however that happens, so do the workers.
/// Workers pass over SIGINT: what Ctrl-C means is decided here.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn square(x: i64) -> i64 { x * x }
///
/// # fn main() -> mproc::Result<()> {
/// let pool = mproc::Pool::new(2)?;
/// assert_eq!(pool.map::<square>(1..=3)?, [1, 4, 9]);
/// let ten = pool.apply_async(square::bind(10))?;
/// assert_eq!(ten.get()?, 100);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "ProcessPoolExecutor")]
pub struct Pool {
    shared: Arc<Shared>,
    drivers: Mutex<Vec<JoinHandle<()>>>,
}

/// A pool before its start; made by [`Pool::builder`].
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn load(path: &str) { /* what every task needs */ }
///
/// # fn main() -> mproc::Result<()> {
/// let pool = mproc::Pool::builder().processes(2).initializer(load::bind("words")).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing runs before `start`"]
pub struct PoolBuilder {
    processes: Option<usize>,
    initializer: Option<Call<()>>,
}

impl PoolBuilder {
    /// How many workers; the default is [`cpu_count`].
    pub fn processes(mut self, processes: usize) -> Self {
        self.processes = Some(processes);
        self
    }

    /// What each worker calls before its first task. If it panics or returns an `Err`, the pool fails: each of its tasks gives that error,
    /// and no worker is started again.
    pub fn initializer<R>(mut self, call: Call<R>) -> Self {
        self.initializer = Some(call.erase());
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// If there are to be none, if an argument of the initializer cannot be sent, or as [`start`](crate::Process::start) of a process: then those that were
    /// started have been ended again.
    pub fn start(self) -> Result<Pool> {
        let processes = self.processes.unwrap_or_else(cpu_count);
        if processes == 0 {
            let text = "a pool needs a worker; ask for one process at least";
            return Err(Error::new(ErrorKind::Start, text));
        }
        if let Some(initializer) = &self.initializer {
            initializer.check()?;
        }
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            seats: (0..processes).map(|_| Mutex::default()).collect(),
            initializer: self.initializer,
            started: AtomicUsize::new(0),
        });
        // Dropped if a later one fails, and the earlier ones with it.
        let pool = Pool {
            shared,
            drivers: Mutex::default(),
        };
        for number in 0..processes {
            let worker = pool.shared.start()?;
            pool.shared.seat(number, worker.child());
            let shared = Arc::clone(&pool.shared);
            let driver = thread::Builder::new()
                .name(format!("mproc-pool-{number}"))
                .spawn(move || drive(&shared, number, worker))
                .map_err(|error| Error::io("a thread of the pool could not be started", error))?;
            lock(&pool.drivers).push(driver);
        }
        Ok(pool)
    }
}

impl Pool {
    /// A pool of so many workers.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::start`].
    pub fn new(processes: usize) -> Result<Self> {
        Self::builder().processes(processes).start()
    }

    /// A pool of [`cpu_count`] workers.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::start`].
    pub fn with_defaults() -> Result<Self> {
        Self::builder().start()
    }

    /// A pool to be configured first.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// Calls with options of their own: chunks, time limits, retries.
    pub fn calls(&self) -> Calls<'_> {
        Calls::new(&self.shared)
    }

    /// The workers that run now.
    pub fn workers(&self) -> Vec<AnyChild> {
        let seats = self.shared.seats.iter();
        let children = seats.filter_map(|seat| lock(seat).child.clone());
        children.filter(AnyChild::is_alive).collect()
    }

    /// See [`Calls::apply`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply<R: DeserializeOwned + 'static>(&self, call: Call<R>) -> Result<R> {
        self.calls().apply(call)
    }

    /// See [`Calls::apply_async`].
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "submit")]
    pub fn apply_async<R: DeserializeOwned + 'static>(
        &self,
        call: Call<R>,
    ) -> Result<AsyncResult<R>> {
        self.calls().apply_async(call)
    }

    /// See [`Calls::map`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn map<E: Unary>(&self, items: impl IntoIterator<Item = E::Arg>) -> Result<Vec<E::Output>>
    where
        E::Output: DeserializeOwned,
    {
        self.calls().map::<E>(items)
    }

    /// See [`Calls::map_async`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn map_async<E: Unary>(
        &self,
        items: impl IntoIterator<Item = E::Arg>,
    ) -> Result<AsyncResult<Vec<E::Output>>>
    where
        E::Output: DeserializeOwned,
    {
        self.calls().map_async::<E>(items)
    }

    /// See [`Calls::starmap`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn starmap<E: Entry>(
        &self,
        items: impl IntoIterator<Item = E::Args>,
    ) -> Result<Vec<E::Output>>
    where
        E::Output: DeserializeOwned,
    {
        self.calls().starmap::<E>(items)
    }

    /// See [`Calls::starmap_async`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn starmap_async<E: Entry>(
        &self,
        items: impl IntoIterator<Item = E::Args>,
    ) -> Result<AsyncResult<Vec<E::Output>>>
    where
        E::Output: DeserializeOwned,
    {
        self.calls().starmap_async::<E>(items)
    }

    /// See [`Calls::imap`].
    pub fn imap<E: Unary>(
        &self,
        items: impl IntoIterator<Item = E::Arg>,
    ) -> Imap<'_, E, impl Iterator<Item = E::Arg>> {
        self.calls().imap::<E, _>(items.into_iter())
    }

    /// See [`Calls::imap_unordered`].
    pub fn imap_unordered<E: Unary>(
        &self,
        items: impl IntoIterator<Item = E::Arg>,
    ) -> ImapUnordered<'_, E, impl Iterator<Item = E::Arg>> {
        self.calls().imap_unordered::<E, _>(items.into_iter())
    }

    /// Takes no more calls. What has been submitted is still run, and then the workers end.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Ends the pool at once: its workers are killed, and every task that has not resolved is an error of kind
    /// [`ShutDown`](ErrorKind::ShutDown).
    pub fn terminate(&self) {
        self.shared.end(End::Terminated);
    }

    /// Waits until everything submitted has resolved and the workers have ended. [Closes](Self::close) the pool first.
    pub fn join(&self) {
        self.close();
        let drivers = std::mem::take(&mut *lock(&self.drivers));
        for driver in drivers {
            // OK to ignore: a driver does not panic, and its panic would have been printed.
            let _ = driver.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.terminate();
        self.join();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}
