//! Everything that a pool does, at random and at once: all forms of call from several threads, while its workers are killed, stopped and let go on, and
//! the pool ends at any moment. Each task resolves once and as it may, and nothing is left behind.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use mproc::{AsyncResult, Error, ErrorKind, Pool, as_completed, wait_any};
use mproc_tests::{Dice, children_of, descriptors, dose, watchdog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(120);

#[mproc::entry]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn product(x: i64, y: i64) -> i64 {
    x * y
}

/// Takes so many microseconds, awake or asleep.
#[mproc::entry]
fn take_time(x: i64, micros: u64) -> i64 {
    let time = Duration::from_micros(micros);
    if micros.is_multiple_of(2) {
        thread::sleep(time);
    } else {
        let begun = std::time::Instant::now();
        while begun.elapsed() < time {
            std::hint::spin_loop();
        }
    }
    x
}

#[mproc::entry]
fn turn_around(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

#[mproc::entry]
fn talk(x: i64) -> i64 {
    for _ in 0..x % 5 {
        mproc::report(0.5, "on the way");
    }
    x
}

/// What came of the tasks of one round.
#[derive(Debug, Default)]
struct Tally {
    kinds: Mutex<BTreeMap<String, usize>>,
    callbacks: AtomicUsize,
    called_back: Arc<AtomicUsize>,
}

/// One thread's errors that are none.
#[derive(Clone, Copy, Default)]
struct Allowed {
    timeout: bool,
    cancelled: bool,
    never_dies: bool,
}

impl Tally {
    /// It is right, or failed as it may.
    fn check<T: PartialEq + std::fmt::Debug>(
        &self,
        result: Result<T, Error>,
        right: &T,
        allowed: Allowed,
    ) -> bool {
        let what = match &result {
            Ok(value) => {
                assert_eq!(value, right);
                "value".to_owned()
            }
            Err(error) => {
                match error.kind() {
                    ErrorKind::Killed if !allowed.never_dies => {
                        assert_eq!(error.signal(), Some(9), "{error}");
                    }
                    ErrorKind::Timeout if allowed.timeout => {}
                    ErrorKind::Cancelled if allowed.cancelled => {}
                    ErrorKind::ShutDown => {}
                    _ => panic!("{error:?}"),
                }
                format!("{:?}", error.kind())
            }
        };
        *self.kinds.lock().unwrap().entry(what).or_default() += 1;
        result.is_ok()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<R>(result: AsyncResult<R>) -> mproc::Result<R> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut result = pin!(result);
    loop {
        match result.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Some calls of a form that the dice choose. False: the pool has ended.
fn some_calls(pool: &Arc<Pool>, dice: &mut Dice, tally: &Tally) -> bool {
    let x = dice.below(1000) as i64;
    let count = dice.below(30) as i64;
    let none = Allowed::default();
    match dice.below(12) {
        0 => tally.check(pool.apply(square::bind(x)), &square(x), none),
        1 => {
            let calls = pool.calls().retries(1000);
            let result = calls.apply(take_time::bind(x, dice.below(300)));
            let allowed = Allowed {
                never_dies: true,
                ..none
            };
            tally.check(result, &x, allowed)
        }
        2 => {
            let chunk = 1 + dice.below(10) as usize;
            let calls = pool.calls().chunk_size(chunk).retries(1000);
            let right: Vec<_> = (0..10 * count).map(|y| x * y).collect();
            let result = calls.starmap::<product>((0..10 * count).map(|y| (x, y)));
            let allowed = Allowed {
                never_dies: true,
                ..none
            };
            tally.check(result, &right, allowed)
        }
        3 => {
            let calls = pool.calls().in_flight(1 + dice.below(40) as usize);
            let chunk = 1 + dice.below(5) as usize;
            let mut results = calls.chunk_size(chunk).imap::<square, _>(x..x + count);
            let most = dice.below(40) as i64;
            for y in x..(x + count).min(x + most) {
                let result = loop {
                    let limit = Duration::from_micros(dice.below(200));
                    match results.next_timeout(limit) {
                        Some(Err(error)) if error.kind() == ErrorKind::Timeout => {}
                        Some(result) => break result,
                        None => panic!("{y} of {} is missing", x + count),
                    }
                };
                let is_over = matches!(&result, Err(error) if error.kind() == ErrorKind::ShutDown);
                tally.check(result, &square(y), none);
                if is_over {
                    return false;
                }
            }
            if most >= count {
                assert!(results.next().is_none());
            }
            true
        }
        4 => {
            let calls = pool.calls().in_flight(1 + dice.below(40) as usize);
            let results: Vec<_> = calls.imap_unordered::<square, _>(x..x + count).collect();
            let ends = |result: &Result<_, Error>| matches!(result, Err(error) if error.kind() == ErrorKind::ShutDown);
            if results.iter().any(ends) {
                return false;
            }
            assert_eq!(results.len() as i64, count);
            let mut values: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
            values.sort_unstable();
            values.dedup_by(|one, other| {
                assert_ne!(one, other);
                false
            });
            true
        }
        5 => {
            let limit = Duration::from_micros(500 + dice.below(2000));
            let calls = pool.calls().timeout(limit);
            let result = calls.apply(take_time::bind(x, dice.below(4000)));
            let allowed = Allowed {
                timeout: true,
                ..none
            };
            tally.check(result, &x, allowed);
            true
        }
        6 => {
            let Ok(result) = pool.apply_async(square::bind(x)) else {
                return false;
            };
            tally.check(block_on(result), &square(x), none)
        }
        7 => {
            let results = (x..x + count).map(|y| pool.apply_async(square::bind(y)));
            let Ok(results) = results.collect::<Result<Vec<_>, _>>() else {
                return false;
            };
            let limit = Duration::from_micros(dice.below(500));
            let ready = wait_any(&results, Some(limit));
            assert!(ready.iter().all(|index| results[*index].is_ready()));
            let mut seen = vec![false; results.len()];
            for (index, result) in as_completed(results) {
                assert!(!std::mem::replace(&mut seen[index], true));
                tally.check(result, &square(x + index as i64), none);
            }
            assert!(seen.iter().all(|seen| *seen));
            true
        }
        8 => {
            let (called_back, within) = (Arc::clone(&tally.called_back), Arc::clone(pool));
            let uses_it = dice.below(4) == 0;
            let call = take_time::bind(x, dice.below(200));
            let result = pool.calls().apply_async_with(call, move |_| {
                if uses_it {
                    let _ = within.apply(square::bind(2));
                }
                drop(within);
                called_back.fetch_add(1, Ordering::Relaxed);
            });
            let Ok(result) = result else { return false };
            tally.callbacks.fetch_add(1, Ordering::Relaxed);
            match dice.below(3) {
                0 => drop(result),
                1 => _ = tally.check(block_on(result), &x, none),
                _ => _ = tally.check(result.get(), &x, none),
            }
            true
        }
        9 => {
            let results = (x..x + count).map(|y| {
                let micros = dice.below(100);
                pool.apply_async(take_time::bind(y, micros))
            });
            let Ok(results) = results.collect::<Result<Vec<_>, _>>() else {
                return false;
            };
            for (y, mut result) in (x..).zip(results) {
                let is_cancelled = dice.below(3) == 0;
                if is_cancelled {
                    result.cancel();
                }
                let allowed = Allowed {
                    cancelled: is_cancelled,
                    ..none
                };
                let result = loop {
                    let limit = Duration::from_micros(dice.below(300));
                    match result.get_timeout(limit) {
                        Err(error) if error.kind() == ErrorKind::Timeout => {}
                        result => break result,
                    }
                };
                tally.check(result, &y, allowed);
            }
            true
        }
        10 => {
            let bytes: Vec<u8> = (0..dice.below(300_000)).map(|byte| byte as u8).collect();
            let right = turn_around(bytes.clone());
            tally.check(pool.apply(turn_around::bind(bytes)), &right, none)
        }
        _ => {
            let calls = pool.calls().on_report(|_| {}).retries(1000);
            let right: Vec<_> = (0..count).collect();
            let allowed = Allowed {
                never_dies: true,
                ..none
            };
            tally.check(calls.map::<talk>(0..count), &right, allowed)
        }
    }
}

/// Kills workers, or stops them for a while.
fn harm(pool: &Pool, dice: &mut Dice, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let workers = pool.workers();
        let number = dice.below(workers.len() as u64) as usize;
        let Some(worker) = workers.get(number) else {
            thread::yield_now();
            continue;
        };
        match dice.below(6) {
            0 => worker.kill().unwrap(),
            1 | 2 => {
                let pid = Pid::from_raw(worker.id() as i32);
                // OK to ignore: it has just ended, and is kept from being another one by `worker`.
                let _ = kill(pid, Signal::SIGSTOP);
                thread::sleep(Duration::from_micros(dice.below(3000)));
                let _ = kill(pid, Signal::SIGCONT);
            }
            _ => {}
        }
        thread::sleep(Duration::from_micros(dice.below(10_000)));
    }
}

fn round(dice: &mut Dice) {
    let tally = Tally::default();
    let mut builder = Pool::builder().processes(1 + dice.below(3) as usize);
    if dice.below(4) == 0 {
        builder = builder.on_demand(true);
    }
    if dice.below(4) == 0 {
        builder = builder.max_tasks_per_child(1 + dice.below(50));
    }
    let pool = Arc::new(builder.start().unwrap());
    let stop = AtomicBool::new(false);
    let (threads, calls) = (1 + dice.below(4), 1 + dice.below(40));
    thread::scope(|scope| {
        let villain = (dice.below(4) > 0).then(|| {
            let (pool, stop, mut dice) = (&pool, &stop, dice.split());
            scope.spawn(move || harm(pool, &mut dice, stop))
        });
        let callers: Vec<_> = (0..threads)
            .map(|_| {
                let (pool, tally, mut dice) = (&pool, &tally, dice.split());
                scope.spawn(move || (0..calls).all(|_| some_calls(pool, &mut dice, tally)))
            })
            .collect();
        if dice.below(3) == 0 {
            dice.pause(Duration::from_millis(30));
            match dice.below(3) {
                0 => pool.terminate(),
                1 => pool.shutdown(Duration::from_micros(dice.below(5000))),
                _ => pool.close(),
            }
        }
        let ended: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        if let Some(villain) = villain {
            villain.join().unwrap();
        }
    });
    if dice.below(2) == 0 {
        pool.join();
    }
    pool.kill_workers();
    drop(pool);
    mproc_tests::eventually(|| {
        tally.called_back.load(Ordering::Relaxed) == tally.callbacks.load(Ordering::Relaxed)
    });
}

#[test]
fn everything_at_once_resolves_once_and_leaves_nothing() {
    let _watchdog = watchdog("everything_at_once", LIMIT);
    let mut dice = Dice::new("everything_at_once");
    round(&mut dice);
    let before = descriptors().len();
    for _ in 0..dose(15, 1500) {
        round(&mut dice);
        // Of the last pool, a callback may still be about to end.
        mproc_tests::eventually(|| {
            children_of(std::process::id()).is_empty() && descriptors().len() <= before
        });
    }
}
