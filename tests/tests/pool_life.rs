//! What a pool does from its start to its end: recycling, callbacks, waiting for many, shutting down, pools inside pools.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use mproc::{ErrorKind, Pool, Queue, StartMethod, as_completed, wait_any};
use mproc_tests::{dose, eventually, runs, watchdog};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);

#[mproc::entry]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn id_of(_: u32) -> u32 {
    std::process::id()
}

#[mproc::entry]
fn facts() -> (String, Option<String>, i32) {
    // SAFETY: takes two numbers.
    let niceness = unsafe { nix::libc::getpriority(nix::libc::PRIO_PROCESS, 0) };
    let name = mproc::current_process().name().to_owned();
    (name, std::env::var("FLAVOUR").ok(), niceness)
}

#[mproc::entry]
fn hang(begun: &Queue<u32>) {
    begun.put(std::process::id()).unwrap();
    loop {
        thread::park();
    }
}

#[mproc::entry]
fn leak(bytes: usize) -> u32 {
    std::mem::forget(vec![1_u8; bytes]);
    std::process::id()
}

#[mproc::entry]
fn pool_inside(count: i64) -> i64 {
    let pool = Pool::new(2).unwrap();
    pool.map::<square>(0..count).unwrap().into_iter().sum()
}

#[test]
fn a_worker_is_replaced_after_so_many_tasks() {
    let _watchdog = watchdog("a_worker_is_replaced_after_so_many_tasks", LIMIT);
    let pool = Pool::builder()
        .processes(1)
        .max_tasks_per_child(3)
        .start()
        .unwrap();
    for chunk in [1, 10] {
        let ids = pool.calls().chunk_size(chunk).map::<id_of>(0..30).unwrap();
        assert!(
            ids.chunks(3)
                .all(|three| three.iter().all(|id| *id == three[0])),
            "{ids:?}"
        );
        assert!(ids.windows(4).all(|four| four[0] != four[3]), "{ids:?}");
    }
}

#[test]
fn a_worker_that_grows_or_is_old_is_replaced() {
    let _watchdog = watchdog("a_worker_that_grows_or_is_old", LIMIT);
    let pool = Pool::builder()
        .processes(1)
        .max_memory_growth(64 << 20)
        .start()
        .unwrap();
    let first = pool.apply(leak::bind(1 << 20)).unwrap();
    assert_eq!(pool.apply(leak::bind(80 << 20)).unwrap(), first);
    assert_ne!(pool.apply(leak::bind(0)).unwrap(), first);
    let pool = Pool::builder()
        .processes(1)
        .max_age(Duration::ZERO)
        .start()
        .unwrap();
    assert_ne!(
        pool.apply(id_of::bind(0)).unwrap(),
        pool.apply(id_of::bind(0)).unwrap()
    );
}

#[test]
fn workers_have_names_variables_and_niceness() {
    let _watchdog = watchdog("workers_have_names_variables_and_niceness", LIMIT);
    let builder = Pool::builder()
        .processes(1)
        .env("FLAVOUR", "sweet")
        .start_method(StartMethod::Spawn)
        .niceness(5);
    // SAFETY: takes two numbers.
    let ours = unsafe { nix::libc::getpriority(nix::libc::PRIO_PROCESS, 0) };
    let expected = (
        "PoolWorker-1".to_owned(),
        Some("sweet".to_owned()),
        (ours + 5).min(19),
    );
    assert_eq!(
        builder.start().unwrap().apply(facts::bind()).unwrap(),
        expected
    );
}

#[test]
fn workers_have_what_is_asked_for_each() {
    let _watchdog = watchdog("workers_have_what_is_asked_for_each", LIMIT);
    let pool = Pool::builder()
        .processes(2)
        .name_prefix("Taster")
        .env_for_each("FLAVOUR", |place| format!("number {place}"))
        .max_tasks_per_child(1)
        .start()
        .unwrap();
    let mut names = BTreeSet::new();
    for _ in 0..20 {
        let (name, flavour, _) = pool.apply(facts::bind()).unwrap();
        assert!(["number 0", "number 1"].contains(&&*flavour.unwrap()));
        let number = name.strip_prefix("Taster-").unwrap();
        assert!(names.insert(number.parse::<u32>().unwrap()));
    }
    // Each was given to one at least, and none to two at once.
    let begun = Queue::new().unwrap();
    let builder = Pool::builder().processes(3);
    let builder = builder.env_for_each("FLAVOUR", |place| place.to_string());
    let pool = builder.start().unwrap();
    let _tasks = [(); 3].map(|()| pool.apply_async(taste::bind(&begun)).unwrap());
    let flavours: BTreeSet<String> = (0..3).map(|_| begun.get().unwrap()).collect();
    assert_eq!(Vec::from_iter(flavours), ["0", "1", "2"]);
}

