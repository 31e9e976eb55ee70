//! A queue over memory in which somebody else has written: a value or an error, in time, and nothing worse.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{JoinableQueue, Queue};
use crate::shm::fuzz::{Dice, rounds, scribble};

const MOST: usize = 8 * 1024 * 1024;

fn soon(dice: &mut Dice) -> Duration {
    Duration::from_micros(dice.below(2000))
}

fn item(dice: &mut Dice) -> Vec<u8> {
    let bits = dice.below(16);
    vec![7; dice.below(1 << bits) as usize]
}

#[test]
fn a_queue_in_which_anything_was_written() {
    rounds("a queue", 400, 1_000_000, MOST, |dice| {
        let queue = match dice.below(2) {
            0 => Queue::<Vec<u8>>::new(),
            _ => Queue::bounded(1 + dice.below(4) as usize),
        };
        let queue = queue.unwrap();
        for _ in 0..dice.below(30) {
            if dice.below(6) == 0 {
                scribble(queue.core.memory(), dice);
            }
            let item = item(dice);
            // What comes of it does not matter, as long as it comes.
            match dice.below(7) {
                0 | 1 => drop(queue.put_timeout(item, soon(dice))),
                2 => drop(queue.try_put(item)),
                3 | 4 => drop(queue.get_timeout(soon(dice))),
                5 => drop(queue.try_get()),
                _ => drop((queue.len(), queue.is_full(), queue.is_closed())),
            }
        }
    });
}

#[test]
fn a_joinable_queue_in_which_anything_was_written() {
    rounds("a joinable queue", 300, 500_000, MOST, |dice| {
        let queue = JoinableQueue::<Vec<u8>>::new().unwrap();
        for _ in 0..dice.below(30) {
            if dice.below(6) == 0 {
                scribble(queue.memory(), dice);
            }
            let item = item(dice);
            match dice.below(6) {
                0 | 1 => drop(queue.put_timeout(item, soon(dice))),
                2 => drop(queue.get_timeout(soon(dice))),
                3 => drop(queue.get_job_timeout(soon(dice))),
                4 => drop(queue.task_done()),
                _ => drop(queue.join_timeout(soon(dice))),
            }
        }
    });
}

#[test]
fn a_queue_with_descriptors_in_which_anything_was_written() {
    rounds("a queue of descriptors", 200, 200_000, MOST, |dice| {
        let queue = Queue::<crate::Fd>::new().unwrap();
        for _ in 0..dice.below(20) {
            if dice.below(6) == 0 {
                scribble(queue.core.memory(), dice);
            }
            match dice.below(2) {
                0 => {
                    let fd = crate::sys::doorbell().unwrap();
                    drop(queue.put_timeout(crate::Fd::from(fd), soon(dice)));
                }
                _ => drop(queue.get_timeout(soon(dice))),
            }
        }
    });
}

/// A holder that wakes on and on, with nothing to give.
#[test]
fn rings_for_nothing_keep_nobody_beyond_the_deadline() {
    let queue = Queue::<u64>::bounded(1).unwrap();
    let is_over = AtomicBool::new(false);
    let state = &queue.core.words().state.0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                state.items.ring_all();
                state.room.ring_all();
            }
        });
        for _ in 0..20 {
            assert!(queue.get_timeout(Duration::from_millis(2)).is_err());
        }
        queue.put(1).unwrap();
        for _ in 0..20 {
            assert!(queue.put_timeout(2, Duration::from_millis(2)).is_err());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(queue.get().unwrap(), 1);
}
