//! The timeline of a pool: what each task and each worker did when, in the [trace event format] that Perfetto and `chrome://tracing` open.
//!
//! The dispatcher tells of what happens to workers, a [group](super::group) of each resolution, and so every task is in it once, whatever
//! became of it. Events are written as they come; what is kept is where the workers are, and since when something waits.
//!
//! | event   | is                                                          | its time                             |
//! |---------|-------------------------------------------------------------|--------------------------------------|
//! | `M`     | names of the process and its tracks                         | –                                    |
//! | `B` `E` | the life of a worker, a track for each                      | seen by the parent                   |
//! | `X`     | a worker's start, until it is ready                         | seen by the parent                   |
//! | `X`     | a task on its worker, or on our own track if it never began | the worker's; its end if it dies, the parent's |
//! | `b` `e` | what waits: one task, or a chunk, from its submission on    | the parent's, then the worker's      |
//! | `i`     | the end of the pool, on our own track                       | the parent's                         |
//! | `C`     | how many tasks wait and run, a thousand times a second at most | the parent's                      |
//!
//! A track's number is the pid of its worker, or our own. (Some viewers merge the tracks 0 and 1.)
//! All times are of `CLOCK_MONOTONIC`, which all processes of a machine share, in microseconds.
//!
//! # Invariants
//!
//! 1. At each moment the file is a whole JSON value: every write ends it, and the next one begins where its end was.
//! 2. On each track times do not go back: what a worker says of the time is believed between the last one and now.
//!
//! [trace event format]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::drive::Shared;
use super::group::{Group, Value};
use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::sys;

pub(super) struct Trace {
    state: Mutex<State>,
}

struct State {
    sheet: Sheet,
    /// How many calls there were.
    calls: u32,
    /// Since when what waits does, by the numbers of its call and of its first task.
    waits: HashMap<(u32, usize), u64>,
    /// By their seats.
    tracks: Vec<Option<Track>>,
    /// Tasks that have not resolved.
    outstanding: usize,
    /// When they were counted last.
    counted: u64,
    is_closed: bool,
}

/// A worker.
struct Track {
    id: u32,
    name: String,
    started: u64,
    /// The last time on it.
    last: u64,
    running: Option<Task>,
}

/// What a worker is at.
struct Task {
    call: u32,
    index: usize,
    name: &'static str,
    since: u64,
    /// How long it waited, if it did by itself.
    waited: Option<u64>,
    ended: Option<u64>,
}

/// Tasks that go to a worker together.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) group: &'a Group,
    /// The number of its first task in the group.
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) name: &'static str,
}

/// Pools with a trace, and the process that has them, for the end of the program.
static OPEN: Mutex<Vec<(u32, Weak<Shared>)>> = Mutex::new(Vec::new());

/// Has the trace of a pool completed when the program ends by `exit`, if the pool has not ended by then.
///
/// Once a process was started: handlers run in the opposite order of their registration, and so the workers are still there.
pub(super) fn complete_at_exit(pool: &Arc<Shared>) {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    if !IS_REGISTERED.swap(true, Ordering::Relaxed) {
        // OK to ignore: there is room for 32 handlers at least, and all that is lost is the end of a trace.
        let _ = sys::at_exit(complete_all);
    }
    let mut open = lock(&OPEN);
    open.retain(|(_, pool)| pool.strong_count() > 0);
    open.push((std::process::id(), Arc::downgrade(pool)));
}

/// The other threads still run. What a process that was forked from this one has inherited is not its own.
extern "C" fn complete_all() {
    let open = std::mem::take(&mut *lock(&OPEN));
    let ours = open
        .iter()
        .filter(|(owner, _)| *owner == std::process::id());
    ours.filter_map(|(_, pool)| pool.upgrade())
        .for_each(|pool| pool.complete_trace());
}

impl Trace {
    /// Makes the file, and begins it.
    pub(super) fn create(path: &Path) -> Result<Arc<Self>> {
        let failed = |error| {
            let text = format!("the trace {} could not be written", path.display());
            Error::io(text, error)
        };
        let mut state = State {
            sheet: Sheet::create(path).map_err(failed)?,
            calls: 0,
            waits: HashMap::new(),
            tracks: Vec::new(),
            outstanding: 0,
            counted: 0,
            is_closed: false,
        };
        let program = std::env::current_exe().unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        let own = state.sheet.owner;
        state.sheet.metadata("process_name", own, &program);
        state.sheet.metadata("thread_name", own, "not begun");
        state.sheet.flush(state.sheet.flushed);
        if let Some(error) = state.sheet.failure.take() {
            return Err(failed(error));
        }
        Ok(Arc::new(Self {
            state: Mutex::new(state),
        }))
    }

