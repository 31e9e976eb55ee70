//! What locks and events cost, beside the least that libc and the kernel do for the same.
//!
//! ```text
//! cargo bench -p mproc --bench locks             # about a minute
//! cargo bench -p mproc --bench locks -- quick    # some seconds
//! ```
//!
//! Contenders take turns, one block each, so that the machine's moods hit all. Printed are medians and extremes of the blocks; a ratio is the
//! median of the ratios of neighbours.

#[path = "floors/stage.rs"]
#[allow(dead_code, reason = "the other benchmarks use the rest")]
mod stage;

#[path = "floors/compare.rs"]
mod compare;

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use compare::{compare, median};
use mproc::{Event, Fd, Lock, RLock, Semaphore};
use nix::libc;
use stage::{Core, Gate, Shared, Standing, nanoseconds_each, now, two_cores};

/// A robust mutex of libc's in shared memory.
struct Raw(Shared);

/// Where its counter is: on a cache line of its own, as ours are.
const COUNTER: usize = 128;

impl Raw {
    fn new() -> Self {
        let shared = Shared::new(4096);
        // SAFETY: the mutex is initialized before anybody uses it, in memory that is mapped for long enough.
        unsafe {
            let mut attribute: libc::pthread_mutexattr_t = std::mem::zeroed();
            libc::pthread_mutexattr_init(&mut attribute);
            libc::pthread_mutexattr_setrobust(&mut attribute, libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutexattr_setpshared(&mut attribute, libc::PTHREAD_PROCESS_SHARED);
            assert_eq!(libc::pthread_mutex_init(shared.at(0), &attribute), 0);
        }
        Self(shared)
    }

    fn with<T>(&self, act: impl FnOnce() -> T) -> T {
        // SAFETY: initialized by `new`, here or in another process.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.0.at(0)) }, 0);
        let result = act();
        // SAFETY: as above, and held.
        unsafe { libc::pthread_mutex_unlock(self.0.at(0)) };
        result
    }
}

fn add_one(counter: &AtomicU64) {
    // Not an atomic addition: that is what the lock is for.
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn alone(count: u64, mut once: impl FnMut()) -> f64 {
    let _standing = Standing::on(two_cores()[0]);
    once();
    let start = now();
    (0..count).for_each(|_| once());
    nanoseconds_each(start, now(), count)
}

#[mproc::entry]
fn count_raw(memory: Fd, gate: Fd, count: u64, core: Core) -> u64 {
    let (raw, gate) = (Raw(Shared::open(memory)), Gate::open(gate));
    let _standing = Standing::on(core);
    let counter = raw.0.atomic(COUNTER);
    gate.enter();
    (0..count).for_each(|_| raw.with(|| add_one(counter)));
    now()
}

#[mproc::entry]
fn count_ours(lock: &Lock, memory: Fd, gate: Fd, count: u64, core: Core) -> u64 {
    let (memory, gate) = (Shared::open(memory), Gate::open(gate));
    let _standing = Standing::on(core);
    let counter = memory.atomic(COUNTER);
    gate.enter();
    for _ in 0..count {
        let _held = lock.acquire().expect("nobody dies");
        add_one(counter);
    }
    now()
}

/// Nanoseconds for one of `count` additions of each of two processes.
fn together(count: u64, spawn: impl Fn(Fd, Core) -> mproc::Child<u64>) -> f64 {
    let gate = Gate::new();
    let children = two_cores().map(|core| spawn(gate.fd(), core));
    let start = gate.open_for(2);
    let ends = children.map(|child| child.join().expect("it returns"));
    nanoseconds_each(start, ends.into_iter().max().expect("two"), 2 * count)
}

fn counter_raw(count: u64) -> f64 {
    let raw = Raw::new();
    let time = together(count, |gate, core| {
        count_raw::spawn(raw.0.fd(), gate, count, core).expect("it starts")
    });
    assert_eq!(
        raw.0.atomic::<AtomicU64>(COUNTER).load(Ordering::SeqCst),
        2 * count
    );
    time
}

fn counter_ours(count: u64) -> f64 {
    let (lock, memory) = (Lock::new().expect("a lock"), Shared::new(4096));
    let time = together(count, |gate, core| {
        count_ours::spawn(&lock, memory.fd(), gate, count, core).expect("it starts")
    });
    assert_eq!(
        memory.atomic::<AtomicU64>(COUNTER).load(Ordering::SeqCst),
        2 * count
    );
    time
}

/// When the waiter woke, and which round that was.
const WOKEN: usize = 64;
const ROUND: usize = 128;

#[mproc::entry]
fn wakes_raw(memory: Fd, rounds: u32, core: Core) {
    let memory = Shared::open(memory);
    let _standing = Standing::on(core);
    let word = memory.atomic::<AtomicU32>(0);
    for round in 1..=rounds {
        while word.load(Ordering::SeqCst) < round {
            // SAFETY: the word is mapped.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word.as_ptr(),
                    libc::FUTEX_WAIT,
                    round - 1,
                    std::ptr::null::<libc::timespec>(),
                )
            };
        }
        woke(&memory, round);
    }
}

