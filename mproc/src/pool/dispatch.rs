//! The dispatcher: which task is where, what goes to whom next, and what becomes of it.
//!
//! It holds every piece of work until it has resolved, and knows workers by their [`Link`] only, so all of it is tested without processes. It never
//! waits and starts no threads; whoever [drives](super::drive) calls it under a lock, and does what it leaves in `after` without one.
//!
//! # What the parent knows
//!
//! | the errand                     | of its next task         | if the worker is lost now                                  |
//! |--------------------------------|--------------------------|------------------------------------------------------------|
//! | has not begun                  | it has not begun         | it goes to another worker, as does one that is taken back  |
//! | has begun, n outcomes are here | the next one is executed | that one has *died*; the rest goes to another worker       |
//!
//! # Who gets what
//!
//! A worker gets a few errands ahead, eight or as many as it does in some hundred microseconds, so that it never waits for its parent; what lies
//! ahead is taken back where it has to wait behind a long one while another worker has nothing to do. So nobody waits behind a task for a
//! worker that is idle, and tasks that wait for each other run at once as long as there are workers.
//!
//! # Invariants
//!
//! 1. A piece is in the queue, or sent to one worker, or all of it has resolved.
//! 2. No code of users runs in here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::group::{After, Group, Value};
use super::link::{Errand, ErrandLoad, Lengths, Link, Outcome, Said, SharedMessage, Trouble};
use super::trace::{self, Trace};
use crate::entry::registry::Registration;
use crate::error::{Error, ErrorKind};
use crate::sys;
use crate::wire::{Brief, Message};

/// What goes to a worker at once: one call, or some of a map.
pub(super) struct Piece {
    pub(super) entry: &'static Registration,
    pub(super) load: Load,
    pub(super) group: Arc<Group>,
    /// The number of its first task in the group.
    pub(super) first: usize,
    pub(super) rules: Option<Arc<Rules>>,
    /// How often it was begun in vain.
    pub(super) tries: u32,
}

/// What was asked for beside the call.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rules {
    pub(super) timeout: Option<Duration>,
    pub(super) retries: u32,
    /// Somebody listens to what the tasks report.
    pub(super) is_heard: bool,
}

pub(super) enum Load {
    /// One call whose arguments are these bytes.
    Plain(Brief),
    Many(Box<Many>),
    Message(SharedMessage),
    /// Can be sent once.
    Once(Box<Message>),
    /// Has been.
    Spent,
}

/// Several calls of one entry.
pub(super) struct Many {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
    /// How long each is, if all are as long.
    pub(super) length: u32,
    /// Otherwise.
    pub(super) lengths: Vec<u32>,
}

impl Many {
    /// How many bytes the first ones have.
    fn bytes_of(&self, count: usize) -> usize {
        if self.lengths.is_empty() {
            count * self.length as usize
        } else {
            self.lengths[..count]
                .iter()
                .map(|length| *length as usize)
                .sum()
        }
    }
}

impl Piece {
    fn count(&self) -> usize {
        match &self.load {
            Load::Many(many) => many.count as usize,
            _ => 1,
        }
    }

    fn timeout(&self) -> Option<Duration> {
        self.rules.as_ref().and_then(|rules| rules.timeout)
    }

    fn errand(&self, is_crowd: bool) -> Errand<'_> {
        let load = match &self.load {
            Load::Plain(bytes) => ErrandLoad::Plain(bytes, Lengths::Same(1, bytes.len() as u32)),
            Load::Many(many) if many.lengths.is_empty() => {
                ErrandLoad::Plain(&many.bytes, Lengths::Same(many.count, many.length))
            }
            Load::Many(many) => ErrandLoad::Plain(&many.bytes, Lengths::Each(&many.lengths)),
            Load::Message(message) => ErrandLoad::Message(message),
            Load::Once(message) => ErrandLoad::Message(message),
            Load::Spent => unreachable!("it was sent, and is not sent again"),
        };
        Errand {
            entry: self.entry,
            load,
            is_timed: self.timeout().is_some(),
            is_crowd,
            is_heard: self.rules.as_ref().is_some_and(|rules| rules.is_heard),
        }
    }

    /// Some of its tasks, as a piece of their own.
    fn part(&self, from: usize, to: usize) -> Option<Self> {
        if from >= to {
            return None;
        }
        let load = match &self.load {
            Load::Plain(bytes) => Load::Plain(bytes.clone()),
            Load::Message(message) => Load::Message(Arc::clone(message)),
            Load::Once(_) | Load::Spent => return None,
            Load::Many(many) => Load::Many(Box::new(Many {
                bytes: many.bytes[many.bytes_of(from)..many.bytes_of(to)].to_vec(),
                count: (to - from) as u32,
                length: many.length,
                lengths: many.lengths.get(from..to).unwrap_or_default().to_vec(),
            })),
        };
        Some(Self {
            entry: self.entry,
            load,
            group: Arc::clone(&self.group),
            first: self.first + from,
            rules: self.rules.clone(),
            tries: self.tries,
        })
    }

    fn traced(&self) -> trace::Piece<'_> {
        trace::Piece {
            group: &self.group,
            first: self.first,
            count: self.count(),
            name: self.entry.name,
        }
    }

    fn is_unique(&self) -> bool {
        matches!(self.load, Load::Once(_) | Load::Spent)
    }
}

/// A piece at a worker.
struct Sent {
    piece: Piece,
    /// Its number among the worker's errands.
    number: u64,
    /// How many of its tasks have resolved.
    done: usize,
}

/// One worker's place.
struct Seat<L> {
    link: Option<L>,
    is_ready: bool,
    sent: VecDeque<Sent>,
    /// How many errands this worker was sent.
    count: u64,
    /// Nanoseconds that it takes for an errand.
    pace: u64,
    /// When it was measured last, or began to have something to do; `None` while it is not measured.
    since: Option<Instant>,
    /// How many errands it has finished since then.
    finished: u32,
    /// It was killed because the time of its task was over.
    timed_out: bool,
    /// It was killed, and is given nothing more: it may live for long enough to begin it.
    is_doomed: bool,
    stillborn: Accidents,
}

impl<L> Default for Seat<L> {
    fn default() -> Self {
        Self {
            link: None,
            is_ready: false,
            sent: VecDeque::new(),
            count: 0,
            pace: 1_000_000,
            since: None,
            finished: 0,
            timed_out: false,
            is_doomed: false,
            stillborn: Accidents::default(),
        }
    }
}

