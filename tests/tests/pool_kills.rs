//! Workers that end badly, under every form of call (G6, G7): each task resolves once, and only those of the dead are errors.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mproc::{Error, ErrorKind, Pool, Queue, Stdio};
use mproc_tests::{
    Dice, children_of, descriptors_of, dose, eventually, heed_signals, runs, state_of, watchdog,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, setpgid};
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(120);

#[mproc::entry]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn product(x: i64, y: i64) -> i64 {
    x * y
}

#[mproc::entry]
fn id() -> u32 {
    std::process::id()
}

#[mproc::entry]
fn large(bytes: usize) -> Vec<u8> {
    vec![7; bytes]
}

#[mproc::entry]
fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[mproc::entry]
fn end_badly(how: &str) {
    mproc_tests::end_badly(how);
}

#[mproc::entry]
fn eat_memory() -> usize {
    setrlimit(Resource::RLIMIT_AS, 1 << 30, 1 << 30).unwrap();
    mproc_tests::no_core_dump();
    vec![1_u8; 4 << 30].len()
}

#[mproc::entry]
fn hang(begun: &Queue<u32>) {
    begun.put(std::process::id()).unwrap();
    loop {
        thread::park();
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills each worker every ten milliseconds while `load` runs. `load` gives how many tasks died; those are no more than there were kills.
fn under_fire(pool: &Pool, load: impl FnOnce() -> usize) {
    let stop = AtomicBool::new(false);
    let killed = AtomicUsize::new(0);
    thread::scope(|scope| {
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
        let died = load();
        stop.store(true, Ordering::Relaxed);
        let killed = killed.load(Ordering::Relaxed);
        assert!(died <= killed, "{died} died of {killed} kills");
    });
    assert_eq!(pool.apply(square::bind(3)).unwrap(), 9);
}

/// 1 if the task died of a kill; a value has to be the right one.
fn died<T: PartialEq + std::fmt::Debug>(result: Result<T, Error>, right: T) -> usize {
    match result {
        Ok(value) => {
            assert_eq!(value, right);
            0
        }
        Err(error) => {
            assert_eq!(
                (error.kind(), error.signal()),
                (ErrorKind::Killed, Some(9)),
                "{error}"
            );
            1
        }
    }
}

#[test]
fn single_calls_under_fire() {
    let _watchdog = watchdog("single_calls_under_fire", LIMIT);
    let pool = Pool::new(2).unwrap();
    under_fire(&pool, || {
        (0..dose(2000, 200_000) as i64)
            .map(|x| died(pool.apply(square::bind(x)), x * x))
            .sum()
    });
}

#[test]
fn asynchronous_calls_under_fire() {
    let _watchdog = watchdog("asynchronous_calls_under_fire", LIMIT);
    let pool = Pool::new(2).unwrap();
    under_fire(&pool, || {
        let count = dose(20_000, 1_000_000) as i64;
        let results: Vec<_> = (0..count)
            .map(|x| pool.apply_async(square::bind(x)).unwrap())
            .collect();
        (0..count)
            .zip(results)
            .map(|(x, result)| died(result.get(), x * x))
            .sum()
    });
}

#[test]
fn maps_under_fire_with_retries_give_every_value() {
    let _watchdog = watchdog("maps_under_fire_with_retries", LIMIT);
    let pool = Pool::new(2).unwrap();
    let squares: Vec<i64> = (0..20_000).map(square).collect();
    under_fire(&pool, || {
        for chunk in [1, 7, 5000] {
            for _ in 0..dose(3, 100) {
                let calls = pool.calls().chunk_size(chunk).retries(1000);
                assert_eq!(calls.map::<square>(0..20_000).unwrap(), squares);
                let pairs = || (0..20_000).map(|x| (x, x));
                assert_eq!(calls.starmap::<product>(pairs()).unwrap(), squares);
                let result = calls.starmap_async::<product>(pairs()).unwrap();
                assert_eq!(result.get().unwrap(), squares);
            }
        }
        0
    });
}

#[test]
fn streams_under_fire() {
    let _watchdog = watchdog("streams_under_fire", LIMIT);
    let pool = Pool::new(2).unwrap();
    let rounds = dose(5, 500);
    under_fire(&pool, || {
        let mut dead = 0;
        for _ in 0..rounds {
            let results = pool.calls().in_flight(500).imap::<square, _>(0..2000);
            let mut count = 0;
            for (x, result) in (0..).zip(results) {
                dead += died(result, x * x);
                count += 1;
            }
            assert_eq!(count, 2000);
            let mut seen = BTreeMap::<i64, usize>::new();
            let calls = pool.calls().chunk_size(10).in_flight(500);
            let mut lost = 0;
            for result in calls.imap_unordered::<square, _>(0..2000) {
                match result {
                    Ok(value) => *seen.entry(value).or_default() += 1,
                    Err(error) => lost += died(Err(error), 0),
                }
            }
            assert_eq!(seen.len() + lost, 2000);
            assert!(seen.values().all(|count| *count == 1));
            dead += lost;
        }
        dead
    });
}

#[test]
fn killed_while_it_reads_a_task_or_writes_a_large_result() {
    let _watchdog = watchdog("killed_while_it_reads_or_writes", LIMIT);
    let mut dice = Dice::new("killed_while_it_reads_or_writes");
    let pool = Pool::new(1).unwrap();
    let (bytes, count) = (vec![3_u8; 512 << 10], 1 << 20);
    for _ in 0..dose(30, 3000) {
        let worker = pool.apply(id::bind()).unwrap();
        let written = pool.apply_async(large::bind(count)).unwrap();
        let read = pool.apply_async(length::bind(&bytes)).unwrap();
        // Soon or late, since it depends on how fast they are written.
        let longest = Duration::from_micros(10 << dice.below(11));
        dice.pause(longest);
        kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
        // One of them at most is the one that was executed.
        let written = died(written.get(), vec![7; count]);
        assert!(written + died(read.get(), bytes.len()) <= 1);
    }
}

#[test]
fn every_end_of_a_process_is_told_and_costs_one_task() {
    let _watchdog = watchdog("every_end_of_a_process_is_told", LIMIT);
    let pool = Pool::new(2).unwrap();
    let ends = [
        ("exit 0", ErrorKind::Exited, 0),
        ("exit 7", ErrorKind::Exited, 7),
        ("exit 7 in a thread", ErrorKind::Exited, 7),
        ("abort", ErrorKind::Killed, -6),
        ("segmentation fault", ErrorKind::Killed, -11),
        ("illegal instruction", ErrorKind::Killed, -4),
        ("sigterm", ErrorKind::Killed, -15),
    ];
    for (how, kind, code) in ends {
        let before = pool.apply_async(square::bind(2)).unwrap();
        let ending = pool.apply_async(end_badly::bind(how)).unwrap();
        let after = pool.apply_async(square::bind(3)).unwrap();
        let error = ending.get().unwrap_err();
        assert_eq!(
            (error.kind(), error.exit_code()),
            (kind, Some(code)),
            "{how}: {error}"
        );
        assert_eq!((before.get().unwrap(), after.get().unwrap()), (4, 9));
    }
    // As whoever boots the process has it: with std's handler or without.
    let error = pool.apply(end_badly::bind("stack overflow")).unwrap_err();
    assert!(matches!(error.signal(), Some(6 | 11)), "{error}");
    let error = pool.apply(eat_memory::bind()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Killed, "{error}");
    assert_eq!(pool.apply(square::bind(3)).unwrap(), 9);
}

#[test]
fn a_stopped_worker_holds_nobody_else() {
    let _watchdog = watchdog("a_stopped_worker_holds_nobody_else", LIMIT);
    let pool = Pool::new(2).unwrap();
    let begun = Queue::new().unwrap();
    let hanging = pool.apply_async(hang::bind(&begun)).unwrap();
    let worker = Pid::from_raw(begun.get().unwrap() as i32);
    kill(worker, Signal::SIGSTOP).unwrap();
    eventually(|| state_of(worker.as_raw() as u32) == Some('T'));
    // Whatever was given to it ahead is taken back.
    let squares: Vec<i64> = (0..500).map(square).collect();
    let calls = pool.calls().chunk_size(1);
    assert_eq!(calls.map::<square>(0..500).unwrap(), squares);
    hanging.cancel();
    assert_eq!(hanging.get().unwrap_err().kind(), ErrorKind::Cancelled);
    let limited = pool.calls().timeout(Duration::from_millis(50));
    assert_eq!(
        limited.apply(hang::bind(&begun)).unwrap_err().kind(),
        ErrorKind::Timeout
    );
}

#[test]
fn tasks_that_wait_for_each_other_run_at_once() {
    let _watchdog = watchdog("tasks_that_wait_for_each_other", LIMIT);
    let pool = Pool::new(2).unwrap();
    let (there, back) = (Queue::new().unwrap(), Queue::new().unwrap());
    for _ in 0..50 {
        let first = pool.apply_async(ask::bind(&there, &back)).unwrap();
        let second = pool.apply_async(ask::bind(&back, &there)).unwrap();
        assert_eq!((first.get().unwrap(), second.get().unwrap()), (1, 1));
    }
}

#[mproc::entry]
fn ask(to: &Queue<u32>, from: &Queue<u32>) -> u32 {
    to.put(1).unwrap();
    from.get().unwrap()
}

#[test]
fn a_slow_item_holds_no_finished_ones_of_its_chunk_back() {
    let _watchdog = watchdog("a_slow_item_holds_no_finished_ones_back", LIMIT);
    let pool = Pool::new(1).unwrap();
    let calls = pool.calls().chunk_size(100).in_flight(100);
    let mut results = calls.imap_unordered::<forever_at_99, _>(0..100);
    for _ in 0..99 {
        results.next().unwrap().unwrap();
    }
    let late = results.next_timeout(Duration::from_millis(1)).unwrap();
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
}

#[mproc::entry]
fn forever_at_99(x: u32) -> u32 {
    if x < 99 {
        return x;
    }
    loop {
        thread::park();
    }
}

/// Refuses to be written, or read, if it says so.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stubborn(u8);

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            1 => Err(serde::ser::Error::custom("not to be written")),
            number => number.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            2 => Err(serde::de::Error::custom("not to be read")),
            3 => std::process::abort(),
            number => Ok(Self(number)),
        }
    }
}

