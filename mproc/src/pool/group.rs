//! Where tasks resolve: the outcomes of one call, of one map, or of a stream of calls.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::link::Values;
use super::report::{Event, Observer, Report};
use super::trace::Trace;
use super::{lock, unharmed};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{Brief, Message, codec};

/// What came of a task, until somebody takes it.
#[derive(Default)]
pub(super) enum Value {
    /// It has not resolved, or was taken.
    #[default]
    Nothing,
    /// Encoded.
    Plain(Brief),
    Message(Box<Message>),
    Error(Error),
    /// All of a group, decoded for its callback.
    Decoded(Box<dyn Any + Send>),
}

/// What is done about a resolution once no lock is held.
pub(super) enum After {
    Unpark(Thread),
    Wake(Waker),
    Call(Arc<Group>),
    Observe(Arc<dyn Observer>, Event),
    /// What its tasks have said of themselves is to be heard.
    Hear(Arc<Group>),
    /// Of what is observed: its observers are not to be dropped under the lock, with the piece that resolved last.
    Forget(Arc<Group>),
}

impl After {
    /// Whether code of users runs in it.
    pub(super) fn is_of_users(&self) -> bool {
        !matches!(self, Self::Unpark(_))
    }

    /// Whether that may wait for something: wakers are made to be called by anybody, callbacks are not.
    pub(super) fn may_take_long(&self) -> bool {
        !matches!(self, Self::Unpark(_) | Self::Wake(_))
    }

    /// Code of users may run, and panic: nobody is to care. Gives what is left for whoever drives next.
    pub(super) fn run(self) -> Option<Self> {
        match self {
            Self::Unpark(thread) => thread.unpark(),
            Self::Wake(waker) => _ = unharmed(|| waker.wake()),
            Self::Call(group) => {
                group.call_back();
                _ = unharmed(|| drop(group));
            }
            Self::Observe(observer, event) => observe(&*observer, &event),
            Self::Hear(group) => {
                if group.hear() {
                    return Some(Self::Hear(group));
                }
                _ = unharmed(|| drop(group));
            }
            Self::Forget(group) => _ = unharmed(|| drop(group)),
        }
        None
    }
}

/// Code of users may run here, too.
fn observe(observer: &dyn Observer, event: &Event) {
    unharmed(|| event.tell(observer));
}

pub(super) struct Group {
    state: Mutex<State>,
    resolved: AtomicUsize,
    /// `usize::MAX`: not known yet, or there is no end to it.
    total: AtomicUsize,
    /// Whoever asked is not interested any more: what has not begun need not begin.
    cancelled: AtomicBool,
    /// A callback has to run before anybody hears of the end.
    held: AtomicBool,
    /// Of a map.
    is_many: bool,
}

struct State {
    store: Store,
    watchers: Option<Box<Watchers>>,
}

enum Store {
    One(Value),
    Many(Box<Many>),
    Stream(Box<Stream>),
}

/// The values of a map: those that are plain lie one behind the other, in the order in which they came.
#[derive(Default)]
struct Many {
    runs: Vec<Run>,
    bytes: Vec<u8>,
    others: Vec<Value>,
}

/// Where the values of some tasks in a row are.
#[derive(Clone, Copy)]
struct Run {
    /// The number of the first task.
    first: u64,
    /// Where in the bytes they begin.
    at: usize,
    count: u32,
    /// As in [`Values`], or [`OTHER`].
    each: u32,
}

/// In place of a length: it is one, and among the others.
const OTHER: u32 = u32::MAX - 1;

impl Many {
    #[inline]
    fn add(&mut self, first: usize, values: Values<'_>) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(values.bytes);
        let first = first as u64;
        // OK to cast: they came through a ring.
        let count = values.count as u32;
        if let Some(last) = self.runs.last_mut()
            && last.each == values.each
            && last.first + u64::from(last.count) == first
            && let Some(sum) = last.count.checked_add(count)
        {
            last.count = sum;
            return;
        }
        self.runs.push(Run {
            first,
            at,
            count,
            each: values.each,
        });
    }

    fn add_other(&mut self, index: usize, value: Value) {
        self.runs.push(Run {
            first: index as u64,
            at: self.others.len(),
            count: 1,
            each: OTHER,
        });
        self.others.push(value);
    }
}

impl Store {
    fn set(&mut self, index: usize, value: Value) {
        match self {
            Self::One(place) => *place = value,
            Self::Many(many) => many.add_other(index, value),
            Self::Stream(stream) => stream.set(index, value),
        }
    }

    fn set_all(&mut self, first: usize, values: Values<'_>) {
        if let Self::Many(many) = self {
            many.add(first, values);
            return;
        }
        for (index, bytes) in (first..).zip(values.iter()) {
            self.set(index, Value::Plain(Brief::new(bytes)));
        }
    }
}

