//! The pool that never hangs (G6, G7, G8): every task resolves once, whatever becomes of its worker.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mproc::{ErrorKind, Failure, Pool, Queue};
use mproc_tests::{dose, eventually, runs, watchdog};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);

#[mproc::entry]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn add(x: i64, text: &str) -> i64 {
    x + text.len() as i64
}

/// Ends in the way that the number says, or gives it back.
#[mproc::entry]
fn end_badly(how: u32) -> u32 {
    match how {
        1 => panic!("as told"),
        2 => std::process::exit(7),
        3 => std::process::abort(),
        4 => {
            raise(Signal::SIGKILL).unwrap();
        }
        _ => {}
    }
    how
}

#[mproc::entry]
fn refuse(x: i64) -> Result<i64, Failure> {
    Err(Failure::msg(x))
}

#[mproc::entry]
fn id() -> u32 {
    std::process::id()
}

/// Says that it has begun, and goes on for ever.
#[mproc::entry]
fn hang(begun: &Queue<u32>) {
    begun.put(std::process::id()).unwrap();
    loop {
        thread::park();
    }
}

#[mproc::entry]
fn fail_to_load() {
    panic!("no model here");
}

/// Counts how often it is called, and dies the first time.
#[mproc::entry]
fn die_once(calls: &Queue<u32>) -> usize {
    calls.put(0).unwrap();
    let count = calls.len();
    if count == 1 {
        raise(Signal::SIGKILL).unwrap();
    }
    count
}

#[test]
fn every_form_of_call_gives_values() {
    let _watchdog = watchdog("every_form_of_call_gives_values", LIMIT);
    let pool = Pool::new(2).unwrap();
    let squares: Vec<i64> = (0..1000).map(square).collect();
    assert_eq!(pool.apply(square::bind(12)).unwrap(), 144);
    assert_eq!(pool.map::<square>(0..1000).unwrap(), squares);
    let chunked = pool.calls().chunk_size(1).map::<square>(0..1000);
    assert_eq!(chunked.unwrap(), squares);
    let pairs = [(1, "a".to_owned()), (2, "bcd".to_owned())];
    assert_eq!(pool.starmap::<add>(pairs).unwrap(), [2, 5]);
    let lazy: Result<Vec<_>, _> = pool.imap::<square>(0..1000).collect();
    assert_eq!(lazy.unwrap(), squares);
    let unordered: Result<Vec<_>, _> = pool.imap_unordered::<square>(0..1000).collect();
    let mut unordered = unordered.unwrap();
    unordered.sort_unstable();
    assert_eq!(unordered, squares);
    assert_eq!(pool.map::<square>([]).unwrap(), []);
    assert_eq!(
        pool.apply(refuse::bind(3))
            .unwrap()
            .unwrap_err()
            .to_string(),
        "3"
    );
    pool.join();
    let error = pool.apply(square::bind(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShutDown);
}

/// Somebody sleeps on the long task meanwhile.
#[test]
fn a_short_task_is_not_heard_after_a_long_one_only() {
    let _watchdog = watchdog("a_short_task_is_not_heard_after_a_long_one_only", LIMIT);
    let pool = Pool::new(2).unwrap();
    let begun = Queue::new().unwrap();
    thread::scope(|scope| {
        let hangs = hang::bind(&begun);
        scope.spawn(|| pool.apply(hangs).unwrap_err());
        begun.get().unwrap();
        for _ in 0..20 {
            // Time for others to fall asleep.
            thread::sleep(Duration::from_millis(5));
            assert_eq!(pool.apply(square::bind(2)).unwrap(), 4);
            let result = pool.apply_async(square::bind(3)).unwrap();
            assert_eq!(result.get().unwrap(), 9);
        }
        pool.terminate();
    });
    // Nobody waits here, and the thread in the background sleeps.
    let pool = Pool::new(2).unwrap();
    let _hangs = pool.apply_async(hang::bind(&begun)).unwrap();
    begun.get().unwrap();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        let result = pool.apply_async(square::bind(3)).unwrap();
        eventually(|| result.is_ready());
    }
}

