//! What a worker does: errand by errand, until it is dismissed.
//!
//! Each outcome is in shared memory before the next task begins, so a worker that dies takes nothing with it but the task that it was at.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::link::{EACH, Yields};
use super::local::{CROWD, Plain, REPORTS, TIMED, empty_line, kind};
use super::report;
use super::ring::{self, Memory, Place};
use crate::Fd;
use crate::entry::Call;
use crate::entry::batch::Batch;
use crate::entry::call::Resolved;
use crate::entry::registry::{self, Key, Registration, Served, Unworked};
use crate::error::{Error, ErrorKind, Panic};
use crate::process::panics;
use crate::process::record::Refusal;
use crate::sync::Spin;
use crate::sys::{self, Deadline};
use crate::wire::{Message, Outgoing, codec};

/// What a worker is told when it starts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) initializer: Option<Call<()>>,
    pub(super) limits: Limits,
    /// Its number among those at work, and how many there are: where on the machine it belongs.
    pub(super) seat: (u32, u32),
    pub(super) niceness: i32,
    /// It is to say when each task begins and ends.
    pub(super) is_traced: bool,
}

/// When it has done its share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Limits {
    pub(super) tasks: Option<u64>,
    /// Bytes of memory more than it had when it was ready.
    pub(super) growth: Option<u64>,
    pub(super) age: Option<Duration>,
}

#[crate::entry(crate = crate)]
pub(super) fn work(memory: Fd, line: Fd, orders: Orders) {
    sys::pass_over_interrupts();
    sys::add_niceness(orders.niceness);
    let line = line.into_shared();
    let Ok(memory) = Memory::open(memory.as_fd()) else {
        return;
    };
    // For as long as the process lives.
    let memory: &'static Memory = Box::leak(Box::new(memory));
    let Orders {
        initializer,
        limits,
        seat,
        is_traced,
        ..
    } = orders;
    let mut worker = Worker {
        mouth: Mouth {
            memory,
            outgoing: Place::default(),
            line,
            packets: VecDeque::new(),
            each: None,
        },
        incoming: Place::default(),
        entries: Vec::new(),
        spin: Spin::default(),
        yields: Yields::default(),
        number: 0,
        done: 0,
        limits,
        is_traced,
        home: sys::nth_core(seat.0, seat.1),
        is_crowded: false,
        cores: crate::process::cpu_count(),
        seats: seat.1 as usize,
        slept: false,
        together: 0,
        born: Instant::now(),
        size: 0,
        outgoing: Outgoing::gathering(),
    };
    // OK to stop: nobody is there any more.
    let _ = worker.run(initializer);
}

/// The parent is gone, or makes no sense.
struct Gone;

impl From<ring::Broken> for Gone {
    fn from(_: ring::Broken) -> Self {
        Self
    }
}

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

struct Worker {
    mouth: Mouth,
    incoming: Place,
    entries: Vec<Result<&'static Registration, Error>>,
    spin: Spin,
    yields: Yields,
    /// Errands that have been received.
    number: u64,
    /// Tasks that have been done.
    done: u64,
    limits: Limits,
    is_traced: bool,
    /// The core on which it begins.
    home: Option<u32>,
    /// Whether there are as many at work as there are cores.
    is_crowded: bool,
    cores: usize,
    /// How many workers there are.
    seats: usize,
    /// Whether it has slept since it last began an errand while others were at work, too.
    slept: bool,
    /// How many sleeps in a row were short, and the parent was on the same core.
    together: u32,
    born: Instant,
    /// Bytes that it had when it was ready.
    size: u64,
    /// Where values are encoded.
    outgoing: Outgoing,
}

impl Limits {
    /// How many tasks may be done before it is asked again whether that was enough, when so many have been done.
    fn most(&self, done: u64) -> usize {
        if self.growth.is_some() || self.age.is_some() {
            return 1;
        }
        let most = self
            .tasks
            .map_or(u64::MAX, |tasks| tasks.saturating_sub(done));
        usize::try_from(most).unwrap_or(usize::MAX).max(1)
    }
}

/// What speaks to the parent.
struct Mouth {
    memory: &'static Memory,
    outgoing: Place,
    line: Arc<OwnedFd>,
    /// What was on the line.
    packets: VecDeque<io::Result<Message>>,
    /// How long values were last; those of one errand, or [`EACH`].
    each: Option<u32>,
}

