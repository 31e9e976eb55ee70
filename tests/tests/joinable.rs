//! A joinable queue: `join` returns when all is done, and not before, and says what nobody will do any more (G5).

mod queue_shared;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::{Duration, Instant};

use mproc::{Call, Child, JoinError, JoinableQueue, Queue, RecvError, SendError};
use mproc_tests::{Dice, dose, eventually, watchdog};
use queue_shared::Words;

const LIMIT: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(60);

fn kill_it<R>(child: &Child<R>) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "{status}");
}

fn abandoned_by(error: JoinError) -> u64 {
    match error {
        JoinError::Abandoned { count, .. } => count,
        error => panic!("{error:?}"),
    }
}

/// `test_task_done` of CPython.
#[test]
fn join_waits_until_all_is_done() {
    let _watchdog = watchdog("join_waits_until_all_is_done", LIMIT);
    #[mproc::entry]
    fn work(queue: &JoinableQueue<u64>, done: &Words) {
        for number in queue.iter() {
            number.unwrap();
            done[0].fetch_add(1, Relaxed);
            queue.task_done().unwrap();
        }
    }
    for queue in [
        JoinableQueue::new().unwrap(),
        JoinableQueue::bounded(3).unwrap(),
    ] {
        let done = Words::new(1);
        let workers: Vec<_> = (0..4)
            .map(|_| work::spawn(&queue, &done).unwrap())
            .collect();
        let mut expected = 0;
        for _ in 0..dose(100, 10_000) {
            for number in 0..10 {
                queue.put(number).unwrap();
            }
            expected += 10;
            queue.join().unwrap();
            assert_eq!(done[0].load(Relaxed), expected);
        }
        // Again and again, once it is so.
        queue.join().unwrap();
        assert!(queue.join_timeout(Duration::ZERO).unwrap());
        queue.close();
        for worker in workers {
            worker.join().unwrap();
        }
        queue.join().unwrap();
    }
}

/// Not even what was got is done.
#[test]
fn unread_and_undone_items_are_waited_for() {
    let _watchdog = watchdog("unread_and_undone_items_are_waited_for", LIMIT);
    let queue = JoinableQueue::new().unwrap();
    queue.join().unwrap();
    assert!(queue.join_timeout(Duration::MAX).unwrap());
    queue.put(1).unwrap();
    for timeout in [Duration::ZERO, Duration::from_nanos(1), SHORT] {
        let start = Instant::now();
        assert!(!queue.join_timeout(timeout).unwrap());
        assert!(start.elapsed() >= timeout);
    }
    assert_eq!(queue.get().unwrap(), 1);
    assert!(!queue.join_timeout(SHORT).unwrap());
    queue.task_done().unwrap();
    queue.join().unwrap();
}

#[test]
fn one_done_too_many_is_an_error() {
    let _watchdog = watchdog("one_done_too_many_is_an_error", LIMIT);
    let queue = JoinableQueue::new().unwrap();
    let too_many = |queue: &JoinableQueue<u8>| {
        let error = queue.task_done().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("task_done() called too many times"), "{text}");
    };
    too_many(&queue);
    for number in 0..3 {
        queue.put(number).unwrap();
        queue.get().unwrap();
    }
    for _ in 0..3 {
        queue.task_done().unwrap();
    }
    too_many(&queue);
    queue.join().unwrap();
    // The error has changed nothing.
    queue.put(1).unwrap();
    assert!(!queue.join_timeout(Duration::ZERO).unwrap());
    drop(queue.get_job().unwrap());
    queue.join().unwrap();
}

