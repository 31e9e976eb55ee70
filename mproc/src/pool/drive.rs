//! Who drives: whoever waits does, and one thread in the background while nobody does.
//!
//! One thread at a time has the *role*. It hears and feeds the workers, spins for a moment when there is nothing to hear, and then sleeps on
//! their descriptors, without the lock: so others submit, and feed, meanwhile. Others that wait sleep on their results; one of them is
//! woken when the role becomes free. A waiter takes the role from the background thread.
//!
//! The background thread is started when it is needed first. While nothing is outstanding it looks a few more times, so that a program that
//! submits and waits in turns need not wake it each time, and then sleeps until it is woken.
//!
//! # Who hears of what
//!
//! | what happens         | the driver is awake                       | it sleeps                             | nobody drives                           |
//! |----------------------|-------------------------------------------|---------------------------------------|-----------------------------------------|
//! | a worker speaks      | hears it                                  | its line rings, if it was asked to    | heard by the next who waits, or submits |
//! | a worker has room, and had nothing to do | feeds it before it sleeps | its line rings, if it was asked to    | fed by the next who submits, or waits   |
//! | a worker ends        | glances, now and then, or goes to sleep   | its pidfd is readable                 | seen by the next who waits              |
//! | a time is over       | the same                                  | sleeps no longer than that            | the same                                |
//! | something is submitted | who submits feeds                       | who submits feeds, and kicks for more | who submits waits, or wakes the background |
//! | a change, or a callback is to run | looks BEFORE it sleeps, under the lock | a kick                      | wakes the background                    |
//! | a callback has run   | `has_called`, BEFORE it sleeps            | a kick                                | who waits for it is unparked            |
//! | somebody waits       | gives way if in the background; or later  | loses the role if in the background   | takes the role                          |
//!
//! Nobody drives only while nothing is outstanding, for moments, or while nobody takes what a stream has ready.
//!
//! # Invariants
//!
//! 1. Whoever leaves [`wait`](Shared::wait), or lends the role to a callback, hands over: to one that waits, or to the background thread.
//! 2. One that waits is among the waiters from before its last look until it holds the desk again, and runs nothing in between.
//! 3. What is awaited is looked at after `sleeps` can be seen only by those who kick: under one lock.
//! 4. The kick is silenced by the last that sleeps on it.
//! 5. What a callback leaves ([`After::run`]) goes back to the desk before its thread leaves, and the background thread ends with none left.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::dispatch::{Dispatcher, End, Piece};
use super::group::{After, Group};
use super::link::{Link, Yields};
use super::local::Local;
use super::lock;
use crate::error::{Error, Result};
use crate::process::AnyChild;
use crate::sync::Spin;
use crate::sys::{self, Deadline};

pub(super) struct Shared {
    desk: Mutex<Desk>,
    /// Wakes the driver out of its sleep.
    kick: OwnedFd,
    /// Wakes the background thread while it does not drive.
    background: Condvar,
    workers: usize,
    cores: usize,
}

pub(super) struct Desk {
    pub(super) dispatcher: Dispatcher<Local>,
    role: Role,
    /// Whether the driver sleeps on descriptors.
    sleeps: bool,
    /// How many threads do: beside the driver, the background thread may not yet have found out that it has lost the role.
    asleep: u32,
    /// Whether the driver has asked workers to wake it when it is time, and not for each outcome.
    is_patient: bool,
    /// Threads that wait without the role.
    waiters: Vec<Thread>,
    /// Counts what others did that the background thread would do otherwise.
    beats: u64,
    /// A callback has run, for whose end the driver may wait, and has not looked since.
    has_called: bool,
    /// Somebody cannot wait for the background thread to look by itself.
    is_urgent: bool,
    background: Background,
    thread: Option<JoinHandle<()>>,
    /// Workers that have been dismissed, and that somebody waits for.
    ending: Vec<AnyChild>,
    spin: Spin,
    yields: Yields,
    /// Counts what drivers do without sleeping.
    turns: u32,
    /// When one last looked beyond what workers say.
    glanced: Instant,
}

