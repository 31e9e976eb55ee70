//! A driver: the thread of the parent that keeps one worker busy, and replaces it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::group::{Resolution, Task};
use super::link::{Frame, Link, Outcome, Said, Trouble};
use super::local::Local;
use super::shared::{Shared, cancelled};
use crate::entry::call::Bundle;
use crate::error::{Error, ErrorKind};
use crate::sys;

/// A frame that is done sooner is followed by a larger one: then the way to the worker and back costs more than the tasks.
const SHORT: Duration = Duration::from_micros(100);
/// A frame that takes longer is followed by a smaller one, so that uneven tasks are spread.
const LONG: Duration = Duration::from_micros(500);
/// As many tasks of their own as are put into a frame.
const WIDEST: usize = 64;
/// Workers that end, one after the other, before they are ready, or before they begin a frame.
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

pub(super) fn drive(shared: &Shared, number: usize, first: Local) {
    let mut driver = Driver {
        shared,
        number,
        link: Some(first),
        is_ready: false,
    };
    let mut window = 1;
    driver.ready();
    while let Some(tasks) = shared.next(window) {
        let begun = Instant::now();
        driver.execute(tasks);
        let taken = begun.elapsed();
        if taken < SHORT {
            window = (2 * window).min(WIDEST);
        } else if taken > LONG {
            window = (window / 2).max(1);
        }
    }
    match driver.link {
        Some(link) if shared.is_over() => drop(link.lost()),
        Some(link) => link.dismiss(),
        None => {}
    }
}

struct Driver<'a> {
    shared: &'a Shared,
    number: usize,
    link: Option<Local>,
    is_ready: bool,
}

impl Driver<'_> {
    /// Sees to it that a worker is there that has started. None: the pool is over.
    fn ready(&mut self) -> Option<&mut Local> {
        let mut stillborn = Accidents::default();
        while !self.is_ready {
            if self.shared.is_over() {
                return None;
            }
            let link = match &mut self.link {
                Some(link) => link,
                none => match self.shared.start() {
                    Ok(link) => {
                        self.shared.seat(self.number, link.child());
                        none.insert(link)
                    }
                    Err(error) => {
                        self.shared.fail(error);
                        return None;
                    }
                },
            };
            match link.receive(None) {
                Ok(Said::Ready) => self.is_ready = true,
                Ok(Said::Unfit(outcome)) => {
                    self.shared.fail(unfit(outcome));
                    return None;
                }
                _ => {
                    let error = self.bury();
                    if stillborn.add(&error) {
                        self.shared.fail(error);
                    }
                }
            }
        }
        self.link.as_mut()
    }

    /// Ends the worker, and tells how it ended.
    fn bury(&mut self) -> Error {
        self.is_ready = false;
        match self.link.take() {
            Some(link) => link.lost(),
            None => Error::new(ErrorKind::Exited, "the worker is gone"),
        }
    }

    /// Has the tasks executed, which are of one group.
    fn execute(&mut self, tasks: VecDeque<Task>) {
        let Some(first) = tasks.front() else { return };
        self.shared
            .running(self.number, Some(Arc::clone(&first.group)));
        self.execute_frame(tasks);
        self.shared.running(self.number, None);
    }

    fn execute_frame(&mut self, mut tasks: VecDeque<Task>) {
        let mut accidents = Accidents::default();
        // Until the frame has begun.
        loop {
            if tasks[0].group.is_cancelled() {
                return resolve_all(tasks, cancelled);
            }
            let Some(link) = self.ready() else {
                let over = self.shared.over();
                let over = over.unwrap_or_else(cancelled);
                return resolve_all(tasks, || over.again());
            };
            let trouble = match link.send(frame(&tasks)) {
                Ok(()) => match link.receive(None) {
                    Ok(Said::Begun) => break,
                    Ok(Said::Unreadable(text)) => {
                        Trouble::Refused(Error::new(ErrorKind::Decode, text))
                    }
                    _ => Trouble::Lost,
                },
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Refused(error) if tasks.len() == 1 => {
                    return resolve_all(tasks, || error.again());
                }
                // It is one of them that cannot travel.
                Trouble::Refused(_) => return self.execute_singly(tasks),
                Trouble::Lost | Trouble::TimedOut => {
                    let error = self.bury();
                    if accidents.add(&error) {
                        if tasks.len() == 1 {
                            return resolve_all(tasks, || error.again());
                        }
                        // It is one of them that cannot be decoded alive.
                        return self.execute_singly(tasks);
                    }
                }
            }
        }
        while let Some(task) = tasks.front() {
            let limit = task.timeout;
            let link = self.link.as_mut().expect("it has begun");
            let said = link.receive(limit);
            let task = tasks.pop_front().expect("just seen");
            match said {
                Ok(Said::Done(outcome)) => task.resolve(resolution(outcome)),
                said => {
                    let timed_out = matches!(said, Err(Trouble::TimedOut));
                    if timed_out {
                        // OK to ignore: it has ended then.
                        let _ = link.child().kill();
                    }
                    let error = self.bury();
                    self.ended(task, error, timed_out);
                    return self.shared.put_back(tasks.into());
                }
            }
        }
    }

    fn execute_singly(&mut self, tasks: VecDeque<Task>) {
        for task in tasks {
            self.execute_frame(VecDeque::from([task]));
        }
    }

    /// A task's worker has ended while it was executed.
    fn ended(&self, mut task: Task, error: Error, timed_out: bool) {
        if let Some(over) = self.shared.over() {
            task.resolve(Err(over));
        } else if task.group.is_cancelled() {
            task.resolve(Err(cancelled()));
        } else if timed_out {
            let text = "the task took longer than it may; its worker was killed";
            task.resolve(Err(Error::new(ErrorKind::Timeout, text)));
        } else if task.retries > 0 {
            task.retries -= 1;
            self.shared.put_back(vec![task]);
        } else {
            task.resolve(Err(error));
        }
    }
}

fn resolve_all(tasks: VecDeque<Task>, error: impl Fn() -> Error) {
    for task in tasks {
        task.resolve(Err(error()));
    }
}

/// The calls of tasks, those of one entry together.
fn frame(tasks: &VecDeque<Task>) -> Frame {
    let mut bundles: Vec<Bundle> = Vec::new();
    for task in tasks {
        match bundles.last_mut() {
            Some(Bundle(calls)) if calls[0].is_kin(&task.call) => calls.push(task.call.clone()),
            _ => bundles.push(Bundle(vec![task.call.clone()])),
        }
    }
    Frame(bundles)
}

fn resolution(outcome: Outcome) -> Resolution {
    match outcome {
        Outcome::Value(parcel) => Ok(parcel.into_message()),
        Outcome::Panic(panic) => Err(Error::panicked(panic)),
        Outcome::Refusal(refusal) => Err(refusal.into_error()),
    }
}

fn unfit(outcome: Outcome) -> Error {
    match resolution(outcome) {
        Ok(_) => Error::new(
            ErrorKind::Start,
            "the initializer of the pool returned an error",
        ),
        Err(error) => {
            let failed = Error::new(error.kind(), format!("the initializer of the pool {error}"));
            match error.panic() {
                Some(panic) => failed.with_panic(panic.clone()),
                None => failed,
            }
        }
    }
}