/// Nobody else is made to wait for one that nobody could put.
#[test]
fn a_put_that_failed_is_not_waited_for() {
    let _watchdog = watchdog("a_put_that_failed_is_not_waited_for", LIMIT);
    #[derive(Debug)]
    struct Refuses;
    impl serde::Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let queue = JoinableQueue::bounded(1).unwrap();
    let error = queue.put(Refuses).unwrap_err();
    assert!(matches!(error, SendError::Encode(..)), "{error:?}");
    queue.join().unwrap();
    let queue = JoinableQueue::bounded(1).unwrap();
    queue.put(1).unwrap();
    assert!(matches!(queue.try_put(2), Err(SendError::Full(2))));
    assert!(matches!(
        queue.put_timeout(2, Duration::ZERO),
        Err(SendError::Timeout(2))
    ));
    queue.close();
    assert!(matches!(queue.put(2), Err(SendError::Closed(2))));
    assert_eq!(*queue.get_job().unwrap(), 1);
    queue.join().unwrap();
    assert!(matches!(queue.get_job(), Err(RecvError::Closed)));
}

#[test]
fn a_job_is_done_when_it_is_dropped() {
    let _watchdog = watchdog("a_job_is_done_when_it_is_dropped", LIMIT);
    let queue = JoinableQueue::new().unwrap();
    for text in ["dropped", "taken", "unwound", "forgotten"] {
        queue.put(text.to_owned()).unwrap();
    }
    let job = queue.get_job().unwrap();
    assert_eq!((job.len(), job.as_str()), (7, "dropped"));
    drop(job);
    assert_eq!(queue.get_job().unwrap().into_inner(), "taken");
    let unwound = thread::scope(|scope| {
        let job = queue.get_job().unwrap();
        scope
            .spawn(move || {
                assert_eq!(*job, "unwound");
                panic!("a panic that is part of a test");
            })
            .join()
    });
    assert!(unwound.is_err());
    assert!(!queue.join_timeout(Duration::ZERO).unwrap());
    std::mem::forget(queue.get_job().unwrap());
    assert!(!queue.join_timeout(SHORT).unwrap());
    queue.task_done().unwrap();
    queue.join().unwrap();
}

/// All who wait hear of the last item, wherever they are.
#[test]
fn many_join_at_once() {
    let _watchdog = watchdog("many_join_at_once", LIMIT);
    #[mproc::entry]
    fn join_it(queue: &JoinableQueue<u64>, about_to: &Queue<()>) {
        about_to.put(()).unwrap();
        queue.join().unwrap();
        assert_eq!(queue.len(), 0);
    }
    let queue = JoinableQueue::new().unwrap();
    let about_to = Queue::new().unwrap();
    for _ in 0..dose(5, 200) {
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        let joiners = [(); 4].map(|()| join_it::spawn(&queue, &about_to).unwrap());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| queue.join().unwrap());
            }
            for _ in &joiners {
                about_to.get().unwrap();
            }
            drop(queue.get_job().unwrap());
            assert!(joiners.iter().all(|joiner| joiner.is_alive()));
            drop(queue.get_job().unwrap());
        });
        for joiner in joiners {
            joiner.join().unwrap();
        }
    }
}

/// A consumer program of Python's manual: calls in the tasks, results in another queue.
#[test]
fn calls_are_fed_to_consumers_and_run() {
    let _watchdog = watchdog("calls_are_fed_to_consumers_and_run", LIMIT);
    #[mproc::entry]
    fn multiply(a: u64, b: u64) -> String {
        format!("{a} * {b} = {}", a * b)
    }
    #[mproc::entry]
    fn consume_calls(tasks: &JoinableQueue<Option<Call<String>>>, results: &Queue<String>) -> u32 {
        let mut count = 0;
        loop {
            let job = tasks.get_job().unwrap();
            let Some(call) = job.into_inner() else {
                return count;
            };
            results.put(call.run().unwrap()).unwrap();
            count += 1;
        }
    }
    let (tasks, results) = (JoinableQueue::new().unwrap(), Queue::new().unwrap());
    let consumers = [(); 3].map(|()| consume_calls::spawn(&tasks, &results).unwrap());
    for number in 0..30 {
        tasks.put(Some(multiply::bind(number, number))).unwrap();
    }
    for _ in &consumers {
        tasks.put(None).unwrap();
    }
    tasks.join().unwrap();
    let counts = consumers.map(|consumer| consumer.join().unwrap());
    assert_eq!(counts.iter().sum::<u32>(), 30);
    let mut texts: Vec<String> = (0..30).map(|_| results.get().unwrap()).collect();
    let mut expected: Vec<String> = (0..30).map(|number| multiply(number, number)).collect();
    texts.sort_unstable();
    expected.sort_unstable();
    assert_eq!(texts, expected);
}