/// The values of an `imap` that have not been taken.
enum Stream {
    /// Of tasks from the first one on.
    InOrder(usize, VecDeque<Value>),
    AsReady(VecDeque<Value>),
}

impl Stream {
    fn set(&mut self, index: usize, value: Value) {
        match self {
            Self::InOrder(first, values) => {
                let place = index - *first;
                if values.len() <= place {
                    values.resize_with(place + 1, Value::default);
                }
                values[place] = value;
            }
            Self::AsReady(values) => values.push_back(value),
        }
    }
}

pub(super) type Callback = Box<dyn FnOnce(&Group) -> Value + Send>;

#[derive(Default)]
struct Watchers {
    threads: Vec<Thread>,
    wakers: Vec<Waker>,
    callback: Option<Callback>,
    trace: Option<Traced>,
    observers: Vec<Arc<dyn Observer>>,
    /// What the observers have not heard, in the order in which it was said.
    unheard: VecDeque<Report>,
    /// Somebody tells them, or is going to.
    is_told: bool,
}

/// So many reports of a call wait for who hears them; beyond that the oldest go.
const MOST_UNHEARD: usize = 4096;

/// For so long at least one thread tells what has been said.
const MOMENT: Duration = Duration::from_millis(1);

/// Who writes down what becomes of the tasks, and under which names.
struct Traced {
    trace: Arc<Trace>,
    call: u32,
    entry: &'static str,
}

impl State {
    fn is_traced(&self) -> bool {
        self.watchers
            .as_ref()
            .is_some_and(|watchers| watchers.trace.is_some())
    }

    fn trace(&self, index: usize, value: &Value) {
        if let Some(watchers) = &self.watchers
            && let Some(Traced { trace, call, entry }) = &watchers.trace
        {
            trace.resolved(*call, index, entry, value);
        }
    }
}

impl Group {
    fn new(store: Store, total: usize) -> Arc<Self> {
        let is_many = matches!(store, Store::Many(_));
        Arc::new(Self {
            is_many,
            state: Mutex::new(State {
                store,
                watchers: None,
            }),
            resolved: AtomicUsize::new(0),
            total: AtomicUsize::new(total),
            cancelled: AtomicBool::new(false),
            held: AtomicBool::new(false),
        })
    }

    pub(super) fn one() -> Arc<Self> {
        Self::new(Store::One(Value::Nothing), 1)
    }

    /// Of many tasks; how many there are is [told](Self::has_in_all) when they have been submitted.
    pub(super) fn many() -> Arc<Self> {
        Self::new(Store::Many(Box::default()), usize::MAX)
    }

    /// So many tasks have been submitted, and no more will be. Gives whom to tell.
    pub(super) fn has_in_all(self: &Arc<Self>, count: usize) -> Vec<After> {
        let mut after = Vec::new();
        let mut state = lock(&self.state);
        self.total.store(count, Ordering::Relaxed);
        if let Some(watchers) = &state.watchers {
            let expects = |observer| After::Observe(observer, Event::Expects(count));
            after.extend(watchers.observers.iter().cloned().map(expects));
        }
        self.tell(&mut state, &mut after);
        after
    }

    pub(super) fn stream(in_order: bool) -> Arc<Self> {
        let stream = if in_order {
            Stream::InOrder(0, VecDeque::new())
        } else {
            Stream::AsReady(VecDeque::new())
        };
        Self::new(Store::Stream(Box::new(stream)), usize::MAX)
    }

    /// Has `callback` run before anybody hears that all has resolved. Before anything is submitted.
    pub(super) fn call_first(&self, callback: Callback) {
        self.held.store(true, Ordering::Relaxed);
        let watchers = &mut lock(&self.state).watchers;
        watchers.get_or_insert_default().callback = Some(callback);
    }

    /// The number under which a trace knows it; from now on it is told of each resolution.
    pub(super) fn number_in(&self, trace: &Arc<Trace>, entry: &'static str) -> u32 {
        let watchers = &mut lock(&self.state).watchers;
        let traced = &mut watchers.get_or_insert_default().trace;
        let traced = traced.get_or_insert_with(|| Traced {
            trace: Arc::clone(trace),
            call: trace.next_call(),
            entry,
        });
        traced.call
    }

    /// Whether it is one task.
    #[cfg(feature = "progress")]
    pub(super) fn is_one(&self) -> bool {
        matches!(lock(&self.state).store, Store::One(_))
    }

    /// Whether nothing is to be heard of it before all of it has resolved, and that is many.
    pub(super) fn is_map(&self) -> bool {
        let is_counted = || {
            let state = lock(&self.state);
            let watchers = state.watchers.as_ref();
            watchers.is_some_and(|them| them.observers.iter().any(|it| it.counts()))
        };
        self.is_many && !is_counted()
    }