#[mproc::entry]
fn wakes_ours(event: &Event, memory: Fd, rounds: u32, core: Core) {
    let memory = Shared::open(memory);
    let _standing = Standing::on(core);
    for round in 1..=rounds {
        event.wait().expect("it waits");
        event.clear();
        woke(&memory, round);
    }
}

fn woke(memory: &Shared, round: u32) {
    memory
        .atomic::<AtomicU64>(WOKEN)
        .store(now(), Ordering::SeqCst);
    memory
        .atomic::<AtomicU32>(ROUND)
        .store(round, Ordering::SeqCst);
}

/// Nanoseconds from before the wake-up until the waiter runs: the median of the rounds.
fn wake_ups(rounds: u32, memory: &Shared, mut wake: impl FnMut(u32)) -> f64 {
    let _standing = Standing::on(two_cores()[0]);
    let mut times: Vec<f64> = (1..=rounds)
        .map(|round| {
            // It is to be asleep.
            std::thread::sleep(Duration::from_micros(150));
            let start = now();
            wake(round);
            while memory.atomic::<AtomicU32>(ROUND).load(Ordering::SeqCst) < round {
                std::hint::spin_loop();
            }
            let woken = memory.atomic::<AtomicU64>(WOKEN).load(Ordering::SeqCst);
            woken.saturating_sub(start) as f64
        })
        .collect();
    median(&mut times)
}

fn wake_raw(rounds: u32) -> f64 {
    let memory = Shared::new(4096);
    let child = wakes_raw::spawn(memory.fd(), rounds, two_cores()[1]).expect("it starts");
    let word = memory.atomic::<AtomicU32>(0);
    let time = wake_ups(rounds, &memory, |round| {
        word.store(round, Ordering::SeqCst);
        // SAFETY: the word is mapped.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    });
    child.join().expect("it returns");
    time
}

fn wake_ours(rounds: u32) -> f64 {
    let (event, memory) = (Event::new().expect("an event"), Shared::new(4096));
    let child = wakes_ours::spawn(&event, memory.fd(), rounds, two_cores()[1]).expect("it starts");
    let time = wake_ups(rounds, &memory, |_| event.set().expect("it is set"));
    child.join().expect("it returns");
    time
}

mproc::main! {
    fn main() {
        let test = std::env::args().any(|argument| argument == "--test");
        let quick = std::env::args().any(|argument| argument == "quick");
        let (blocks, count, rounds) = match (test, quick) {
            (true, _) => (1, 1000, 10),
            (_, true) => (7, 400_000, 400),
            _ => (21, 1_000_000, 2_000),
        };
        let raw = Raw::new();
        let lock = Lock::new().expect("a lock");
        let rlock = RLock::new().expect("a lock");
        let semaphore = Semaphore::new(1).expect("a semaphore");
        compare("acquire and release, nobody else there", blocks, 1.5, vec![
            ("robust mutex of libc", Box::new(|| alone(count, || raw.with(|| ())))),
            ("Lock", Box::new(|| alone(count, || drop(black_box(lock.acquire().expect("it is free")))))),
            ("RLock", Box::new(|| alone(count, || drop(black_box(rlock.acquire().expect("it is free")))))),
            ("Semaphore", Box::new(|| alone(count, || drop(black_box(semaphore.acquire().expect("it is free")))))),
        ]);
        compare("a counter under a lock, two processes", blocks, 1.0 / 0.7, vec![
            ("robust mutex of libc", Box::new(|| counter_raw(count))),
            ("Lock", Box::new(|| counter_ours(count))),
        ]);
        compare("from setting to running", blocks, 1.2, vec![
            ("futex", Box::new(|| wake_raw(rounds))),
            ("Event", Box::new(|| wake_ours(rounds))),
        ]);
    }
}