// --- consumers that die

/// Gets `undone + done` items and marks `done` of them done, then says so and stays.
#[mproc::entry]
fn take(queue: &JoinableQueue<u64>, done: u64, undone: u64, said: &Words) {
    for number in 0..done + undone {
        queue.get().unwrap();
        if number < done {
            queue.task_done().unwrap();
        }
    }
    said[0].fetch_add(1, Release);
    loop {
        thread::park();
    }
}

/// As a daemon: should the test fail, this program ends nevertheless.
fn start_to_take(queue: &JoinableQueue<u64>, done: u64, undone: u64, said: &Words) -> Child<()> {
    let process = take::process(queue, done, undone, said);
    process.daemon(true).start().unwrap()
}

#[test]
fn what_the_dead_had_not_done_is_counted() {
    let _watchdog = watchdog("what_the_dead_had_not_done_is_counted", LIMIT);
    for (done, undone) in [(0, 1), (1, 1), (5, 0), (0, 7), (100, 30), (1, 1000)] {
        let queue = JoinableQueue::new().unwrap();
        let said = Words::new(1);
        for number in 0..2 * (done + undone) {
            queue.put(number).unwrap();
        }
        let consumers = [(); 2].map(|()| start_to_take(&queue, done, undone, &said));
        eventually(|| said[0].load(Acquire) == 2);
        if undone > 0 {
            assert!(!queue.join_timeout(Duration::from_millis(5)).unwrap());
        }
        for consumer in &consumers {
            kill_it(consumer);
        }
        if undone == 0 {
            queue.join().unwrap();
            continue;
        }
        // Until somebody says that it is all right.
        for _ in 0..3 {
            assert_eq!(abandoned_by(queue.join().unwrap_err()), 2 * undone);
            let error = queue.join_timeout(Duration::MAX).unwrap_err();
            assert_eq!(abandoned_by(error), 2 * undone);
        }
        assert_eq!(queue.mark_consistent(), 2 * undone);
        queue.join().unwrap();
        // The account starts anew.
        queue.put(1).unwrap();
        assert_eq!(queue.unfinished(), 1);
        drop(queue.get_job().unwrap());
        queue.join().unwrap();
    }
}

/// It is no difference how a process ends without having done its items.
#[test]
fn who_ends_with_items_in_hand_has_abandoned_them() {
    let _watchdog = watchdog("who_ends_with_items_in_hand_has_abandoned_them", LIMIT);
    #[mproc::entry]
    fn take_two_and_end(queue: &JoinableQueue<u64>, how: &str) {
        queue.get().unwrap();
        std::mem::forget(queue.get_job().unwrap());
        match how {
            "returns" => {}
            "exits" => std::process::exit(3),
            "panics" => panic!("a panic that is part of a test"),
            _ => mproc_tests::kill_myself(),
        }
    }
    let queue = JoinableQueue::new().unwrap();
    for (rounds, how) in (1..).zip(["returns", "exits", "panics", "is killed"]) {
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        let child = take_two_and_end::process(&queue, how)
            .stderr(mproc::Stdio::null())
            .start()
            .unwrap();
        child.wait().unwrap();
        // A child of another test that is being started just now has a copy of the dead one's open file until it executes.
        eventually(|| abandoned_by(queue.join().unwrap_err()) == 2 * rounds);
    }
    assert_eq!(queue.mark_consistent(), 8);
    queue.join().unwrap();
}

