//! What a queue does when nobody dies: Python's table of full and empty, order, deadlines, closing, and errors that cost
//! nothing, or one message.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use mproc::{ErrorKind, Queue, RecvError, SendError};
use mproc_tests::{dose, eventually, interruptions, state_of, storm, watchdog};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs what has to take at least `least`.
fn never_early<T>(least: Duration, wait: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = wait();
    let took = start.elapsed();
    assert!(took >= least, "{took:?} instead of {least:?}");
    result
}

/// Runs what must not wait. The bound is that of a machine that is very busy.
fn at_once<T>(act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    result
}

/// Waits until a process, which has said that it is about to, sleeps. It may be about to sleep still, and then the test shows less.
fn until_asleep(id: u32) {
    let mut asleep = 0;
    eventually(|| {
        asleep = if state_of(id) == Some('S') {
            asleep + 1
        } else {
            0
        };
        asleep > 3
    });
}

const SHORT: Duration = Duration::from_millis(60);

/// `test_put` of CPython.
#[test]
fn every_form_of_put_fills_up_and_then_says_full() {
    let _watchdog = watchdog("every_form_of_put_fills_up_and_then_says_full", LIMIT);
    let queue = Queue::<String>::bounded(6).unwrap();
    assert!(queue.is_empty() && !queue.is_full());
    assert_eq!((queue.len(), queue.capacity()), (0, Some(6)));
    queue.put("1".into()).unwrap();
    queue.try_put("2".into()).unwrap();
    queue.put_timeout("3".into(), Duration::ZERO).unwrap();
    queue.put_timeout("4".into(), Duration::MAX).unwrap();
    queue.put_timeout("5".into(), SHORT).unwrap();
    assert!(!queue.is_empty() && !queue.is_full());
    queue.put("6".into()).unwrap();
    assert!(!queue.is_empty() && queue.is_full());
    assert_eq!(queue.len(), 6);
    let full = at_once(|| queue.try_put("7".into())).unwrap_err();
    assert!(
        matches!(&full, SendError::Full(message) if message == "7"),
        "{full:?}"
    );
    assert_eq!(full.into_inner(), "7");
    for timeout in [Duration::ZERO, Duration::from_nanos(1), SHORT] {
        let late = never_early(timeout, || queue.put_timeout("8".into(), timeout)).unwrap_err();
        assert!(
            matches!(&late, SendError::Timeout(message) if message == "8"),
            "{late:?}"
        );
    }
    let texts: Vec<String> = (0..6).map(|_| queue.get().unwrap()).collect();
    assert_eq!(texts, ["1", "2", "3", "4", "5", "6"]);
    assert!(queue.is_empty() && !queue.is_full());
    queue.try_put("9".into()).unwrap();
    assert_eq!(queue.get().unwrap(), "9");
}

/// `test_get` of CPython.
#[test]
fn every_form_of_get_gives_the_next_and_then_says_empty() {
    let _watchdog = watchdog(
        "every_form_of_get_gives_the_next_and_then_says_empty",
        LIMIT,
    );
    #[mproc::entry]
    fn put_five(queue: &Queue<u32>) {
        for number in 1..=5 {
            queue.put(number).unwrap();
        }
    }
    for queue in [Queue::new().unwrap(), Queue::bounded(5).unwrap()] {
        put_five::spawn(&queue).unwrap().join().unwrap();
        assert_eq!(queue.get().unwrap(), 1);
        assert_eq!(queue.try_get().unwrap(), 2);
        assert_eq!(queue.get_timeout(Duration::ZERO).unwrap(), 3);
        assert_eq!(queue.get_timeout(Duration::MAX).unwrap(), 4);
        assert_eq!(queue.get_timeout(SHORT).unwrap(), 5);
        assert!(queue.is_empty());
    }
    // Of a queue that nobody else holds: it may be filled by this process.
    for queue in [Queue::<u32>::new().unwrap(), Queue::bounded(1).unwrap()] {
        let error = at_once(|| queue.try_get()).unwrap_err();
        assert!(matches!(error, RecvError::Empty), "{error:?}");
        for timeout in [Duration::ZERO, Duration::from_nanos(1), SHORT] {
            let error = never_early(timeout, || queue.get_timeout(timeout)).unwrap_err();
            assert!(matches!(error, RecvError::Timeout), "{error:?}");
        }
    }
}

