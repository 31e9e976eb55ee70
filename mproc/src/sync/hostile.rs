//! Whoever has the memory of an event, semaphore, condition or barrier writes anything into it: what they say may be wrong, waits may be
//! over too early or never, and nothing worse: no fault, no panic, no list of robust locks that is out of order.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::barrier::{Arrived, BarrierCore, Cause};
use super::condition::ConditionCore;
use super::event::EventWords;
use super::lock::{LockCore, Patience};
use super::roster::Roster;
use super::semaphore::SemaphoreCore;
use crate::shm::memory::Memory;
use crate::sys::{self, Deadline, PAGE, SharedMapping, TAIL};

/// Some users do `act` while somebody writes into the words and the first seats of the file.
fn under_attack(file: &impl AsFd, act: impl Fn(usize) + Sync) {
    const PAGES: usize = 4;
    let there = sys::size(file.as_fd()).unwrap() as usize / PAGE;
    let pages = PAGES.min(there);
    let peer = SharedMapping::new(file.as_fd(), 0, pages * PAGE, true, false).unwrap();
    let word = |place: usize| {
        // SAFETY: inside the mapping, and aligned, by those who call it.
        unsafe { peer.address().add(place).cast::<AtomicU32>().as_ref() }
    };
    // The words of the first page, and in each page of a seat what it says at its beginning, and its robust word at its end.
    let places: Vec<usize> = (0..256)
        .chain((1..pages).flat_map(|page| {
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            (start..start + 32).chain(end - TAIL..end)
        }))
        .step_by(4)
        .collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 0x9E37_79B9_7F4A_7C15_u64;
            while !stop.load(Relaxed) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let word = word(places[(random >> 8) as usize % places.len()]);
                let value = match random & 7 {
                    0 => random as u32,
                    1 => u32::MAX,
                    2 => (random >> 40) as u32 % 8,
                    3 => sys::WAITERS | sys::OWNER_DIED,
                    _ => 0,
                };
                word.store(value, Relaxed);
                sys::wake(word, u32::MAX >> 1);
                thread::yield_now();
            }
        });
        let users: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..300).for_each(&act)))
            .collect();
        let ended: Vec<_> = users
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    // The lists of these threads are in order: another lock goes round.
    let lock = LockCore::create(false, false, 0).unwrap();
    assert!(lock.acquire(Patience::None).is_ok());
    lock.release();
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_micros(200))
}

#[test]
fn a_semaphore() {
    let core = SemaphoreCore::over(Roster::create().unwrap());
    core.begin(2, 2);
    under_attack(core.roster().file(), |round| {
        if let Ok(seat) = core.acquire(Some(soon())) {
            core.give_back(seat, round % 3 == 0).unwrap();
        }
        if round % 2 == 0 {
            let _ = core.signal();
        }
        let _ = core.value();
    });
}

#[test]
fn a_barrier() {
    let core = BarrierCore::over(Roster::create().unwrap());
    core.begin(2);
    under_attack(core.roster().file(), |round| {
        match core.arrive(soon(), round % 2 == 0) {
            Ok(Arrived::Wait(waiting)) => drop(core.wait(waiting, soon())),
            Ok(Arrived::Act(waiting)) => drop(core.acted(waiting)),
            _ => {}
        }
        if round % 5 == 0 {
            core.abort(Cause::Aborted).unwrap();
        }
        let _ = (core.waiting(), core.is_broken());
        core.reset().unwrap();
        core.retire().unwrap();
    });
}

#[test]
fn a_condition() {
    let core = ConditionCore::over(Roster::create().unwrap());
    let lock = LockCore::create(false, false, 0).unwrap();
    under_attack(core.roster().file(), |round| {
        lock.acquire(Patience::FOREVER).unwrap();
        match round % 3 {
            0 => drop(core.notify(&lock, round)),
            _ => drop(core.wait(&lock, soon())),
        }
        lock.release();
    });
}

#[test]
fn an_event() {
    let file = Arc::new(sys::shared_file(PAGE as u64).unwrap());
    let event = Memory::<EventWords>::open(Arc::clone(&file)).unwrap();
    under_attack(&file, |round| {
        let words = event.words();
        match round % 4 {
            0 => words.set().unwrap(),
            1 => words.clear(),
            _ => drop(words.wait(soon())),
        }
    });
}