/// What a call came to, before it is sent.
enum Executed {
    Message(Message),
    Panic(Panic),
    Refusal(Refusal),
}

impl Executed {
    fn refusal(error: &Error) -> Self {
        Self::Refusal(Refusal::new(error))
    }
}

/// At each of so many errands, a worker that does not sleep looks where it is.
const LOOKS: u64 = 8;

/// So many short sleeps are no accident.
const TOGETHER: u32 = 8;
const SHORT: Duration = Duration::from_micros(100);

/// Whether to go on.
enum Next {
    GoOn,
    End,
}

impl Worker {
    fn run(&mut self, initializer: Option<Call<()>>) -> Result<(), Gone> {
        if let Some(call) = initializer {
            let (executed, failed) = execute(call.into());
            if failed {
                return self.mouth.say(kind::UNFIT, executed);
            }
        }
        self.size = sys::resident_bytes();
        self.mouth.push(kind::READY, &[])?;
        self.mouth.wake(true, true);
        let mut frame = Vec::new();
        loop {
            self.wait()?;
            frame.clear();
            let tasks = self.mouth.memory.tasks();
            tasks.take(&mut self.incoming, &mut frame)?;
            tasks.finish(&mut self.incoming, Some(0));
            let mut at = 0;
            // A parent that sleeps until more is needed is woken while there is something left to do.
            let mut half = Some(frame.len() / 2);
            while at < frame.len() {
                let (kind, range, next) = ring::record(&frame, at)?;
                at = next;
                if half.is_some_and(|half| at >= half) {
                    half = None;
                    self.mouth.wake(true, true);
                }
                let next = match kind {
                    kind::ENTRY => {
                        let (key, signature) =
                            codec::decode::<(Key<'static>, u64)>(&mut &frame[range])
                                .map_err(|_| Gone)?;
                        self.entries.push(registry::find(&key, signature));
                        Next::GoOn
                    }
                    kind::PLAIN => {
                        let mut bytes = std::mem::take(&mut frame);
                        let next = self.plain(&mut bytes, range)?;
                        frame = bytes;
                        next
                    }
                    kind::MESSAGE => self.message(&frame[range])?,
                    _ => Next::End,
                };
                if matches!(next, Next::End) {
                    return Ok(());
                }
            }
        }
    }

    /// Waits until there is a record.
    fn wait(&mut self) -> Result<(), Gone> {
        let tasks = self.mouth.memory.tasks();
        let place = &self.incoming;
        if tasks.has_more(place) {
            return Ok(());
        }
        self.mouth.wake(true, true);
        // What it has been sent may have been taken back: then it has said nothing, and there is room.
        tasks.wake_writer(self.mouth.line.as_fd());
        self.mouth.memory.outcomes().writer_is_here();
        let other = if self.is_crowded {
            // There is no core to spare, and who spins keeps the parent from one.
            crate::sync::core()
        } else {
            self.mouth.memory.outcomes().reader_core()
        };
        let Err(looked) = self.spin.until(other, || tasks.has_more(place)) else {
            return Ok(());
        };
        if self.is_crowded && self.yields.until(|| tasks.has_more(place)) {
            return Ok(());
        }
        let since = Instant::now();
        loop {
            let tasks = self.mouth.memory.tasks();
            tasks.await_record(true);
            if tasks.has_more(&self.incoming) {
                tasks.await_no_record();
                break;
            }
            sys::wait_readable(self.mouth.line.as_fd(), Deadline::NEVER)?;
            if !self.mouth.empty_line() {
                return Err(Gone);
            }
        }
        self.spin.slept(looked);
        let time = since.elapsed();
        self.yields.slept(time);
        self.slept = true;
        let parent = self.mouth.memory.outcomes().reader_core();
        self.together = if time < SHORT && parent == crate::sync::core() {
            self.together + 1
        } else {
            0
        };
        Ok(())
    }

    /// Begins on a core of its own, wherever it was woken: the kernel likes to wake a process beside the one that wakes it, and then both
    /// share that core until it looks again. From there the kernel may move it.
    ///
    /// While it is alone, the parent may be there, and waits. Where both take turns on one core, each sleep of one is short; then this one goes to another core,
    /// and neither needs to sleep any more.
    fn move_home(&mut self, flags: u32) {
        if flags & CROWD != 0 {
            // Also if it was alone when it woke up, and this is the first errand since then that it is not; and now and then where it never sleeps.
            if (std::mem::take(&mut self.slept) || self.number.is_multiple_of(LOOKS))
                && let Some(home) = self.home
                && sys::core() != home
            {
                sys::move_to_core(home);
            }
        } else if self.together >= TOGETHER {
            self.together = 0;
            if let Some(other) = sys::other_core() {
                sys::move_to_core(other);
            }
        }
    }

    /// Begins the next errand, unless it has been taken back.
    fn claim(&mut self, is_timed: bool) -> bool {
        let number = self.number;
        self.number += 1;
        if is_timed {
            let since = self.mouth.memory.since();
            since.store(sys::monotonic_nanoseconds(), Ordering::Release);
        }
        let claimed = self.mouth.memory.claimed();
        let exchanged =
            claimed.compare_exchange(number, number + 1, Ordering::AcqRel, Ordering::Acquire);
        exchanged.is_ok()
    }

    /// An errand of plain calls.
    fn plain(&mut self, frame: &mut Vec<u8>, range: Range<usize>) -> Result<Next, Gone> {
        let head = Plain::from_bytes(&frame[range.clone()]).ok_or(Gone)?;
        self.is_crowded = head.flags & CROWD != 0 && self.seats >= self.cores;
        self.move_home(head.flags);
        if !self.claim(head.flags & TIMED != 0) {
            return Ok(Next::GoOn);
        }
        let entry = self.entries.get(head.entry as usize).ok_or(Gone)?;
        let entry = match entry {
            Ok(entry) => *entry,
            Err(error) => {
                for _ in 0..head.count {
                    let refused = Executed::refusal(error);
                    self.mouth.say(0, refused)?;
                }
                return Ok(Next::GoOn);
            }
        };
        let arguments = range.start + Plain::SIZE..range.end;
        let same = (head.length != EACH).then_some(head.length as usize);
        self.mouth.each = None;
        let (bytes, value) = (std::mem::take(frame), std::mem::take(&mut self.outgoing));
        let mut batch =
            Batch::new(bytes, arguments, head.count as usize, same, value).ok_or(Gone)?;
        let result = self.calls(entry, &mut batch, head.flags);
        (*frame, self.outgoing) = batch.into_parts();
        result
    }

    fn calls(
        &mut self,
        entry: &'static Registration,
        batch: &mut Batch<'static>,
        flags: u32,
    ) -> Result<Next, Gone> {
        // Between their tasks there are records of other kinds.
        let is_told = self.is_traced || flags & REPORTS != 0;
        while batch.left() > 0 {
            let before = batch.left();
            let most = if is_told {
                1
            } else {
                self.limits.most(self.done)
            };
            batch.serve(most);
            self.begins(flags)?;
            let worked = catch_unwind(AssertUnwindSafe(|| (entry.work)(batch)));
            self.ends(flags)?;
            if !matches!(worked, Ok(Ok(()))) || batch.take_unplaced() {
                self.mouth.close(batch);
                if matches!(worked, Ok(Ok(()))) && batch.value.is_plain_from(0) {
                    self.mouth.place(batch, is_told)?;
                } else {
                    let executed = settle(entry, worked, &mut batch.value);
                    self.mouth.say(0, executed)?;
                }
            }
            self.done += (before - batch.left()) as u64;
            let is_done = self.is_done();
            if is_done || batch.left() == 0 {
                self.mouth.close(batch);
            }
            if is_done {
                return self.retire();
            }
            self.mouth.wake(batch.left() == 0, false);
        }
        Ok(Next::GoOn)
    }

    /// An errand that is on the line.
    fn message(&mut self, head: &[u8]) -> Result<Next, Gone> {
        let head = Plain::from_bytes(head).ok_or(Gone)?;
        if self.mouth.packets.is_empty() {
            self.mouth.empty_line();
        }
        let message = self.mouth.packets.pop_front().ok_or(Gone)?;
        self.is_crowded = head.flags & CROWD != 0 && self.seats >= self.cores;
        self.move_home(head.flags);
        if !self.claim(head.flags & TIMED != 0) {
            return Ok(Next::GoOn);
        }
        self.begins(head.flags)?;
        let executed = match (message, self.entries.get(head.entry as usize).ok_or(Gone)?) {
            (Ok(message), Ok(entry)) => execute(Resolved::new(entry, message)).0,
            (_, Err(error)) => Executed::refusal(error),
            (Err(error), _) => {
                let text = "the arguments could not be received";
                Executed::refusal(&Error::new(ErrorKind::Decode, text).caused_by(error))
            }
        };
        self.ends(head.flags)?;
        self.mouth.say(0, executed)?;
        self.done += 1;
        if self.is_done() {
            return self.retire();
        }
        Ok(Next::GoOn)
    }

    /// Before each task.
    #[inline]
    fn begins(&mut self, flags: u32) -> Result<(), Gone> {
        self.note(kind::BEGAN)?;
        if flags & REPORTS != 0 {
            report::lend(report::Mouth {
                memory: self.mouth.memory,
                outgoing: std::mem::take(&mut self.mouth.outgoing),
                line: Arc::clone(&self.mouth.line),
                owner: std::process::id(),
            });
        }
        Ok(())
    }

    /// After it, whether it panicked or not.
    #[inline]
    fn ends(&mut self, flags: u32) -> Result<(), Gone> {
        if flags & REPORTS != 0 {
            self.mouth.outgoing = report::take_back().ok_or(Gone)?;
        }
        self.note(kind::ENDED)
    }

    /// Says what the time is, if somebody writes it down.
    #[inline]
    fn note(&mut self, kind: u32) -> Result<(), Gone> {
        if self.is_traced {
            let now = sys::monotonic_nanoseconds();
            self.mouth.push(kind, &now.to_ne_bytes())?;
        }
        Ok(())
    }

    /// Whether it has done its share.
    #[inline]
    fn is_done(&self) -> bool {
        if self.limits == Limits::default() {
            return false;
        }
        let Limits { tasks, growth, age } = self.limits;
        tasks.is_some_and(|tasks| self.done >= tasks)
            || age.is_some_and(|age| self.born.elapsed() >= age)
            || growth.is_some_and(|growth| sys::resident_bytes() > self.size + growth)
    }

    fn retire(&mut self) -> Result<Next, Gone> {
        self.mouth.push(kind::RETIRES, &[])?;
        self.mouth.wake(true, true);
        Ok(Next::End)
    }
}

/// Some microseconds, in which a parent that is awake makes room.
const SPINS: u32 = 200;

impl Mouth {
    /// Takes everything off the line. False: the parent is gone.
    fn empty_line(&mut self) -> bool {
        empty_line(self.line.as_fd(), &mut self.packets)
    }

