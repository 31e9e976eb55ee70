//! A worker that is a process on this machine, seen from its parent.
//!
//! It costs its parent four descriptors: what a child costs, and one end of the *line*, a packet socket on which either side is woken, and
//! over which goes what is not plain: handles, and what is long. A packet on the line belongs to a record in the ring that says so, and
//! goes ahead of it; it is taken off the line as soon as it is seen, so that the line is readable only while there is something new.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::link::{EACH, Errand, ErrandLoad, Lengths, Link, Outcome, Said, Trouble, Values};
use super::ring::{self, Memory, Place};
use super::unharmed;
use super::worker::{self, Orders};
use crate::Fd;
use crate::entry::registry::{Key, Registration};
use crate::error::{Error, ErrorKind, Result};
use crate::process::record::Refusal;
use crate::process::{AnyChild, Child};
use crate::sys::{self, Received};
use crate::wire::message::{Body, MAX_HANDLES};
use crate::wire::{Message, codec};

/// Kinds of records.
pub(super) mod kind {
    /// To the worker: the next number among its entries.
    pub(crate) const ENTRY: u32 = 1;
    /// To the worker: a [`Plain`](super::Plain) and what it says.
    pub(crate) const PLAIN: u32 = 2;
    /// To the worker: the same for what is on the line.
    pub(crate) const MESSAGE: u32 = 3;
    /// To the worker: end.
    pub(crate) const DISMISSED: u32 = 4;
    /// To the parent.
    pub(crate) const READY: u32 = 5;
    pub(crate) const RETIRES: u32 = 6;
    /// To the parent: outcomes.
    pub(crate) const VALUE: u32 = 7;
    /// To the parent: several of those, in an [open record](super::super::ring).
    pub(crate) const VALUES: u32 = 13;
    pub(crate) const PANIC: u32 = 8;
    pub(crate) const REFUSAL: u32 = 9;
    /// To the parent: a task begins, or has ended, at a time.
    pub(crate) const BEGAN: u32 = 10;
    pub(crate) const ENDED: u32 = 11;
    /// To the parent: what a task says of itself.
    pub(crate) const REPORT: u32 = 12;
    /// Added to those: it is on the line.
    pub(crate) const ON_LINE: u32 = 0x100;
    /// Added to those: it is the initializer's, which has failed.
    pub(crate) const UNFIT: u32 = 0x200;
}

/// What a record of plain calls begins with. `length` is that of each, or [`EACH`] if lengths follow.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) entry: u32,
    pub(super) count: u32,
    pub(super) length: u32,
    pub(super) flags: u32,
}

/// The worker is to note when it begins.
pub(super) const TIMED: u32 = 1;
/// Other workers are at work, too.
pub(super) const CROWD: u32 = 2;
/// Somebody listens to what the tasks report.
pub(super) const REPORTS: u32 = 4;

impl Plain {
    pub(super) const SIZE: usize = 16;

    fn to_bytes(self) -> [u8; Self::SIZE] {
        bytemuck::cast([self.entry, self.count, self.length, self.flags])
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let words = bytes.first_chunk::<{ Self::SIZE }>()?;
        let [entry, count, length, flags] = bytemuck::cast(*words);
        Some(Self {
            entry,
            count,
            length,
            flags,
        })
    }
}

pub(super) struct Local {
    memory: Memory,
    outgoing: Place,
    incoming: Place,
    line: Arc<OwnedFd>,
    child: Child<()>,
    /// Entries by their number.
    entries: Vec<*const Registration>,
    /// Errands sent, and taken back.
    sent: u64,
    /// What was on the line.
    packets: VecDeque<io::Result<Message>>,
    taken: Vec<u8>,
}

// SAFETY: the pointers are compared with others, and never followed.
unsafe impl Send for Local {}