#[mproc::entry]
fn give_back(stubborn: Stubborn) -> Stubborn {
    stubborn
}

#[mproc::entry]
fn make_stubborn(how: u8) -> Stubborn {
    Stubborn(how)
}

#[test]
fn what_cannot_be_encoded_or_decoded_is_told_by_item() {
    let _watchdog = watchdog("what_cannot_be_encoded_or_decoded", LIMIT);
    let pool = Pool::new(2).unwrap();
    mproc_tests::no_core_dump();
    let kind = |result: Result<Stubborn, Error>| result.map_err(|error| error.kind());
    // An argument that cannot be written is an error of the call; so is one of a map.
    assert_eq!(
        kind(pool.apply(give_back::bind(Stubborn(1)))),
        Err(ErrorKind::Encode)
    );
    let some = [Stubborn(0), Stubborn(1), Stubborn(0)];
    assert_eq!(
        pool.map::<give_back>(some).unwrap_err().kind(),
        ErrorKind::Encode
    );
    // What is before one in its chunk is called.
    let some = [0, 5, 1, 0].map(Stubborn);
    let calls = pool.calls().chunk_size(4).in_flight(4);
    let results: Vec<_> = calls
        .imap::<give_back, _>(some.into_iter())
        .map(kind)
        .collect();
    let good = Ok(Stubborn(0));
    assert_eq!(results, [good, Ok(Stubborn(5)), Err(ErrorKind::Encode)]);
    // One that cannot be read, and one whose reader dies, are errors of the item.
    let some = [0, 2, 5, 2, 0].map(Stubborn);
    let calls = pool.calls().chunk_size(5).in_flight(5);
    let results: Vec<_> = calls
        .clone()
        .imap::<give_back, _>(some.into_iter())
        .map(kind)
        .collect();
    let bad = Err(ErrorKind::Decode);
    assert_eq!(results, [good, bad, Ok(Stubborn(5)), bad, good]);
    let some = [0, 3, 5].map(Stubborn);
    let results: Vec<_> = calls
        .clone()
        .imap::<give_back, _>(some.into_iter())
        .map(kind)
        .collect();
    assert_eq!(results, [good, Err(ErrorKind::Killed), Ok(Stubborn(5))]);
    // Values.
    let results: Vec<_> = calls
        .imap::<make_stubborn, _>([0, 1, 2, 5].into_iter())
        .map(kind)
        .collect();
    assert_eq!(
        results,
        [good, Err(ErrorKind::Encode), bad, Ok(Stubborn(5))]
    );
}