impl Desk {
    /// Whether nothing is to be heard, or done.
    fn is_quiet(&self) -> bool {
        self.dispatcher.is_quiet() && self.dispatcher.after.is_empty()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Free,
    Waiter,
    Background,
}

/// How driving ended.
enum Driven {
    Done,
    /// The deadline has passed.
    Late,
    /// Somebody else drives, or should.
    Relieved,
}

#[derive(Clone, Copy, PartialEq)]
enum Background {
    /// There is no such thread.
    Absent,
    /// It sleeps until it is woken.
    Asleep,
    /// It looks by itself.
    Awake,
    /// It has to end.
    Dismissed,
}

/// Between two looks of a background thread that may be needed again soon, and how many.
const LINGER: Duration = Duration::from_millis(1);
const LOOKS: u32 = 20;

/// So often drivers that are kept busy ask the system whether somebody has died, or whether a time is over: each of so many turns, if it was so long ago.
const GLANCE: Duration = Duration::from_millis(1);
const TURNS: u32 = 64;

impl Shared {
    pub(super) fn new(dispatcher: Dispatcher<Local>, workers: usize) -> Result<Arc<Self>> {
        let kick = sys::doorbell();
        let kick = kick.map_err(|error| Error::io("a pool could not be made", error))?;
        Ok(Arc::new(Self {
            desk: Mutex::new(Desk {
                dispatcher,
                role: Role::Free,
                sleeps: false,
                asleep: 0,
                is_patient: false,
                waiters: Vec::new(),
                beats: 0,
                has_called: false,
                is_urgent: false,
                background: Background::Absent,
                thread: None,
                ending: Vec::new(),
                spin: Spin::default(),
                yields: Yields::default(),
                turns: 0,
                glanced: Instant::now(),
            }),
            kick,
            background: Condvar::new(),
            workers,
            cores: crate::process::cpu_count(),
        }))
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    /// Takes pieces for the workers, and gives them what they can take now.
    ///
    /// `is_awaited`: the caller is going to wait, so nobody else has to drive.
    pub(super) fn submit(
        self: &Arc<Self>,
        pieces: impl Iterator<Item = Piece>,
        is_awaited: bool,
    ) -> Result<()> {
        let mut desk = self.desk();
        if let Some(end) = desk.dispatcher.end() {
            return Err(end.error());
        }
        if !is_awaited && desk.role == Role::Free && desk.background == Background::Absent {
            // BEFORE anything is taken, of which nobody would hear.
            self.start_background(&mut desk)?;
        }
        let (mut is_timed, mut is_watched) = (false, false);
        for piece in pieces {
            is_timed |= piece.rules.is_some();
            is_watched |= piece.group.has_callback();
            desk.dispatcher.submit(piece);
        }
        if desk.role == Role::Free || desk.sleeps {
            // Whoever drives does not look now.
            desk.dispatcher.hear();
        }
        desk.dispatcher.has_roused = false;
        desk.dispatcher.feed();
        desk.beats += 1;
        // One that was started is none of those on which somebody sleeps.
        let mut must_look = is_timed | std::mem::take(&mut desk.dispatcher.has_started);
        if desk.sleeps && (desk.dispatcher.has_roused || desk.is_patient) {
            // Whoever sleeps asked those to speak up who had something to do then, and perhaps not yet if that was all of one map.
            desk.dispatcher.busy().for_each(|link| link.listen(true));
            desk.is_patient = false;
            must_look |= desk.dispatcher.hear();
            // See `Ring::wake_reader`: it is to look again after a while.
            must_look |= desk.dispatcher.has_many();
        }
        if must_look && desk.sleeps {
            sys::ring(self.kick.as_fd());
        }
        if !is_awaited && desk.role == Role::Free {
            self.wake_background(&mut desk, is_watched)?;
        }
        self.leave(desk);
        Ok(())
    }

    fn start_background(self: &Arc<Self>, desk: &mut Desk) -> Result<()> {
        let shared = Arc::clone(self);
        let builder = thread::Builder::new().name("mproc-pool".to_owned());
        // The pool ends it before it is gone.
        let spawned = builder.spawn(move || shared.in_background());
        let failed = |error| Error::io("a thread of the pool could not be started", error);
        desk.thread = Some(spawned.map_err(failed)?);
        desk.background = Background::Awake;
        Ok(())
    }

    /// Sees to it that somebody drives.
    fn wake_background(self: &Arc<Self>, desk: &mut Desk, at_once: bool) -> Result<()> {
        desk.is_urgent |= at_once;
        match desk.background {
            Background::Absent => self.start_background(desk)?,
            Background::Asleep => self.background.notify_all(),
            Background::Awake if at_once => self.background.notify_all(),
            Background::Awake | Background::Dismissed => {}
        }
        Ok(())
    }

    /// Has somebody drive soon, for who cannot wait in a thread.
    pub(super) fn drive_soon(self: &Arc<Self>) {
        let mut desk = self.desk();
        if desk.role == Role::Free && !desk.is_quiet() {
            // OK to ignore: where no thread can be started, the next wait drives.
            let _ = self.wake_background(&mut desk, true);
        }
    }

    /// Lets go of the desk, and does what is to be done without it, of someone who does not wait: callbacks are left to those that do, or to the
    /// background thread, since whoever submits may hold locks that they take.
    fn leave(self: &Arc<Self>, mut desk: MutexGuard<'_, Desk>) {
        if desk.dispatcher.after.is_empty() {
            return;
        }
        let after = std::mem::take(&mut desk.dispatcher.after);
        let (theirs, ours): (Vec<_>, Vec<_>) = after.into_iter().partition(After::may_take_long);
        if !theirs.is_empty() {
            desk.dispatcher.after = theirs;
            if desk.sleeps {
                sys::ring(self.kick.as_fd());
            } else if desk.role == Role::Free {
                // OK to ignore: where no thread can be started, the next wait does it.
                let _ = self.wake_background(&mut desk, true);
            }
        }
        drop(desk);
        ours.into_iter().for_each(|after| _ = after.run());
    }

    /// Lets go of the desk, and does what is to be done without it.
    fn release(self: &Arc<Self>, mut desk: MutexGuard<'_, Desk>) {
        if desk.dispatcher.after.is_empty() {
            return;
        }
        let after = std::mem::take(&mut desk.dispatcher.after);
        drop(desk);
        let is_theirs = after.iter().any(After::is_of_users);
        let left: Vec<_> = after.into_iter().filter_map(After::run).collect();
        if is_theirs {
            let mut desk = self.desk();
            self.has_called(&mut desk);
            if !left.is_empty() {
                desk.dispatcher.after.extend(left);
                self.hand_over(&mut desk);
            }
        }
    }

    /// What waits for the end of a callback may drive, and sleep on the workers.
    fn has_called(&self, desk: &mut Desk) {
        desk.has_called = true;
        if desk.sleeps {
            sys::ring(self.kick.as_fd());
        }
    }

    /// Changes something, tells those whom it concerns, and has the driver look.
    pub(super) fn change(self: &Arc<Self>, change: impl FnOnce(&mut Dispatcher<Local>)) {
        let mut desk = self.desk();
        change(&mut desk.dispatcher);
        if desk.sleeps {
            sys::ring(self.kick.as_fd());
        } else if desk.role == Role::Free && !desk.is_quiet() {
            let _ = self.wake_background(&mut desk, true);
        }
        self.leave(desk);
    }

    /// Waits until `done`, which is about `group` if there is one; drives meanwhile if nobody else does. False: the time is over.
    pub(super) fn wait(
        self: &Arc<Self>,
        group: Option<&Group>,
        limit: Option<Duration>,
        mut done: impl FnMut(&Dispatcher<Local>) -> bool,
    ) -> bool {
        // A limit that is too far away to be a moment is none.
        let deadline = limit.map_or(Deadline::NEVER, Deadline::after);
        let mut desk = self.desk();
        let this = OnceCell::new();
        let is_done = loop {
            if done(&desk.dispatcher) {
                break true;
            }
            if desk.role == Role::Free || (desk.role == Role::Background && desk.sleeps) {
                let driven;
                desk.beats += 1;
                let map = group.filter(|group| group.is_map());
                (desk, driven) = self.drive(desk, Role::Waiter, deadline, map, &mut done);
                match driven {
                    Driven::Done => break true,
                    Driven::Late => break false,
                    Driven::Relieved => continue,
                }
            }
            if deadline.remaining() == Some(Duration::ZERO) {
                break false;
            }
            if let Some(group) = group {
                group.watch();
            }
            let this = this.get_or_init(thread::current);
            desk.waiters.push(this.clone());
            let resolved = done(&desk.dispatcher);
            // Whoever drives does what is to be done: code of users that waits, too, would take the wake-up for its own.
            drop(desk);
            if !resolved {
                match deadline.remaining() {
                    None => thread::park(),
                    Some(left) => thread::park_timeout(left),
                }
            }
            desk = self.desk();
            desk.waiters.retain(|waiter| waiter.id() != this.id());
        };
        self.hand_over(&mut desk);
        self.release(desk);
        is_done
    }

    /// Waits until `done`, which is about several groups.
    pub(super) fn wait_for_any<'g>(
        self: &Arc<Self>,
        groups: impl Iterator<Item = &'g Group>,
        limit: Option<Duration>,
        done: impl FnMut(&Dispatcher<Local>) -> bool,
    ) -> bool {
        groups.for_each(Group::watch);
        // Woken by any of them, this looks again.
        self.wait(None, limit, done)
    }