/// It is asleep in `join` when the only one who could end its wait is killed.
#[test]
fn a_waiting_join_hears_of_the_death() {
    let _watchdog = watchdog("a_waiting_join_hears_of_the_death", LIMIT);
    let mut dice = Dice::new("a_waiting_join_hears_of_the_death");
    let said = Words::new(1);
    for _ in 0..dose(60, 4_000) {
        let queue = JoinableQueue::new().unwrap();
        queue.put(1).unwrap();
        said[0].store(0, Relaxed);
        let consumer = start_to_take(&queue, 0, 1, &said);
        eventually(|| said[0].load(Acquire) == 1);
        thread::scope(|scope| {
            let joiners = [
                scope.spawn(|| queue.join().unwrap_err()),
                scope.spawn(|| queue.join_timeout(Duration::MAX).unwrap_err()),
            ];
            dice.pause(Duration::from_micros(200));
            kill_it(&consumer);
            let killed = Instant::now();
            for joiner in joiners {
                assert_eq!(abandoned_by(joiner.join().unwrap()), 1);
            }
            assert!(killed.elapsed() < Duration::from_secs(10));
        });
    }
}

/// Items that nobody will take are not waited for.
#[test]
fn a_join_without_anybody_to_do_the_rest_is_an_error() {
    let _watchdog = watchdog("a_join_without_anybody_to_do_the_rest", LIMIT);
    let said = Words::new(1);
    for is_killed in [true, false] {
        let queue = JoinableQueue::new().unwrap();
        for number in 0..10 {
            queue.put(number).unwrap();
        }
        if is_killed {
            said[0].store(0, Relaxed);
            let consumer = start_to_take(&queue, 3, 0, &said);
            eventually(|| said[0].load(Acquire) == 1);
            // With somebody there, it waits.
            assert!(!queue.join_timeout(SHORT).unwrap());
            kill_it(&consumer);
        } else {
            #[mproc::entry]
            fn do_three(queue: JoinableQueue<u64>) {
                for _ in 0..3 {
                    drop(queue.get_job().unwrap());
                }
            }
            do_three::spawn(queue.clone()).unwrap().join().unwrap();
        }
        for error in [queue.join(), queue.join_timeout(Duration::MAX).map(|_| ())] {
            match error.unwrap_err() {
                JoinError::Disconnected { count, .. } => assert_eq!(count, 7),
                error => panic!("{error:?}"),
            }
        }
        // It may do them itself.
        for _ in 0..7 {
            drop(queue.get_job().unwrap());
        }
        queue.join().unwrap();
    }
}

const TAKEN: u64 = 1;
const BEGUN: u64 = 2;
const DONE: u64 = 3;

/// Some microseconds, different for each item.
fn work_on(item: usize) {
    for _ in 0..item % 50 * 10 {
        std::hint::spin_loop();
    }
}

/// Does items, and records of each who has it and how far it is.
#[mproc::entry]
fn do_items(queue: &JoinableQueue<u64>, states: &Words, own: u64) {
    let record = |item: usize, stage: u64| states[item].store(own << 8 | stage, Release);
    for number in 0_u64.. {
        if number % 2 == 0 {
            let item = queue.get().unwrap() as usize;
            record(item, TAKEN);
            work_on(item);
            record(item, BEGUN);
            queue.task_done().unwrap();
            record(item, DONE);
        } else {
            let job = queue.get_job().unwrap();
            let item = *job as usize;
            record(item, TAKEN);
            work_on(item);
            record(item, BEGUN);
            drop(job);
            record(item, DONE);
        }
    }
}