#[mproc::entry]
fn taste(begun: &Queue<String>) {
    begun.put(std::env::var("FLAVOUR").unwrap()).unwrap();
    loop {
        thread::park();
    }
}

#[mproc::entry]
fn die_once(tries: &Queue<u32>) -> u32 {
    tries.put(std::process::id()).unwrap();
    let count = tries.len() as u32;
    if count == 1 {
        kill(Pid::this(), Signal::SIGKILL).unwrap();
    }
    count
}

#[test]
fn a_pool_may_retry_what_no_call_does() {
    let _watchdog = watchdog("a_pool_may_retry_what_no_call_does", LIMIT);
    let pool = Pool::builder().processes(1).retries(1).start().unwrap();
    assert_eq!(
        pool.apply(die_once::bind(&Queue::new().unwrap())).unwrap(),
        2
    );
    let never = pool.calls().retries(0);
    let error = never
        .apply(die_once::bind(&Queue::new().unwrap()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Killed);
}

#[mproc::entry]
fn fail_to_load() {
    panic!("no model here");
}

#[test]
fn on_demand_workers_start_when_there_is_work_for_them() {
    let _watchdog = watchdog("on_demand_workers_start", LIMIT);
    let builder = || Pool::builder().processes(3).on_demand(true);
    let pool = builder().start().unwrap();
    assert!(pool.workers().is_empty());
    pool.close();
    pool.join();

    let pool = builder().start().unwrap();
    let first = pool.apply(id_of::bind(0)).unwrap();
    for _ in 0..20 {
        assert_eq!(pool.apply(id_of::bind(0)).unwrap(), first);
    }
    let begun = Queue::new().unwrap();
    let hanging = [(); 2].map(|()| pool.apply_async(hang::bind(&begun)).unwrap());
    let ids = [(); 2].map(|()| begun.get().unwrap());
    assert!(ids.contains(&first) && ids[0] != ids[1], "{ids:?}");
    assert_eq!(pool.workers().len(), 2);
    // A third one, while nobody here waits, and while somebody sleeps on the others.
    let result = pool.apply_async(square::bind(3)).unwrap();
    eventually(|| result.is_ready());
    assert_eq!(pool.workers().len(), 3);
    // Nobody comes in place of who ends, before there is something to do.
    hanging[0].cancel();
    hanging[0].wait();
    assert_eq!(pool.workers().len(), 2);
    assert_eq!(pool.map::<square>(0..1000).unwrap().len(), 1000);
    assert_eq!(pool.workers().len(), 3);
    pool.terminate();
    pool.join();
    assert!(!hanging[1].is_successful());

    let pool = builder().initializer(fail_to_load::bind()).start().unwrap();
    let error = pool.apply(square::bind(1)).unwrap_err();
    assert!(error.is_panic(), "{error}");
}

/// Threads that submit while another sleeps on the only worker.
#[test]
fn on_demand_tasks_that_wait_for_each_other_run_at_once() {
    let _watchdog = watchdog("on_demand_tasks_run_at_once", LIMIT);
    for _ in 0..dose(5, 100) {
        let pool = Pool::builder()
            .processes(4)
            .on_demand(true)
            .start()
            .unwrap();
        let queues = [(); 4].map(|()| Queue::new().unwrap());
        thread::scope(|scope| {
            for queue in &queues {
                scope.spawn(|| pool.apply(hang::bind(queue)).unwrap_err());
                // Each begins although those before it go on.
                queue.get().unwrap();
            }
            pool.terminate();
        });
    }
}

#[test]
fn callbacks_run_before_waiters_wake_and_their_panics_harm_nothing() {
    let _watchdog = watchdog("callbacks_run_before_waiters_wake", LIMIT);
    let pool = Arc::new(Pool::new(2).unwrap());
    let called = Arc::new(AtomicUsize::new(0));
    for x in 0..100 {
        let (count, within) = (Arc::clone(&called), Arc::clone(&pool));
        let result = pool
            .calls()
            .apply_async_with(square::bind(x), move |value| {
                assert_eq!(*value.as_ref().unwrap(), x * x);
                // It may use the pool itself.
                assert_eq!(within.apply(square::bind(2)).unwrap(), 4);
                count.fetch_add(1, Ordering::SeqCst);
            });
        assert_eq!(result.unwrap().get().unwrap(), x * x);
        assert_eq!(called.load(Ordering::SeqCst), x as usize + 1);
    }
    let (sender, receiver) = mpsc::channel();
    let all = pool
        .calls()
        .map_async_with::<square>(0..1000, move |values| {
            sender.send(values.as_ref().unwrap().len()).unwrap();
        });
    // Nobody waits for it, and still it runs.
    assert_eq!(receiver.recv(), Ok(1000));
    assert_eq!(all.unwrap().get().unwrap().len(), 1000);
    let call = square::bind(1);
    let broken = pool
        .calls()
        .apply_async_with(call, |_| panic!("a broken callback"));
    broken.unwrap().wait();
    assert_eq!(pool.apply(square::bind(3)).unwrap(), 9);
}

#[test]
fn successes_are_told_from_failures() {
    let _watchdog = watchdog("successes_are_told_from_failures", LIMIT);
    let pool = Pool::new(1).unwrap();
    let (good, begun) = (
        pool.apply_async(square::bind(1)).unwrap(),
        Queue::new().unwrap(),
    );
    good.wait();
    assert!(good.is_ready() && good.is_successful());
    let bad = pool.apply_async(hang::bind(&begun)).unwrap();
    assert!(!bad.is_ready() && !bad.is_successful());
    bad.cancel();
    bad.wait();
    assert!(bad.is_ready() && !bad.is_successful());
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_result_is_a_future_of_any_executor() {
    let _watchdog = watchdog("a_result_is_a_future", LIMIT);
    let pool = Pool::new(2).unwrap();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    for x in 0..200 {
        let mut result = pin!(pool.apply_async(square::bind(x)).unwrap());
        let value = loop {
            match result.as_mut().poll(&mut context) {
                Poll::Ready(value) => break value,
                Poll::Pending => thread::park(),
            }
        };
        assert_eq!(value.unwrap(), x * x);
    }
}

#[test]
fn one_of_many_is_waited_for() {
    let _watchdog = watchdog("one_of_many_is_waited_for", LIMIT);
    let (pool, other) = (Pool::new(2).unwrap(), Pool::new(1).unwrap());
    let begun = Queue::<u32>::new().unwrap();
    let hanging = pool.apply_async(hang::bind(&begun)).unwrap();
    assert_eq!(
        wait_any(
            std::slice::from_ref(&hanging),
            Some(Duration::from_millis(1))
        ),
        []
    );
    assert_eq!(wait_any::<()>(&[], None), []);
    let two = [hanging, other.apply_async(nothing::bind()).unwrap()];
    assert_eq!(wait_any(&two, None), [1]);
    // So many that a look at all of them for each would be noticed.
    let results: Vec<_> = (0..20_000)
        .map(|x| pool.apply_async(square::bind(x)).unwrap())
        .collect();
    let mut seen: Vec<i64> = as_completed(results)
        .map(|(index, value)| {
            assert_eq!(value.unwrap(), (index * index) as i64);
            index as i64
        })
        .collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..20_000));
}

