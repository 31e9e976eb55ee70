//! The pool as its users hold it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::calls::Calls;
use super::dispatch::Dispatcher;
use super::drive::Shared;
use super::imap::{Imap, ImapUnordered};
use super::local::Local;
use super::result::AsyncResult;
use super::trace::{self, Trace};
use super::unharmed;
use super::worker::{Limits, Orders};
use crate::entry::{Call, Entry, Unary};
use crate::error::{Error, ErrorKind, Result};
use crate::process::{AnyChild, Process, StartMethod, cpu_count};
use crate::sys::Deadline;

/// Worker processes that take calls, one after the other, for as long as the pool lives.
///
/// Every task resolves exactly once: with its value, or with an [`Error`] that says whether it panicked, was killed or exited with its
/// worker, ran out of its time, was cancelled, or found the pool shut down. A worker that dies costs the task that it was executing, and is
/// replaced; tasks that had not begun are run by others.
///
/// The pool may be used from many threads. Dropping it [terminates](Self::terminate) it.
///
/// Each worker costs this process four descriptors, and the pool one. There is no thread for each worker: whoever waits for a result passes tasks on
/// meanwhile, and one thread in the background does while nobody waits and something is outstanding.
///
/// # If a peer dies
///
/// If a worker dies, the task it was executing is an error of kind [`Killed`](ErrorKind::Killed) or [`Exited`](ErrorKind::Exited) with the
/// signal or exit code, unless it may be [retried](Calls::retries). If this process dies, however that happens, so do the workers.
/// Workers pass over SIGINT: what Ctrl-C means is decided here.
///
/// Where a worker cannot be replaced now, for want of a descriptor or of a process, the others go on, and it is tried again every tenth of a second while
/// there is something to do. If there are no others, the pool fails: each of its tasks gives that error.
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
    retries: u32,
    trace: Option<Arc<Trace>>,
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
    limits: Limits,
    is_on_demand: bool,
    name: Option<String>,
    niceness: i32,
    variables: Vec<Variable>,
    retries: u32,
    trace: Option<PathBuf>,
    start_method: StartMethod,
}

/// A variable of the workers' environment.
struct Variable {
    key: OsString,
    value: Setting,
}

enum Setting {
    All(OsString),
    /// By the worker's place.
    Each(Box<dyn Fn(usize) -> OsString + Send>),
}

impl Variable {
    /// What it is to the worker at this place.
    fn at(&self, place: usize) -> Result<(&OsString, OsString)> {
        let value = match &self.value {
            Setting::All(value) => value.clone(),
            Setting::Each(value) => {
                let panicked = || {
                    let text = format!("what tells a worker its {:?} panicked", self.key);
                    Error::new(ErrorKind::Start, text)
                };
                unharmed(|| value(place)).ok_or_else(panicked)?
            }
        };
        Ok((&self.key, value))
    }
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Setting::All(value) => write!(f, "{:?}={value:?}", self.key),
            Setting::Each(_) => write!(f, "{:?}=…", self.key),
        }
    }
}

impl PoolBuilder {
    /// How many workers; the default is [`cpu_count`].
    #[doc(alias = "max_workers")]
    pub fn processes(mut self, processes: usize) -> Self {
        self.processes = Some(processes);
        self
    }

