//! Calls to a pool, with options.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::dispatch::{Dispatcher, Load, Many, Piece, Rules};
use super::drive::Shared;
use super::group::{Callback, Group, Value, collect_many, collect_one};
use super::imap::{Imap, ImapUnordered, Stream};
use super::report::{Observer, Report, ReportTo};
use super::result::AsyncResult;
use crate::entry::arguments::Arguments;
use crate::entry::call::Load as CallLoad;
use crate::entry::registry;
use crate::entry::{Call, Entry, Unary};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::handles;

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
    listener: Option<Arc<dyn Observer>>,
    #[cfg(feature = "progress")]
    bar: Option<super::progress::Wanted>,
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
            listener: None,
            #[cfg(feature = "progress")]
            bar: None,
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

    /// Has `callback` hear what the tasks [report](crate::report()) of themselves while they run.
    ///
    /// It runs in a thread of this process: one that waits for something of the pool, or its background thread. It hears the reports of one call one
    /// at a time, those of one task in their order; those of several calls perhaps at once, if it was cloned with these options. A report may still be
    /// under way in one thread when the call has ended in another. Where it is slower than the tasks, the oldest of more than 4096 reports that wait for it are
    /// not heard. It is not to wait for another report of the same call. A panic in it is printed, and nothing else.
    ///
    /// # Examples
    ///
    /// See [`report`](crate::report()).
    pub fn on_report(mut self, callback: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(ReportTo(callback)));
        self
    }

    /// Draws a bar on stderr for each call: how many of its tasks have ended, how many in a second, and how long the rest will take, with what tasks
    /// [report](crate::report()) beside it. Of one task it shows what part of it is done.
    ///
    /// Only this process draws, and only if stderr is a terminal; otherwise nothing is written. A thread redraws the bar five times a second
    /// as long as there is one. When the call has ended, or its iterator is dropped, the bar stays as it is. Where the number of items is not known before,
    /// there is no bar but a count.
    ///
    /// # Examples
    ///
    /// ```
    /// #[mproc::entry]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let pool = mproc::Pool::new(2)?;
    /// let squares = pool.calls().progress().map::<square>(0..1000)?;
    /// for square in pool.calls().progress().imap::<square, _>(0..1000) {
    ///     square?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "progress")]
    #[doc(alias = "tqdm")]
    pub fn progress(mut self) -> Self {
        self.bar = Some(super::progress::Wanted::Default);
        self
    }

    /// Moves a bar of yours, of [`indicatif`](crate::indicatif), as [`progress`](Self::progress) does its own. It is given a length if it has none, and a
    /// message when a task reports; its style, and where it is drawn, stay as they are. It is finished when the call has ended, so it is for one call.
    ///
    /// # Examples
    ///
    /// ```
    /// use mproc::indicatif::{MultiProgress, ProgressBar};
    ///
    /// #[mproc::entry]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let pool = mproc::Pool::new(2)?;
    /// let bars = MultiProgress::new();
    /// let bar = bars.add(ProgressBar::no_length());
    /// pool.calls().progress_with(bar.clone()).map::<square>(0..1000)?;
    /// assert_eq!((bar.position(), bar.length()), (1000, Some(1000)));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "progress")]
    pub fn progress_with(mut self, bar: indicatif::ProgressBar) -> Self {
        self.bar = Some(super::progress::Wanted::Yours(bar));
        self
    }

    /// Has those hear what happens on the way who want to, perhaps of so many tasks.
    pub(super) fn observe(&self, group: &Group, total: Option<usize>) {
        if let Some(listener) = &self.listener {
            group.observe(Arc::clone(listener));
        }
        #[cfg(feature = "progress")]
        if let Some(wanted) = &self.bar {
            group.observe(super::progress::bar(wanted, total, group.is_one()));
        }
        #[cfg(not(feature = "progress"))]
        let _ = total;
    }

    fn is_heard(&self) -> bool {
        #[cfg(feature = "progress")]
        if self.bar.is_some() {
            return true;
        }
        self.listener.is_some()
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
        self.begin(call, true, None)?.get()
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
        self.begin(call, false, None)
    }

    /// Calls, does not wait, and has `callback` look at what came of it before anybody who waits hears of it.
    ///
    /// It runs in a thread of this process: one that waits for something of the pool, or its background thread, and never within a call that does not wait.
    /// Whatever it does there takes that thread's time, but may wait for other tasks of the pool, and for threads that do. While it keeps the
    /// background thread, nothing is heard of what no thread waits for: so it must not wait for what a future has to tell. A panic in it is printed, and nothing else: the result then is the error
    /// [`AlreadyJoined`](ErrorKind::AlreadyJoined).
    ///
    /// # Errors
    ///
    /// As [`apply_async`](Self::apply_async); then the callback is not called.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[mproc::entry]
    /// # fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> mproc::Result<()> {
    /// let pool = mproc::Pool::new(1)?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// let call = square::bind(3);
    /// let result = pool.calls().apply_async_with(call, move |value| {
    ///     let _ = sender.send(*value.as_ref().unwrap_or(&0));
    /// })?;
    /// assert_eq!((result.get()?, receiver.recv()), (9, Ok(9)));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "callback")]
    #[doc(alias = "error_callback")]
    #[doc(alias = "add_done_callback")]
    pub fn apply_async_with<R: DeserializeOwned + Send + 'static>(
        &self,
        call: Call<R>,
        callback: impl FnOnce(&Result<R>) + Send + 'static,
    ) -> Result<AsyncResult<R>> {
        self.begin(call, false, Some(first(collect_one::<R>, callback)))
    }

    fn begin<R: DeserializeOwned + 'static>(
        &self,
        call: Call<R>,
        is_awaited: bool,
        callback: Option<Callback>,
    ) -> Result<AsyncResult<R>> {
        let group = Group::one();
        self.observe(&group, Some(1));
        if let Some(callback) = callback {
            group.call_first(callback);
        }
        let piece = self.piece(&group, 0, call)?;
        self.shared.submit(std::iter::once(piece), is_awaited)?;
        Ok(AsyncResult {
            shared: Arc::clone(self.shared),
            group,
            collect: collect_one::<R>,
        })
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
        self.starmap::<E>(items.into_iter().map(E::alone))
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
        self.begin_all::<E>(items, true, None)?.get()
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
        self.begin_all::<E>(items, false, None)
    }

    /// Calls an entry for each item, does not wait, and has `callback` look at what came of all before anybody who waits hears of it. See
    /// [`apply_async_with`](Self::apply_async_with).
    ///
    /// # Errors
    ///
    /// As [`map_async`](Self::map_async).
    pub fn map_async_with<E: Unary>(
        &self,
        items: impl IntoIterator<Item = E::Arg>,
        callback: impl FnOnce(&Result<Vec<E::Output>>) + Send + 'static,
    ) -> Result<AsyncResult<Vec<E::Output>>>
    where
        E::Output: DeserializeOwned + Send,
    {
        let items = items.into_iter().map(E::alone);
        let callback = first(collect_many::<E::Output>, callback);
        self.begin_all::<E>(items, false, Some(callback))
    }

    fn begin_all<E: Entry>(
        &self,
        items: impl IntoIterator<Item = E::Args>,
        is_awaited: bool,
        callback: Option<Callback>,
    ) -> Result<AsyncResult<Vec<E::Output>>>
    where
        E::Output: DeserializeOwned,
    {
        let chunk = self.chunk()?;
        let items = items.into_iter();
        let group = match (items.size_hint(), chunk) {
            ((least, Some(most)), _) if least == most => {
                let chunk = chunk.unwrap_or_else(|| least.div_ceil(4 * self.shared.workers()));
                self.begin_chunks::<E>(items, chunk.max(1), is_awaited, callback)?
            }
            (_, Some(chunk)) => self.begin_chunks::<E>(items, chunk, is_awaited, callback)?,
            (_, None) => {
                let items: Vec<_> = items.collect();
                let chunk = items.len().div_ceil(4 * self.shared.workers());
                self.begin_chunks::<E>(items.into_iter(), chunk.max(1), is_awaited, callback)?
            }
        };
        Ok(AsyncResult {
            shared: Arc::clone(self.shared),
            group,
            collect: collect_many::<E::Output>,
        })
    }

    /// Workers begin with the first items while the last are still encoded.
    fn begin_chunks<E: Entry>(
        &self,
        mut items: impl Iterator<Item = E::Args>,
        chunk: usize,
        is_awaited: bool,
        callback: Option<Callback>,
    ) -> Result<Arc<Group>> {
        let group = Group::many();
        self.observe(&group, exactly(&items));
        if let Some(callback) = callback {
            group.call_first(callback);
        }
        let mut cutter = self.cutter::<E>(&group, chunk);
        let mut result = cutter.fill(&mut items);
        while matches!(result, Ok(true)) {
            if cutter.ready.len() >= cutter.batch
                && let Err(error) = self.shared.submit(cutter.ready.drain(..), true)
            {
                result = Err(error);
                break;
            }
            result = cutter.fill(&mut items);
        }
        cutter.cut();
        let result = result.and_then(|_| self.shared.submit(cutter.ready.drain(..), is_awaited));
        if let Err(error) = result {
            self.shared.change(|dispatcher| dispatcher.cancel(&group));
            return Err(error);
        }
        let mut after = group.has_in_all(cutter.next);
        if !after.is_empty() {
            let add = |dispatcher: &mut Dispatcher<_>| dispatcher.after.append(&mut after);
            self.shared.change(add);
        }
        Ok(group)
    }

    /// What makes pieces of items.
    pub(super) fn cutter<E: Entry>(&self, group: &Arc<Group>, chunk: usize) -> Cutter<E> {
        Cutter {
            group: Arc::clone(group),
            // A task that is timed stands for itself: its worker may have to be killed.
            chunk: if self.timeout.is_some() { 1 } else { chunk },
            batch: BATCH / chunk.min(BATCH),
            rules: self.rules(),
            next: 0,
            first: 0,
            arguments: Arguments::gathering::<E>(),
            bytes: 0,
            lengths: Vec::new(),
            length: 0,
            count: 0,
            ready: Vec::new(),
            entry: PhantomData,
        }
    }

    /// Calls an entry for each item of an input, which may be endless: so many are taken ahead as are bounded by
    /// [`in_flight`](Self::in_flight), and more when results are taken. Results come in the order of the items. Dropping the iterator
    /// stops the input.
    pub fn imap<E: Unary, I: Iterator<Item = E::Arg>>(self, items: I) -> Imap<'p, E, I> {
        Imap(Stream::new(self, items, true))
    }

    /// As [`imap`](Self::imap), but results come as they are ready.
    pub fn imap_unordered<E: Unary, I: Iterator<Item = E::Arg>>(
        self,
        items: I,
    ) -> ImapUnordered<'p, E, I> {
        ImapUnordered(Stream::new(self, items, false))
    }

    fn rules(&self) -> Option<Arc<Rules>> {
        let rules = Rules {
            timeout: self.timeout,
            retries: self.retries,
            is_heard: self.is_heard(),
        };
        (rules != Rules::default()).then(|| Arc::new(rules))
    }

    fn piece<R>(&self, group: &Arc<Group>, first: usize, call: Call<R>) -> Result<Piece> {
        piece_of(call, group, first, self.rules())
    }
}

