//! Who waits for a pool, and who drives it meanwhile: what is there is heard, whoever sleeps on whatever else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use mproc::{ErrorKind, Pool, Queue, indicatif};
use mproc_tests::{descriptors_of, dose, eventually, runs, state_of, watchdog};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);

#[mproc::entry]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn id() -> u32 {
    std::process::id()
}

#[mproc::entry]
fn id_of(_: u32) -> u32 {
    std::process::id()
}

/// Says that it has begun, and goes on when it may.
#[mproc::entry]
fn pass(gate: &Gate) {
    gate.begun.put(std::process::id()).unwrap();
    gate.open.get().unwrap();
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Gate {
    begun: Queue<u32>,
    open: Queue<()>,
}

impl Gate {
    fn new() -> Self {
        Self {
            begun: Queue::new().unwrap(),
            open: Queue::new().unwrap(),
        }
    }

    /// Waits until a task has begun; gives its worker's pid.
    fn reached(&self) -> u32 {
        self.begun.get().unwrap()
    }

    fn open(&self) {
        self.open.put(()).unwrap();
    }
}

/// Time for others to fall asleep. It is right without it, and then shows less.
fn others_fall_asleep() {
    thread::sleep(Duration::from_millis(20));
}

#[test]
fn a_stream_ends_after_what_was_called_when_its_pool_ends() {
    let _watchdog = watchdog("a_stream_ends_when_its_pool_ends", LIMIT);
    let ends: [fn(&Pool); 2] = [Pool::close, Pool::terminate];
    for end in ends {
        let pool = Pool::new(1).unwrap();
        let mut results = pool.calls().in_flight(8).imap::<square, _>(0..);
        assert_eq!(results.next().unwrap().unwrap(), 0);
        end(&pool);
        let rest: Vec<_> = results.map(|result| result.map_err(|e| e.kind())).collect();
        assert_eq!(rest.len(), 8);
        assert_eq!(rest[7], Err(ErrorKind::ShutDown));
        let good = rest.iter().filter(|result| result.is_ok()).count();
        assert!((0..good).all(|at| rest[at] == Ok(square(at as i64 + 1))));
    }
    // One that has ended before has nothing to do with it.
    let pool = Pool::new(1).unwrap();
    let mut results = pool.calls().in_flight(1).imap::<square, _>(0..1);
    assert_eq!(results.next().unwrap().unwrap(), 0);
    pool.close();
    assert!(results.next().is_none());
}

#[test]
fn a_stream_gives_each_result_once_whenever_its_pool_ends() {
    let _watchdog = watchdog("a_stream_gives_each_result_once", LIMIT);
    for round in 0..dose(300, 10_000) {
        let pool = Pool::new(1).unwrap();
        let taken = AtomicUsize::new(0);
        let gate = Gate::new();
        let items = std::iter::repeat_with(|| {
            taken.fetch_add(1, Ordering::Relaxed);
            gate.clone()
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                gate.reached();
                for _ in 0..round % 100 * 100 {
                    std::hint::spin_loop();
                }
                pool.terminate();
            });
            let calls = pool.calls().in_flight(8);
            let results: Vec<_> = calls.imap_unordered::<pass, _>(items.take(5)).collect();
            assert_eq!(results.len(), 5);
        });
        assert_eq!(taken.load(Ordering::Relaxed), 5);
    }
}

#[test]
fn an_input_that_panics_takes_nothing_with_it() {
    let _watchdog = watchdog("an_input_that_panics_takes_nothing_with_it", LIMIT);
    let pool = Pool::new(2).unwrap();
    let mut number = 0;
    let items = std::iter::from_fn(|| {
        number += 1;
        assert_ne!(number, 5, "as told");
        (number < 10).then_some(number)
    });
    let mut results = pool.imap::<square>(items);
    let next = std::panic::AssertUnwindSafe(|| results.next());
    assert!(std::panic::catch_unwind(next).is_err());
    let rest: Vec<_> = results.map(Result::unwrap).collect();
    assert_eq!(rest, [1, 4, 9, 16, 36, 49, 64, 81]);

    let items = (0..1000).inspect(|number| assert_ne!(*number, 700, "as told"));
    let map = std::panic::AssertUnwindSafe(|| pool.calls().chunk_size(1).map::<square>(items));
    assert!(std::panic::catch_unwind(map).is_err());
    assert_eq!(pool.apply(square::bind(3)).unwrap(), 9);
    pool.join();
}