    /// Wakes the parent if it sleeps on this.
    #[inline]
    fn wake(&self, surely: bool, due: bool) {
        let outcomes = self.memory.outcomes();
        outcomes.wake_reader(&self.outgoing, self.line.as_fd(), surely, due);
    }

    /// Finds a place for the value of the last call, and, unless it is `alone`, for those of the next ones.
    fn place(&mut self, batch: &mut Batch<'static>, alone: bool) -> Result<(), Gone> {
        let left = batch.left();
        let value = batch.value.gathered();
        if left > 0 && !alone {
            // Those that are not as long as the one before are taken to be of any length.
            let each = match value.len() as u32 {
                0 => EACH,
                length if self.each.is_none_or(|each| each == length) => length,
                _ => EACH,
            };
            self.each = Some(each);
            let outcomes = self.memory.outcomes();
            let places = outcomes.open(&mut self.outgoing, kind::VALUES, each, left + 1)?;
            if let Some(mut places) = places {
                let is_placed = places.put(value);
                batch.places = Some(places);
                if is_placed {
                    value.clear();
                    return Ok(());
                }
                self.close(batch);
            }
        }
        let value = batch.value.gathered();
        self.push(kind::VALUE, value)?;
        value.clear();
        Ok(())
    }

    /// Closes the record that is open, if one is.
    fn close(&mut self, batch: &mut Batch<'static>) {
        if let Some(places) = batch.places.take() {
            self.memory.outcomes().close(&mut self.outgoing, places);
        }
    }