/// Also by who is about to fall asleep on its worker, which is not there any more to say something.
#[test]
fn a_waiter_hears_of_the_end_whenever_it_comes() {
    let _watchdog = watchdog("a_waiter_hears_of_the_end_whenever_it_comes", LIMIT);
    let begun = Queue::new().unwrap();
    for round in 0..dose(300, 5000) {
        let pool = Pool::new(1).unwrap();
        thread::scope(|scope| {
            let call = hang::bind(&begun);
            let waiter = scope.spawn(|| pool.apply(call).unwrap_err());
            begun.get().unwrap();
            for _ in 0..round % 100 * 100 {
                std::hint::spin_loop();
            }
            pool.terminate();
            assert_eq!(waiter.join().unwrap().kind(), ErrorKind::ShutDown);
        });
    }
}

#[test]
fn a_chunk_without_items_is_an_error() {
    let _watchdog = watchdog("a_chunk_without_items_is_an_error", LIMIT);
    let pool = Pool::new(1).unwrap();
    assert!(pool.calls().chunk_size(0).map::<square>(0..3).is_err());
    let mut lazy = pool.calls().chunk_size(0).imap::<square, _>(0..3);
    assert!(lazy.next().unwrap().is_err());
    assert!(lazy.next().is_none());
    assert!(Pool::new(0).is_err());
}

#[test]
fn only_the_task_that_ends_badly_is_an_error() {
    let _watchdog = watchdog("only_the_task_that_ends_badly_is_an_error", LIMIT);
    let pool = Pool::new(2).unwrap();
    let ways = || (0..200_u32).map(|number| if number % 20 < 5 { number % 20 } else { 0 });
    for chunk in [1, 7, 200] {
        let calls = pool.calls().chunk_size(chunk).in_flight(200);
        for (how, result) in ways().zip(calls.imap::<end_badly, _>(ways())) {
            let error = match result {
                Ok(value) => {
                    assert_eq!((how, value), (0, 0));
                    continue;
                }
                Err(error) => error,
            };
            match how {
                1 => assert_eq!(error.panic().unwrap().message(), "as told"),
                2 => assert_eq!(
                    (error.kind(), error.exit_code()),
                    (ErrorKind::Exited, Some(7))
                ),
                3 => assert_eq!((error.kind(), error.signal()), (ErrorKind::Killed, Some(6))),
                4 => assert_eq!((error.kind(), error.signal()), (ErrorKind::Killed, Some(9))),
                _ => panic!("it was to give {how}: {error}"),
            }
        }
    }
}

#[test]
fn a_panic_is_told_with_its_place_and_backtrace() {
    let _watchdog = watchdog("a_panic_is_told_with_its_place", LIMIT);
    let builder = Pool::builder().processes(1).env("RUST_BACKTRACE", "1");
    let pool = builder.start().unwrap();
    for chunk in [1, 3] {
        let calls = pool.calls().chunk_size(chunk);
        let error = calls.map::<end_badly>([0, 1, 0]).unwrap_err();
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), "as told");
        assert!(panic.location().unwrap().contains("pool.rs:"), "{panic:?}");
        assert!(
            panic.backtrace().unwrap().contains("end_badly"),
            "{panic:?}"
        );
    }
}

#[mproc::entry]
fn refuse_to_load() -> Result<(), Failure> {
    Err(Failure::msg("no model there"))
}

#[test]
fn an_initializer_may_also_return_an_error() {
    let _watchdog = watchdog("an_initializer_may_also_return_an_error", LIMIT);
    let builder = Pool::builder().processes(2);
    let pool = builder.initializer(refuse_to_load::bind()).start().unwrap();
    let error = pool.map::<square>(0..3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start, "{error}");
    pool.join();
}

/// Gives its number back, and the first one only when it may.
#[mproc::entry]
fn wait_if_first(number: usize, gate: &Queue<()>) -> usize {
    if number == 0 {
        gate.get().unwrap();
    }
    number
}

#[mproc::entry]
fn wait_first(pair: (usize, Queue<()>)) -> usize {
    wait_if_first(pair.0, &pair.1)
}