#[mproc::entry]
fn nothing() {}

#[test]
fn shutting_down_has_grace_and_then_force() {
    let _watchdog = watchdog("shutting_down_has_grace", LIMIT);
    let pool = Pool::new(2).unwrap();
    let all = pool.map_async::<square>(0..1000).unwrap();
    pool.shutdown(LIMIT);
    assert_eq!(all.get().unwrap().len(), 1000);
    type End = fn(&Pool);
    let ends: [End; 3] = [
        |pool| pool.shutdown(Duration::from_millis(1)),
        |pool| pool.terminate_workers(LIMIT),
        Pool::kill_workers,
    ];
    for end in ends {
        let pool = Pool::new(2).unwrap();
        let begun = Queue::new().unwrap();
        let hanging = pool.apply_async(hang::bind(&begun)).unwrap();
        let worker = begun.get().unwrap();
        end(&pool);
        assert_eq!(hanging.get().unwrap_err().kind(), ErrorKind::ShutDown);
        assert!(!runs(worker) && pool.workers().is_empty());
        assert_eq!(
            pool.apply(square::bind(1)).unwrap_err().kind(),
            ErrorKind::ShutDown
        );
    }
}

#[test]
fn pools_nest_and_stand_in_statics() {
    let _watchdog = watchdog("pools_nest_and_stand_in_statics", LIMIT);
    static POOL: OnceLock<Pool> = OnceLock::new();
    let pool = POOL.get_or_init(|| Pool::new(2).unwrap());
    let sums = pool.map::<pool_inside>([10, 100, 0]).unwrap();
    assert_eq!(sums, [285, 328_350, 0]);
    assert_eq!(has_a_pool_in_a_static::spawn().unwrap().join().unwrap(), 16);
}