/// `test_fork` of CPython, without the fork.
#[test]
fn what_was_put_before_a_child_was_started_is_there_once() {
    let _watchdog = watchdog(
        "what_was_put_before_a_child_was_started_is_there_once",
        LIMIT,
    );
    #[mproc::entry]
    fn put_range(queue: Queue<u32>, first: u32, behind: u32) {
        for number in first..behind {
            queue.put(number).unwrap();
        }
    }
    let queue = Queue::new().unwrap();
    put_range(queue.clone(), 0, 10);
    put_range::spawn(queue.clone(), 10, 20)
        .unwrap()
        .join()
        .unwrap();
    let numbers: Vec<u32> = (0..20).map(|_| queue.get().unwrap()).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert_eq!(queue.len(), 0);
}

/// `test_qsize` of CPython, and the same seen from another process.
#[test]
fn len_is_exact_when_nobody_moves() {
    let _watchdog = watchdog("len_is_exact_when_nobody_moves", LIMIT);
    #[mproc::entry]
    fn move_some(queue: &Queue<String>, put: usize, get: usize) -> usize {
        for number in 0..put {
            queue.put("x".repeat(number)).unwrap();
        }
        for _ in 0..get {
            queue.get().unwrap();
        }
        queue.len()
    }
    for queue in [Queue::new().unwrap(), Queue::bounded(1000).unwrap()] {
        let mut seen = vec![queue.len()];
        queue.put("a".into()).unwrap();
        seen.push(queue.len());
        queue.put("b".into()).unwrap();
        seen.push(queue.len());
        queue.get().unwrap();
        seen.push(queue.len());
        queue.get().unwrap();
        seen.push(queue.len());
        assert_eq!(seen, [0, 1, 2, 1, 0]);
        let mut expected = 0;
        for (put, get) in [(7, 0), (300, 2), (0, 100), (5, 5), (0, 205), (1, 1)] {
            expected += put - get;
            let there = move_some::spawn(&queue, put as usize, get as usize).unwrap();
            assert_eq!(there.join().unwrap(), expected as usize);
            assert_eq!(queue.len(), expected as usize);
            assert_eq!(queue.is_empty(), expected == 0);
        }
    }
}

/// Each put waits for the get before it, in another process.
#[test]
fn a_queue_of_one_hands_over_one_by_one() {
    let _watchdog = watchdog("a_queue_of_one_hands_over_one_by_one", LIMIT);
    #[mproc::entry]
    fn echo(from: &Queue<u64>, to: &Queue<u64>) -> u64 {
        let mut count = 0;
        for number in from {
            to.put(number.unwrap()).unwrap();
            count += 1;
        }
        count
    }
    let (there, back) = (Queue::bounded(1).unwrap(), Queue::bounded(1).unwrap());
    let child = echo::spawn(&there, &back).unwrap();
    let count = dose(2_000, 1_000_000) as u64;
    let putter = there.clone();
    let thread = thread::spawn(move || {
        for number in 0..count {
            putter.put(number).unwrap();
            assert!(putter.len() <= 1);
        }
        putter.close();
    });
    for number in 0..count {
        assert_eq!(back.get().unwrap(), number);
    }
    thread.join().unwrap();
    assert_eq!(child.join().unwrap(), count);
    assert!(back.is_empty() && there.is_empty());
}