    /// Has somebody else drive if there is need for it.
    fn hand_over(self: &Arc<Self>, desk: &mut Desk) {
        if desk.role != Role::Free {
            return;
        }
        if let Some(waiter) = desk.waiters.pop() {
            waiter.unpark();
        } else if !desk.is_quiet() {
            // OK to ignore: where no thread can be started, the next wait drives.
            let _ = self.wake_background(desk, false);
        }
    }

    /// Drives until `done`, or until somebody else has the role. If not, it is free afterwards.
    ///
    /// `map`: nothing is awaited but the end of this one.
    fn drive<'a>(
        self: &'a Arc<Self>,
        mut desk: MutexGuard<'a, Desk>,
        role: Role,
        deadline: Deadline,
        map: Option<&Group>,
        done: &mut dyn FnMut(&Dispatcher<Local>) -> bool,
    ) -> (MutexGuard<'a, Desk>, Driven) {
        if desk.sleeps {
            // The background thread, which finds that it has lost the role.
            (desk.sleeps, desk.dispatcher.is_unattended) = (false, false);
            sys::ring(self.kick.as_fd());
        }
        desk.role = role;
        let beats = desk.beats;
        let driven = loop {
            let heard = desk.dispatcher.hear();
            desk.dispatcher.feed();
            if !desk.dispatcher.after.is_empty() {
                let after = std::mem::take(&mut desk.dispatcher.after);
                // Code of users may wait for something of this pool.
                let is_theirs = after.iter().any(After::is_of_users);
                if is_theirs {
                    desk.role = Role::Free;
                }
                if after.iter().any(After::may_take_long) {
                    // Also for something that somebody else waits for.
                    self.hand_over(&mut desk);
                }
                drop(desk);
                let left: Vec<_> = after.into_iter().filter_map(After::run).collect();
                desk = self.desk();
                desk.dispatcher.after.extend(left);
                if is_theirs {
                    if desk.role != Role::Free {
                        self.has_called(&mut desk);
                        return (desk, Driven::Relieved);
                    }
                    desk.role = role;
                }
            }
            if done(&desk.dispatcher) {
                break Driven::Done;
            }
            let has_waiters = |desk: &Desk| {
                role == Role::Background && (!desk.waiters.is_empty() || desk.beats != beats)
            };
            if has_waiters(&desk) {
                break Driven::Relieved;
            }
            desk.turns = desk.turns.wrapping_add(1);
            if desk.turns.is_multiple_of(TURNS) {
                // Where there is always something to hear, nobody sleeps.
                if desk.glanced.elapsed() > GLANCE {
                    desk.glanced = Instant::now();
                    desk.dispatcher.look_for_ends();
                    desk.dispatcher.look_at_clocks();
                }
                if deadline.is_over() && !done(&desk.dispatcher) {
                    break Driven::Late;
                }
            }
            if heard {
                // Others may have something to submit.
                drop(desk);
                desk = self.desk();
                continue;
            }
            let mut spin = desk.spin;
            let core = {
                let mut busy = desk.dispatcher.busy();
                let first = busy.next();
                match (first, busy.count()) {
                    (Some(one), 0) => one.core(),
                    // There is no core to spare, and who spins keeps a worker from one.
                    (_, others) if others + 1 >= self.cores => crate::sync::core(),
                    _ => 0,
                }
            };
            drop(desk);
            let looked = spin.until(core, || {
                let mut desk = self.desk();
                desk.dispatcher.hear() || !desk.dispatcher.after.is_empty() || has_waiters(&desk)
            });
            desk = self.desk();
            let Err(looked) = looked else {
                desk.spin = spin;
                continue;
            };
            let mut yields = desk.yields;
            if core == crate::sync::core() {
                drop(desk);
                let found = yields.until(|| {
                    let mut desk = self.desk();
                    desk.dispatcher.hear()
                        || !desk.dispatcher.after.is_empty()
                        || has_waiters(&desk)
                });
                desk = self.desk();
                if found {
                    continue;
                }
            }
            let is_late;
            let since = Instant::now();
            let mut wanted = |desk: &Desk| done(&desk.dispatcher) || has_waiters(desk);
            (desk, is_late) = self.sleep(desk, role, deadline, map, &mut wanted);
            if desk.role != role {
                return (desk, Driven::Relieved);
            }
            spin.slept(looked);
            yields.slept(since.elapsed());
            (desk.spin, desk.yields) = (spin, yields);
            if is_late && !done(&desk.dispatcher) {
                break Driven::Late;
            }
        };
        desk.role = Role::Free;
        (desk, driven)
    }