/// Killed at any moment. Each item is done or abandoned, `join` never hangs, and the count is that of the abandoned.
#[test]
fn dead_consumers_are_counted_exactly() {
    let _watchdog = watchdog("dead_consumers_are_counted_exactly", LIMIT);
    let mut dice = Dice::new("dead_consumers_are_counted_exactly");
    const ITEMS: usize = 3_000;
    const KILLS: usize = 4;
    let mut total = 0;
    for round in 0..dose(30, 1_500) {
        let queue = match round % 3 {
            0 => JoinableQueue::bounded(10).unwrap(),
            _ => JoinableQueue::new().unwrap(),
        };
        let states = Words::new(ITEMS);
        let is_done = |state: u64| state & 0xff == DONE;
        let done = || {
            let states = states.iter().map(|state| state.load(Acquire));
            states.filter(|state| is_done(*state)).count()
        };
        let mut started = 0;
        let mut start = || {
            started += 1;
            let process = do_items::process(&queue, &states, started);
            (process.daemon(true).start().unwrap(), started)
        };
        let mut consumers = [start(), start(), start()];
        let abandoned = thread::scope(|scope| {
            let putter = scope.spawn(|| {
                for item in 0..ITEMS {
                    queue.put(item as u64).unwrap();
                }
            });
            for _ in 0..KILLS {
                let killed = dice.below(3) as usize;
                let before = done();
                if before < ITEMS / 2 {
                    eventually(|| done() > before);
                }
                dice.pause(Duration::from_micros(400));
                kill_it(&consumers[killed].0);
                consumers[killed] = start();
            }
            putter.join().unwrap();
            // Told of those that went down so far, one asks again for the others.
            let mut abandoned = 0;
            while let Err(error) = queue.join() {
                let count = abandoned_by(error);
                let marked = queue.mark_consistent();
                assert!(marked >= count);
                abandoned += marked as usize;
            }
            abandoned
        });
        assert!(queue.is_empty());
        let living = consumers.each_ref().map(|(_, number)| *number);
        // The living have done what they had, and say so in a moment.
        eventually(|| {
            let states = states.iter().map(|state| state.load(Acquire));
            let mut of_living = states.filter(|state| living.contains(&(state >> 8)));
            of_living.all(is_done)
        });
        let (mut in_hands, mut in_doubt) = (0, 0);
        for state in states.iter().map(|state| state.load(Acquire)) {
            in_hands += usize::from(!is_done(state));
            in_doubt += usize::from(state & 0xff == BEGUN);
        }
        assert!(in_hands <= KILLS, "{in_hands} in {KILLS} dead hands");
        total += abandoned;
        assert!(
            (in_hands - in_doubt..=in_hands).contains(&abandoned),
            "{abandoned} abandoned, {in_hands} in dead hands, {in_doubt} of them perhaps done"
        );
        for (consumer, _) in &consumers {
            kill_it(consumer);
        }
        // Those had nothing in their hands.
        queue.join().unwrap();
    }
    eprintln!("{total} abandoned");
    assert!(total > 0, "no kill came in time to test anything");
}

#[test]
fn a_joinable_queue_does_what_a_queue_does() {
    fn any_thread<T: Send + Sync + Clone>() {}
    any_thread::<JoinableQueue<std::cell::Cell<u8>>>();
    let _watchdog = watchdog("a_joinable_queue_does_what_a_queue_does", LIMIT);
    let queue = JoinableQueue::bounded(2).unwrap();
    assert!(matches!(queue.try_get(), Err(RecvError::Empty)));
    assert!(matches!(
        queue.get_timeout(Duration::from_millis(1)),
        Err(RecvError::Timeout)
    ));
    queue.put(1).unwrap();
    queue.try_put(2).unwrap();
    assert!(queue.is_full() && !queue.is_empty() && !queue.is_closed());
    assert_eq!((queue.len(), queue.capacity()), (2, Some(2)));
    let clone = queue.clone();
    assert_eq!(clone.get_timeout(Duration::MAX).unwrap(), 1);
    assert_eq!(clone.try_get().unwrap(), 2);
    clone.task_done().unwrap();
    queue.task_done().unwrap();
    queue.join().unwrap();
    queue.put(3).unwrap();
    queue.close();
    assert!(clone.is_closed());
    let left: Vec<i32> = queue.iter().map(Result::unwrap).collect();
    assert_eq!(left, [3]);
    clone.task_done().unwrap();
    clone.join().unwrap();
}