#[test]
fn sizes_from_nothing_to_many_mib_arrive_whole() {
    let _watchdog = watchdog("sizes_from_nothing_to_many_mib_arrive_whole", LIMIT);
    #[mproc::entry]
    fn give_back(from: &Queue<String>, to: &Queue<String>) {
        for text in from {
            to.put(text.unwrap()).unwrap();
        }
    }
    let powers = (0..21).map(|power| 1_usize << power);
    let mut sizes: Vec<usize> = powers.flat_map(|size| [size - 1, size, size + 1]).collect();
    sizes.extend([3, 64 << 20, 5, dose(100 << 20, 2 << 30), 0]);
    for bounded in [false, true] {
        let queue = || match bounded {
            true => Queue::bounded(3).unwrap(),
            false => Queue::new().unwrap(),
        };
        let (there, back) = (queue(), queue());
        let child = give_back::spawn(&there, &back).unwrap();
        for (number, size) in sizes.iter().enumerate() {
            let letter = ["a", "b", "c"][number % 3];
            there.put(letter.repeat(*size)).unwrap();
            let text = back.get().unwrap();
            assert!(text == letter.repeat(*size), "{size} B, {bounded}");
        }
        there.close();
        child.join().unwrap();
    }
}

/// Also where nothing else is in the frame.
#[test]
fn messages_without_content_are_counted() {
    let _watchdog = watchdog("messages_without_content_are_counted", LIMIT);
    let queue = Queue::<()>::new().unwrap();
    let count = dose(10_000, 1_000_000);
    for _ in 0..count {
        queue.put(()).unwrap();
    }
    assert_eq!(queue.len(), count);
    queue.close();
    assert_eq!(queue.iter().map(Result::unwrap).count(), count);
}

/// A queue that was long and is empty gives its memory back and goes on elsewhere, wherever in a page it had come to.
#[test]
fn a_queue_goes_on_after_a_long_item_of_any_length() {
    let _watchdog = watchdog("a_queue_goes_on_after_a_long_item_of_any_length", LIMIT);
    for queue in [Queue::new().unwrap(), Queue::bounded(1).unwrap()] {
        // All places in a page of 4 KiB, in steps of 8 bytes, and from a fresh beginning.
        for length in (1_100_000..1_104_104).step_by(8) {
            for text in ["x".repeat(length), "after it".into()] {
                queue.put(text.clone()).unwrap();
                let got = queue.get().map_err(|error| format!("{length}: {error}"));
                assert!(got.unwrap() == text);
            }
        }
    }
}

// --- order

type Numbered = (u32, u64);

#[mproc::entry]
fn put_numbered(queue: &Queue<Numbered>, producer: u32, count: u64) {
    for sequence in 0..count {
        queue.put((producer, sequence)).unwrap();
    }
}

/// Gets until the queue is closed and empty. Each producer's numbers have to rise. Gives how many there were.
#[mproc::entry]
fn get_numbered(queue: &Queue<Numbered>) -> u64 {
    let mut last = std::collections::HashMap::new();
    let mut count = 0;
    for item in queue {
        let (producer, sequence) = item.unwrap();
        let before = last.insert(producer, sequence);
        assert!(
            before < Some(sequence),
            "{producer}: {sequence} after {before:?}"
        );
        count += 1;
    }
    count
}

#[test]
fn one_consumer_sees_all_of_each_producer_in_order() {
    let _watchdog = watchdog("one_consumer_sees_all_of_each_producer_in_order", LIMIT);
    let count = dose(3_000, 300_000) as u64;
    for queue in [Queue::new().unwrap(), Queue::bounded(7).unwrap()] {
        let processes: Vec<_> = (0..3)
            .map(|producer| put_numbered::spawn(&queue, producer, count).unwrap())
            .collect();
        thread::scope(|scope| {
            let queue = &queue;
            for producer in 3..6 {
                scope.spawn(move || put_numbered(queue, producer, count));
            }
            let mut next = [0; 6];
            for _ in 0..6 * count {
                let (producer, sequence) = queue.get().unwrap();
                assert_eq!(sequence, next[producer as usize], "{producer}");
                next[producer as usize] += 1;
            }
        });
        for process in processes {
            process.join().unwrap();
        }
        assert_eq!(queue.len(), 0);
    }
}