/// So much work is given ahead, in nanoseconds, or so many errands: each time that more is given costs a worker its core for a moment.
const AHEAD: u64 = 300_000;
const FEWEST_AHEAD: usize = 8;
const MOST_AHEAD: usize = 256;

/// Whoever does an errand in fewer nanoseconds is measured over several, or at one in several: the clock takes a good part of that time.
const QUICK: u64 = 5_000;
const SAMPLE: u32 = 8;

/// After a worker could not be started.
const AGAIN: Duration = Duration::from_millis(100);

/// Nanoseconds that it takes to wake a worker, about.
const WAKING: u64 = 50_000;

impl<L> Seat<L> {
    /// It has something to do from now on.
    #[inline]
    fn begins(&mut self) {
        let is_measured = self.pace > QUICK || self.count.is_multiple_of(SAMPLE.into());
        self.since = is_measured.then(Instant::now);
        self.finished = 0;
    }

    /// Learns how fast it is.
    #[inline]
    fn worked(&mut self, errands: u32) {
        self.finished += errands;
        let is_over = self.sent.is_empty() && self.since.is_some();
        if is_over || self.finished >= SAMPLE || self.pace > QUICK {
            let now = Instant::now();
            if let Some(since) = self.since {
                let each = (now.duration_since(since) / self.finished).as_nanos() as u64;
                self.pace = (3 * self.pace + each) / 4;
            }
            self.since = Some(now);
            self.finished = 0;
        }
    }

    /// Nothing was heard of it for a while: it is not as quick as it may have been, and is measured.
    fn takes_long(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        self.pace = self.pace.max(QUICK + 1);
        if self.since.is_none() {
            self.since = Some(Instant::now());
            self.finished = 0;
        }
    }

    fn window(&self) -> usize {
        ((AHEAD / self.pace.max(1)) as usize).clamp(FEWEST_AHEAD, MOST_AHEAD)
    }
}

/// Workers that end, one after the other, before they are ready.
#[derive(Default)]
struct Accidents {
    own: u32,
    killed: u32,
}

impl Accidents {
    /// Counts one. True: so many are no accident.
    ///
    /// SIGKILL comes from outside, and says little about the worker: who kills each one while it starts is waited out for a while.
    fn add(&mut self, end: &Error) -> bool {
        let count = match end.signal() {
            Some(sys::SIGKILL) => &mut self.killed,
            _ => &mut self.own,
        };
        *count += 1;
        self.own >= 5 || self.killed >= 1000
    }
}

pub(super) enum End {
    Closed,
    Terminated,
    Failed(Error),
}

impl End {
    pub(super) fn error(&self) -> Error {
        match self {
            Self::Closed => Error::new(ErrorKind::ShutDown, "the pool is closed"),
            Self::Terminated => Error::new(ErrorKind::ShutDown, "the pool was terminated"),
            Self::Failed(error) => error.again(),
        }
    }
}

/// What starts workers.
pub(super) type Start<L> = Box<dyn FnMut(usize) -> crate::Result<L> + Send>;

pub(super) struct Dispatcher<L> {
    queue: VecDeque<Piece>,
    seats: Vec<Seat<L>>,
    start: Start<L>,
    end: Option<End>,
    cores: usize,
    /// Whether nobody looks before something happens.
    pub(super) is_unattended: bool,
    /// Workers that end by themselves, or were killed, and have not been waited for.
    pub(super) leaving: Vec<L>,
    /// What to do when no lock is held.
    pub(super) after: Vec<After>,
    /// Who writes down what happens.
    pub(super) trace: Option<Arc<Trace>>,
    /// A worker that had nothing to do was given something.
    pub(super) has_roused: bool,
    /// A worker was started.
    pub(super) has_started: bool,
    /// Seats are empty until there is work for one more.
    pub(super) is_on_demand: bool,
    /// When to try again to start workers where that has failed.
    again: Option<Instant>,
}

/// What a worker has said beside outcomes.
#[derive(Default)]
struct Heard {
    anything: bool,
    unfit: Option<Error>,
    retires: bool,
    nonsense: bool,
}

impl<L: Link> Dispatcher<L> {
    pub(super) fn new(seats: usize, cores: usize, start: Start<L>) -> Self {
        Self {
            queue: VecDeque::new(),
            seats: (0..seats).map(|_| Seat::default()).collect(),
            start,
            end: None,
            cores,
            is_unattended: false,
            leaving: Vec::new(),
            after: Vec::new(),
            trace: None,
            has_roused: false,
            has_started: false,
            is_on_demand: false,
            again: None,
        }
    }

    /// Starts a worker at a seat that has none.
    pub(super) fn start_at(&mut self, number: usize) -> crate::Result<()> {
        let link = (self.start)(number)?;
        self.has_started = true;
        let seat = &mut self.seats[number];
        *seat = Seat {
            link: Some(link),
            pace: seat.pace,
            stillborn: std::mem::take(&mut seat.stillborn),
            ..Seat::default()
        };
        Ok(())
    }

    fn restart(&mut self, number: usize) {
        if matches!(self.end, Some(End::Terminated | End::Failed(_))) {
            return;
        }
        if self.is_on_demand && self.wanted() == 0 {
            return;
        }
        let is_last = self.links().next().is_none();
        if self.again.is_some() && !is_last {
            return;
        }
        match self.start_at(number) {
            Ok(()) => {}
            // There may be no room for a descriptor or a process now, and others do the work meanwhile.
            Err(_) if !is_last => self.again = Some(Instant::now() + AGAIN),
            Err(error) => self.finish(End::Failed(error)),
        }
    }

    /// Starts workers that could not be started before, if it is time; says when to look again.
    fn start_missing(&mut self) -> Option<Duration> {
        let left = self.again?.saturating_duration_since(Instant::now());
        if left > Duration::ZERO {
            return Some(left);
        }
        self.again = None;
        for number in 0..self.seats.len() {
            if self.seats[number].link.is_none() {
                self.restart(number);
            }
        }
        self.again.map(|_| AGAIN)
    }

    /// How many more workers there is work for.
    fn wanted(&self) -> usize {
        let there = self.seats.iter().filter(|seat| seat.link.is_some());
        let (mut work, mut idle) = (self.queue.len(), 0);
        for seat in there {
            match seat.sent.len() {
                0 => idle += 1,
                // What lies ahead of it waits, too.
                some => work += some - 1,
            }
        }
        work.saturating_sub(idle)
    }