/// How many there are, if that is known.
pub(super) fn exactly(items: &impl Iterator) -> Option<usize> {
    match items.size_hint() {
        (least, Some(most)) if least == most => Some(least),
        _ => None,
    }
}

/// A callback, for a group whose values are collected so.
fn first<R: Send + 'static>(
    collect: fn(&Group) -> Result<R>,
    callback: impl FnOnce(&Result<R>) + Send + 'static,
) -> Callback {
    Box::new(move |group| {
        let result = collect(group);
        callback(&result);
        Value::Decoded(Box::new(result))
    })
}

fn piece_of<R>(
    call: Call<R>,
    group: &Arc<Group>,
    first: usize,
    rules: Option<Arc<Rules>>,
) -> Result<Piece> {
    let (entry, load) = call.into_load()?;
    Ok(Piece {
        entry,
        load: match load {
            CallLoad::Plain(bytes) => Load::Plain(bytes),
            CallLoad::Message(message) => Load::Message(message),
            CallLoad::Once(message) => Load::Once(message),
        },
        group: Arc::clone(group),
        first,
        rules,
        tries: 0,
    })
}

/// So many items are encoded before workers are given them.
const BATCH: usize = 64;

/// 16 KiB: what goes to a worker at once. What is longer is divided, so that the worker begins before all of it is there.
const LONGEST: usize = 16 * 1024;