#[test]
fn threads_and_processes_produce_and_consume_together() {
    let _watchdog = watchdog("threads_and_processes_produce_and_consume_together", LIMIT);
    let count = dose(3_000, 300_000) as u64;
    for queue in [Queue::new().unwrap(), Queue::bounded(16).unwrap()] {
        let consumers: Vec<_> = (0..2)
            .map(|_| get_numbered::spawn(&queue).unwrap())
            .collect();
        let producers: Vec<_> = (0..2)
            .map(|producer| put_numbered::spawn(&queue, producer, count).unwrap())
            .collect();
        let here = thread::scope(|scope| {
            let queue = &queue;
            let consumers: Vec<_> = (0..2)
                .map(|_| scope.spawn(move || get_numbered(queue)))
                .collect();
            let threads = (2..4).map(|id| scope.spawn(move || put_numbered(queue, id, count)));
            for thread in threads.collect::<Vec<_>>() {
                thread.join().unwrap();
            }
            for producer in producers {
                producer.join().unwrap();
            }
            queue.close();
            let counts = consumers.into_iter().map(|thread| thread.join().unwrap());
            counts.sum::<u64>()
        });
        let there = consumers.into_iter().map(|child| child.join().unwrap());
        assert_eq!(here + there.sum::<u64>(), 4 * count);
    }
}

#[test]
fn sixty_four_producers_and_sixty_four_consumers() {
    let _watchdog = watchdog("sixty_four_producers_and_sixty_four_consumers", LIMIT);
    let (each, count) = (dose(16, 64), dose(100, 20_000) as u64);
    for queue in [Queue::new().unwrap(), Queue::bounded(10).unwrap()] {
        let consumers: Vec<_> = (0..each)
            .map(|_| get_numbered::spawn(&queue).unwrap())
            .collect();
        let producers: Vec<_> = (0..each)
            .map(|producer| put_numbered::spawn(&queue, producer as u32, count).unwrap())
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        queue.close();
        let counts = consumers.into_iter().map(|child| child.join().unwrap());
        assert_eq!(counts.sum::<u64>(), each as u64 * count);
        assert_eq!(queue.len(), 0);
    }
}

// --- where a queue may live

static IN_A_STATIC: LazyLock<Queue<Numbered>> = LazyLock::new(|| Queue::bounded(4).unwrap());
static SET_ONCE: OnceLock<Queue<u64>> = OnceLock::new();

#[test]
fn a_queue_in_a_static_is_used_by_threads() {
    fn any_thread<T: Send + Sync + Clone>() {}
    any_thread::<Queue<std::cell::Cell<u8>>>();
    let _watchdog = watchdog("a_queue_in_a_static_is_used_by_threads", LIMIT);
    #[mproc::entry]
    fn put_into(queue: Queue<Numbered>, producer: u32) {
        put_numbered(&queue, producer, 100);
    }
    let consumer = thread::spawn(|| get_numbered(&IN_A_STATIC));
    let threads: Vec<_> = (0..3)
        .map(|producer| thread::spawn(move || put_numbered(&IN_A_STATIC, producer, 1000)))
        .collect();
    // Sent from the static, it is the same queue.
    put_into::spawn(IN_A_STATIC.clone(), 3)
        .unwrap()
        .join()
        .unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    IN_A_STATIC.close();
    assert_eq!(consumer.join().unwrap(), 3100);
}

/// Statics of a child are its own, and may be filled with what it was given.
#[test]
fn a_child_keeps_its_queue_in_a_static() {
    let _watchdog = watchdog("a_child_keeps_its_queue_in_a_static", LIMIT);
    #[mproc::entry]
    fn keep_and_use(queue: Queue<u64>) {
        assert!(SET_ONCE.get().is_none());
        SET_ONCE.get_or_init(|| queue);
        let threads = [1, 2, 3]
            .map(|number| thread::spawn(move || SET_ONCE.get().unwrap().put(number).unwrap()));
        for thread in threads {
            thread.join().unwrap();
        }
    }
    let queue = Queue::new().unwrap();
    keep_and_use::spawn(queue.clone()).unwrap().join().unwrap();
    let mut numbers: Vec<u64> = (0..3).map(|_| queue.try_get().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn clones_are_the_same_queue() {
    let _watchdog = watchdog("clones_are_the_same_queue", LIMIT);
    let queue = Queue::bounded(2).unwrap();
    let clone = queue.clone();
    queue.put(1_u8).unwrap();
    clone.put(2).unwrap();
    assert!(queue.is_full());
    drop(queue);
    assert_eq!((clone.get().unwrap(), clone.get().unwrap()), (1, 2));
    clone.clone().close();
    assert!(clone.is_closed());
}

/// An example of Python's manual: three threads share the words of one queue.
#[test]
fn an_item_goes_to_one_of_the_threads() {
    let _watchdog = watchdog("an_item_goes_to_one_of_the_threads", LIMIT);
    let queue = Queue::bounded(10).unwrap();
    let (sum, count) = (AtomicUsize::new(0), dose(2_000, 200_000));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for number in &queue {
                    sum.fetch_add(number.unwrap(), Ordering::Relaxed);
                }
            });
        }
        for number in 0..count {
            queue.put(number).unwrap();
        }
        queue.close();
    });
    assert_eq!(sum.into_inner(), count * (count - 1) / 2);
}