    /// Starts workers for what waits, where seats are empty.
    fn start_wanted(&mut self) {
        let wanted = self.wanted();
        let empty = (0..self.seats.len()).filter(|&number| self.seats[number].link.is_none());
        for number in empty.take(wanted).collect::<Vec<_>>() {
            self.restart(number);
        }
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &L> {
        self.seats.iter().filter_map(|seat| seat.link.as_ref())
    }

    pub(super) fn links_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.seats.iter_mut().filter_map(|seat| seat.link.as_mut())
    }

    /// The links of those from which something is to be heard.
    pub(super) fn busy(&self) -> impl Iterator<Item = &L> {
        let busy = |seat: &&Seat<L>| !seat.is_ready || !seat.sent.is_empty();
        self.seats
            .iter()
            .filter(busy)
            .filter_map(|seat| seat.link.as_ref())
    }

    /// As above, and whether all that each has to do belongs to this group.
    pub(super) fn busy_with(&self, group: Option<&Group>) -> impl Iterator<Item = (&L, bool)> {
        let is_of = move |sent: &Sent| {
            group.is_some_and(|group| std::ptr::eq(Arc::as_ptr(&sent.piece.group), group))
        };
        let busy = |seat: &&Seat<L>| !seat.is_ready || !seat.sent.is_empty();
        self.seats.iter().filter(busy).filter_map(move |seat| {
            let is_all_of_it = seat.is_ready && seat.sent.iter().all(is_of);
            Some((seat.link.as_ref()?, is_all_of_it))
        })
    }

    /// Whether a worker is at several short tasks at once, and may wake its parent a little late; see `Ring::wake_reader`.
    pub(super) fn has_many(&self) -> bool {
        let mut fronts = self.seats.iter().filter_map(|seat| seat.sent.front());
        fronts.any(|sent| sent.piece.count() > 1)
    }