    /// Writes a record, and waits for room if there is none.
    #[inline]
    fn push(&mut self, kind: u32, payload: &[u8]) -> Result<(), Gone> {
        if self
            .memory
            .outcomes()
            .push(&mut self.outgoing, kind, &[payload])?
        {
            return Ok(());
        }
        self.push_slowly(kind, payload)
    }

    #[cold]
    fn push_slowly(&mut self, kind: u32, payload: &[u8]) -> Result<(), Gone> {
        loop {
            // It may sleep on what is there.
            self.wake(true, true);
            for _ in 0..SPINS {
                if self
                    .memory
                    .outcomes()
                    .push(&mut self.outgoing, kind, &[payload])?
                {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            self.memory.outcomes().await_room();
            if self
                .memory
                .outcomes()
                .push(&mut self.outgoing, kind, &[payload])?
            {
                return Ok(());
            }
            sys::wait_readable(self.line.as_fd(), Deadline::NEVER)?;
            if !self.empty_line() {
                return Err(Gone);
            }
        }
    }

    /// Says what a call came to, or why that cannot be said.
    fn say(&mut self, flags: u32, executed: Executed) -> Result<(), Gone> {
        let mut short = Vec::new();
        let (of, message) = match executed {
            Executed::Message(message) => (kind::VALUE, Some(message)),
            Executed::Panic(panic) => (kind::PANIC, Message::of(&panic).ok()),
            Executed::Refusal(refusal) => (kind::REFUSAL, Message::of(&refusal).ok()),
        };
        let mut of = of | flags;
        if let Some(message) = message {
            match message.into_plain() {
                Ok(bytes) => short = bytes,
                Err(message) => match message.send(self.line.as_fd(), 0, true) {
                    Ok(()) => {
                        message.commit();
                        of |= kind::ON_LINE;
                    }
                    Err(error) => {
                        drop(message);
                        let text = "the result cannot be sent";
                        let error = Error::new(ErrorKind::Encode, text).caused_by(error);
                        codec::encode(&Refusal::new(&error), &mut short).map_err(|_| Gone)?;
                        of = kind::REFUSAL | flags;
                    }
                },
            }
        }
        self.push(of, &short)?;
        self.wake(true, flags != 0);
        Ok(())
    }
}

/// What a call gave, which may have panicked, if that is not plain.
#[cold]
fn settle(
    entry: &Registration,
    worked: std::thread::Result<Result<(), Unworked>>,
    outgoing: &mut Outgoing,
) -> Executed {
    let value = outgoing.split_off(0);
    match worked {
        Ok(Ok(())) => match value.finish() {
            Ok(message) => Executed::Message(message),
            Err(error) => unsendable(error.into()),
        },
        Ok(Err(Unworked::Value(error))) => unsendable(error.into()),
        Ok(Err(Unworked::Arguments(error))) => {
            let text = error.describe(entry.name);
            Executed::refusal(&Error::new(ErrorKind::Decode, text))
        }
        Err(payload) => panicked(payload),
    }
}

fn unsendable(error: crate::wire::WireError) -> Executed {
    let text = "the result cannot be sent";
    Executed::refusal(&Error::new(ErrorKind::Encode, text).caused_by(error))
}

fn panicked(payload: Box<dyn std::any::Any + Send>) -> Executed {
    let panic = panics::take(&*payload);
    // Dropping a payload may panic again, and there is nothing left to gain from it.
    std::mem::forget(payload);
    Executed::Panic(panic)
}

/// Runs a call. Also tells whether it failed, which an `Err` of its own does.
fn execute(call: Resolved) -> (Executed, bool) {
    // OK to assert: nothing of what the call leaves behind is looked at but the panic.
    match catch_unwind(AssertUnwindSafe(|| call.serve())) {
        Ok(Ok(Served { value, exit_code })) => match value {
            Ok(value) => (Executed::Message(value), exit_code != 0),
            Err(error) => (unsendable(error), true),
        },
        Ok(Err(error)) => (Executed::refusal(&error), true),
        Err(payload) => (panicked(payload), true),
    }
}