#[test]
fn a_worker_costs_no_more_than_five_descriptors() {
    let _watchdog = watchdog("a_worker_costs_no_more_than_five_descriptors", LIMIT);
    assert!(lone::spawn().unwrap().join().unwrap());
}

/// In a process of its own, where nobody else opens anything.
#[mproc::entry]
fn lone() -> bool {
    let this = std::process::id();
    let first = Pool::new(1).unwrap();
    first.map::<square>(0..100).unwrap();
    let before = descriptors_of(this).len();
    let pool = Pool::new(10).unwrap();
    pool.map::<square>(0..1000).unwrap();
    let after = descriptors_of(this).len();
    assert!(
        after - before <= 10 * 5 + 2,
        "{} for ten workers",
        after - before
    );
    drop(pool);
    assert_eq!(descriptors_of(this).len(), before);
    assert_eq!(children_of(this).len(), 1);
    true
}

#[test]
fn forty_workers_under_a_limit_of_256_descriptors() {
    let _watchdog = watchdog("forty_workers_under_a_limit", LIMIT);
    assert_eq!(limited::spawn().unwrap().join().unwrap(), 40);
}

#[mproc::entry]
fn limited() -> usize {
    setrlimit(Resource::RLIMIT_NOFILE, 256, 256).unwrap();
    let pool = Pool::new(40).unwrap();
    let squares: Vec<i64> = (0..5000).map(square).collect();
    assert_eq!(pool.map::<square>(0..5000).unwrap(), squares);
    // More than there is room for is an error, and leaves nothing behind.
    let before = descriptors_of(std::process::id()).len();
    let error = Pool::new(60).unwrap_err();
    let reason = error.io_error().and_then(std::io::Error::raw_os_error);
    assert_eq!(reason, Some(nix::libc::EMFILE), "{error}");
    assert_eq!(descriptors_of(std::process::id()).len(), before);
    for _ in 0..5 {
        pool.workers()[0].kill().unwrap();
        assert_eq!(
            pool.calls().retries(9).map::<square>(0..5000).unwrap(),
            squares
        );
    }
    40
}