    /// Whether all that was submitted has resolved.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.seats.iter().all(|seat| seat.sent.is_empty())
    }

    /// Whether nothing is to be heard of anybody.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_idle()
            && self
                .seats
                .iter()
                .all(|seat| seat.is_ready || seat.link.is_none())
    }

    /// Why no more is taken, if so.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    pub(super) fn close(&mut self) {
        if self.end.is_none() {
            self.end = Some(End::Closed);
        }
    }

    pub(super) fn submit(&mut self, piece: Piece) {
        if let Some(trace) = &self.trace {
            trace.waits(piece.traced(), piece.count());
        }
        self.queue.push_back(piece);
    }

    /// Hears what workers say. False: nothing.
    pub(super) fn hear(&mut self) -> bool {
        let mut heard = false;
        for number in 0..self.seats.len() {
            if !(self.seats[number].is_ready && self.seats[number].sent.is_empty()) {
                heard |= self.hear_one(number);
            }
        }
        heard
    }

    fn hear_one(&mut self, number: usize) -> bool {
        let heard = self.listen(number);
        if let Some(error) = heard.unfit {
            self.finish(End::Failed(error));
        } else if heard.nonsense {
            self.lose(number);
        } else if heard.retires {
            self.retire(number);
        }
        heard.anything
    }

    /// Takes what a worker has said.
    fn listen(&mut self, number: usize) -> Heard {
        let seat = &mut self.seats[number];
        let mut heard = Heard::default();
        let Some(link) = &mut seat.link else {
            return heard;
        };
        let (sent, after, trace) = (&mut seat.sent, &mut self.after, &self.trace);
        let (is_ready, stillborn) = (&mut seat.is_ready, &mut seat.stillborn);
        let mut finished = 0_u32;
        let received = link.receive(&mut |said| match said {
            Said::Values(mut values) => {
                while values.count > 0 {
                    let Some(Sent { piece, done, .. }) = sent.front_mut() else {
                        heard.nonsense = true;
                        return;
                    };
                    let (some, others) = values.split_at(piece.count() - *done);
                    piece.group.resolve_all(piece.first + *done, some, after);
                    *done += some.count;
                    values = others;
                    if *done == piece.count() {
                        sent.pop_front();
                        finished += 1;
                    }
                }
            }
            Said::Outcome(outcome) => match sent.front_mut() {
                Some(front) => {
                    let piece = &front.piece;
                    piece
                        .group
                        .resolve(piece.first + front.done, value_of(outcome), after);
                    front.done += 1;
                    if front.done == piece.count() {
                        sent.pop_front();
                        finished += 1;
                    }
                }
                None => heard.nonsense = true,
            },
            Said::Ready => {
                *is_ready = true;
                *stillborn = Accidents::default();
                if let Some(trace) = trace {
                    trace.ready(number);
                }
            }
            Said::Began(time) => {
                if let (Some(trace), Some(front)) = (trace, sent.front()) {
                    trace.began(number, front.piece.traced(), front.done, time);
                }
            }
            Said::Report(payload) => {
                if let Some(front) = sent.front() {
                    let index = front.piece.first + front.done;
                    front.piece.group.report(index, payload, after);
                }
            }
            Said::Ended(time) => {
                if let Some(trace) = trace {
                    trace.ended(number, time);
                }
            }
            Said::Unfit(outcome) => heard.unfit = Some(unfit(outcome)),
            Said::Retires => heard.retires = true,
        });
        if finished > 0 {
            seat.worked(finished);
        }
        match received {
            Ok(anything) => heard.anything = anything,
            Err(_) => heard.nonsense = true,
        }
        heard.anything |= heard.nonsense;
        heard
    }

    /// Gives workers what they can take.
    pub(super) fn feed(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        if self.is_on_demand {
            self.start_wanted();
        }
        let ready = self.seats.iter().filter(|seat| seat.is_ready).count();
        // The end of the queue is not given to one alone.
        let share = |queue: &VecDeque<Piece>| (queue.len() / (2 * ready.max(1))).max(1);
        let passes = if self.is_tight() {
            [false, true]
        } else {
            [true, false]
        };
        for idle in passes {
            for number in 0..self.seats.len() {
                let seat = &self.seats[number];
                let (has, window) = (seat.sent.len(), seat.window());
                if !seat.is_ready || (has == 0) != idle || has > window / 2 {
                    continue;
                }
                let most = (window - has).min(share(&self.queue));
                let sent = (0..most).take_while(|_| self.send_to(number)).count();
                // Whoever is woken for nothing takes a core from somebody.
                if sent > 0 {
                    self.flush(number);
                }
                if self.queue.is_empty() {
                    return;
                }
            }
        }
    }

    /// Whether a worker that sleeps is better left alone: there is no core for it beside those that are at work and the one that we are on, and those are faster
    /// at it than it would be awake.
    ///
    /// What it costs to be wrong is made good by [`balance`](Self::balance), so not while nobody is going to do that.
    fn is_tight(&self) -> bool {
        if self.is_unattended {
            return false;
        }
        let mut busy = 0;
        for seat in &self.seats {
            if !seat.sent.is_empty() {
                busy += 1;
                if seat.pace > WAKING {
                    return false;
                }
            }
        }
        busy > 0 && busy + 1 >= self.cores
    }

    /// Sends the first piece of the queue to a worker. False: it takes no more, or there is none.
    fn send_to(&mut self, number: usize) -> bool {
        match self.try_to_send_to(number) {
            Some(sent) => sent,
            None => self.ask_for_room(number),
        }
    }

    /// A worker takes no more. One that has nothing to do, because what it was sent has been taken back before it looked, would say nothing when it does.
    #[cold]
    fn ask_for_room(&mut self, number: usize) -> bool {
        let seat = &mut self.seats[number];
        match &mut seat.link {
            Some(link) if seat.sent.is_empty() => {
                link.ask_for_room();
                self.try_to_send_to(number).unwrap_or(false)
            }
            _ => false,
        }
    }

    /// `None`: the worker takes no more now.
    fn try_to_send_to(&mut self, number: usize) -> Option<bool> {
        let mut others = self.seats.iter().enumerate();
        let is_crowd = others.any(|(other, seat)| other != number && !seat.sent.is_empty());
        let seat = &mut self.seats[number];
        if seat.is_doomed {
            return Some(false);
        }
        let Some(link) = &mut seat.link else {
            return Some(false);
        };
        let Some(mut piece) = self.queue.pop_front() else {
            return Some(false);
        };
        if piece.is_unique() && !seat.sent.is_empty() {
            self.queue.push_front(piece);
            return Some(false);
        }
        match link.send(piece.errand(is_crowd)) {
            Ok(()) => {
                if let Load::Once(_) = piece.load
                    && let Load::Once(message) = std::mem::replace(&mut piece.load, Load::Spent)
                {
                    message.commit();
                }
                if seat.sent.is_empty() {
                    seat.begins();
                    self.has_roused = true;
                }
                let (number, done) = (seat.count, 0);
                seat.count += 1;
                seat.sent.push_back(Sent {
                    piece,
                    number,
                    done,
                });
                Some(true)
            }
            Err(trouble) => self.not_sent(number, piece, trouble),
        }
    }

    fn flush(&mut self, number: usize) {
        if let Some(link) = &mut self.seats[number].link {
            link.flush();
        }
    }

    fn not_sent(&mut self, number: usize, piece: Piece, trouble: Trouble) -> Option<bool> {
        match trouble {
            Trouble::Refused(error) => {
                resolve_all(&piece, 0, &error, &mut self.after);
                Some(true)
            }
            Trouble::Full => {
                self.queue.push_front(piece);
                None
            }
            Trouble::Lost => {
                self.queue.push_front(piece);
                self.lose(number);
                Some(false)
            }
        }
    }

    /// Looks for workers that have ended.
    pub(super) fn look_for_ends(&mut self) {
        for number in 0..self.seats.len() {
            if self.seats[number]
                .link
                .as_ref()
                .is_some_and(Link::has_ended)
            {
                self.lose(number);
            }
        }
    }

    /// A worker has ended, or makes no sense.
    fn lose(&mut self, number: usize) {
        // What it said first, which may be that it retires.
        let seat = &mut self.seats[number];
        if seat.link.is_none() {
            return;
        }
        loop {
            let heard = self.listen(number);
            if let Some(error) = heard.unfit {
                return self.finish(End::Failed(error));
            }
            if heard.retires {
                return self.retire(number);
            }
            if !heard.anything || heard.nonsense {
                break;
            }
        }
        let seat = &mut self.seats[number];
        let Some(link) = seat.link.take() else {
            return;
        };
        let begun = link.begun();
        let error = link.lost();
        let was_ready = std::mem::take(&mut seat.is_ready);
        let timed_out = std::mem::take(&mut seat.timed_out);
        let sent = std::mem::take(&mut seat.sent);
        let too_many = !was_ready && seat.stillborn.add(&error);
        let mut back = Vec::new();
        for Sent {
            piece,
            number,
            done,
        } in sent
        {
            let has_begun = number < begun && back.is_empty();
            let mut from = done;
            if has_begun {
                self.casualty(&piece, done, &error, timed_out, &mut back);
                from += 1;
            } else if piece.is_unique() {
                resolve_all(&piece, 0, &error, &mut self.after);
                continue;
            }
            if from == 0 {
                back.push(piece);
            } else {
                back.extend(piece.part(from, piece.count()));
            }
        }
        if let Some(trace) = &self.trace {
            trace.left(number, Some(&error));
        }
        self.put_back(back);
        if too_many {
            self.finish(End::Failed(error));
        } else {
            self.restart(number);
        }
    }

    /// A task's worker has ended while it was executed.
    fn casualty(
        &mut self,
        piece: &Piece,
        done: usize,
        error: &Error,
        timed_out: bool,
        back: &mut Vec<Piece>,
    ) {
        let retries = piece.rules.as_ref().map_or(0, |rules| rules.retries);
        let error = if piece.group.is_cancelled() {
            cancelled()
        } else if timed_out {
            let text = "the task took longer than it may; its worker was killed";
            Error::new(ErrorKind::Timeout, text)
        } else if piece.tries < retries
            && let Some(mut again) = piece.part(done, done + 1)
        {
            again.tries += 1;
            back.push(again);
            return;
        } else {
            error.again()
        };
        let value = Value::Error(error);
        piece
            .group
            .resolve(piece.first + done, value, &mut self.after);
    }

    /// Puts pieces back in front, for other workers.
    fn put_back(&mut self, pieces: Vec<Piece>) {
        let over = match &self.end {
            Some(end @ (End::Terminated | End::Failed(_))) => Some(end.error()),
            _ => None,
        };
        for piece in pieces.into_iter().rev() {
            if let Some(error) = &over {
                resolve_all(&piece, 0, error, &mut self.after);
            } else if piece.group.is_cancelled() {
                resolve_all(&piece, 0, &cancelled(), &mut self.after);
            } else {
                if let Some(trace) = &self.trace {
                    trace.waits(piece.traced(), 0);
                }
                self.queue.push_front(piece);
            }
        }
    }

    /// Takes back from a worker what has not begun.
    fn recall(&mut self, number: usize) -> Vec<Piece> {
        let seat = &mut self.seats[number];
        let Some(link) = &mut seat.link else {
            return Vec::new();
        };
        let begun = link.recall();
        let first = seat.sent.partition_point(|sent| sent.number < begun);
        let back = seat.sent.split_off(first);
        back.into_iter().map(|sent| sent.piece).collect()
    }

    /// A worker has done its share.
    fn retire(&mut self, number: usize) {
        let mut back = self.recall(number);
        let seat = &mut self.seats[number];
        if let Some(sent) = seat.sent.pop_front() {
            back.splice(0..0, sent.piece.part(sent.done, sent.piece.count()));
        }
        // Those that came before it have ended meanwhile.
        self.leaving.retain(|link| !link.has_ended());
        let seat = &mut self.seats[number];
        seat.is_ready = false;
        self.leaving.extend(seat.link.take());
        if let Some(trace) = &self.trace {
            trace.left(number, None);
        }
        self.put_back(back);
        self.restart(number);
    }

    /// Gives idle workers what lies ahead of others. For when nothing happens.
    pub(super) fn balance(&mut self) {
        self.seats.iter_mut().for_each(Seat::takes_long);
        if !self.queue.is_empty() {
            return;
        }
        let idle = |seat: &Seat<L>| seat.is_ready && seat.sent.is_empty();
        if !self.seats.iter().any(idle) {
            return;
        }
        let mut back = Vec::new();
        for number in 0..self.seats.len() {
            let sent = &self.seats[number].sent;
            if sent.len() > 1 && !sent.iter().skip(1).any(|sent| sent.piece.is_unique()) {
                back.extend(self.recall(number));
            }
        }
        if !back.is_empty() {
            self.put_back(back);
            self.feed_idle();
        }
    }

    /// One piece for each that has nothing to do; the rest as ever.
    fn feed_idle(&mut self) {
        for number in 0..self.seats.len() {
            let seat = &self.seats[number];
            if seat.is_ready && seat.sent.is_empty() && self.send_to(number) {
                self.flush(number);
            }
        }
        self.feed();
    }

    /// Kills workers whose task has taken too long, and starts those that are missing; says when to look again.
    pub(super) fn look_at_clocks(&mut self) -> Option<Duration> {
        let mut next = self.start_missing();
        for number in 0..self.seats.len() {
            let seat = &self.seats[number];
            let (Some(link), Some(front)) = (&seat.link, seat.sent.front()) else {
                continue;
            };
            if seat.timed_out {
                continue;
            }
            let timed = seat
                .sent
                .iter()
                .filter_map(|sent| sent.piece.timeout())
                .min();
            let Some(soonest) = timed else { continue };
            let mut left = soonest;
            if let Some(limit) = front.piece.timeout()
                && link.begun() > front.number
            {
                left = limit.saturating_sub(link.running_for());
                if left == Duration::ZERO {
                    self.time_out(number);
                    continue;
                }
            }
            next = Some(next.map_or(left, |next: Duration| next.min(left)));
        }
        next
    }

    fn time_out(&mut self, number: usize) {
        let late = self.seats[number].sent.front().map(|sent| sent.number);
        // Nothing else may begin on it BEFORE it is killed, or that would be killed with it.
        let back = self.recall(number);
        self.put_back(back);
        self.hear_one(number);
        let seat = &mut self.seats[number];
        if seat.sent.front().map(|sent| sent.number) == late
            && let Some(link) = &seat.link
        {
            (seat.timed_out, seat.is_doomed) = (true, true);
            link.kill();
        }
        self.feed();
    }

    /// Takes back what has not begun of a group, and ends the workers that run the rest.
    pub(super) fn cancel(&mut self, group: &Arc<Group>) {
        self.withdraw(group);
        for seat in &mut self.seats {
            if let (Some(front), Some(link)) = (seat.sent.front(), &seat.link)
                && Arc::ptr_eq(&front.piece.group, group)
            {
                seat.is_doomed = true;
                link.kill();
            }
        }
        self.feed();
    }

    /// Takes back what has not begun of a group. To be [fed](Self::feed) afterwards.
    pub(super) fn withdraw(&mut self, group: &Arc<Group>) {
        group.cancel();
        let is_ours = |piece: &Piece| Arc::ptr_eq(&piece.group, group);
        let queue = std::mem::take(&mut self.queue);
        for piece in queue {
            if is_ours(&piece) {
                resolve_all(&piece, 0, &cancelled(), &mut self.after);
            } else {
                self.queue.push_back(piece);
            }
        }
        for number in 0..self.seats.len() {
            let mut sent = self.seats[number].sent.iter();
            if sent.any(|sent| is_ours(&sent.piece)) {
                // Nothing else may begin on it BEFORE it is killed, or that would be killed with it.
                let back = self.recall(number);
                self.put_back(back);
            }
        }
    }

    /// Resolves everything, and leaves the workers to themselves.
    pub(super) fn abandon(&mut self) {
        self.close_with(End::Terminated);
        for number in 0..self.seats.len() {
            self.leaving.extend(self.seats[number].link.take());
        }
    }

    /// Ends everything at once. The first reason stays.
    pub(super) fn finish(&mut self, end: End) {
        self.close_with(end);
        for seat in &mut self.seats {
            self.leaving.extend(seat.link.take());
        }
        self.leaving.iter().for_each(Link::kill);
    }

    /// Takes no more, and resolves all there is.
    fn close_with(&mut self, end: End) {
        if matches!(self.end, None | Some(End::Closed)) {
            self.end = Some(end);
        }
        let error = self
            .end
            .as_ref()
            .map_or_else(|| End::Closed.error(), End::error);
        if let Some(trace) = &self.trace {
            trace.ends(&error);
        }
        let queue = std::mem::take(&mut self.queue);
        queue
            .iter()
            .for_each(|piece| resolve_all(piece, 0, &error, &mut self.after));
        for number in 0..self.seats.len() {
            self.listen(number);
            let seat = &mut self.seats[number];
            for sent in std::mem::take(&mut seat.sent) {
                resolve_all(&sent.piece, sent.done, &error, &mut self.after);
            }
        }
    }

    /// All workers, to be dismissed.
    pub(super) fn vacate(&mut self) -> Vec<L> {
        let mut links: Vec<L> = self
            .seats
            .iter_mut()
            .filter_map(|seat| seat.link.take())
            .collect();
        links.append(&mut self.leaving);
        links
    }
}

pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the task was cancelled")
}

fn resolve_all(piece: &Piece, from: usize, error: &Error, after: &mut Vec<After>) {
    for index in from..piece.count() {
        let value = Value::Error(error.again());
        piece.group.resolve(piece.first + index, value, after);
    }
}

fn value_of(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Message(message) => Value::Message(Box::new(message)),
        Outcome::Panic(panic) => Value::Error(Error::panicked(panic)),
        Outcome::Refusal(refusal) => Value::Error(refusal.into_error()),
        Outcome::Unreadable(error) => Value::Error(error),
    }
}

fn unfit(outcome: Outcome) -> Error {
    match value_of(outcome) {
        Value::Error(error) => {
            let failed = Error::new(error.kind(), format!("the initializer of the pool {error}"));
            match error.panic() {
                Some(panic) => failed.with_panic(panic.clone()),
                None => failed,
            }
        }
        _ => Error::new(
            ErrorKind::Start,
            "the initializer of the pool returned an error",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::super::group::collect_many;
    use super::super::link::Values;
    use super::*;
    use crate::entry::registry::registration;

    #[crate::entry(crate = crate)]
    fn any(x: u8) -> u8 {
        x
    }

    /// What a test does with a worker, by the number of its start.
    #[derive(Default)]
    struct Fake {
        /// Lengths of the errands that it has, and has not begun.
        errands: VecDeque<usize>,
        /// Tasks that are left of the one that it has begun.
        doing: usize,
        begun: u64,
        sent: u64,
        /// How many errands that were taken back it has not looked at.
        stale: usize,
        room: usize,
        /// It is to say when it has looked at them.
        is_asked: bool,
        says: VecDeque<FakeSaid>,
        ended: bool,
        killed: bool,
        running_for: Duration,
    }

    enum FakeSaid {
        Ready,
        Value,
        Refusal,
        Retires,
    }

    type Fakes = Arc<Mutex<BTreeMap<usize, Fake>>>;

    struct FakeLink(usize, Fakes);

    impl FakeLink {
        fn with<T>(&self, act: impl FnOnce(&mut Fake) -> T) -> T {
            act(self.1.lock().unwrap().get_mut(&self.0).unwrap())
        }
    }

    impl Link for FakeLink {
        fn send(&mut self, errand: Errand<'_>) -> Result<(), Trouble> {
            let count = match errand.load {
                ErrandLoad::Plain(bytes, _) if bytes == [66] => {
                    let error = Error::new(ErrorKind::Encode, "not this one");
                    return Err(Trouble::Refused(error));
                }
                ErrandLoad::Plain(_, Lengths::Same(count, _)) => count as usize,
                _ => panic!("plain ones only"),
            };
            self.with(|fake| {
                if fake.ended {
                    return Err(Trouble::Lost);
                }
                if fake.errands.len() + fake.stale >= fake.room {
                    return Err(Trouble::Full);
                }
                fake.errands.push_back(count);
                fake.sent += 1;
                Ok(())
            })
        }

        fn flush(&mut self) {}

        fn ask_for_room(&mut self) {
            self.with(|fake| fake.is_asked = true);
        }

        fn receive(&mut self, hear: &mut dyn FnMut(Said<'_>)) -> Result<bool, Trouble> {
            let says = self.with(|fake| std::mem::take(&mut fake.says));
            let anything = !says.is_empty();
            for said in says {
                match said {
                    FakeSaid::Ready => hear(Said::Ready),
                    FakeSaid::Value => hear(Said::Values(Values::one(&[1]))),
                    FakeSaid::Refusal => {
                        let refusal = crate::process::record::Refusal::new(&cancelled());
                        hear(Said::Outcome(Outcome::Refusal(refusal)));
                    }
                    FakeSaid::Retires => hear(Said::Retires),
                }
            }
            Ok(anything)
        }

        fn begun(&self) -> u64 {
            self.with(|fake| fake.begun)
        }

        fn running_for(&self) -> Duration {
            self.with(|fake| fake.running_for)
        }

        fn recall(&mut self) -> u64 {
            self.with(|fake| {
                let begun = fake.begun;
                fake.stale += fake.errands.len();
                fake.errands.clear();
                fake.begun = fake.sent;
                begun
            })
        }

        fn has_ended(&self) -> bool {
            self.with(|fake| fake.ended)
        }

        fn kill(&self) {
            self.with(|fake| (fake.killed, fake.ended) = (true, true));
        }

        fn lost(self) -> Error {
            Error::new(ErrorKind::Killed, "a fake end")
        }
    }

    struct Stage {
        fakes: Fakes,
        dispatcher: Dispatcher<FakeLink>,
    }

    impl Stage {
        fn new(workers: usize) -> Self {
            let mut stage = Self::empty(workers);
            let dispatcher = &mut stage.dispatcher;
            (0..workers).for_each(|seat| dispatcher.start_at(seat).unwrap());
            dispatcher.hear();
            stage
        }

        fn empty(seats: usize) -> Self {
            let fakes = Fakes::default();
            let (all, mut count) = (Arc::clone(&fakes), 0);
            let start = move |_| {
                count += 1;
                let fake = Fake {
                    room: 100,
                    says: VecDeque::from([FakeSaid::Ready]),
                    ..Fake::default()
                };
                all.lock().unwrap().insert(count, fake);
                Ok(FakeLink(count, Arc::clone(&all)))
            };
            let dispatcher = Dispatcher::new(seats, usize::MAX, Box::new(start));
            Self { fakes, dispatcher }
        }

        fn with<T>(&self, worker: usize, act: impl FnOnce(&mut Fake) -> T) -> T {
            act(self.fakes.lock().unwrap().get_mut(&worker).unwrap())
        }

        /// Has a worker begin its next errand.
        fn begin(&self, worker: usize) {
            self.with(worker, |fake| {
                fake.doing = fake.errands.pop_front().unwrap();
                fake.begun += 1;
            });
        }

        /// Has a worker say something of one task.
        fn say(&mut self, worker: usize, said: FakeSaid) {
            self.with(worker, |fake| {
                fake.doing -= 1;
                fake.says.push_back(said);
            });
            self.dispatcher.hear();
        }

        fn end(&mut self, worker: usize) {
            self.with(worker, |fake| fake.ended = true);
            self.dispatcher.look_for_ends();
            self.dispatcher.hear();
            self.dispatcher.feed();
        }

        fn waiting(&self, worker: usize) -> usize {
            self.with(worker, |fake| fake.errands.len())
        }

        fn submit(&mut self, group: &Arc<Group>, first: usize, count: u32, rules: Rules) {
            let load = match count {
                1 => Load::Plain(vec![1].into()),
                count => Load::Many(Box::new(Many {
                    bytes: vec![1; count as usize],
                    count,
                    length: 1,
                    lengths: Vec::new(),
                })),
            };
            self.dispatcher.submit(Piece {
                entry: registration::<any>(),
                load,
                group: Arc::clone(group),
                first,
                rules: (rules != Rules::default()).then(|| Arc::new(rules)),
                tries: 0,
            });
        }
    }

    fn one(stage: &mut Stage, rules: Rules) -> Arc<Group> {
        let group = Group::one();
        stage.submit(&group, 0, 1, rules);
        stage.dispatcher.feed();
        group
    }

    fn kind(group: &Group) -> ErrorKind {
        assert!(group.is_done());
        super::super::group::collect_one::<u8>(group)
            .unwrap_err()
            .kind()
    }

    #[test]
    fn a_worker_full_of_what_was_taken_back_is_asked_to_say_when_it_has_room() {
        let mut stage = Stage::new(1);
        stage.with(1, |fake| fake.room = 2);
        let group = Group::many();
        (0..2).for_each(|first| stage.submit(&group, first, 1, Rules::default()));
        stage.dispatcher.feed();
        let other = one(&mut stage, Rules::default());
        assert!(
            !stage.with(1, |fake| fake.is_asked),
            "it has something to say"
        );
        stage.dispatcher.withdraw(&group);
        stage.dispatcher.feed();
        assert!(stage.with(1, |fake| fake.is_asked));
        assert_eq!(stage.waiting(1), 0);
        // It has looked, and said so.
        stage.with(1, |fake| fake.stale = 0);
        stage.dispatcher.feed();
        stage.begin(1);
        stage.say(1, FakeSaid::Value);
        assert!(other.is_done() && stage.dispatcher.is_idle());
    }

    #[test]
    fn idle_workers_are_given_something_first() {
        let mut stage = Stage::new(3);
        let groups: Vec<_> = (0..3).map(|_| one(&mut stage, Rules::default())).collect();
        assert_eq!([1, 2, 3].map(|worker| stage.waiting(worker)), [1, 1, 1]);
        stage.begin(2);
        stage.say(2, FakeSaid::Value);
        assert!(groups[1].is_done() && !groups[0].is_done());
    }

    #[test]
    fn on_demand_there_are_as_many_workers_as_there_is_work_for() {
        let mut stage = Stage::empty(3);
        stage.dispatcher.is_on_demand = true;
        let started = |stage: &Stage| stage.fakes.lock().unwrap().len();
        assert_eq!(started(&stage), 0);
        let first = one(&mut stage, Rules::default());
        assert_eq!(started(&stage), 1);
        stage.dispatcher.hear();
        stage.dispatcher.feed();
        stage.begin(1);
        stage.say(1, FakeSaid::Value);
        assert!(first.is_done());
        // Somebody is idle.
        let _second = one(&mut stage, Rules::default());
        stage.begin(1);
        assert_eq!(started(&stage), 1);
        // These lie ahead of the first worker until the others are ready.
        for count in 2..=3 {
            let _third = one(&mut stage, Rules::default());
            assert_eq!((started(&stage), stage.waiting(1)), (count, count - 1));
        }
        stage.dispatcher.hear();
        stage.dispatcher.feed();
        stage.dispatcher.balance();
        assert_eq!([1, 2, 3].map(|worker| stage.waiting(worker)), [0, 1, 1]);
        for worker in [2, 3] {
            stage.begin(worker);
            stage.say(worker, FakeSaid::Value);
        }
        // No more than there are seats, and nobody for nothing in place of who ends.
        stage.end(3);
        assert_eq!(started(&stage), 3);
        stage.end(1);
        assert!(stage.dispatcher.is_idle());
        assert_eq!(started(&stage), 3);
    }

    #[test]
    fn on_demand_a_worker_that_ends_before_its_task_begins_is_replaced() {
        let mut stage = Stage::empty(2);
        stage.dispatcher.is_on_demand = true;
        let group = one(&mut stage, Rules::default());
        stage.end(1);
        stage.dispatcher.hear();
        stage.dispatcher.feed();
        stage.begin(2);
        stage.say(2, FakeSaid::Value);
        assert!(group.is_done());
    }

    #[test]
    fn nobody_is_woken_for_little_where_there_is_no_core() {
        let mut stage = Stage::new(2);
        stage.dispatcher.cores = 2;
        stage.dispatcher.seats[0].pace = 1000;
        let groups: Vec<_> = (0..3).map(|_| one(&mut stage, Rules::default())).collect();
        assert_eq!([1, 2].map(|worker| stage.waiting(worker)), [3, 0]);
        // Whoever gave it looks before going to sleep.
        stage.begin(1);
        stage.dispatcher.balance();
        assert_eq!([1, 2].map(|worker| stage.waiting(worker)), [1, 1]);
        stage.begin(2);
        stage.say(2, FakeSaid::Value);
        assert!(groups[1].is_done() && !groups[0].is_done());
        // Nobody is going to look.
        stage.dispatcher.is_unattended = true;
        let _ = one(&mut stage, Rules::default());
        assert_eq!(stage.waiting(2), 1);
        stage.begin(2);
        stage.say(2, FakeSaid::Value);
        // What is being done takes long.
        stage.dispatcher.is_unattended = false;
        stage.dispatcher.seats[0].pace = 10 * WAKING;
        let _ = one(&mut stage, Rules::default());
        assert_eq!(stage.waiting(2), 1);
    }

    #[test]
    fn short_errands_are_measured_by_several() {
        let mut seat = Seat::<FakeLink> {
            pace: 1000,
            count: 1,
            ..Seat::default()
        };
        seat.begins();
        seat.worked(1);
        assert_eq!((seat.since, seat.pace), (None, 1000));
        seat.worked(SAMPLE - 1);
        assert!(seat.since.is_some());
        seat.since = Instant::now().checked_sub(Duration::from_secs(1));
        seat.worked(SAMPLE);
        assert!(seat.pace > QUICK);
        // And now each.
        seat.begins();
        assert!(seat.since.is_some());
    }

    #[test]
    fn what_has_not_begun_goes_to_another_worker() {
        let mut stage = Stage::new(1);
        let group = one(&mut stage, Rules::default());
        stage.end(1);
        assert!(!group.is_done());
        assert_eq!(stage.waiting(2), 1);
        stage.begin(2);
        stage.say(2, FakeSaid::Value);
        assert!(group.is_done());
        assert!(stage.dispatcher.is_idle());
    }

    #[test]
    fn in_the_middle_of_a_chunk_one_task_dies() {
        let mut stage = Stage::new(1);
        let group = Group::many();
        stage.submit(&group, 0, 5, Rules::default());
        drop(group.has_in_all(5));
        stage.dispatcher.feed();
        stage.begin(1);
        stage.say(1, FakeSaid::Value);
        // Said, and not heard before the end.
        stage.with(1, |fake| fake.says.push_back(FakeSaid::Value));
        stage.end(1);
        assert_eq!(group.resolved(), 3);
        stage.begin(2);
        assert_eq!(stage.with(2, |fake| fake.doing), 2);
        stage.say(2, FakeSaid::Value);
        stage.say(2, FakeSaid::Refusal);
        assert!(group.is_done());
        assert_eq!(
            collect_many::<u8>(&group).unwrap_err().kind(),
            ErrorKind::Killed
        );
    }

    #[test]
    fn retries_are_counted() {
        let mut stage = Stage::new(1);
        let rules = Rules {
            retries: 2,
            ..Rules::default()
        };
        let group = one(&mut stage, rules);
        for worker in 1..=3 {
            assert!(!group.is_done());
            stage.begin(worker);
            stage.end(worker);
        }
        assert_eq!(kind(&group), ErrorKind::Killed);
    }

    #[test]
    fn what_lies_ahead_is_taken_back_for_an_idle_worker() {
        let mut stage = Stage::new(2);
        let first = one(&mut stage, Rules::default());
        let second = one(&mut stage, Rules::default());
        let third = one(&mut stage, Rules::default());
        assert_eq!(stage.waiting(1), 2);
        stage.begin(1);
        stage.begin(2);
        stage.say(2, FakeSaid::Value);
        assert!(second.is_done());
        stage.dispatcher.balance();
        assert_eq!((stage.waiting(1), stage.waiting(2)), (0, 1));
        // The first one's worker goes on where it was.
        stage.with(2, |fake| {
            (fake.doing, fake.begun) = (fake.errands.pop_front().unwrap(), fake.begun + 1);
        });
        stage.say(2, FakeSaid::Value);
        stage.say(1, FakeSaid::Value);
        assert!(first.is_done() && third.is_done());
    }

    #[test]
    fn cancelling_takes_back_or_kills() {
        let mut stage = Stage::new(1);
        let (running, queued) = (
            one(&mut stage, Rules::default()),
            one(&mut stage, Rules::default()),
        );
        stage.begin(1);
        stage.dispatcher.cancel(&queued);
        assert_eq!(kind(&queued), ErrorKind::Cancelled);
        assert!(!stage.with(1, |fake| fake.killed));
        stage.dispatcher.cancel(&running);
        assert!(stage.with(1, |fake| fake.killed) && !running.is_done());
        // What comes now is nothing for who is being killed.
        let _next = one(&mut stage, Rules::default());
        assert_eq!(stage.waiting(1), 0);
        stage.dispatcher.look_for_ends();
        assert_eq!(kind(&running), ErrorKind::Cancelled);
        stage.dispatcher.hear();
        stage.dispatcher.feed();
        assert_eq!(stage.waiting(2), 1);
    }

    #[test]
    fn the_clock_runs_from_the_beginning_of_a_task() {
        let mut stage = Stage::new(1);
        let limit = Duration::from_millis(5);
        let rules = || Rules {
            retries: 3,
            timeout: Some(limit),
            ..Rules::default()
        };
        let (late, behind) = (one(&mut stage, rules()), one(&mut stage, rules()));
        stage.with(1, |fake| fake.running_for = 2 * limit);
        // It has not begun, whatever the clock of the one before it says.
        assert_eq!(stage.dispatcher.look_at_clocks(), Some(limit));
        stage.begin(1);
        stage.dispatcher.look_at_clocks();
        assert!(stage.with(1, |fake| fake.killed));
        stage.dispatcher.look_for_ends();
        assert_eq!(kind(&late), ErrorKind::Timeout);
        assert!(!behind.is_done());
    }

    #[test]
    fn what_cannot_be_sent_is_told_and_a_full_link_is_waited_for() {
        let mut stage = Stage::new(1);
        stage.with(1, |fake| fake.room = 1);
        let groups = [
            one(&mut stage, Rules::default()),
            one(&mut stage, Rules::default()),
        ];
        let refused = Group::one();
        stage.submit(&refused, 0, 1, Rules::default());
        if let Some(piece) = stage.dispatcher.queue.back_mut() {
            piece.load = Load::Plain(vec![66].into());
        }
        for group in &groups {
            stage.dispatcher.feed();
            stage.begin(1);
            stage.say(1, FakeSaid::Value);
            assert!(group.is_done());
        }
        stage.dispatcher.feed();
        assert_eq!(kind(&refused), ErrorKind::Encode);
    }

    #[test]
    fn a_worker_that_retires_costs_nothing() {
        let mut stage = Stage::new(1);
        let group = Group::many();
        stage.submit(&group, 0, 3, Rules::default());
        drop(group.has_in_all(3));
        let other = one(&mut stage, Rules::default());
        stage.begin(1);
        stage.say(1, FakeSaid::Value);
        stage.say(1, FakeSaid::Retires);
        stage.dispatcher.hear();
        stage.dispatcher.feed();
        for count in [2, 1] {
            stage.begin(2);
            (0..count).for_each(|_| stage.say(2, FakeSaid::Value));
        }
        assert!(group.is_done() && other.is_done());
        assert_eq!(collect_many::<u8>(&group).unwrap(), [1, 1, 1]);
    }

    #[test]
    fn workers_that_are_killed_before_they_are_ready_fail_the_pool_in_the_end() {
        let mut stage = Stage::new(1);
        let group = one(&mut stage, Rules::default());
        for worker in 1.. {
            if group.is_done() {
                break;
            }
            assert!(worker < 10);
            stage.with(worker, |fake| fake.says.clear());
            stage.with(worker, |fake| fake.ended = true);
            stage.dispatcher.look_for_ends();
        }
        assert_eq!(kind(&group), ErrorKind::Killed);
        assert!(matches!(stage.dispatcher.end(), Some(End::Failed(_))));
    }

    #[test]
    fn at_the_end_everything_resolves() {
        let mut stage = Stage::new(2);
        let groups: Vec<_> = (0..10).map(|_| one(&mut stage, Rules::default())).collect();
        stage.begin(1);
        stage.dispatcher.finish(End::Terminated);
        assert!(
            groups
                .iter()
                .all(|group| kind(group) == ErrorKind::ShutDown)
        );
        assert!(stage.with(1, |fake| fake.killed) && stage.with(2, |fake| fake.killed));
        assert!(stage.dispatcher.is_quiet());
    }
}
