//! The whole of putting and taking, as it stands, under a model checker: with other processes at any step, and with deaths at
//! any step. A survivor sleeps only as long as there is nothing for it to do.
//!
//! Preemptions are bounded, to 1 where somebody dies, which is what keeps each model under a minute or so; those of four processes
//! of which two die at any of their steps take longer and are run when asked for (`-- --ignored`).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::*;
use crate::shm::memory::Segment;
use crate::sys::{Outcome, Part};

const SEGMENT: Segment = Segment {
    first: 1,
    pages: GROWTH.first,
};

/// What is the same in all executions, since no process changes it.
struct Things {
    file: Arc<OwnedFd>,
    socket: Arc<OwnedFd>,
    doorbell: Arc<OwnedFd>,
}

impl Things {
    fn new() -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(sys::shared_file(SEGMENT.end())?),
            socket: Arc::new(sys::seqpacket_pair()?.0),
            doorbell: Arc::new(sys::doorbell()?),
        })
    }

    /// A queue of a number of processes, of each of which this gives the handle.
    fn queue(&self, processes: usize, capacity: u32) -> Vec<Arc<Core>> {
        let memory = Memory::<QueueWords>::open(Arc::clone(&self.file)).expect("it is long enough");
        memory.words().lane().begin_in(SEGMENT);
        memory
            .words()
            .state
            .0
            .capacity
            .store(capacity, Ordering::Relaxed);
        (0..processes)
            .map(|_| {
                let office = Office {
                    counter: Arc::clone(&self.socket),
                    shelf: Arc::clone(&self.socket),
                };
                Arc::new(Core::with(
                    memory.elsewhere(),
                    office,
                    Arc::clone(&self.doorbell),
                ))
            })
            .collect()
    }
}

/// What one process does.
#[derive(Clone, Copy)]
enum Does {
    Puts(u8),
    Takes(u8),
    Closes,
}
use Does::{Closes, Puts, Takes};

/// What the survivors took and who died.
type Seen = Arc<Mutex<Vec<(usize, u8)>>>;

fn part(index: usize, core: &Arc<Core>, seen: &Seen, does: Does, steps: Option<usize>) -> Part {
    let core = Arc::clone(core);
    let seen = Arc::clone(seen);
    let act = move || match does {
        Puts(items) => {
            for item in 0..items {
                let item = [10 * index as u8 + item; 8];
                if core.put(&item, &Handles::new(), Patience::FOREVER).is_err() {
                    return;
                }
            }
        }
        Takes(items) => {
            for _ in 0..items {
                let mut bytes = Vec::new();
                let mut handles = crate::wire::Handles::new();
                match core.take(&mut bytes, &mut handles, Patience::FOREVER, 0, |_| Ok(())) {
                    Ok(_) => {
                        assert!(bytes.len() == 8, "a torn item");
                        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                        seen.lock().unwrap().push((index, bytes[0]));
                    }
                    Err(NotTaken::Closed) => return,
                    Err(NotTaken::Trouble(trouble)) => panic!("{trouble:?}"),
                }
            }
        }
        Closes => core.close().expect("it can be closed"),
    };
    (Box::new(act), steps)
}

/// Tells what happened when an assertion fails.
struct Told;

impl Drop for Told {
    fn drop(&mut self) {
        sys::tell();
    }
}

/// Nobody sleeps who could go on.
fn assert_nobody_sleeps_in_vain(core: &Core, outcome: &Outcome) {
    let words = core.words();
    let state = &words.state.0;
    let stuck = |bell: &Bell| {
        let address = bell.word().address();
        outcome.asleep.iter().any(|words| words.contains(&address))
    };
    let there = core.len();
    let tell = Told;
    if core.is_closed() || there > 0 {
        assert!(
            !stuck(&state.items),
            "a consumer sleeps while there is an item, or the end"
        );
    }
    if core.is_closed() || core.has_room() {
        assert!(!stuck(&state.room), "a producer sleeps while there is room");
    }
    for (name, lock) in [
        ("producers", words.producers()),
        ("consumers", words.consumers()),
    ] {
        assert!(
            !lock.is_locked(),
            "the {name}' turn is taken by nobody who lives"
        );
        assert!(
            !stuck(lock.bell),
            "one sleeps until it has the {name}' turn, which is free"
        );
    }
    std::mem::forget(tell);
}

/// Runs the model with the first of its processes dying at each of their steps, together; `deaths` of them.
fn check(capacity: u32, does: &'static [Does], deaths: usize, preemptions: usize) {
    check_from(capacity, does, vec![0; deaths], preemptions, false);
}