    /// Whether workers are started when there is work for them and nobody is idle, instead of all at the start of the pool. Those that were started stay, and one
    /// that ends is replaced when it is needed.
    ///
    /// Then it is tasks, and not [`start`](Self::start), that tell that a worker could not be started.
    ///
    /// # Examples
    ///
    /// ```
    /// #[mproc::entry]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let pool = mproc::Pool::builder().processes(8).on_demand(true).start()?;
    /// assert_eq!(pool.workers().len(), 0);
    /// assert_eq!(pool.apply(square::bind(2))? + pool.apply(square::bind(3))?, 13);
    /// assert_eq!(pool.workers().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_demand(mut self, is_on_demand: bool) -> Self {
        self.is_on_demand = is_on_demand;
        self
    }

    /// What workers are called, before their number: `Loader` for `Loader-1`, `Loader-2` … in the order of their starts. The default is `PoolWorker`. A worker sees
    /// it as [`current_process`](crate::current_process)`().name()`, others in `ps`, logs and errors.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> mproc::Result<()> {
    /// let pool = mproc::Pool::builder().processes(2).name_prefix("Loader").start()?;
    /// let names: Vec<_> = pool.workers().iter().map(|worker| worker.name().to_owned()).collect();
    /// assert_eq!(names, ["Loader-1", "Loader-2"]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "thread_name_prefix")]
    pub fn name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.name = Some(prefix.into());
        self
    }

    /// How often a task is run again when its worker dies, where a call does not say otherwise by [`Calls::retries`]; the default is never.
    ///
    /// # Examples
    ///
    /// ```
    /// #[mproc::entry]
    /// fn die() { std::process::abort() }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let pool = mproc::Pool::builder().processes(1).retries(2).start()?;
    /// // Three times in vain, and here once.
    /// assert!(pool.apply(die::bind()).is_err());
    /// assert!(pool.calls().retries(0).apply(die::bind()).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// What each worker calls before its first task. If it panics or returns an `Err`, the pool fails: each of its tasks gives that error,
    /// and no worker is started again.
    #[doc(alias = "initargs")]
    pub fn initializer<R>(mut self, call: Call<R>) -> Self {
        self.initializer = Some(call.erase());
        self
    }

    /// How many tasks a worker executes before another one takes its place; at least one. There is no limit otherwise. Unlike in Python, where a chunk of a map
    /// counts as one, each of its items counts.
    #[doc(alias = "maxtasksperchild")]
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        self.limits.tasks = Some(tasks.max(1));
        self
    }

    /// How many bytes of memory a worker may have more than it had after its initializer. It is looked at after each task, for some microseconds; a worker
    /// that has more is replaced.
    pub fn max_memory_growth(mut self, bytes: u64) -> Self {
        self.limits.growth = Some(bytes);
        self
    }

    /// How long a worker executes tasks before another one takes its place. It is looked at after each task; an idle worker stays.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.limits.age = Some(age);
        self
    }

    /// How workers are started.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.start_method = method;
        self
    }

    /// How much nicer to others than this process its workers are: from 0 to 19, or below 0 for who may.
    #[doc(alias = "nice")]
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.niceness = niceness;
        self
    }

    /// Sets an environment variable of the workers.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let (key, value) = (key.into(), Setting::All(value.into()));
        self.variables.push(Variable { key, value });
        self
    }

    /// Sets an environment variable of each worker to something of its own. `value` is given the worker's place, from 0 to the number of
    /// workers less one; one that takes the place of another is given the same. It is called under a lock of the pool, and must not use it. If it panics, the
    /// worker cannot be started.
    ///
    /// # Examples
    ///
    /// ```
    /// #[mproc::entry]
    /// fn device() -> String { std::env::var("DEVICE").unwrap() }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let pool = mproc::Pool::builder().processes(1).env_for_each("DEVICE", |place| place.to_string()).start()?;
    /// assert_eq!(pool.apply(device::bind())?, "0");
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_for_each<V: Into<OsString>>(
        mut self,
        key: impl Into<OsString>,
        value: impl Fn(usize) -> V + Send + 'static,
    ) -> Self {
        let value = Setting::Each(Box::new(move |place| value(place).into()));
        let key = key.into();
        self.variables.push(Variable { key, value });
        self
    }

    /// Writes a timeline to a file: what each worker and each task did when, in the [trace event format] that <https://ui.perfetto.dev> and
    /// `chrome://tracing` open.
    ///
    /// Each worker has a track from its start to its end, with its name, and its pid for a number; one that takes the place of another has its own. On it lies
    /// each task that it executed, with the name of the entry; `args` tell its call and its index there, its `outcome` (*value*, *panicked*, *died*, *timed
    /// out*, *cancelled*, *shut down*, *failed*, *unfinished*) and the error. Each task of the pool is there once; what never began lies on the track of this process, with no length. What died and is
    /// tried again is there for each vain attempt, too, with the outcome *retried*. A slice of category *wait* reaches from the submission of a task, or of the
    /// chunk it goes with, to its beginning. A counter shows how many tasks wait and run.
    ///
    /// Beginnings and ends of tasks are times of the worker; everything else, and the end of a task whose worker died, is when this process
    /// noticed. All are of the machine's monotonic clock, so traces of several pools fit together.
    ///
    /// Events are written as they come: 64 KiB of them, or what a quarter of a second had, are kept at most, so that long
    /// runs cost no memory. A task is 150 bytes of the file, twice that if it goes to a worker by itself, and costs about half a microsecond. Without this, a task costs one more branch.
    ///
    /// The file is overwritten. It is a whole JSON value at each moment, whatever happens to the workers, and even if this process is killed; then what happened last
    /// may be missing. The rest is written by [`join`](Pool::join), by dropping the pool, and when the program ends by `exit` or by returning from `main`.
    ///
    /// # Errors
    ///
    /// That of [`start`](Self::start), if the file cannot be made. If it cannot be written later, it ends there, and a record of level *warn* says so at the end.
    ///
    /// # Examples
    ///
    /// ```
    /// #[mproc::entry]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let path = std::env::temp_dir().join(format!("trace-{}.json", std::process::id()));
    /// let pool = mproc::Pool::builder().processes(2).trace(&path).start()?;
    /// pool.map::<square>(0..10)?;
    /// drop(pool);
    /// let trace: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    /// assert!(trace["traceEvents"].as_array().unwrap().len() > 10);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [trace event format]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    pub fn trace(mut self, path: impl Into<PathBuf>) -> Self {
        self.trace = Some(path.into());
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
        let trace = self.trace.as_deref().map(Trace::create).transpose()?;
        let (mut started, tracer) = (0_usize, trace.clone());
        let (is_on_demand, retries) = (self.is_on_demand, self.retries);
        let start = move |seat: usize| {
            started += 1;
            let orders = Orders {
                initializer: self.initializer.clone(),
                limits: self.limits,
                seat: (seat as u32, processes as u32),
                niceness: self.niceness,
                is_traced: tracer.is_some(),
            };
            let name = self.name.as_deref().unwrap_or("PoolWorker");
            let variables = self.variables.iter().map(|variable| variable.at(seat));
            let variables = variables.collect::<Result<Vec<_>>>()?;
            let worker = Local::start(format!("{name}-{started}"), orders, |process| {
                let set = |process: Process<()>, (key, value)| process.env(key, value);
                let process = process.start_method(self.start_method);
                variables.into_iter().fold(process, set)
            })?;
            if let Some(trace) = &tracer {
                let child = worker.child();
                trace.joined(seat, child.name(), child.id());
            }
            Ok(worker)
        };
        let mut dispatcher = Dispatcher::new(processes, cpu_count(), Box::new(start));
        dispatcher.trace = trace.clone();
        dispatcher.is_on_demand = is_on_demand;
        // Dropped if a worker cannot be started, and the earlier ones with it.
        let pool = Pool {
            shared: Shared::new(dispatcher, processes)?,
            retries,
            trace,
        };
        let at_once = if is_on_demand { 0 } else { processes };
        for seat in 0..at_once {
            pool.shared.desk().dispatcher.start_at(seat)?;
        }
        if pool.trace.is_some() {
            trace::complete_at_exit(&pool.shared);
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

    /// Calls with options of their own: chunks, time limits, retries, progress.
    pub fn calls(&self) -> Calls<'_> {
        Calls::new(&self.shared).retries(self.retries)
    }

    /// The workers that run now.
    pub fn workers(&self) -> Vec<AnyChild> {
        let desk = self.shared.desk();
        let children = desk.dispatcher.links().map(Local::child);
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
        self.shared.terminate();
    }

    /// Ends the pool in peace, or else by force: takes no more calls, lets what was submitted run for `grace` at most, and then
    /// [terminates](Self::terminate); a worker that has nothing to do and does not end by then is killed, too. Returns when the workers have ended.
    ///
    /// With a `grace` of zero, tasks that have not ended are errors of kind [`ShutDown`](ErrorKind::ShutDown).
    #[doc(alias = "cancel_futures")]
    pub fn shutdown(&self, grace: Duration) {
        let deadline = Deadline::after(grace);
        self.shared.close();
        if !self.shared.wait(None, Some(grace), Dispatcher::is_idle) {
            self.shared.terminate();
        }
        self.join_until(deadline);
    }

    /// Sends SIGTERM to all workers and ends the pool: what has not resolved is an error of kind [`ShutDown`](ErrorKind::ShutDown). Waits for the workers
    /// for `grace`, in which they may handle the signal, and kills those that are left.
    pub fn terminate_workers(&self, grace: Duration) {
        let workers = self.workers();
        for worker in &workers {
            // OK to ignore: it has ended then.
            let _ = worker.terminate();
        }
        self.shared.change(Dispatcher::abandon);
        let deadline = Instant::now().checked_add(grace);
        for worker in &workers {
            let left = deadline.map_or(grace, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            let _ = worker.wait_timeout(left);
        }
        self.kill_workers();
    }

    /// Kills all workers and ends the pool, and waits for that.
    pub fn kill_workers(&self) {
        self.terminate();
        self.join();
    }

    /// Waits until everything submitted has resolved and the workers have ended. [Closes](Self::close) the pool first. Several threads may do so at once; for those
    /// who do not want to wait any longer there is [`terminate`](Self::terminate), from any thread.
    pub fn join(&self) {
        self.join_until(Deadline::NEVER);
    }

    fn join_until(&self, deadline: Deadline) {
        self.shared.join(deadline);
        if let Some(error) = self.trace.as_ref().and_then(|trace| trace.close()) {
            log::warn!(target: "mproc", "the trace of a pool is not complete: {error}");
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