// --- closing

#[test]
fn after_close_puts_are_refused_and_gets_find_what_is_left() {
    let _watchdog = watchdog(
        "after_close_puts_are_refused_and_gets_find_what_is_left",
        LIMIT,
    );
    for queue in [Queue::new().unwrap(), Queue::bounded(3).unwrap()] {
        for number in [1, 2, 3] {
            queue.put(number).unwrap();
        }
        assert!(!queue.is_closed());
        queue.close();
        queue.close();
        assert!(queue.is_closed());
        assert_eq!(queue.len(), 3);
        let refused = [
            queue.put(4),
            queue.try_put(4),
            at_once(|| queue.put_timeout(4, Duration::MAX)),
        ];
        for error in refused.map(Result::unwrap_err) {
            assert!(matches!(error, SendError::Closed(4)), "{error:?}");
        }
        assert_eq!(queue.get().unwrap(), 1);
        assert_eq!(queue.try_get().unwrap(), 2);
        assert_eq!(queue.get_timeout(SHORT).unwrap(), 3);
        let ended = [
            queue.get(),
            queue.try_get(),
            at_once(|| queue.get_timeout(Duration::MAX)),
        ];
        for error in ended.map(Result::unwrap_err) {
            assert!(matches!(error, RecvError::Closed), "{error:?}");
        }
        assert!(queue.iter().next().is_none());
        assert!(queue.is_empty());
    }
}

#[mproc::entry]
fn wait_to_get(queue: &Queue<u64>, about_to: &Queue<()>) -> bool {
    about_to.put(()).unwrap();
    matches!(queue.get(), Err(RecvError::Closed))
}

#[mproc::entry]
fn wait_to_put(queue: &Queue<u64>, about_to: &Queue<()>) -> bool {
    about_to.put(()).unwrap();
    matches!(queue.put(9), Err(SendError::Closed(9)))
}

#[mproc::entry]
fn close_it(queue: &Queue<u64>) {
    queue.close();
}

/// Closed here or in a process that then ends: all who wait hear of it, on both sides, threads and processes.
#[test]
fn close_wakes_all_who_wait() {
    let _watchdog = watchdog("close_wakes_all_who_wait", LIMIT);
    for by_child in [false, true] {
        let empty = Queue::<u64>::new().unwrap();
        let full = Queue::bounded(1).unwrap();
        full.put(1).unwrap();
        let about_to = Queue::new().unwrap();
        let mut getters = Vec::new();
        let mut putters = Vec::new();
        for _ in 0..2 {
            getters.push(wait_to_get::spawn(&empty, &about_to).unwrap());
            putters.push(wait_to_put::spawn(&full, &about_to).unwrap());
        }
        for _ in 0..4 {
            about_to.get().unwrap();
        }
        let here = thread::scope(|scope| {
            let getter = scope.spawn(|| matches!(empty.get(), Err(RecvError::Closed)));
            let putter = scope.spawn(|| matches!(full.put(9), Err(SendError::Closed(9))));
            for child in getters.iter().chain(&putters) {
                until_asleep(child.id());
            }
            for queue in [&empty, &full] {
                match by_child {
                    true => close_it::spawn(queue).unwrap().join().unwrap(),
                    false => queue.close(),
                }
            }
            [getter.join().unwrap(), putter.join().unwrap()]
        });
        assert_eq!(here, [true, true]);
        for child in getters.into_iter().chain(putters) {
            assert!(child.join().unwrap());
        }
        assert_eq!(full.get().unwrap(), 1);
        assert!(empty.is_closed() && full.is_closed());
    }
}