impl Local {
    pub(super) fn start(
        name: String,
        orders: Orders,
        prepare: impl FnOnce(crate::Process<()>) -> crate::Process<()>,
    ) -> Result<Self> {
        let io = |error| Error::io("a worker's memory could not be made", error);
        let (memory, file) = Memory::create().map_err(io)?;
        let (line, theirs) = sys::seqpacket_pair().map_err(io)?;
        let process = worker::work::process(Fd::from(file), Fd::from(theirs), orders);
        let process = prepare(process.name(name).daemon(true));
        Ok(Self {
            memory,
            outgoing: Place::default(),
            incoming: Place::default(),
            line: Arc::new(line),
            child: unharmed(|| process.start())
                .unwrap_or_else(|| Err(log_panicked("a worker could not be started")))
                .map_err(Error::handing_nothing_back)?,
            entries: Vec::new(),
            sent: 0,
            packets: VecDeque::new(),
            taken: Vec::new(),
        })
    }

    pub(super) fn child(&self) -> AnyChild {
        (*self.child).clone()
    }

    /// What wakes a sleeper when the worker says something, and when it ends.
    pub(super) fn ears(&self) -> (Arc<OwnedFd>, AnyChild) {
        (Arc::clone(&self.line), self.child())
    }

    /// Asks to be woken by what the worker says next. Look AFTER this.
    /// `soon`: by the next outcome, and not only when it needs more to do.
    pub(super) fn listen(&self, soon: bool) {
        self.memory.outcomes().await_record(soon);
    }

    pub(super) fn do_not_listen(&self) {
        self.memory.outcomes().await_no_record();
    }

    /// Whether this is its line.
    pub(super) fn is_on(&self, line: &Arc<OwnedFd>) -> bool {
        Arc::ptr_eq(&self.line, line)
    }

    /// The core that it was last on; and it is told which one this is.
    pub(super) fn core(&self) -> u32 {
        self.memory.outcomes().reader_is_here();
        self.memory.outcomes().writer_core()
    }

    /// Lets the worker end by itself.
    pub(super) fn dismiss(&mut self) {
        match self
            .memory
            .tasks()
            .push(&mut self.outgoing, kind::DISMISSED, &[])
        {
            Ok(true) => self.wake(),
            // It has not even read what it had: then it is not going to read this.
            _ => self.kill(),
        }
    }

    fn wake(&self) {
        self.memory
            .tasks()
            .wake_reader(&self.outgoing, self.line.as_fd(), true, true);
    }

    /// Takes everything off the line: rings, and packets.
    pub(super) fn empty_line(&mut self) {
        empty_line(self.line.as_fd(), &mut self.packets);
    }

    fn number_of(&mut self, entry: &'static Registration) -> std::result::Result<u32, Trouble> {
        let known = self
            .entries
            .iter()
            .rposition(|known| std::ptr::eq(*known, entry));
        if let Some(number) = known {
            return Ok(number as u32);
        }
        let mut bytes = Vec::new();
        let key: (Key<'_>, u64) = (entry.key(), entry.signature());
        let cannot = |error| Error::new(ErrorKind::Encode, "an entry's name").caused_by(error);
        codec::encode(&key, &mut bytes).map_err(|error| Trouble::Refused(cannot(error)))?;
        self.push(kind::ENTRY, &[&bytes])?;
        self.entries.push(entry);
        Ok((self.entries.len() - 1) as u32)
    }

    fn push(&mut self, kind: u32, parts: &[&[u8]]) -> std::result::Result<(), Trouble> {
        match self.memory.tasks().push(&mut self.outgoing, kind, parts) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Trouble::Full),
            Err(ring::Broken) => Err(Trouble::Lost),
        }
    }
}