#[test]
fn a_worker_that_cannot_be_replaced_now_is_replaced_later() {
    let _watchdog = watchdog("a_worker_that_cannot_be_replaced_now", LIMIT);
    short_of_descriptors::spawn().unwrap().join().unwrap();
}

#[mproc::entry]
fn short_of_descriptors() {
    const FEW: u64 = 10;
    let open = || std::fs::File::open("/dev/null").unwrap();
    // From here on nothing that is closed has a number below.
    let _lowest: Vec<_> = (0..FEW).map(|_| open()).collect();
    let pool = Pool::new(2).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, FEW, hard).unwrap();
    pool.workers()[0].kill().unwrap();
    let squares: Vec<i64> = (0..500).map(square).collect();
    let works = || {
        let calls = pool.calls().retries(9);
        assert_eq!(calls.map::<square>(0..500).unwrap(), squares);
    };
    let workers_become = |count| {
        eventually(|| {
            works();
            pool.workers().len() == count
        });
    };
    workers_become(1);
    works();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    workers_become(2);
    // The last one is another matter.
    setrlimit(Resource::RLIMIT_NOFILE, FEW, hard).unwrap();
    pool.workers()
        .iter()
        .for_each(|worker| worker.kill().unwrap());
    let calls = pool.calls().retries(9);
    let error = calls.apply(square::bind(2)).unwrap_err();
    assert!(error.to_string().contains("Too many open files"), "{error}");
}

#[test]
fn two_hundred_workers_work() {
    let _watchdog = watchdog("two_hundred_workers_work", LIMIT);
    let pool = Pool::new(dose(100, 200)).unwrap();
    let squares: Vec<i64> = (0..20_000).map(square).collect();
    let calls = pool.calls().chunk_size(3);
    assert_eq!(calls.map::<square>(0..20_000).unwrap(), squares);
}