/// As above, beginning with these steps, and ending with them if it is `once`.
fn check_from(
    capacity: u32,
    does: &'static [Does],
    mut steps: Vec<usize>,
    preemptions: usize,
    once: bool,
) {
    let deaths = steps.len();
    let things = Arc::new(Things::new().unwrap());
    let mut models = 0;
    loop {
        let anybody_died = Arc::new(Mutex::new(vec![false; deaths]));
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.max_branches = 10_000;
        {
            let things = Arc::clone(&things);
            let steps = steps.clone();
            let anybody_died = Arc::clone(&anybody_died);
            let told = std::env::var("MPROC_STEPS").is_ok();
            if told {
                eprintln!("deaths after {steps:?} steps");
            }
            model.check(move || {
                let cores = things.queue(does.len(), capacity);
                let seen = Seen::default();
                let parts = does.iter().enumerate().map(|(index, does)| {
                    part(
                        index,
                        &cores[index],
                        &seen,
                        *does,
                        steps.get(index).copied(),
                    )
                });
                let outcome = sys::run(parts.collect());
                let mut died = anybody_died.lock().unwrap();
                for (died, dies) in died.iter_mut().zip(&outcome.died) {
                    *died |= dies;
                }
                assert_nobody_sleeps_in_vain(&cores[0], &outcome);
                assert_each_once_in_order(&seen.lock().unwrap());
            });
        }
        models += 1;
        // The next combination of steps: the first one further, and, when it has ended without dying, the next one.
        let died = anybody_died.lock().unwrap().clone();
        let mut next = 0;
        while next < deaths {
            if died[next] {
                steps[next] += 1;
                break;
            }
            steps[next] = 0;
            next += 1;
        }
        if next == deaths || once {
            break;
        }
    }
    eprintln!("{models} models");
}

/// What a consumer took of one producer is in order, and nothing was taken twice.
fn assert_each_once_in_order(seen: &[(usize, u8)]) {
    for (index, (consumer, item)) in seen.iter().enumerate() {
        for (later_consumer, later) in &seen[index + 1..] {
            assert_ne!(item, later, "taken twice");
            if consumer == later_consumer && item / 10 == later / 10 {
                assert!(item < later, "out of order");
            }
        }
    }
}

#[test]
fn an_item_is_heard_of() {
    check(0, &[Puts(1), Takes(1)], 0, 3);
}

#[test]
fn a_full_queue_goes_on() {
    check(1, &[Puts(2), Takes(2)], 0, 2);
}

#[test]
fn two_consumers() {
    check(0, &[Puts(1), Puts(1), Takes(1), Takes(1)], 0, 1);
}

#[test]
fn the_end_is_heard_of() {
    check(0, &[Closes, Takes(1), Takes(1)], 0, 1);
}

#[test]
fn a_producer_dies() {
    check(0, &[Puts(1), Puts(1), Takes(2)], 1, 1);
}

#[test]
fn a_consumer_dies() {
    check(0, &[Takes(1), Takes(1), Puts(1)], 1, 1);
}

#[test]
fn a_consumer_of_a_full_queue_dies() {
    check(1, &[Takes(1), Puts(2), Takes(1)], 1, 1);
}

#[test]
fn a_producer_of_a_full_queue_dies() {
    check(1, &[Puts(2), Puts(1), Takes(1)], 1, 1);
}

#[test]
#[ignore = "some ten minutes"]
fn two_consumers_die() {
    check(0, &[Takes(1), Takes(1), Takes(1), Puts(2)], 2, 1);
}

#[test]
fn a_producer_and_a_consumer_die() {
    check(0, &[Puts(1), Takes(1), Puts(1)], 2, 1);
}

#[test]
#[ignore = "some ten minutes"]
fn a_producer_and_a_consumer_of_a_full_queue_die() {
    check(1, &[Puts(1), Takes(1), Puts(1), Takes(1)], 2, 1);
}

/// The owner of the consumers' turn has never slept, and so has no reason to heal, when a consumer dies that was woken by the
/// death of the owner of the producers' turn.
#[test]
fn a_producer_and_a_consumer_die_while_another_has_its_turn() {
    // Before its item is there, and after.
    for steps in [1, 3] {
        let does = &[Puts(1), Takes(1), Puts(1), Takes(1)];
        check_from(0, does, vec![steps, 4], 2, true);
    }
}