/// Makes pieces of items.
pub(super) struct Cutter<E> {
    group: Arc<Group>,
    chunk: usize,
    batch: usize,
    rules: Option<Arc<Rules>>,
    /// The number of the next item.
    pub(super) next: usize,
    /// The piece that is being made: the number of its first item, and what `Many` has.
    first: usize,
    arguments: Arguments,
    /// How many bytes were gathered.
    bytes: usize,
    lengths: Vec<u32>,
    length: u32,
    count: usize,
    /// Those that are made.
    pub(super) ready: Vec<Piece>,
    entry: PhantomData<fn() -> E>,
}

impl<E: Entry> Cutter<E> {
    /// Adds items until a piece is made. False: there are no more.
    ///
    /// Where an item or its encoding panics, those that this was given are not there.
    #[inline]
    pub(super) fn fill(&mut self, items: &mut impl Iterator<Item = E::Args>) -> Result<bool> {
        self.arguments.rewind(self.bytes);
        // Encoded twice, perhaps, so nothing that holds anything; and without a scope for handles, so not inside one of somebody else.
        let mut may_be_alike = !std::mem::needs_drop::<E::Args>() && handles::is_outside();
        let mut other = None;
        // Not in memory, where each item would wait for the one before to be stored.
        let (mut count, mut bytes, mut length) = (self.count, self.bytes, self.length);
        loop {
            // Once the first one has told how much room they take: a piece is kept until it has been done, and is to have no more than it needs.
            if may_be_alike && count > 0 && self.lengths.is_empty() {
                may_be_alike = false;
                let most = (self.chunk - count).min(items.size_hint().1.unwrap_or(usize::MAX));
                let its = length as usize;
                let end = LONGEST.min(bytes.saturating_add(its.saturating_mul(most)));
                let alike = self.arguments.gather_alike::<E>(items, its, most, end);
                (count, bytes) = (count + alike.count, bytes + alike.count * its);
                if count == self.chunk || bytes >= LONGEST {
                    self.holds(count, bytes, length);
                    self.cut();
                    return Ok(true);
                }
                if alike.is_over {
                    break;
                }
                other = alike.other;
            }
            let Some(item) = other.take().or_else(|| items.next()) else {
                break;
            };
            E::put(item, &mut self.arguments);
            let now = match self.arguments.gathered(bytes) {
                Ok(now) => now,
                Err(call) => {
                    self.holds(count, bytes, length);
                    return self.add_call(call).map(|()| true);
                }
            };
            let its = (now - bytes) as u32;
            bytes = now;
            if count == 0 {
                length = its;
            }
            if its != length || !self.lengths.is_empty() {
                if self.lengths.is_empty() {
                    self.lengths.resize(count, length);
                }
                self.lengths.push(its);
            }
            count += 1;
            if count == self.chunk || bytes + 4 * self.lengths.len() >= LONGEST {
                self.holds(count, bytes, length);
                self.cut();
                return Ok(true);
            }
        }
        self.holds(count, bytes, length);
        Ok(false)
    }