/// Racing with puts: each put is refused, or got.
#[test]
fn what_was_put_before_the_close_is_got() {
    let _watchdog = watchdog("what_was_put_before_the_close_is_got", LIMIT);
    #[mproc::entry]
    fn put_until_closed(queue: &Queue<u64>) -> u64 {
        let mut count = 0;
        loop {
            match queue.put(count) {
                Ok(()) => count += 1,
                Err(SendError::Closed(refused)) => break assert_eq!(refused, count),
                Err(error) => panic!("{error:?}"),
            }
        }
        count
    }
    #[mproc::entry]
    fn get_until_closed(queue: &Queue<u64>) -> u64 {
        queue.iter().map(Result::unwrap).count() as u64
    }
    for round in 0..dose(15, 1000) {
        let queue = match round % 2 {
            0 => Queue::new().unwrap(),
            _ => Queue::bounded(5).unwrap(),
        };
        let putters = [(); 2].map(|()| put_until_closed::spawn(&queue).unwrap());
        let getters = [(); 2].map(|()| get_until_closed::spawn(&queue).unwrap());
        // Both kinds are at work by then.
        let mut got = 0;
        while got < 10 {
            queue.get().unwrap();
            got += 1;
        }
        queue.close();
        let put = putters.map(|child| child.join().unwrap());
        let counts = getters.map(|child| child.join().unwrap());
        got += get_until_closed(&queue);
        assert_eq!(
            put.iter().sum::<u64>(),
            counts.iter().sum::<u64>() + got,
            "round {round}"
        );
    }
}

// --- deadlines and interruptions

/// `test_timeout` of CPython, and the same when somebody else is served all the time.
#[test]
fn deadlines_are_never_early() {
    let _watchdog = watchdog("deadlines_are_never_early", LIMIT);
    let empty = Queue::<u8>::new().unwrap();
    let full = Queue::bounded(1).unwrap();
    full.put(0).unwrap();
    let timeouts = [1, 2, 7, 50, 200].map(Duration::from_millis);
    thread::scope(|scope| {
        for timeout in timeouts {
            let (empty, full) = (&empty, &full);
            scope.spawn(move || {
                let late = never_early(timeout, || empty.get_timeout(timeout));
                assert!(matches!(late, Err(RecvError::Timeout)), "{late:?}");
            });
            scope.spawn(move || {
                let late = never_early(timeout, || full.put_timeout(1, timeout));
                assert!(matches!(late, Err(SendError::Timeout(1))), "{late:?}");
            });
        }
    });
    // Those who gave up have left nothing behind that takes what comes.
    empty.put(7).unwrap();
    assert_eq!(empty.get_timeout(Duration::MAX).unwrap(), 7);
    assert_eq!(full.get().unwrap(), 0);
    full.put_timeout(2, Duration::MAX).unwrap();
    assert_eq!(full.get().unwrap(), 2);
}

/// Many times out, a few served: an item is got although those who waited before its consumer have given up.
#[test]
fn who_gives_up_takes_nothing_along() {
    let _watchdog = watchdog("who_gives_up_takes_nothing_along", LIMIT);
    let count = dose(3_000, 300_000);
    for queue in [Queue::new().unwrap(), Queue::bounded(1).unwrap()] {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let (queue, done) = (&queue, &done);
            let getters = [1, 20, 150, 1000].map(|micros| {
                scope.spawn(move || {
                    let (mut got, mut sum) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        match queue.get_timeout(Duration::from_micros(micros)) {
                            Ok(number) => (got, sum) = (got + 1, sum + number),
                            Err(RecvError::Timeout) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    (got, sum)
                })
            });
            for mut number in 0..count {
                while let Err(late) = queue.put_timeout(number, Duration::from_micros(30)) {
                    assert!(matches!(late, SendError::Timeout(_)), "{late:?}");
                    number = late.into_inner();
                }
            }
            eventually(|| queue.is_empty());
            done.store(true, Ordering::Relaxed);
            let results = getters.map(|thread| thread.join().unwrap());
            let sums = results
                .iter()
                .fold((0, 0), |(got, sum), (more, of)| (got + more, sum + of));
            assert_eq!(sums, (count, count * (count - 1) / 2));
        });
    }
}