/// Ends with a pool that is never dropped.
#[mproc::entry]
fn has_a_pool_in_a_static() -> i64 {
    static POOL: OnceLock<Pool> = OnceLock::new();
    let pool = POOL.get_or_init(|| Pool::new(2).unwrap());
    // Still under way at the exit.
    drop(pool.map_async::<square>(0..100_000).unwrap());
    pool.apply(square::bind(4)).unwrap()
}

#[test]
fn ctrl_c_is_the_parents_business() {
    let _watchdog = watchdog("ctrl_c_is_the_parents_business", LIMIT);
    let pool = Pool::new(2).unwrap();
    let begun = Queue::new().unwrap();
    let go_on = Queue::new().unwrap();
    let running = pool.apply_async(holds_on::bind(&begun, &go_on)).unwrap();
    let worker = begun.get().unwrap();
    // As the terminal sends it to everybody in the group; the default would end this process, so each worker gets it alone.
    for worker in pool.workers() {
        kill(Pid::from_raw(worker.id() as i32), Signal::SIGINT).unwrap();
    }
    go_on.put(()).unwrap();
    assert_eq!(running.get().unwrap(), worker);
}

#[mproc::entry]
fn holds_on(begun: &Queue<u32>, go_on: &Queue<()>) -> u32 {
    begun.put(std::process::id()).unwrap();
    go_on.get().unwrap();
    std::process::id()
}

#[test]
fn threads_share_a_pool_under_many_forms_of_call() {
    let _watchdog = watchdog("threads_share_a_pool_under_many_forms", LIMIT);
    let pool = Pool::new(2).unwrap();
    thread::scope(|scope| {
        for thread in 0..3_i64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..100 {
                    let results: Vec<_> = (0..10)
                        .map(|x| pool.apply_async(square::bind(x + thread)).unwrap())
                        .collect();
                    let squares: Vec<i64> = (0..round).map(square).collect();
                    assert_eq!(pool.map::<square>(0..round).unwrap(), squares);
                    for (x, result) in (0..10).zip(results) {
                        assert_eq!(result.get().unwrap(), square(x + thread));
                    }
                    let sum: i64 = pool
                        .imap_unordered::<square>(0..20)
                        .map(Result::unwrap)
                        .sum();
                    assert_eq!(sum, 2470);
                }
            });
        }
    });
}

#[test]
fn two_workers_work_on_two_cores() {
    let _watchdog = watchdog("two_workers_work_on_two_cores", LIMIT);
    if mproc::cpu_count() < 2 {
        return;
    }
    let count = dose(400, 2000);
    for _ in 0..dose(2, 20) {
        let pool = Pool::new(2).unwrap();
        let calls = pool.calls().chunk_size(1);
        let places = calls.map::<burn>((0..count).map(|_| 1)).unwrap();
        let mut cores_of = BTreeMap::<u32, BTreeMap<i32, usize>>::new();
        for (worker, core) in places {
            *cores_of.entry(worker).or_default().entry(core).or_default() += 1;
        }
        // How the work is divided is up to what else wants the cores, and on a machine that is busy the kernel moves a worker now and then.
        let homes = cores_of.values().map(|cores| {
            let (home, most) = cores.iter().max_by_key(|(_, count)| **count).unwrap();
            assert!(
                3 * most >= 2 * cores.values().sum::<usize>(),
                "{cores_of:?}"
            );
            home
        });
        let homes: BTreeSet<_> = homes.collect();
        assert_eq!((cores_of.len(), homes.len()), (2, 2), "{cores_of:?}");
    }
}

/// Uses a processor for so many milliseconds, and tells who and where.
#[mproc::entry]
fn burn(milliseconds: u64) -> (u32, i32) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(milliseconds) {
        std::hint::spin_loop();
    }
    // SAFETY: takes and touches nothing.
    (std::process::id(), unsafe { nix::libc::sched_getcpu() })
}