#[test]
fn what_a_dropped_stream_has_not_begun_does_not_begin() {
    let _watchdog = watchdog("what_a_dropped_stream_has_not_begun", LIMIT);
    let pool = Pool::new(1).unwrap();
    let gate = Gate::new();
    let calls = pool.calls().in_flight(1000);
    let mut results = calls.imap::<pass, _>(std::iter::repeat_with(|| gate.clone()));
    let late = results.next_timeout(Duration::from_millis(1)).unwrap();
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    let worker = gate.reached();
    drop(results);
    gate.open();
    assert_eq!(pool.apply(id::bind()).unwrap(), worker);
    assert!(gate.begun.is_empty());
}

/// Who sleeps on a map need not be woken by each of its values, but by those of others.
#[test]
fn who_waits_for_a_map_hears_the_others() {
    let _watchdog = watchdog("who_waits_for_a_map_hears_the_others", LIMIT);
    let pool = Pool::new(2).unwrap();
    let (first, last, single, endless) = (Gate::new(), Gate::new(), Gate::new(), Gate::new());
    thread::scope(|scope| {
        let map = scope.spawn(|| {
            let gates = [first.clone(), last.clone()];
            pool.calls().chunk_size(1).map::<pass>(gates)
        });
        first.reached();
        last.reached();
        others_fall_asleep();
        // Both lie ahead of the same worker.
        let result = pool.apply_async(pass::bind(&single)).unwrap();
        let hangs = pool.apply_async(pass::bind(&endless)).unwrap();
        first.open();
        single.reached();
        others_fall_asleep();
        single.open();
        endless.reached();
        result.get().unwrap();
        assert!(!hangs.is_ready());
        endless.open();
        last.open();
        map.join().unwrap().unwrap();
    });
}

#[test]
fn a_bar_moves_with_each_item_of_a_map() {
    let _watchdog = watchdog("a_bar_moves_with_each_item_of_a_map", LIMIT);
    let pool = Pool::new(1).unwrap();
    let gate = Gate::new();
    let bar = indicatif::ProgressBar::hidden();
    thread::scope(|scope| {
        let calls = pool.calls().chunk_size(1).progress_with(bar.clone());
        let gates = [(); 8].map(|()| gate.clone());
        scope.spawn(move || calls.map::<pass>(gates).unwrap());
        for number in 0..8 {
            gate.reached();
            eventually(|| bar.position() == number);
            others_fall_asleep();
            gate.open();
        }
    });
    assert_eq!(bar.position(), 8);
}

/// Whoever runs a callback was driving for the others.
#[test]
fn a_callback_may_wait_for_what_another_thread_waits_for() {
    let _watchdog = watchdog("a_callback_may_wait_for_another_thread", LIMIT);
    let pool = Pool::new(2).unwrap();
    let (first, second) = (Gate::new(), Gate::new());
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let callback = move |_: &mproc::Result<()>| receiver.recv().unwrap();
        let calls = pool.calls();
        let call = pass::bind(&first);
        let result = calls.apply_async_with(call, callback).unwrap();
        scope.spawn(|| result.get().unwrap());
        first.reached();
        others_fall_asleep();
        let result = pool.apply_async(pass::bind(&second)).unwrap();
        scope.spawn(move || {
            result.get().unwrap();
            sender.send(()).unwrap();
        });
        second.reached();
        others_fall_asleep();
        first.open();
        others_fall_asleep();
        second.open();
    });
}

/// As callbacks that gather results do, and whoever calls meanwhile.
#[test]
fn no_callback_runs_within_a_call_that_does_not_wait() {
    let _watchdog = watchdog("no_callback_runs_within_a_call", LIMIT);
    let pool = Pool::new(2).unwrap();
    let (gathered, count) = (Arc::new(Mutex::new(Vec::new())), dose(2000, 100_000));
    for x in 0..count as i64 {
        let place = Arc::clone(&gathered);
        // Held while others are submitted, or cancelled.
        let held = gathered.lock().unwrap();
        let gather = move |value: &mproc::Result<i64>| {
            place.lock().unwrap().push(value.as_ref().ok().copied());
        };
        let result = pool.calls().apply_async_with(square::bind(x), gather);
        let result = result.unwrap();
        if x % 10 == 0 {
            result.cancel();
        }
        drop(held);
    }
    for _ in 0..count / 10 {
        let place = Arc::clone(&gathered);
        let held = gathered.lock().unwrap();
        let gather = move |_: &mproc::Result<Vec<i64>>| place.lock().unwrap().push(None);
        let calls = pool.calls().chunk_size(1);
        let result = calls.map_async_with::<square>([2], gather).unwrap();
        drop((held, result));
    }
    eventually(|| gathered.lock().unwrap().len() == count + count / 10);
    let held = gathered.lock().unwrap();
    pool.terminate();
    drop(held);
}