#[test]
fn nothing_is_wrong_in_a_storm_of_signals() {
    let _watchdog = watchdog("nothing_is_wrong_in_a_storm_of_signals", LIMIT);
    #[mproc::entry]
    fn produce(queue: &Queue<(u64, String)>, count: u64) {
        storm();
        for number in 0..count {
            let text =
                "x".repeat((number % 977) as usize * if number % 100 == 0 { 500 } else { 1 });
            queue.put((number, text)).unwrap();
        }
    }
    #[mproc::entry]
    fn consume(queue: &Queue<(u64, String)>, count: u64) -> u64 {
        storm();
        let late = never_early(SHORT, || Queue::<u8>::new().unwrap().get_timeout(SHORT));
        assert!(matches!(late, Err(RecvError::Timeout)), "{late:?}");
        let full = Queue::bounded(1).unwrap();
        full.put(1_u8).unwrap();
        let late = never_early(SHORT, || full.put_timeout(2, SHORT));
        assert!(matches!(late, Err(SendError::Timeout(2))), "{late:?}");
        for expected in 0..count {
            let (number, text) = queue.get().unwrap();
            assert_eq!(number, expected);
            let length = (number % 977) as usize * if number % 100 == 0 { 500 } else { 1 };
            assert_eq!(text.len(), length);
        }
        assert!(interruptions() > 0, "no signal came");
        count
    }
    let count = dose(3_000, 300_000) as u64;
    for queue in [Queue::new().unwrap(), Queue::bounded(2).unwrap()] {
        let consumer = consume::spawn(&queue, count).unwrap();
        let producer = produce::spawn(&queue, count).unwrap();
        producer.join().unwrap();
        assert_eq!(consumer.join().unwrap(), count);
    }
}

/// Somebody who waits in a storm is woken by the item, and by nothing else.
#[test]
fn a_sleeper_in_a_storm_waits_for_its_item() {
    let _watchdog = watchdog("a_sleeper_in_a_storm_waits_for_its_item", LIMIT);
    #[mproc::entry]
    fn get_one(queue: &Queue<u64>, about_to: &Queue<()>) -> u64 {
        storm();
        about_to.put(()).unwrap();
        queue.get().unwrap()
    }
    let (queue, about_to) = (Queue::new().unwrap(), Queue::new().unwrap());
    for number in 0..dose(20, 1000) as u64 {
        let child = get_one::spawn(&queue, &about_to).unwrap();
        about_to.get().unwrap();
        let mut looks = 0;
        eventually(|| {
            looks += usize::from(state_of(child.id()) == Some('S'));
            looks > 5
        });
        queue.put(number).unwrap();
        assert_eq!(child.join().unwrap(), number);
    }
}

// --- what cannot be encoded or decoded

/// Refuses, or panics, to be encoded or decoded, as it says itself.
#[derive(Debug, Clone, PartialEq)]
enum Awkward {
    Fine(String),
    NotEncoded(String),
    PanicsEncoding,
    NotDecoded,
    PanicsDecoding,
}

impl Serialize for Awkward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error as _, SerializeTuple};
        // Large enough that something has been written when it fails.
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(&"x".repeat(100_000))?;
        let (kind, text) = match self {
            Self::Fine(text) => (0, text.as_str()),
            Self::NotEncoded(why) => return Err(S::Error::custom(why)),
            Self::PanicsEncoding => panic!("a panic that is part of a test"),
            Self::NotDecoded => (1, ""),
            Self::PanicsDecoding => (2, ""),
        };
        tuple.serialize_element(&kind)?;
        tuple.serialize_element(text)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Awkward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, kind, text) = <(String, i32, String)>::deserialize(deserializer)?;
        match kind {
            0 => Ok(Self::Fine(text)),
            1 => Err(serde::de::Error::custom("not today")),
            _ => panic!("a panic that is part of a test"),
        }
    }
}