    /// Sleeps until a worker says something or ends, a clock runs out, or somebody kicks. True: the deadline has passed.
    ///
    /// Who changes something kicks a driver that sleeps, and no other: so what it does not sleep for, `wanted`, is looked at last, under the lock under which it
    /// is seen to sleep from then on. Two may sleep on the kick, and the last one that wakes silences it: so none takes it from the other.
    ///
    /// A worker that does nothing but tasks of `map` need not wake for each outcome.
    fn sleep<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        role: Role,
        deadline: Deadline,
        map: Option<&Group>,
        wanted: &mut dyn FnMut(&Desk) -> bool,
    ) -> (MutexGuard<'a, Desk>, bool) {
        desk.dispatcher.balance();
        let clock = desk.dispatcher.look_at_clocks();
        let mut is_patient = false;
        for (link, is_all_of_it) in desk.dispatcher.busy_with(map) {
            link.listen(!is_all_of_it);
            is_patient |= is_all_of_it;
        }
        desk.is_patient = is_patient;
        if desk.dispatcher.hear()
            || !desk.dispatcher.after.is_empty()
            || std::mem::take(&mut desk.has_called)
            || wanted(&desk)
        {
            desk.dispatcher.busy().for_each(Local::do_not_listen);
            return (desk, false);
        }
        let ears: Vec<_> = desk.dispatcher.links().map(Local::ears).collect();
        let mut until = clock.map_or(deadline, |clock| deadline.within(clock));
        if desk.dispatcher.has_many() {
            // See `Ring::wake_reader`.
            until = until.within(GLANCE);
        }
        (desk.sleeps, desk.dispatcher.is_unattended) = (true, true);
        desk.asleep += 1;
        drop(desk);
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.kick.as_fd()];
        for (line, child) in &ears {
            fds.extend([line.as_fd(), child.as_fd()]);
        }
        // OK to ignore an error: then it looks again at once.
        let ready = sys::wait_many(&fds, until).unwrap_or_default();
        let mut desk = self.desk();
        desk.asleep -= 1;
        if ready.first() == Some(&0) {
            if desk.asleep == 0 {
                sys::silence(self.kick.as_fd());
            } else {
                // The other one is to hear it, too.
                drop(desk);
                thread::yield_now();
                desk = self.desk();
            }
        }
        if desk.role != role || !desk.sleeps {
            return (desk, false);
        }
        (desk.sleeps, desk.dispatcher.is_unattended) = (false, false);
        for link in desk.dispatcher.links_mut() {
            link.do_not_listen();
        }
        let lines = ready
            .iter()
            .filter(|&&index| index % 2 == 1)
            .map(|index| &ears[index / 2].0);
        for line in lines {
            let link = desk.dispatcher.links_mut().find(|link| link.is_on(line));
            if let Some(link) = link {
                link.empty_line();
            }
        }
        if ready.iter().any(|&index| index > 0 && index % 2 == 0) {
            desk.dispatcher.look_for_ends();
        }
        let is_over = ready.is_empty() && deadline.remaining() == Some(Duration::ZERO);
        (desk, is_over)
    }

    /// The background thread.
    fn in_background(self: &Arc<Self>) {
        let (mut looks, mut beats) = (0, None);
        let mut desk = self.desk();
        loop {
            if desk.background == Background::Dismissed {
                // What has been said is heard, also if nobody drives any more.
                while !desk.dispatcher.after.is_empty() {
                    let after = std::mem::take(&mut desk.dispatcher.after);
                    drop(desk);
                    let left: Vec<_> = after.into_iter().filter_map(After::run).collect();
                    desk = self.desk();
                    desk.dispatcher.after.extend(left);
                }
                return;
            }
            let is_needed = desk.role == Role::Free && desk.waiters.is_empty() && !desk.is_quiet();
            if is_needed && (desk.is_urgent || beats == Some(desk.beats)) {
                looks = 0;
                desk.is_urgent = false;
                let quiet = &mut |dispatcher: &Dispatcher<Local>| dispatcher.is_quiet();
                (desk, _) = self.drive(desk, Role::Background, Deadline::NEVER, None, quiet);
                if desk.role == Role::Free
                    && let Some(waiter) = desk.waiters.pop()
                {
                    waiter.unpark();
                }
                beats = None;
                continue;
            }
            // Who has just submitted something is going to hear what comes of it, too, while it submits more.
            beats = Some(desk.beats);
            if is_needed || looks < LOOKS {
                looks += 1;
                let waited = self.background.wait_timeout(desk, LINGER);
                desk = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            desk.background = Background::Asleep;
            desk = self
                .background
                .wait(desk)
                .unwrap_or_else(PoisonError::into_inner);
            if desk.background == Background::Asleep {
                desk.background = Background::Awake;
            }
            looks = 0;
        }
    }

    /// Ends the background thread.
    pub(super) fn dismiss_background(&self) {
        let mut desk = self.desk();
        desk.background = Background::Dismissed;
        // Also when it does not seem to sleep: it may not have found out yet that it has lost the role.
        sys::ring(self.kick.as_fd());
        let thread = desk.thread.take();
        drop(desk);
        self.background.notify_all();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // OK to ignore: it does not panic.
            let _ = thread.join();
        }
    }

    /// Takes no more calls.
    pub(super) fn close(&self) {
        self.desk().dispatcher.close();
    }

    /// Ends everything at once.
    pub(super) fn terminate(self: &Arc<Self>) {
        self.change(|dispatcher| dispatcher.finish(End::Terminated));
        for child in &self.desk().ending {
            // OK to ignore: it has ended then.
            let _ = child.kill();
        }
    }

    /// The program ends: nothing goes on, and the trace says so.
    pub(super) fn complete_trace(&self) {
        // Others hold the desk for moments only; but this is not to be what keeps a program from its end.
        for _ in 0..1000 {
            if let Ok(mut desk) = self.desk.try_lock() {
                desk.dispatcher.abandon();
                if let Some(trace) = &desk.dispatcher.trace {
                    // OK to ignore: there is nobody left to tell.
                    let _ = trace.close();
                }
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until everything has resolved and all workers have ended, which are killed after the deadline.
    pub(super) fn join(self: &Arc<Self>, deadline: Deadline) {
        self.close();
        self.wait(None, None, Dispatcher::is_idle);
        let mut desk = self.desk();
        let mut links = desk.dispatcher.vacate();
        desk.ending.extend(links.iter().map(Local::child));
        // Those that another thread has dismissed are among them.
        let ending = desk.ending.clone();
        drop(desk);
        for link in &mut links {
            link.dismiss();
        }
        for child in &ending {
            // OK to ignore: it has nothing to say any more.
            let _ = match deadline.remaining() {
                None => child.wait().map(drop),
                Some(left) => child.wait_timeout(left).map(drop),
            };
            let _ = child.kill();
        }
        for link in links {
            drop(link.lost());
        }
        self.desk().ending.retain(AnyChild::is_alive);
        self.dismiss_background();
    }
}