/// Whatever lay ahead of the worker that is at it.
#[test]
fn what_lies_behind_a_slow_task_is_done_by_others() {
    let _watchdog = watchdog("what_lies_behind_a_slow_task", LIMIT);
    for processes in [2, 3] {
        let pool = Pool::new(processes).unwrap();
        let gate = Queue::new().unwrap();
        for round in 0..dose(3, 100) {
            let items = (0..100).map(|number| (number, gate.clone()));
            let calls = pool.calls().in_flight(100);
            let mut results = calls.imap_unordered::<wait_first, _>(items);
            let mut numbers: Vec<_> = results.by_ref().take(99).map(Result::unwrap).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(1..100), "{round}");
            gate.put(()).unwrap();
            assert_eq!(results.next().unwrap().unwrap(), 0);

            let result = pool.apply_async(wait_if_first::bind(0, &gate)).unwrap();
            let uneven = pool.calls().chunk_size(1).map::<square>(0..200);
            assert_eq!(uneven.unwrap().len(), 200);
            gate.put(()).unwrap();
            assert_eq!(result.get().unwrap(), 0);
        }
    }
}

#[test]
fn a_task_is_retried_when_its_worker_dies() {
    let _watchdog = watchdog("a_task_is_retried_when_its_worker_dies", LIMIT);
    let pool = Pool::new(1).unwrap();
    let calls = Queue::new().unwrap();
    let value = pool.calls().retries(1).apply(die_once::bind(&calls));
    assert_eq!(value.unwrap(), 2);
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn workers_killed_under_load_cost_their_tasks_only() {
    let _watchdog = watchdog("workers_killed_under_load_cost_their_tasks_only", LIMIT);
    let pool = Pool::new(2).unwrap();
    let stop = AtomicBool::new(false);
    let killed = AtomicUsize::new(0);
    let rounds = dose(20, 2000);
    thread::scope(|scope| {
        // Also when an assertion fails, or the scope would wait for the killer for ever.
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for worker in pool.workers() {
                    worker.kill().unwrap();
                    killed.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let mut died = 0;
        for _ in 0..rounds {
            // Each resolves, and a value is the right one.
            let results = pool.calls().in_flight(500).imap::<square, _>(0..500);
            let mut count = 0;
            for (x, result) in (0..).zip(results) {
                count += 1;
                match result {
                    Ok(value) => assert_eq!(value, x * x),
                    Err(error) => {
                        assert_eq!(error.signal(), Some(9), "{error}");
                        died += 1;
                    }
                }
            }
            assert_eq!(count, 500);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(
            died <= killed.load(Ordering::Relaxed),
            "{died} died of {killed:?} kills"
        );
    });
    assert_eq!(pool.apply(square::bind(3)).unwrap(), 9);
}

#[test]
fn a_worker_killed_while_idle_costs_nothing() {
    let _watchdog = watchdog("a_worker_killed_while_idle_costs_nothing", LIMIT);
    let pool = Pool::new(1).unwrap();
    let first = pool.apply(id::bind()).unwrap();
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
    eventually(|| !runs(first));
    assert_ne!(pool.apply(id::bind()).unwrap(), first);
}

#[test]
fn time_limits_and_cancellation_end_the_task_and_nothing_else() {
    let _watchdog = watchdog("time_limits_and_cancellation", LIMIT);
    let pool = Pool::new(1).unwrap();
    let begun = Queue::new().unwrap();
    let limited = pool.calls().timeout(Duration::from_millis(1));
    let error = limited.apply(hang::bind(&begun)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);

    while begun.try_get().is_ok() {}
    let mut running = pool.apply_async(hang::bind(&begun)).unwrap();
    let queued = pool.apply_async(square::bind(1)).unwrap();
    let goes_on = pool.apply_async(square::bind(2)).unwrap();
    let worker = begun.get().unwrap();
    let error = running.get_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    queued.cancel();
    assert_eq!(queued.get().unwrap_err().kind(), ErrorKind::Cancelled);
    running.cancel();
    assert_eq!(running.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!runs(worker));
    assert_eq!(goes_on.get().unwrap(), 4);
}

#[test]
fn an_initializer_that_fails_fails_the_pool_once() {
    let _watchdog = watchdog("an_initializer_that_fails_fails_the_pool_once", LIMIT);
    let builder = Pool::builder().processes(2);
    let pool = builder.initializer(fail_to_load::bind()).start().unwrap();
    for _ in 0..3 {
        let error = pool.apply(square::bind(1)).unwrap_err();
        assert!(error.to_string().contains("no model here"), "{error}");
        assert!(error.is_panic(), "{error:?}");
    }
    pool.join();
    assert!(pool.workers().is_empty());
}

#[test]
fn imap_takes_no_more_than_it_may() {
    let _watchdog = watchdog("imap_takes_no_more_than_it_may", LIMIT);
    let pool = Pool::new(2).unwrap();
    let taken = AtomicUsize::new(0);
    let endless = (0..).inspect(|_| _ = taken.fetch_add(1, Ordering::Relaxed));
    let mut results = pool.calls().in_flight(8).imap::<square, _>(endless);
    assert_eq!(taken.load(Ordering::Relaxed), 0);
    for x in 0..100 {
        assert_eq!(results.next().unwrap().unwrap(), x * x);
        assert!(taken.load(Ordering::Relaxed) <= x as usize + 8);
    }
    drop(results);
    assert!(taken.load(Ordering::Relaxed) <= 108);
}

#[test]
fn dropping_a_pool_ends_its_tasks_and_leaves_nothing() {
    let _watchdog = watchdog("dropping_a_pool_ends_its_tasks", LIMIT);
    let begun = Queue::new().unwrap();
    let pool = Pool::new(2).unwrap();
    let results: Vec<_> = (0..4)
        .map(|_| pool.apply_async(hang::bind(&begun)).unwrap())
        .collect();
    let workers = [begun.get().unwrap(), begun.get().unwrap()];
    // As one that does not even hear SIGTERM.
    kill(Pid::from_raw(workers[0] as i32), Signal::SIGSTOP).unwrap();
    drop(pool);
    for result in results {
        assert_eq!(result.get().unwrap_err().kind(), ErrorKind::ShutDown);
    }
    assert!(workers.iter().all(|worker| !runs(*worker)));
}

#[test]
fn interrupts_pass_workers_over() {
    let _watchdog = watchdog("interrupts_pass_workers_over", LIMIT);
    let pool = Pool::new(1).unwrap();
    let worker = pool.apply(id::bind()).unwrap();
    kill(Pid::from_raw(worker as i32), Signal::SIGINT).unwrap();
    for _ in 0..100 {
        assert_eq!(pool.apply(id::bind()).unwrap(), worker);
    }
}

#[test]
fn several_threads_share_a_pool() {
    let _watchdog = watchdog("several_threads_share_a_pool", LIMIT);
    let pool = Pool::new(2).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_i64 {
            let pool = &pool;
            scope.spawn(move || {
                for x in 0..200 {
                    let x = x * thread;
                    assert_eq!(pool.apply(square::bind(x)).unwrap(), x * x);
                }
            });
        }
    });
}

/// Arguments and values of two lengths each.
#[mproc::entry]
fn half(x: Option<u64>) -> Option<u32> {
    let x = x?;
    x.is_multiple_of(3).then_some((x / 2) as u32)
}

#[mproc::entry]
fn sum(a: u8, b: i64, c: [f64; 2]) -> (f64, bool) {
    (f64::from(a) + b as f64 + c[0] + c[1], b > 0)
}

#[mproc::entry]
fn nothing() {}

#[mproc::entry]
fn wide(x: u64) -> [u64; 5] {
    [x; 5]
}

#[test]
fn short_arguments_and_values_of_all_lengths_come_out_as_they_went_in() {
    let _watchdog = watchdog("short_arguments_and_values", LIMIT);
    let pool = Pool::new(2).unwrap();
    for count in [0, 1, 2, 3, 7, 2047, 2048, 2049, 30_000] {
        for every in [1, 2, 1000, u64::MAX] {
            // Alike from the first on, in turns, or up to somewhere.
            let item = |x: u64| (!(x + 1).is_multiple_of(every)).then_some(x);
            let halves = pool.map::<half>((0..count).map(item)).unwrap();
            let expected = (0..count).map(|x| half(item(x)));
            assert!(halves.into_iter().eq(expected), "{count} {every}");
        }
        for chunk in [1, 5, 3000] {
            let calls = pool.calls().chunk_size(chunk);
            let items = (0..count).map(|x| (x as u8, x as i64 - 9, [0.5, x as f64]));
            let sums = calls.starmap::<sum>(items.clone()).unwrap();
            assert!(sums.into_iter().eq(items.map(|(a, b, c)| sum(a, b, c))));
            let calls = pool.calls().chunk_size(chunk);
            let done = calls.starmap::<nothing>((0..count).map(|_| ())).unwrap();
            assert_eq!(done.len() as u64, count);
        }
        let wides = pool.map::<wide>(0..count).unwrap();
        assert!(wides.into_iter().eq((0..count).map(|x| [x; 5])));
    }
}

/// Holds nothing, and has a descriptor travel all the same.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Borrower(u64);

impl serde::Serialize for Borrower {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        static OWNED: std::sync::OnceLock<std::sync::Mutex<mproc::Fd>> = std::sync::OnceLock::new();
        let null = || mproc::Fd::from(std::fs::File::open("/dev/null").unwrap()).into();
        let fd = OWNED.get_or_init(null).lock().unwrap();
        serde::Serialize::serialize(&(self.0, &*fd), serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Borrower {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, _) = <(u64, mproc::Fd)>::deserialize(deserializer)?;
        Ok(Self(number))
    }
}

#[mproc::entry]
fn lends(borrower: Borrower) -> Borrower {
    Borrower(borrower.0 + 1)
}

#[mproc::entry]
fn borrows(number: u64) -> Borrower {
    Borrower(number)
}

#[test]
fn what_holds_nothing_may_have_descriptors_travel() {
    let _watchdog = watchdog("what_holds_nothing", LIMIT);
    let pool = Pool::new(2).unwrap();
    let results = pool.map::<lends>((0..50).map(Borrower)).unwrap();
    assert!(results.into_iter().eq((1..51).map(Borrower)));
    let results = pool.map::<borrows>(0..50).unwrap();
    assert!(results.into_iter().eq((0..50).map(Borrower)));
}

#[mproc::entry]
fn stumbles(x: u64) -> u64 {
    assert!(!x.is_multiple_of(700), "at {x}");
    x + 1
}

#[test]
fn a_panic_among_many_short_calls_is_that_of_its_call() {
    let _watchdog = watchdog("a_panic_among_many_short_calls", LIMIT);
    let pool = Pool::new(2).unwrap();
    let results = pool.calls().chunk_size(500).imap::<stumbles, _>(1..20_001);
    for (x, result) in (1..20_001).zip(results) {
        match result {
            Ok(value) => assert_eq!(value, x + 1),
            Err(error) => {
                assert!(x.is_multiple_of(700), "{error}");
                assert_eq!(error.panic().unwrap().message(), format!("at {x}"));
            }
        }
    }
}

/// Does not encode without a panic if it is odd.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
struct Even(u64);

impl serde::Serialize for Even {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0.is_multiple_of(2), "odd");
        serializer.serialize_newtype_struct("Even", &self.0)
    }
}

#[mproc::entry]
fn number_of(even: Even) -> u64 {
    even.0
}

#[test]
fn an_item_before_one_that_panics_at_the_end_is_itself() {
    let _watchdog = watchdog("an_item_before_one_that_panics", LIMIT);
    let pool = Pool::new(1).unwrap();
    for chunk in [2, 4] {
        let items = [Even(2), Even(3)].into_iter();
        let mut results = pool.calls().chunk_size(chunk).imap::<number_of, _>(items);
        let next = std::panic::AssertUnwindSafe(|| results.next());
        assert!(std::panic::catch_unwind(next).is_err());
        assert_eq!(results.next().unwrap().unwrap(), 2);
        assert!(results.next().is_none());
    }
}