fn panics<T>(act: impl FnOnce() -> T) {
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    assert!(unwound.is_err());
}

#[test]
fn what_cannot_be_encoded_uses_no_slot_and_comes_back() {
    let _watchdog = watchdog("what_cannot_be_encoded_uses_no_slot_and_comes_back", LIMIT);
    let fine = || Awkward::Fine("fine".into());
    let bad = || Awkward::NotEncoded("not for the world".into());
    for queue in [Queue::bounded(1).unwrap(), Queue::new().unwrap()] {
        for _ in 0..50 {
            let errors = [
                queue.put(bad()),
                queue.try_put(bad()),
                queue.put_timeout(bad(), Duration::ZERO),
            ];
            for error in errors.map(Result::unwrap_err) {
                assert!(matches!(error, SendError::Encode(..)), "{error:?}");
                assert!(format!("{error:?}").contains("not for the world"));
                assert_eq!(error.into_inner(), bad());
            }
            panics(|| queue.put(Awkward::PanicsEncoding));
        }
        assert_eq!(queue.len(), 0);
        queue.try_put(fine()).unwrap();
        assert_eq!(queue.len(), 1);
        // Where there is no room it is an error at once, too: nobody has to wait to hear of it.
        if queue.is_full() {
            let error = at_once(|| queue.put(bad())).unwrap_err();
            assert!(matches!(error, SendError::Encode(..)), "{error:?}");
        }
        assert_eq!(queue.get().unwrap(), fine());
    }
}

#[test]
fn what_cannot_be_decoded_costs_one_message() {
    let _watchdog = watchdog("what_cannot_be_decoded_costs_one_message", LIMIT);
    #[mproc::entry]
    fn put_awkward(queue: &Queue<Awkward>) {
        for number in 0..10 {
            queue.put(Awkward::NotDecoded).unwrap();
            queue.put(Awkward::PanicsDecoding).unwrap();
            queue.put(Awkward::Fine(number.to_string())).unwrap();
        }
    }
    for queue in [Queue::bounded(3).unwrap(), Queue::new().unwrap()] {
        let child = put_awkward::spawn(&queue).unwrap();
        for number in 0..10 {
            let error = queue.get().unwrap_err();
            assert!(matches!(error, RecvError::Decode(_)), "{error:?}");
            assert!(format!("{error:?}").contains("not today"), "{error:?}");
            panics(|| queue.get());
            assert_eq!(queue.get().unwrap(), Awkward::Fine(number.to_string()));
        }
        child.join().unwrap();
        assert_eq!(queue.len(), 0);
    }
}

/// Iteration goes on behind an error.
#[test]
fn an_iterator_gives_errors_of_messages_as_items() {
    let _watchdog = watchdog("an_iterator_gives_errors_of_messages_as_items", LIMIT);
    let queue = Queue::new().unwrap();
    queue.put(Awkward::NotDecoded).unwrap();
    queue.put(Awkward::Fine("1".into())).unwrap();
    queue.put(Awkward::NotDecoded).unwrap();
    queue.close();
    let seen: Vec<bool> = queue.iter().map(|item| item.is_ok()).collect();
    assert_eq!(seen, [false, true, false]);
    assert!((&queue).into_iter().next().is_none());
}

#[test]
fn errors_say_what_happened_in_lower_case() {
    let _watchdog = watchdog("errors_say_what_happened_in_lower_case", LIMIT);
    fn in_a_function(queue: &Queue<u8>) -> mproc::Result<u8> {
        queue.try_put(2)?;
        Ok(queue.try_get()?)
    }
    let queue = Queue::bounded(1).unwrap();
    let empty = queue.try_get().unwrap_err();
    queue.put(1).unwrap();
    let full = queue.try_put(2).unwrap_err();
    for text in [empty.to_string(), full.to_string()] {
        assert!(text.starts_with(char::is_lowercase), "{text}");
        assert!(!text.ends_with('.'), "{text}");
    }
    // By `?`, both are the error of the crate.
    assert_eq!(in_a_function(&queue).unwrap_err().kind(), ErrorKind::Full);
    queue.get().unwrap();
    assert_eq!(in_a_function(&queue).unwrap(), 2);
}