    pub(super) fn has_callback(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Once for each task. Whom to tell is added to `after`.
    pub(super) fn resolve(self: &Arc<Self>, index: usize, value: Value, after: &mut Vec<After>) {
        let mut state = lock(&self.state);
        state.trace(index, &value);
        state.store.set(index, value);
        self.resolved.fetch_add(1, Ordering::Release); // pairs with `resolved`
        self.tell(&mut state, after);
    }

    /// As above for tasks in a row.
    pub(super) fn resolve_all(
        self: &Arc<Self>,
        first: usize,
        values: Values<'_>,
        after: &mut Vec<After>,
    ) {
        let mut state = lock(&self.state);
        state.store.set_all(first, values);
        if state.is_traced() {
            let value = Value::Plain(Brief::new(&[]));
            (first..first + values.count).for_each(|index| state.trace(index, &value));
        }
        self.resolved.fetch_add(values.count, Ordering::Release); // pairs with `resolved`
        self.tell(&mut state, after);
    }

    /// Tells whom it concerns that some more have resolved.
    fn tell(self: &Arc<Self>, state: &mut State, after: &mut Vec<After>) {
        let Some(watchers) = &mut state.watchers else {
            return;
        };
        let is_stream = matches!(state.store, Store::Stream(_));
        let in_all = self.resolved();
        let is_over = in_all >= self.total.load(Ordering::Relaxed);
        let event = if is_over {
            Event::Finished
        } else {
            Event::Resolved
        };
        for observer in watchers.observers.iter().filter(|it| it.counts()) {
            after.push(After::Observe(Arc::clone(observer), event(in_all)));
        }
        if !watchers.observers.is_empty() {
            after.push(After::Forget(Arc::clone(self)));
        }
        if is_stream || is_over {
            if watchers.callback.is_some() {
                after.push(After::Call(Arc::clone(self)));
                return;
            }
            after.extend(watchers.threads.drain(..).map(After::Unpark));
            after.extend(watchers.wakers.drain(..).map(After::Wake));
        }
    }

    fn call_back(&self) {
        let mut state = lock(&self.state);
        let callback = state
            .watchers
            .as_mut()
            .and_then(|watchers| watchers.callback.take());
        drop(state);
        self.finish_observers();
        if let Some(callback) = callback
            && let Some(value) = unharmed(|| callback(self))
        {
            lock(&self.state).store = Store::One(value);
        }
        self.held.store(false, Ordering::Release);
        let (threads, wakers) = match &mut lock(&self.state).watchers {
            // Not the observers: what tasks have said may not have been heard.
            Some(watchers) => (
                std::mem::take(&mut watchers.threads),
                std::mem::take(&mut watchers.wakers),
            ),
            None => Default::default(),
        };
        threads.into_iter().for_each(|thread| thread.unpark());
        wakers
            .into_iter()
            .map(After::Wake)
            .for_each(|wake| _ = wake.run());
    }

    /// Has somebody hear what happens on the way. Before anything is submitted.
    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        let watchers = &mut lock(&self.state).watchers;
        watchers.get_or_insert_default().observers.push(observer);
    }

    /// A task says something of itself.
    pub(super) fn report(self: &Arc<Self>, index: usize, payload: &[u8], after: &mut Vec<After>) {
        if let Some(watchers) = &mut lock(&self.state).watchers
            && let Some(report) = Report::read(index, payload)
        {
            if watchers.unheard.len() == MOST_UNHEARD {
                watchers.unheard.pop_front();
            }
            watchers.unheard.push_back(report);
            if !std::mem::replace(&mut watchers.is_told, true) {
                after.push(After::Hear(Arc::clone(self)));
            }
        }
    }

    /// Tells what has been said, in its order: one thread at a time, without the lock. Others leave it to that one, and so does a callback that drives. Only for
    /// a moment, so that nobody who waits for something else is kept by what is said meanwhile. Gives whether there is more.
    fn hear(&self) -> bool {
        let start = Instant::now();
        loop {
            let mut state = lock(&self.state);
            let Some(watchers) = &mut state.watchers else {
                return false;
            };
            let Some(report) = watchers.unheard.pop_front() else {
                watchers.is_told = false;
                return false;
            };
            let observers = watchers.observers.clone();
            drop(state);
            for observer in &observers {
                unharmed(|| observer.reported(&report));
            }
            if start.elapsed() > MOMENT {
                return true;
            }
        }
    }