#[test]
fn a_callback_whose_panic_panics_again_harms_nothing() {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    let _watchdog = watchdog("a_callback_whose_panic_panics_again", LIMIT);
    let pool = Pool::new(1).unwrap();
    let callback = |_: &mproc::Result<i64>| std::panic::panic_any(Again);
    let result = pool.calls().apply_async_with(square::bind(2), callback);
    assert!(result.unwrap().get().is_err());
    let calls = pool.calls().on_report(|_| std::panic::panic_any(Again));
    calls.apply(say::bind()).unwrap();
    assert_eq!(pool.apply(square::bind(3)).unwrap(), 9);
}

#[mproc::entry]
fn say() {
    mproc::report(0.5, "halfway");
}

/// What listens is dropped when its task has ended, and with it the last hold on the pool.
#[test]
fn a_pool_may_be_dropped_with_what_listens_to_it() {
    let _watchdog = watchdog("a_pool_may_be_dropped_with_what_listens", LIMIT);
    let pool = Arc::new(Pool::new(1).unwrap());
    let (gate, held) = (Gate::new(), Arc::clone(&pool));
    let listen = move |_: &mproc::Report| _ = held.workers();
    let calls = pool.calls().on_report(listen);
    drop(calls.apply_async(pass::bind(&gate)).unwrap());
    drop(calls);
    let worker = gate.reached();
    drop(pool);
    others_fall_asleep();
    assert!(runs(worker));
    gate.open();
    eventually(|| !runs(worker));
}

#[test]
fn a_pool_may_be_dropped_by_a_callback() {
    let _watchdog = watchdog("a_pool_may_be_dropped_by_a_callback", LIMIT);
    for is_waited_for in [false, true] {
        let pool = Arc::new(Pool::new(1).unwrap());
        let (gate, held) = (Gate::new(), Arc::clone(&pool));
        let callback = move |_: &mproc::Result<()>| drop(held);
        let call = pass::bind(&gate);
        let result = pool.calls().apply_async_with(call, callback).unwrap();
        let worker = gate.reached();
        drop(pool);
        gate.open();
        if is_waited_for {
            result.get().unwrap();
        }
        eventually(|| !runs(worker));
    }
}

/// On one core, the thread in the background finds out late that somebody else has driven meanwhile.
#[test]
fn what_nobody_waits_for_is_heard_after_somebody_has_waited() {
    let _watchdog = watchdog("what_nobody_waits_for_is_heard", LIMIT);
    let rounds = dose(200, 5000);
    let heard = waits_on_one_core::spawn(rounds).unwrap().join().unwrap();
    assert_eq!(heard, rounds);
}