    fn holds(&mut self, count: usize, bytes: usize, length: u32) {
        (self.count, self.bytes, self.length) = (count, bytes, length);
        self.next = self.first + count;
    }

    /// Something that is no plain bytes is a piece by itself.
    #[cold]
    fn add_call(&mut self, call: Call<()>) -> Result<()> {
        self.cut();
        let piece = piece_of(call, &self.group, self.next, self.rules.clone())?;
        self.ready.push(piece);
        self.next += 1;
        self.first = self.next;
        Ok(())
    }

    /// What was added so far is a piece.
    pub(super) fn cut(&mut self) {
        if self.count > 0 {
            // Encoding the next one may have panicked.
            self.arguments.rewind(self.bytes);
            let bytes = self.arguments.take_gathered();
            let load = if self.count == 1 {
                Load::Plain(bytes.into())
            } else {
                Load::Many(Box::new(Many {
                    bytes,
                    count: self.count as u32,
                    length: self.length,
                    lengths: std::mem::take(&mut self.lengths),
                }))
            };
            self.ready.push(Piece {
                entry: registry::registration::<E>(),
                load,
                group: Arc::clone(&self.group),
                first: self.first,
                rules: self.rules.clone(),
                tries: 0,
            });
        }
        self.lengths.clear();
        self.bytes = 0;
        self.count = 0;
        self.first = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[crate::entry(crate = crate)]
    fn any(x: u64) -> u64 {
        x
    }

    /// A piece is kept until it has been done.
    #[test]
    fn a_piece_has_no_more_room_than_it_needs() {
        let mut cutter = Cutter::<any> {
            group: Group::many(),
            chunk: 2,
            batch: 1,
            rules: None,
            next: 0,
            first: 0,
            arguments: Arguments::gathering::<any>(),
            bytes: 0,
            lengths: Vec::new(),
            length: 0,
            count: 0,
            ready: Vec::new(),
            entry: PhantomData,
        };
        let mut items = (0..100).map(|x| (x,));
        while cutter.fill(&mut items).unwrap() {}
        assert_eq!(cutter.ready.len(), 50);
        for piece in &cutter.ready {
            match &piece.load {
                Load::Many(many) => assert!(many.bytes.capacity() <= 64),
                _ => panic!("two calls"),
            }
        }
    }
}
