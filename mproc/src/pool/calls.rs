//! Calls to a pool, with options.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::group::{Group, Resolution, Task, decode};
use super::imap::{Imap, ImapUnordered, Stream};
use super::result::AsyncResult;
use super::shared::{Batch, Shared};
use crate::entry::{self, Call, Entry, Unary};
use crate::error::{Error, ErrorKind, Result};

/// A pool's calls with options of their own; made by [`Pool::calls`](crate::Pool::calls).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// #[mproc::entry]
/// fn square(x: i64) -> i64 { x * x }
///
/// # fn main() -> mproc::Result<()> {
/// let pool = mproc::Pool::new(2)?;
/// let calls = pool.calls().chunk_size(10).timeout(Duration::from_secs(60)).retries(1);
/// assert_eq!(calls.map::<square>(0..100)?.len(), 100);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is called yet"]
pub struct Calls<'p> {
    pub(super) shared: &'p Arc<Shared>,
    chunk_size: Option<usize>,
    timeout: Option<Duration>,
    retries: u32,
    in_flight: Option<usize>,
}

impl std::fmt::Debug for Calls<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls")
            .field("chunk_size", &self.chunk_size)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl<'p> Calls<'p> {
    pub(super) fn new(shared: &'p Arc<Shared>) -> Self {
        Self {
            shared,
            chunk_size: None,
            timeout: None,
            retries: 0,
            in_flight: None,
        }
    }

    /// How many items of a map go to a worker together. The default is the number of items divided by four times that of workers, rounded up;
    /// of an `imap`, one. Zero is an error of the call.
    #[doc(alias = "chunksize")]
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items);
        self
    }

    /// How long each task may take, from its beginning on a worker. Then the worker is killed, and the task is an error of kind
    /// [`Timeout`](ErrorKind::Timeout).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// How often each task is run again when its worker dies. Not for calls with unique handles, which can be used once only.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How many items of an `imap` are taken from its input before their results are asked for. The default is sixteen for each worker.
    pub fn in_flight(mut self, items: usize) -> Self {
        self.in_flight = Some(items.max(1));
        self
    }

    pub(super) fn bound(&self) -> usize {
        self.in_flight.unwrap_or(16 * self.shared.workers())
    }

    pub(super) fn chunk(&self) -> Result<Option<usize>> {
        match self.chunk_size {
            Some(0) => {
                let text = "a chunk needs an item; ask for one at least";
                Err(Error::new(ErrorKind::Encode, text))
            }
            chunk => Ok(chunk),
        }
    }

    /// Calls, and waits for the value.
    ///
    /// # Errors
    ///
    /// As [`AsyncResult::get`].
    pub fn apply<R: DeserializeOwned + 'static>(&self, call: Call<R>) -> Result<R> {
        self.apply_async(call)?.get()
    }

    /// Calls, and does not wait.
    ///
    /// # Errors
    ///
    /// If an argument could not be encoded, or the pool takes no more calls.
    pub fn apply_async<R: DeserializeOwned + 'static>(
        &self,
        call: Call<R>,
    ) -> Result<AsyncResult<R>> {
        call.check()?;
        let group = Arc::<Group>::default();
        let batch = Batch {
            tasks: vec![self.task(&group, 0, call)],
            mergeable: false,
        };
        self.shared.submit(std::iter::once(batch))?;
        Ok(self.result(group, 1, |mut resolutions| {
            decode(resolutions.pop().expect("there is one"))
        }))
    }

    /// Calls an entry for each item, and waits for all values, which come in the order of the items.
    ///
    /// # Errors
    ///
    /// As [`AsyncResult::get`].
    pub fn map<E: Unary>(&self, items: impl IntoIterator<Item = E::Arg>) -> Result<Vec<E::Output>>
    where
        E::Output: DeserializeOwned,
    {
        self.map_async::<E>(items)?.get()
    }

    /// Calls an entry for each item, and does not wait.
    ///
    /// # Errors
    ///
    /// As [`apply_async`](Self::apply_async); or if the chunk size is zero.
    pub fn map_async<E: Unary>(
        &self,
        items: impl IntoIterator<Item = E::Arg>,
    ) -> Result<AsyncResult<Vec<E::Output>>>
    where
        E::Output: DeserializeOwned,
    {
        self.starmap_async::<E>(items.into_iter().map(E::alone))
    }

    /// Calls an entry for each tuple of its arguments, and waits for all values.
    ///
    /// # Errors
    ///
    /// As [`AsyncResult::get`].
    pub fn starmap<E: Entry>(
        &self,
        items: impl IntoIterator<Item = E::Args>,
    ) -> Result<Vec<E::Output>>
    where
        E::Output: DeserializeOwned,
    {
        self.starmap_async::<E>(items)?.get()
    }

    /// Calls an entry for each tuple of its arguments, and does not wait.
    ///
    /// # Errors
    ///
    /// As [`map_async`](Self::map_async).
    pub fn starmap_async<E: Entry>(
        &self,
        items: impl IntoIterator<Item = E::Args>,
    ) -> Result<AsyncResult<Vec<E::Output>>>
    where
        E::Output: DeserializeOwned,
    {
        let chunk = self.chunk()?;
        let group = Arc::<Group>::default();
        let mut tasks = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let call = entry::bind::<E>(item);
            call.check()?;
            tasks.push(self.task(&group, index, call));
        }
        let count = tasks.len();
        let chunk = chunk.unwrap_or_else(|| count.div_ceil(4 * self.shared.workers()).max(1));
        let mut tasks = tasks.into_iter();
        let batches = std::iter::from_fn(|| {
            let tasks: Vec<_> = tasks.by_ref().take(chunk).collect();
            (!tasks.is_empty()).then_some(Batch {
                tasks,
                mergeable: true,
            })
        });
        self.shared.submit(batches)?;
        Ok(self.result(group, count, |resolutions| {
            resolutions.into_iter().map(decode).collect()
        }))
    }

    /// Calls an entry for each item of an input, which may be endless: so many are taken ahead as are bounded by
    /// [`in_flight`](Self::in_flight), and more when results are taken. Results come in the order of the items. Dropping the iterator
    /// stops the input.
    pub fn imap<E: Unary, I: Iterator<Item = E::Arg>>(self, items: I) -> Imap<'p, E, I> {
        Imap(Stream::new(self, items))
    }

    /// As [`imap`](Self::imap), but results come as they are ready.
    pub fn imap_unordered<E: Unary, I: Iterator<Item = E::Arg>>(
        self,
        items: I,
    ) -> ImapUnordered<'p, E, I> {
        ImapUnordered(Stream::new(self, items))
    }

    pub(super) fn task<R>(&self, group: &Arc<Group>, index: usize, call: Call<R>) -> Task {
        Task {
            call: call.erase(),
            group: Arc::clone(group),
            index,
            retries: self.retries,
            timeout: self.timeout,
        }
    }

    fn result<R>(
        &self,
        group: Arc<Group>,
        count: usize,
        collect: fn(Vec<Resolution>) -> Result<R>,
    ) -> AsyncResult<R> {
        AsyncResult {
            shared: Arc::clone(self.shared),
            group,
            count,
            collect,
            result: PhantomData,
        }
    }
}