#[mproc::entry]
fn waits_on_one_core(rounds: usize) -> usize {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this).unwrap();
    let mut one = CpuSet::new();
    let core = (0..CpuSet::count()).find(|core| all.is_set(*core).unwrap());
    one.set(core.unwrap()).unwrap();
    sched_setaffinity(this, &one).unwrap();
    let pool = Pool::new(2).unwrap();
    let gate = Gate::new();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Others that want the core, so that who is woken waits for it.
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let heard = Arc::new(AtomicUsize::new(0));
        for round in 0..rounds {
            let count = Arc::clone(&heard);
            let callback = move |_: &mproc::Result<()>| _ = count.fetch_add(1, Ordering::Relaxed);
            let call = pass::bind(&gate);
            let _result = pool.calls().apply_async_with(call, callback).unwrap();
            gate.reached();
            thread::sleep(Duration::from_micros(500));
            assert_eq!(pool.apply(square::bind(2)).unwrap(), 4);
            gate.open();
            eventually(|| heard.load(Ordering::Relaxed) == round + 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    rounds
}

#[test]
fn ends_and_limits_are_seen_while_there_is_always_something_to_hear() {
    let _watchdog = watchdog("ends_and_limits_are_seen", LIMIT);
    let pool = Pool::new(2).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let calls = pool.calls().chunk_size(1).retries(100);
                calls.map::<square>(0..10_000).unwrap();
            }
        });
        for _ in 0..dose(3, 50) {
            let gate = Gate::new();
            let mut hanging = pool.apply_async(pass::bind(&gate)).unwrap();
            let worker = gate.reached();
            let late = hanging.get_timeout(Duration::from_millis(5));
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
            kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
            assert_eq!(hanging.get().unwrap_err().signal(), Some(9));
            let limited = pool.calls().timeout(Duration::from_millis(5));
            let error = limited.apply(pass::bind(&gate)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn grace_also_bounds_the_wait_for_a_worker_that_does_not_end() {
    let _watchdog = watchdog("grace_also_bounds_the_wait", LIMIT);
    let pool = Pool::new(1).unwrap();
    let worker = pool.apply(id::bind()).unwrap();
    kill(Pid::from_raw(worker as i32), Signal::SIGSTOP).unwrap();
    eventually(|| state_of(worker) == Some('T'));
    pool.shutdown(Duration::from_millis(50));
    assert!(!runs(worker));
}

/// A worker that does not end when it is dismissed, and a thread that waits for it.
fn join_a_stopped_worker(then: impl FnOnce(&Pool, u32)) {
    let pool = Pool::new(1).unwrap();
    let worker = pool.apply(id::bind()).unwrap();
    kill(Pid::from_raw(worker as i32), Signal::SIGSTOP).unwrap();
    eventually(|| state_of(worker) == Some('T'));
    thread::scope(|scope| {
        scope.spawn(|| {
            pool.join();
            assert!(!runs(worker));
        });
        eventually(|| pool.workers().is_empty());
        then(&pool, worker);
    });
}

#[test]
fn who_joins_last_waits_for_the_workers_too() {
    let _watchdog = watchdog("who_joins_last_waits_for_the_workers_too", LIMIT);
    join_a_stopped_worker(|pool, worker| {
        let (say, said) = mpsc::channel();
        thread::scope(|scope| {
            let other = scope.spawn(move || {
                say.send(nix::unistd::gettid()).unwrap();
                pool.join();
                assert!(!runs(worker));
            });
            let thread = said.recv().unwrap().as_raw() as u32;
            eventually(|| state_of(thread) == Some('S') || other.is_finished());
            kill(Pid::from_raw(worker as i32), Signal::SIGCONT).unwrap();
        });
    });
}

#[test]
fn a_join_ends_when_the_pool_is_terminated() {
    let _watchdog = watchdog("a_join_ends_when_the_pool_is_terminated", LIMIT);
    join_a_stopped_worker(|pool, _| pool.terminate());
    join_a_stopped_worker(|pool, _| pool.shutdown(Duration::from_millis(20)));
    join_a_stopped_worker(|pool, _| pool.kill_workers());
}

#[test]
fn a_worker_that_cannot_be_told_its_variables_fails_the_pool() {
    let _watchdog = watchdog("a_worker_that_cannot_be_told_its_variables", LIMIT);
    let calls = AtomicUsize::new(0);
    let value = move |place: usize| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) < 1, "no more");
        place.to_string()
    };
    let builder = Pool::builder().processes(1).env_for_each("PLACE", value);
    let pool = builder.start().unwrap();
    let gate = Gate::new();
    thread::scope(|scope| {
        let waits = scope.spawn(|| pool.apply(pass::bind(&gate)).unwrap_err());
        let worker = gate.reached();
        let behind = pool.apply_async(square::bind(1)).unwrap();
        kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
        assert_eq!(behind.get().unwrap_err().kind(), ErrorKind::Start);
        assert_eq!(waits.join().unwrap().signal(), Some(9));
    });
}

#[test]
fn a_log_that_panics_keeps_nobody_waiting() {
    let _watchdog = watchdog("a_log_that_panics_keeps_nobody_waiting", LIMIT);
    logs_and_panics::spawn().unwrap().join().unwrap();
}

struct Panics(AtomicBool);

impl log::Log for Panics {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        assert!(!self.0.load(Ordering::Relaxed), "no log today");
    }

    fn flush(&self) {}
}