    /// Nobody waits any more: before the caller goes on, there is nothing to be heard of it.
    pub(super) fn finish_observers(&self) {
        let observers = match &lock(&self.state).watchers {
            Some(watchers) => watchers.observers.clone(),
            None => return,
        };
        for observer in observers {
            observe(&*observer, &Event::Finished(self.resolved()));
        }
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// How many tasks have resolved.
    pub(super) fn resolved(&self) -> usize {
        self.resolved.load(Ordering::Acquire)
    }

    /// Whether all tasks have, and whoever is to hear of it first has.
    pub(super) fn is_done(&self) -> bool {
        self.resolved() >= self.total.load(Ordering::Relaxed) && !self.held.load(Ordering::Acquire)
    }

    /// Asks for this thread to be woken by what resolves next. Look AFTER this.
    pub(super) fn watch(&self) {
        let watchers = &mut lock(&self.state).watchers;
        let threads = &mut watchers.get_or_insert_default().threads;
        let this = std::thread::current();
        if !threads.iter().any(|thread| thread.id() == this.id()) {
            threads.push(this);
        }
    }

    /// Asks for a waker to be woken. False: all has resolved.
    pub(super) fn watch_with(&self, waker: &Waker) -> bool {
        let watchers = &mut lock(&self.state).watchers;
        if self.is_done() {
            return false;
        }
        let wakers = &mut watchers.get_or_insert_default().wakers;
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        true
    }

    /// Takes the next resolution of a stream, if it is there.
    pub(super) fn take_next(&self) -> Option<Value> {
        let Store::Stream(stream) = &mut lock(&self.state).store else {
            return None;
        };
        match &mut **stream {
            Stream::AsReady(values) => values.pop_front(),
            Stream::InOrder(first, values) => match values.front() {
                None | Some(Value::Nothing) => None,
                Some(_) => {
                    *first += 1;
                    values.pop_front()
                }
            },
        }
    }

    /// Takes everything.
    fn take_store(&self) -> Store {
        std::mem::replace(&mut lock(&self.state).store, Store::One(Value::Nothing))
    }

    /// Whether everything resolved to a value, as far as that can be told without decoding it.
    pub(super) fn has_only_values(&self) -> bool {
        let good = |value: &Value| matches!(value, Value::Plain(_) | Value::Message(_));
        match &lock(&self.state).store {
            Store::One(Value::Decoded(_)) => true,
            Store::One(value) => good(value),
            Store::Many(many) => many.others.iter().all(good),
            Store::Stream(_) => false,
        }
    }
}

fn taken() -> Error {
    let text = "the value has already been taken";
    Error::new(ErrorKind::AlreadyJoined, text)
}

fn undecodable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let text = "a task returned a value that could not be decoded";
    Error::new(ErrorKind::Decode, text).caused_by(error)
}

#[inline(always)]
fn decode_plain<R: DeserializeOwned>(mut bytes: &[u8]) -> Result<R> {
    match codec::decode(&mut bytes) {
        Ok(value) if bytes.is_empty() => Ok(value),
        Ok(_) => Err(undecodable("bytes are left over")),
        Err(error) => Err(undecodable(error)),
    }
}

/// The value of a task.
pub(super) fn decode<R: DeserializeOwned>(value: Value) -> Result<R> {
    match value {
        Value::Plain(bytes) => decode_plain(&bytes),
        Value::Message(message) => message.decode().map_err(undecodable),
        Value::Error(error) => Err(error),
        Value::Nothing | Value::Decoded(_) => Err(taken()),
    }
}

/// The value of a group of one.
pub(super) fn collect_one<R: DeserializeOwned + 'static>(group: &Group) -> Result<R> {
    match group.take_store() {
        Store::One(Value::Decoded(any)) => decoded(any),
        Store::One(value) => decode(value),
        _ => Err(taken()),
    }
}

/// The values of a map.
pub(super) fn collect_many<R: DeserializeOwned + 'static>(group: &Group) -> Result<Vec<R>> {
    let mut many = match group.take_store() {
        Store::One(Value::Decoded(any)) => return decoded(any),
        Store::Many(many) => many,
        _ => return Err(taken()),
    };
    // Workers that are about equally fast leave them almost in order.
    many.runs.sort_by_key(|run| run.first);
    let count = many.runs.iter().map(|run| run.count as usize).sum();
    let mut values = Vec::with_capacity(count);
    for run in &many.runs {
        debug_assert_eq!(run.first, values.len() as u64, "a task resolves once");
        if run.each == OTHER {
            values.push(decode(std::mem::take(&mut many.others[run.at]))?);
            continue;
        }
        let run = Values {
            bytes: &many.bytes[run.at..],
            count: run.count as usize,
            each: run.each,
        };
        for bytes in run.iter() {
            values.push(decode_plain(bytes)?);
        }
    }
    Ok(values)
}

fn decoded<R: 'static>(any: Box<dyn Any + Send>) -> Result<R> {
    *any.downcast::<Result<R>>()
        .expect("the callback was of this type")
}