    fn with(&self, act: impl FnOnce(&mut State, u64)) {
        let mut state = lock(&self.state);
        if !state.is_closed {
            act(&mut state, sys::monotonic_nanoseconds());
        }
    }

    /// The number of another call.
    pub(super) fn next_call(&self) -> u32 {
        let mut state = lock(&self.state);
        state.calls += 1;
        state.calls
    }

    /// A worker was started at a seat.
    pub(super) fn joined(&self, seat: usize, name: &str, id: u32) {
        self.with(|state, now| {
            if state.tracks.len() <= seat {
                state.tracks.resize_with(seat + 1, || None);
            }
            let sheet = &mut state.sheet;
            sheet.metadata("thread_name", id, name);
            sheet.event('B', name, "worker", id, now);
            let _ = write!(sheet.buffer, r#","args":{{"seat":{seat}}}}}"#);
            state.tracks[seat] = Some(Track {
                id,
                name: name.to_owned(),
                started: now,
                last: now,
                running: None,
            });
            state.settle(now);
        });
    }

    /// It takes tasks.
    pub(super) fn ready(&self, seat: usize) {
        self.with(|state, now| {
            let State { sheet, tracks, .. } = state;
            if let Some(track) = track(tracks, seat) {
                // Slices of one nanosecond are not nested by everybody in the order of the file.
                let started = track.started + 1;
                sheet.event('X', "start", "worker", track.id, started);
                sheet.duration(started, now);
                sheet.buffer.push('}');
                track.last = now;
            }
            state.settle(now);
        });
    }

    /// It ended, or has done its share.
    pub(super) fn left(&self, seat: usize, how: Option<&Error>) {
        self.with(|state, now| {
            let how = how.map_or("done its share".to_owned(), Error::to_string);
            state.leave(seat, now, &how, "retried");
            state.settle(now);
        });
    }

    /// Tasks of a call wait for a worker, `new` ones if this is the first time.
    pub(super) fn waits(self: &Arc<Self>, piece: Piece<'_>, new: usize) {
        let call = piece.group.number_in(self, piece.name);
        self.with(|state, now| {
            state.outstanding += new;
            if let Entry::Vacant(vacant) = state.waits.entry((call, piece.first)) {
                vacant.insert(now);
                let sheet = &mut state.sheet;
                sheet.wait('b', piece.name, call, piece.first, now);
                let _ = write!(sheet.buffer, r#","args":{{"tasks":{}}}}}"#, piece.count);
            }
            // Otherwise it was taken back from a worker that had not come to it, and waits as before.
            state.settle(now);
        });
    }

    /// A worker says that it began a task of a piece, and when.
    pub(super) fn began(self: &Arc<Self>, seat: usize, piece: Piece<'_>, done: usize, since: u64) {
        let call = piece.group.number_in(self, piece.name);
        self.with(|state, now| {
            let State {
                sheet,
                tracks,
                waits,
                ..
            } = state;
            let Some(track) = track(tracks, seat) else {
                return;
            };
            let since = since.min(now).max(track.last);
            let waited = match waits.remove(&(call, piece.first)) {
                Some(began) => {
                    sheet.wait('e', piece.name, call, piece.first, since);
                    sheet.buffer.push('}');
                    Some(since.saturating_sub(began))
                }
                None => None,
            };
            track.running = Some(Task {
                call,
                index: piece.first + done,
                name: piece.name,
                since,
                waited,
                ended: None,
            });
        });
    }

    /// A worker says that it ended its task, and when.
    pub(super) fn ended(&self, seat: usize, at: u64) {
        self.with(|state, now| {
            let track = track(&mut state.tracks, seat);
            if let Some(task) = track.and_then(|track| track.running.as_mut()) {
                task.ended = Some(at.min(now).max(task.since));
            }
        });
    }

    /// A task has resolved. Once for each.
    pub(super) fn resolved(&self, call: u32, index: usize, name: &'static str, value: &Value) {
        let (outcome, error) = match value {
            Value::Error(error) => (outcome(error.kind()), Some(error)),
            _ => ("value", None),
        };
        self.with(|state, now| {
            state.outstanding = state.outstanding.saturating_sub(1);
            let mut tracks = state.tracks.iter_mut().flatten();
            let track = tracks.find(|track| {
                let running = track.running.as_ref();
                running.is_some_and(|task| (task.call, task.index) == (call, index))
            });
            match track {
                Some(track) => track.finish(&mut state.sheet, now, outcome, error),
                None => {
                    let waited = state.waits.remove(&(call, index));
                    if waited.is_some() {
                        state.sheet.wait('e', name, call, index, now);
                        state.sheet.buffer.push('}');
                    }
                    let task = Task {
                        call,
                        index,
                        name,
                        since: now,
                        waited: waited.map(|since| now.saturating_sub(since)),
                        ended: Some(now),
                    };
                    let own = state.sheet.owner;
                    state.sheet.task(own, &task, now, outcome, error);
                }
            }
            state.settle(now);
        });
    }

    /// The pool ends, because of this.
    pub(super) fn ends(&self, why: &Error) {
        self.with(|state, now| {
            let own = state.sheet.owner;
            state.sheet.event('i', &short(why), "pool", own, now);
            state.sheet.buffer.push_str(r#","s":"p"}"#);
            state.settle(now);
        });
    }

    /// Writes the rest. What happens later is in no trace. Gives, once, why the file is not complete, if so.
    pub(super) fn close(&self) -> Option<io::Error> {
        let mut failure = None;
        self.with(|state, now| {
            for seat in 0..state.tracks.len() {
                state.leave(seat, now, "dismissed", "unfinished");
            }
            state.count(now);
            state.sheet.flush(now);
            state.is_closed = true;
            failure = state.sheet.failure.take();
        });
        failure
    }
}

/// What lies between two writes at most, unless something is to be seen sooner.
const LARGE: usize = 64 * 1024;
const OFTEN: u64 = 10_000_000;
const SELDOM: u64 = 250_000_000;

/// Between two counts.
const COUNTS: u64 = 1_000_000;

impl State {
    /// A worker is gone from its seat; what it was at has this outcome.
    fn leave(&mut self, seat: usize, now: u64, how: &str, outcome: &'static str) {
        let Some(mut track) = self.tracks.get_mut(seat).and_then(Option::take) else {
            return;
        };
        if track.running.is_some() {
            track.finish(&mut self.sheet, now, outcome, None);
        }
        let Track { id, last, .. } = track;
        let sheet = &mut self.sheet;
        sheet.event('E', &track.name, "worker", id, now.max(last));
        sheet.buffer.push_str(r#","args":{"how":"#);
        quote(how, &mut sheet.buffer);
        sheet.buffer.push_str("}}");
    }

    /// After each event: counts, and writes, if it is time.
    fn settle(&mut self, now: u64) {
        let is_idle = self.outstanding == 0;
        if is_idle || now.saturating_sub(self.counted) > COUNTS {
            self.count(now);
        }
        let old = now.saturating_sub(self.sheet.flushed);
        if self.sheet.buffer.len() > LARGE || old > SELDOM || is_idle && old > OFTEN {
            self.sheet.flush(now);
        }
    }

    fn count(&mut self, now: u64) {
        self.counted = now;
        let tracks = self.tracks.iter().flatten();
        let running = tracks.filter(|track| track.running.is_some()).count();
        let waiting = self.outstanding.saturating_sub(running);
        self.sheet
            .event('C', "tasks", "pool", self.sheet.owner, now);
        let args = format!(r#","args":{{"waiting":{waiting},"running":{running}}}}}"#);
        self.sheet.buffer.push_str(&args);
    }
}

impl Track {
    /// What it was at has come to this.
    fn finish(&mut self, sheet: &mut Sheet, now: u64, outcome: &str, error: Option<&Error>) {
        if let Some(task) = self.running.take() {
            sheet.task(self.id, &task, now, outcome, error);
            self.last = task.ended.unwrap_or(now).max(task.since);
        }
    }
}

fn track(tracks: &mut [Option<Track>], seat: usize) -> Option<&mut Track> {
    tracks.get_mut(seat)?.as_mut()
}

/// In a word.
fn outcome(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Panicked => "panicked",
        ErrorKind::Killed | ErrorKind::Exited => "died",
        ErrorKind::Timeout => "timed out",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::ShutDown => "shut down",
        _ => "failed",
    }
}

/// As much of an error as belongs into a file of many.
fn short(error: &Error) -> String {
    error.to_string().chars().take(200).collect()
}

/// The file, and what goes there next.
struct Sheet {
    file: File,
    /// A process that was forked from this one has all of this, too, and is not to write.
    owner: u32,
    /// Where the end is that the next write replaces.
    end: u64,
    buffer: String,
    is_empty: bool,
    /// When it was written last.
    flushed: u64,
    failure: Option<io::Error>,
}

const HEAD: &str = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
const TAIL: &str = "\n]}\n";

impl Sheet {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create(path)?,
            owner: std::process::id(),
            end: 0,
            buffer: HEAD.to_owned(),
            is_empty: true,
            flushed: sys::monotonic_nanoseconds(),
            failure: None,
        })
    }

    /// Begins an event; the caller adds to it, and ends it.
    fn event(&mut self, phase: char, name: &str, category: &str, track: u32, time: u64) {
        if !std::mem::take(&mut self.is_empty) {
            self.buffer.push_str(",\n");
        }
        let _ = write!(self.buffer, r#"{{"ph":"{phase}","name":"#);
        quote(name, &mut self.buffer);
        let (owner, micros, rest) = (self.owner, time / 1000, time % 1000);
        let _ = write!(
            self.buffer,
            r#","cat":"{category}","pid":{owner},"tid":{track},"ts":{micros}.{rest:03}"#
        );
    }

    /// The name of the process, or of a track.
    fn metadata(&mut self, what: &str, track: u32, name: &str) {
        self.event('M', what, "", track, 0);
        self.buffer.push_str(r#","args":{"name":"#);
        quote(name, &mut self.buffer);
        self.buffer.push_str("}}");
    }

    fn duration(&mut self, since: u64, until: u64) {
        let nanos = until.saturating_sub(since);
        let _ = write!(
            self.buffer,
            r#","dur":{}.{:03}"#,
            nanos / 1000,
            nanos % 1000
        );
    }

    fn wait(&mut self, phase: char, name: &str, call: u32, first: usize, time: u64) {
        self.event(phase, name, "wait", self.owner, time);
        let _ = write!(self.buffer, r#","id":"0x{call:x}{first:010x}""#);
    }

    fn task(&mut self, track: u32, task: &Task, now: u64, outcome: &str, error: Option<&Error>) {
        self.event('X', task.name, "task", track, task.since);
        self.duration(task.since, task.ended.unwrap_or(now));
        let (call, index) = (task.call, task.index);
        let _ = write!(
            self.buffer,
            r#","args":{{"call":{call},"index":{index},"outcome":"{outcome}""#
        );
        if let Some(waited) = task.waited {
            let _ = write!(self.buffer, r#","waited_us":{}"#, waited / 1000);
        }
        if let Some(error) = error {
            self.buffer.push_str(r#","error":"#);
            quote(&short(error), &mut self.buffer);
        }
        self.buffer.push_str("}}");
    }

    /// Writes what there is, and the end of the file (invariant 1).
    fn flush(&mut self, now: u64) {
        self.flushed = now;
        let events = self.buffer.len();
        if self.failure.is_none() && self.owner == std::process::id() {
            self.buffer.push_str(TAIL);
            match self.file.write_all_at(self.buffer.as_bytes(), self.end) {
                Ok(()) => self.end += events as u64,
                Err(error) => self.fail(error),
            }
        }
        self.buffer.clear();
    }

    /// Leaves what is there as it was before the write that failed.
    #[cold]
    fn fail(&mut self, error: io::Error) {
        // OK to ignore: these bytes have a place in the file, so there is nothing that can be done if this fails, too.
        let _ = self.file.write_all_at(TAIL.as_bytes(), self.end);
        let _ = self.file.set_len(self.end + TAIL.len() as u64);
        self.failure = Some(error);
    }
}

/// Appends a string of JSON.
fn quote(text: &str, to: &mut String) {
    to.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => to.extend(['\\', letter]),
            control if control < ' ' => {
                let _ = write!(to, "\\u{:04x}", u32::from(control));
            }
            other => to.push(other),
        }
    }
    to.push('"');
}