/// In a process of its own, which has that log.
#[mproc::entry]
fn logs_and_panics() {
    static LOG: Panics = Panics(AtomicBool::new(false));
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let pool = Pool::new(2).unwrap();
    let gate = Gate::new();
    thread::scope(|scope| {
        let waits = [(); 2].map(|()| scope.spawn(|| pool.apply(pass::bind(&gate)).is_err()));
        let workers = [gate.reached(), gate.reached()];
        LOG.0.store(true, Ordering::Relaxed);
        for worker in workers {
            kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
        }
        // No worker can be started in their places.
        for waits in waits {
            assert!(waits.join().unwrap());
        }
        let error = pool.apply(square::bind(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start);
    });
    LOG.0.store(false, Ordering::Relaxed);
}

#[test]
fn workers_that_have_done_their_share_cost_nothing() {
    let _watchdog = watchdog("workers_that_have_done_their_share", LIMIT);
    let count = dose(100, 2000) as u32;
    assert!(recycles::spawn(count).unwrap().join().unwrap() <= 30);
}

/// In a process of its own, where nobody else opens anything.
#[mproc::entry]
fn recycles(count: u32) -> usize {
    let builder = Pool::builder().processes(1).max_tasks_per_child(1);
    let pool = builder.start().unwrap();
    let before = descriptors_of(std::process::id()).len();
    let mut ids = pool.map::<id_of>(0..count).unwrap();
    ids.dedup();
    assert_eq!(ids.len(), count as usize);
    descriptors_of(std::process::id()).len() - before
}

/// More than may be on their way at once.
#[test]
fn handles_wait_for_room_on_their_way() {
    let _watchdog = watchdog("handles_wait_for_room_on_their_way", LIMIT);
    assert_eq!(sends_handles::spawn(2000).unwrap().join().unwrap(), 2000);
}

#[mproc::entry]
fn sends_handles(count: usize) -> usize {
    setrlimit(Resource::RLIMIT_NOFILE, 128, 128).unwrap();
    let pool = Pool::new(2).unwrap();
    let calls = pool.calls().in_flight(16);
    let gate = Gate::new();
    (0..count).for_each(|_| gate.open());
    let gates = std::iter::repeat_with(|| gate.clone()).take(count);
    let good = calls.imap_unordered::<pass, _>(gates).filter(Result::is_ok);
    good.count()
}

#[mproc::entry]
fn length(text: &str) -> usize {
    text.len()
}

/// A stopped worker is given as much as there is room for, and all of it is taken back: it has nothing to say about that, and yet is given the next call as
/// soon as it has looked.
#[test]
fn who_was_full_of_what_was_taken_back_is_given_the_next_call() {
    let _watchdog = watchdog("who_was_full_of_what_was_taken_back", LIMIT);
    let text = "x".repeat(15_000);
    for _ in 0..dose(10, 1_000) {
        let pool = Pool::new(1).unwrap();
        let worker = Pid::from_raw(pool.apply(id::bind()).unwrap() as i32);
        kill(worker, Signal::SIGSTOP).unwrap();
        eventually(|| state_of(worker.as_raw() as u32) == Some('T'));
        let begin = || pool.apply_async(length::bind(&text)).unwrap();
        let taken_back: Vec<_> = (0..4).map(|_| begin()).collect();
        taken_back.iter().for_each(|result| result.cancel());
        for result in taken_back {
            assert_eq!(result.get().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        let next = begin();
        let waiter = nix::unistd::gettid().as_raw() as u32;
        thread::scope(|scope| {
            scope.spawn(|| {
                // It sleeps, if it was asleep at several looks; otherwise this shows less, and is not wrong.
                let mut asleep = 0;
                eventually(|| {
                    asleep += u32::from(state_of(waiter) == Some('S'));
                    asleep > 20
                });
                kill(worker, Signal::SIGCONT).unwrap();
            });
            assert_eq!(next.get().unwrap(), text.len());
        });
    }
}

/// As above, and the next call brings a handle: the worker is none the worse for it.
#[test]
fn who_was_full_of_what_was_taken_back_is_given_a_handle() {
    let _watchdog = watchdog("who_was_full_is_given_a_handle", LIMIT);
    let text = "x".repeat(15_900);
    for _ in 0..dose(5, 200) {
        let pool = Pool::new(1).unwrap();
        let worker = pool.apply(id::bind()).unwrap();
        let (pid, gate) = (Pid::from_raw(worker as i32), Gate::new());
        kill(pid, Signal::SIGSTOP).unwrap();
        eventually(|| state_of(worker) == Some('T'));
        let long = (0..4).map(|_| pool.apply_async(length::bind(&text)).unwrap());
        long.collect::<Vec<_>>()
            .iter()
            .for_each(|result| result.cancel());
        let short = (0..100).map(|_| pool.apply_async(length::bind("")).unwrap());
        short
            .collect::<Vec<_>>()
            .iter()
            .for_each(|result| result.cancel());
        let passed = pool.apply_async(pass::bind(&gate)).unwrap();
        kill(pid, Signal::SIGCONT).unwrap();
        assert_eq!(gate.reached(), worker, "the same as before");
        gate.open();
        passed.get().unwrap();
    }
}