/// Takes everything off a line.
pub(super) fn empty_line(
    line: BorrowedFd<'_>,
    packets: &mut VecDeque<io::Result<Message>>,
) -> bool {
    loop {
        let mut packet = [0; 2];
        match sys::receive_bare(line, &mut packet, true) {
            // A ring.
            Ok(Received::Packet { length: 1 }) => {
                let _ = sys::receive_bare(line, &mut packet, false);
            }
            Ok(Received::Packet { .. }) => match Message::receive(line, MAX_HANDLES, false) {
                Ok(Some((_, message))) => packets.push_back(Ok(message)),
                Ok(None) => return false,
                Err(error) => packets.push_back(Err(error)),
            },
            Ok(Received::End) => return false,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl Link for Local {
    fn send(&mut self, errand: Errand<'_>) -> std::result::Result<(), Trouble> {
        let number = self.number_of(errand.entry)?;
        let mut head = Plain {
            entry: number,
            count: 1,
            length: 0,
            flags: if errand.is_timed { TIMED } else { 0 }
                | if errand.is_crowd { CROWD } else { 0 }
                | if errand.is_heard { REPORTS } else { 0 },
        };
        match errand.load {
            ErrandLoad::Plain(bytes, Lengths::Same(count, length)) => {
                (head.count, head.length) = (count, length);
                self.push(kind::PLAIN, &[&head.to_bytes(), bytes])?;
            }
            ErrandLoad::Plain(bytes, Lengths::Each(lengths)) => {
                (head.count, head.length) = (lengths.len() as u32, EACH);
                let lengths = bytemuck::cast_slice(lengths);
                self.push(kind::PLAIN, &[&head.to_bytes(), lengths, bytes])?;
            }
            ErrandLoad::Message(message) => {
                // Looked at BEFORE the packet is sent: with one on the line and no record for it, the next packet would be taken for it. A worker that has nothing
                // to do may still be full of what was taken back.
                match self
                    .memory
                    .tasks()
                    .has_room(&mut self.outgoing, Plain::SIZE)
                {
                    Ok(true) => {}
                    Ok(false) => return Err(Trouble::Full),
                    Err(ring::Broken) => return Err(Trouble::Lost),
                }
                match message.send(self.line.as_fd(), 0, false) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Err(Trouble::Full);
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                        ) =>
                    {
                        return Err(Trouble::Lost);
                    }
                    Err(error) => {
                        let text = "the call cannot be sent to a worker";
                        let error = Error::new(ErrorKind::Encode, text).caused_by(error);
                        return Err(Trouble::Refused(error));
                    }
                }
                if self.push(kind::MESSAGE, &[&head.to_bytes()]).is_err() {
                    return Err(Trouble::Lost);
                }
            }
        }
        self.sent += 1;
        Ok(())
    }

    fn flush(&mut self) {
        self.wake();
    }

    fn ask_for_room(&mut self) {
        self.memory.tasks().await_room();
    }

    fn receive(&mut self, hear: &mut dyn FnMut(Said<'_>)) -> std::result::Result<bool, Trouble> {
        let mut taken = std::mem::take(&mut self.taken);
        taken.clear();
        let broken = |ring::Broken| Trouble::Lost;
        let before = self.memory.outcomes().take(&mut self.incoming, &mut taken);
        let before = before.map_err(broken)?;
        if let Some(before) = before {
            let open = self.read(&taken, before, hear).map_err(broken)?;
            self.memory.outcomes().finish(&mut self.incoming, open);
            self.memory.outcomes().wake_writer(self.line.as_fd());
        }
        self.taken = taken;
        Ok(before.is_some())
    }

    fn begun(&self) -> u64 {
        self.memory.claimed().load(Ordering::Acquire).min(self.sent)
    }

    fn running_for(&self) -> Duration {
        let since = self.memory.since().load(Ordering::Acquire);
        Duration::from_nanos(sys::monotonic_nanoseconds().saturating_sub(since))
    }

    fn recall(&mut self) -> u64 {
        let claimed = self.memory.claimed();
        let mut begun = claimed.load(Ordering::Acquire);
        while begun < self.sent {
            match claimed.compare_exchange(begun, self.sent, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return begun,
                Err(now) => begun = now,
            }
        }
        self.sent
    }

    fn has_ended(&self) -> bool {
        // It is the end that is written to a log.
        unharmed(|| !self.child.is_alive()).unwrap_or(true)
    }

    fn kill(&self) {
        // OK to ignore: it has ended then, and that may be written to a log.
        let _ = unharmed(|| self.child.kill());
    }

    fn lost(self) -> Error {
        unharmed(|| self.end()).unwrap_or_else(|| log_panicked("a worker has ended"))
    }
}

/// A worker's start and end are written to the program's log, by code of users.
fn log_panicked(what: &str) -> Error {
    let text = format!("{what}, and what writes the log panicked");
    Error::new(ErrorKind::Start, text)
}

impl Local {
    fn end(self) -> Error {
        let Self { line, child, .. } = self;
        drop(line);
        // One that was started and ends has closed everything; its own status says more than ours would. One that makes no sense has not.
        if !matches!(child.wait_timeout(Duration::ZERO), Ok(Some(_))) {
            let _ = child.kill();
        }
        let (name, id) = (child.name().to_owned(), child.id());
        match child.join() {
            Err(error) => error,
            Ok(()) => Error::new(ErrorKind::Exited, "ended before its task did")
                .of_process(&name, id, None),
        }
    }
}

fn time(payload: &[u8]) -> std::result::Result<u64, ring::Broken> {
    let bytes = payload.try_into().map_err(|_| ring::Broken)?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Local {
    /// Reads what was taken, of whose first record so many bytes of values have been read `before`. What stays open of it is as [`finish`](ring::Ring::finish) takes
    /// it.
    fn read(
        &mut self,
        taken: &[u8],
        mut before: usize,
        hear: &mut dyn FnMut(Said<'_>),
    ) -> std::result::Result<Option<usize>, ring::Broken> {
        let mut at = 0;
        while at < taken.len() {
            if ring::header_at(taken, at)?.0 == kind::VALUES {
                let part = ring::part(taken, at, before)?;
                let values = Values::all(part.values, part.each).ok_or(ring::Broken)?;
                hear(Said::Values(values));
                match part.next {
                    Some(next) => (at, before) = (next, 0),
                    // There is more of it than these, and the rest is still to come.
                    None => return Ok((at > 0).then_some(taken.len() - at)),
                }
                continue;
            }
            let (kind, range, next) = ring::record(taken, at)?;
            at = next;
            let payload = &taken[range];
            match kind {
                kind::VALUE => hear(Said::Values(Values::one(payload))),
                kind::READY => hear(Said::Ready),
                kind::RETIRES => hear(Said::Retires),
                kind::REPORT => hear(Said::Report(payload)),
                kind::BEGAN => hear(Said::Began(time(payload)?)),
                kind::ENDED => hear(Said::Ended(time(payload)?)),
                _ => {
                    let outcome = self.outcome(kind & 0xff, kind & kind::ON_LINE != 0, payload)?;
                    hear(if kind & kind::UNFIT != 0 {
                        Said::Unfit(outcome)
                    } else {
                        Said::Outcome(outcome)
                    });
                }
            }
        }
        Ok(Some(0))
    }

    #[cold]
    fn outcome(
        &mut self,
        kind: u32,
        is_on_line: bool,
        payload: &[u8],
    ) -> std::result::Result<Outcome, ring::Broken> {
        if !is_on_line {
            let mut bytes = payload;
            return Ok(match kind {
                // An initializer's.
                kind::VALUE => {
                    let body = Body::Inline(payload.to_vec());
                    Outcome::Message(Message::from_parts(body, Vec::new()))
                }
                kind::PANIC => Outcome::Panic(codec::decode(&mut bytes).map_err(|_| ring::Broken)?),
                kind::REFUSAL => Outcome::Refusal(
                    codec::decode::<Refusal>(&mut bytes).map_err(|_| ring::Broken)?,
                ),
                _ => return Err(ring::Broken),
            });
        }
        if self.packets.is_empty() {
            // It went ahead of its record.
            self.empty_line();
        }
        let message = match self.packets.pop_front().ok_or(ring::Broken)? {
            Ok(message) => message,
            Err(error) => {
                let text = "what a task returned could not be received";
                return Ok(Outcome::Unreadable(Error::io(text, error)));
            }
        };
        Ok(match kind {
            kind::VALUE => Outcome::Message(message),
            kind::PANIC => Outcome::Panic(message.decode().map_err(|_| ring::Broken)?),
            kind::REFUSAL => Outcome::Refusal(message.decode().map_err(|_| ring::Broken)?),
            _ => return Err(ring::Broken),
        })
    }
}