#[test]
fn a_killed_parent_leaves_nothing() {
    let _watchdog = watchdog("a_killed_parent_leaves_nothing", LIMIT);
    let workers = Queue::<Vec<u32>>::new().unwrap();
    let parent = parent_of_a_pool::spawn(&workers).unwrap();
    let ids = workers.get().unwrap();
    assert!(ids.iter().all(|id| runs(*id)));
    parent.kill().unwrap();
    eventually(|| ids.iter().all(|id| !runs(*id)));
}

/// As a terminal does it: everybody in the group gets it, parent and workers.
#[test]
fn ctrl_c_ends_the_parent_and_all_workers_in_silence() {
    let _watchdog = watchdog("ctrl_c_ends_the_parent", LIMIT);
    for _ in 0..dose(5, 200) {
        let workers = Queue::<Vec<u32>>::new().unwrap();
        let parent = parent_of_a_pool::process(&workers).stderr(Stdio::piped());
        let parent = parent.start().unwrap();
        let mut stderr = parent.take_stderr().unwrap();
        let ids = workers.get().unwrap();
        let group = Pid::from_raw(parent.id() as i32);
        killpg(group, Signal::SIGINT).unwrap();
        assert_eq!(parent.wait().unwrap().signal(), Some(Signal::SIGINT as i32));
        eventually(|| ids.iter().all(|id| !runs(*id)));
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "a screenful of traces");
    }
}

#[mproc::entry]
fn parent_of_a_pool(workers: &Queue<Vec<u32>>) {
    heed_signals();
    // A group of its own, as a shell makes one for each command.
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
    let pool = Pool::new(3).unwrap();
    let begun = Queue::new().unwrap();
    let _hanging: Vec<_> = (0..3)
        .map(|_| pool.apply_async(hang::bind(&begun)).unwrap())
        .collect();
    let ids = (0..3).map(|_| begun.get().unwrap()).collect();
    workers.put(ids).unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn many_are_outstanding() {
    let _watchdog = watchdog("many_are_outstanding", LIMIT);
    let pool = Pool::new(2).unwrap();
    let count = dose(100_000, 1_000_000) as i64;
    let results: Vec<_> = (0..count)
        .map(|x| pool.apply_async(square::bind(x)).unwrap())
        .collect();
    for (x, result) in (0..count).zip(results) {
        assert_eq!(result.get().unwrap(), x * x);
    }
}

#[test]
fn outstanding_tasks_take_little_memory() {
    let _watchdog = watchdog("outstanding_tasks_take_little_memory", LIMIT);
    let each = counts_bytes::spawn(dose(200_000, 1_000_000)).unwrap();
    let each = each.join().unwrap();
    // Its argument beside that, for which malloc takes 32.
    assert!(each < 200 + 32, "{each} bytes for each");
}

/// How many bytes each of so many outstanding tasks takes. In a process of its own, where nobody else allocates.
#[mproc::entry]
fn counts_bytes(count: usize) -> u64 {
    let pool = Pool::new(1).unwrap();
    let begun = Queue::new().unwrap();
    let _hangs = pool.apply_async(hang::bind(&begun)).unwrap();
    begun.get().unwrap();
    let before = resident();
    let mut results = Vec::with_capacity(count);
    results.extend((0..count as i64).map(|x| pool.apply_async(square::bind(x)).unwrap()));
    (resident() - before) / count as u64
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn who_is_killed_a_thousand_times_before_it_is_ready_fails_the_pool() {
    let _watchdog = watchdog("who_is_killed_a_thousand_times", LIMIT);
    let pool = Pool::builder()
        .processes(1)
        .initializer(die_by_signal::bind(15))
        .start()
        .unwrap();
    let error = pool.apply(square::bind(1)).unwrap_err();
    assert_eq!(
        (error.kind(), error.signal()),
        (ErrorKind::Killed, Some(15)),
        "{error}"
    );
    pool.join();
    let begun = Instant::now();
    let pool = Pool::builder()
        .processes(1)
        .initializer(die_by_signal::bind(9))
        .start()
        .unwrap();
    let error = pool.apply(square::bind(1)).unwrap_err();
    assert_eq!(
        (error.kind(), error.signal()),
        (ErrorKind::Killed, Some(9)),
        "{error}"
    );
    eprintln!("a thousand starts in {:?}", begun.elapsed());
}

#[mproc::entry]
fn die_by_signal(number: i32) {
    let signal = Signal::try_from(number).unwrap();
    nix::sys::signal::raise(signal).unwrap();
}
