//! Waiting for pipes, queues and children in tasks of tokio: without threads, and without losing anything.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mproc::{
    Child, Connection, ErrorKind, JoinableQueue, Queue, Receiver, RecvError, SendError, Sender,
    duplex, pipe,
};
use mproc_tests::{Dice, dose, kill_myself, watchdog};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};

const LIMIT: Duration = Duration::from_secs(120);

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Whether a future is not ready, which is dropped then.
async fn is_pending<F: Future>(future: F) -> bool {
    tokio::time::timeout(Duration::ZERO, future).await.is_err()
}

/// Sends `count` numbers in bursts with pauses of microseconds, a long message now and then.
#[mproc::entry]
fn send_in_bursts(mut tx: Sender<(u64, String)>, count: u64) {
    let mut dice = Dice::new("send_in_bursts");
    for number in 0..count {
        let length = if dice.below(100) == 0 { 1 << 18 } else { 5 };
        tx.send((number, "x".repeat(length))).unwrap();
        if dice.below(4) == 0 {
            dice.pause(Duration::from_micros(100));
        }
    }
}

/// Sends so many, then waits for a word, and dies.
#[mproc::entry]
fn send_and_be_killed(mut tx: Sender<u64>, count: u64, mut word: Receiver<()>) {
    for number in 0..count {
        tx.send(number).unwrap();
    }
    let _ = word.recv();
    kill_myself();
}

#[mproc::entry]
fn wait_and_square(mut word: Receiver<()>, number: u64) -> u64 {
    let _ = word.recv();
    number * number
}

#[mproc::entry]
fn put_range(queue: Queue<u64>, from: u64, to: u64) {
    for number in from..to {
        queue.put(number).unwrap();
        if number % 16 == 0 {
            std::thread::yield_now();
        }
    }
}

#[mproc::entry]
fn sum_until_closed(queue: Queue<u64>, results: Queue<(u64, u64)>) {
    let (mut count, mut sum) = (0, 0);
    for number in &queue {
        count += 1;
        sum += number.unwrap();
    }
    results.put((count, sum)).unwrap();
}

#[mproc::entry]
fn hold_and_be_killed(_queue: Queue<u64>, mut word: Receiver<()>) {
    let _ = word.recv();
    kill_myself();
}

#[mproc::entry]
fn double(mut numbers: Connection<u64, u64>) {
    while let Ok(number) = numbers.recv() {
        numbers.send(2 * number).unwrap();
    }
}

#[mproc::entry]
fn work(tasks: JoinableQueue<u64>) {
    while let Ok(job) = tasks.get_job() {
        std::hint::black_box(*job);
    }
}

#[mproc::entry]
fn take_one_and_die(tasks: JoinableQueue<u64>) {
    let _ = tasks.get();
    kill_myself();
}

#[test]
fn messages_of_a_process_come_in_order_to_the_end() {
    let _watchdog = watchdog("messages_of_a_process_come_in_order_to_the_end", LIMIT);
    let count = dose(2_000, 200_000) as u64;
    one_thread().block_on(async {
        let (tx, rx) = pipe().unwrap();
        let mut child = send_in_bursts::spawn(tx, count).unwrap();
        let mut rx = rx.into_async().unwrap();
        for expected in 0..count {
            assert_eq!(rx.recv().await.unwrap().0, expected);
        }
        assert!(matches!(rx.recv().await, Err(RecvError::Disconnected)));
        assert!(rx.next().await.is_none(), "and it stays at its end");
        child.join_async().await.unwrap();
    });
}

#[test]
fn a_sender_that_is_killed_is_the_end() {
    let _watchdog = watchdog("a_sender_that_is_killed_is_the_end", LIMIT);
    one_thread().block_on(async {
        for round in 0..dose(10, 500) as u64 {
            let (tx, rx) = pipe().unwrap();
            let (word, hears) = pipe().unwrap();
            let mut child = send_and_be_killed::spawn(tx, round, hears).unwrap();
            let mut rx = rx.into_async().unwrap();
            for expected in 0..round {
                assert_eq!(rx.recv().await.unwrap(), expected);
            }
            // It waits, and nobody has said anything yet.
            assert!(is_pending(rx.recv()).await);
            let told = async {
                yield_now().await;
                drop(word);
            };
            let (received, ()) = tokio::join!(rx.recv(), told);
            assert!(matches!(received, Err(RecvError::Disconnected)));
            let error = child.join_async().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Killed);
            let again = child.join_async().await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyJoined);
        }
    });
}

/// A receive that loses against another branch, at whatever moment, has taken nothing.
#[test]
fn a_cancelled_receive_loses_nothing() {
    let _watchdog = watchdog("a_cancelled_receive_loses_nothing", LIMIT);
    let count = dose(2_000, 100_000) as u64;
    one_thread().block_on(async {
        let (tx, rx) = pipe().unwrap();
        let (other_tx, other_rx) = pipe().unwrap();
        let mut children = [
            send_in_bursts::spawn(tx, count).unwrap(),
            send_in_bursts::spawn(other_tx, count).unwrap(),
        ];
        let mut ends = (rx.into_async().unwrap(), other_rx.into_async().unwrap());
        let mut next = (0, 0);
        let mut cancelled = 0_u64;
        while next != (count, count) {
            tokio::select! {
                message = ends.0.recv(), if next.0 < count => {
                    assert_eq!(message.unwrap().0, next.0);
                    next.0 += 1;
                }
                message = ends.1.recv(), if next.1 < count => {
                    assert_eq!(message.unwrap().0, next.1);
                    next.1 += 1;
                }
                () = yield_now() => cancelled += 1,
            }
        }
        assert!(cancelled > 0);
        assert!(ends.0.next().await.is_none() && ends.1.next().await.is_none());
        for child in &mut children {
            // Joining is no different.
            while is_pending(child.join_async()).await {
                yield_now().await;
                if !child.is_alive() {
                    break;
                }
            }
            assert_eq!(child.wait_async().await.unwrap().exit_code(), 0);
        }
    });
}

#[test]
fn a_cancelled_join_still_gives_the_value() {
    let _watchdog = watchdog("a_cancelled_join_still_gives_the_value", LIMIT);
    one_thread().block_on(async {
        let (word, hears) = pipe().unwrap();
        let mut child = wait_and_square::spawn(hears, 9).unwrap();
        for _ in 0..100 {
            assert!(is_pending(child.join_async()).await);
            assert!(is_pending(child.wait_async()).await);
        }
        drop(word);
        // Several may wait, by several handles, in several ways.
        let (ended, also) = tokio::join!(child.wait_async(), child.wait_async());
        assert_eq!(ended.unwrap(), also.unwrap());
        assert_eq!(child.join_async().await.unwrap(), 81);
    });
}

/// Many tasks and another process get; two processes and this one put. Each item comes out once.
fn queue_with_many_getters(runtime: &Runtime) {
    let count = dose(3_000, 100_000) as u64;
    const GETTERS: usize = 8;
    runtime.block_on(async {
        let queue = Queue::new().unwrap();
        let results = Queue::new().unwrap();
        let competitor = sum_until_closed::spawn(queue.clone(), results.clone()).unwrap();
        let awaited = queue.clone().into_async().unwrap();
        let results = results.into_async().unwrap();
        let mut getters = JoinSet::new();
        for _ in 0..GETTERS {
            let queue = awaited.clone();
            getters.spawn(async move {
                let (mut count, mut sum) = (0, 0);
                while let Some(number) = queue.next().await {
                    count += 1;
                    sum += number.unwrap();
                }
                (count, sum)
            });
        }
        let producers: Vec<Child<()>> = (0..2)
            .map(|part| put_range::spawn(queue.clone(), part * count, (part + 1) * count).unwrap())
            .collect();
        for number in 2 * count..3 * count {
            awaited.put(number).await.unwrap();
            if number % 64 == 0 {
                yield_now().await;
            }
        }
        for mut producer in producers {
            producer.join_async().await.unwrap();
        }
        queue.close();
        let (mut got, mut sum) = results.get().await.unwrap();
        while let Some(part) = getters.join_next().await {
            let part: (u64, u64) = part.unwrap();
            got += part.0;
            sum += part.1;
        }
        assert_eq!(got, 3 * count);
        assert_eq!(sum, (0..3 * count).sum::<u64>());
        assert!(matches!(awaited.get().await, Err(RecvError::Closed)));
        assert!(matches!(awaited.put(1).await, Err(SendError::Closed(1))));
        competitor.wait_async().await.unwrap();
    });
}

#[test]
fn many_tasks_at_one_queue() {
    let _watchdog = watchdog("many_tasks_at_one_queue", LIMIT);
    queue_with_many_getters(&one_thread());
}

#[test]
fn many_tasks_at_one_queue_on_several_threads() {
    let _watchdog = watchdog("many_tasks_at_one_queue_on_several_threads", LIMIT);
    let mut builder = Builder::new_multi_thread();
    queue_with_many_getters(&builder.worker_threads(3).enable_all().build().unwrap());
}

/// Ping-pong with single items: each wake-up counts, since nothing else would wake the other.
#[test]
fn each_single_item_wakes() {
    let _watchdog = watchdog("each_single_item_wakes", LIMIT);
    let rounds = dose(2_000, 200_000) as u64;
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (there, back) = (Queue::new().unwrap(), Queue::new().unwrap());
        let (there, back) = (there.into_async().unwrap(), back.into_async().unwrap());
        let echo = tokio::spawn({
            let (there, back) = (there.clone(), back.clone());
            async move {
                while let Some(number) = there.next().await {
                    back.try_put(number.unwrap()).unwrap();
                }
            }
        });
        for round in 0..rounds {
            there.put(round).await.unwrap();
            assert_eq!(back.get().await.unwrap(), round);
        }
        there.close();
        echo.await.unwrap();

        let (ours, theirs) = duplex::<u64, u64>().unwrap();
        let mut child = double::spawn(theirs).unwrap();
        let mut ours = ours.into_async().unwrap();
        for round in 0..rounds {
            ours.send(round).unwrap();
            assert_eq!(ours.recv().await.unwrap(), 2 * round);
        }
        let (tx, mut rx) = ours.split();
        assert!(is_pending(rx.recv()).await);
        drop(tx);
        assert!(rx.next().await.is_none());
        child.join_async().await.unwrap();
    });
}

#[test]
fn a_cancelled_get_loses_nothing() {
    let _watchdog = watchdog("a_cancelled_get_loses_nothing", LIMIT);
    let count = dose(2_000, 100_000) as u64;
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = Queue::new().unwrap();
        let child = put_range::spawn(queue.clone(), 0, count).unwrap();
        let queue = queue.into_async().unwrap();
        let sum = Arc::new(AtomicU64::new(0));
        let got = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (queue, sum, got) = (queue.clone(), Arc::clone(&sum), Arc::clone(&got));
            tasks.spawn(async move {
                loop {
                    tokio::select! {
                        item = queue.get() => match item {
                            Ok(number) => {
                                sum.fetch_add(number, Relaxed);
                                got.fetch_add(1, Relaxed);
                            }
                            Err(RecvError::Closed) => break,
                            Err(error) => panic!("{error}"),
                        },
                        () = yield_now() => {}
                    }
                }
            });
        }
        child.wait_async().await.unwrap();
        queue.close();
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        assert_eq!(got.load(Relaxed), count);
        assert_eq!(sum.load(Relaxed), (0..count).sum::<u64>());
    });
}

/// In one thread, and with one handle, a queue whose other holders were killed is at its end.
#[test]
fn the_last_holder_of_a_queue_is_told() {
    let _watchdog = watchdog("the_last_holder_of_a_queue_is_told", LIMIT);
    one_thread().block_on(async {
        let queue = Queue::new().unwrap();
        let (word, hears) = pipe().unwrap();
        let mut child = hold_and_be_killed::spawn(queue.clone(), hears).unwrap();
        let queue = queue.into_async().unwrap();
        queue.try_put(1).unwrap();
        assert_eq!(queue.get().await.unwrap(), 1);
        assert!(is_pending(queue.get()).await);
        let told = async {
            yield_now().await;
            drop(word);
        };
        let (got, ()) = tokio::join!(queue.get(), told);
        assert!(matches!(got, Err(RecvError::Disconnected)));
        assert!(child.join_async().await.is_err());
        assert!(queue.next().await.is_none());
    });
}

#[test]
fn a_full_queue_is_awaited_without_blocking() {
    let _watchdog = watchdog("a_full_queue_is_awaited_without_blocking", LIMIT);
    one_thread().block_on(async {
        let queue = Queue::bounded(2).unwrap().into_async().unwrap();
        let count = dose(30, 300) as u64;
        let producer = async {
            for number in 0..count {
                queue.put(number).await.unwrap();
            }
        };
        let consumer = async {
            for expected in 0..count {
                assert_eq!(queue.get().await.unwrap(), expected);
            }
        };
        tokio::join!(producer, consumer);
        queue.put(1).await.unwrap();
        queue.put(2).await.unwrap();
        assert!(is_pending(queue.put(3)).await);
        assert!(matches!(queue.try_put(3), Err(SendError::Full(3))));
        // What was cancelled was not put, and who waits is told of the closing.
        let close = async {
            yield_now().await;
            queue.close();
        };
        let (put, ()) = tokio::join!(queue.put(4), close);
        assert!(matches!(put, Err(SendError::Closed(4))));
        assert_eq!(queue.get().await.unwrap(), 1);
        assert_eq!(queue.get().await.unwrap(), 2);
        assert!(queue.next().await.is_none());
    });
}

#[test]
fn joinable_queues_are_joined() {
    let _watchdog = watchdog("joinable_queues_are_joined", LIMIT);
    one_thread().block_on(async {
        let tasks = JoinableQueue::new().unwrap();
        let mut child = work::spawn(tasks.clone()).unwrap();
        let tasks = tasks.into_async().unwrap();
        for number in 0..dose(100, 10_000) as u64 {
            tasks.put(number).await.unwrap();
        }
        tasks.join().await.unwrap();
        tasks.close();
        child.join_async().await.unwrap();

        let tasks = JoinableQueue::new().unwrap().into_async().unwrap();
        tasks.try_put(7).unwrap();
        let job = tasks.get_job().await.unwrap();
        assert_eq!(*job, 7);
        assert!(is_pending(tasks.join()).await);
        assert!(is_pending(tasks.get()).await);
        drop(job);
        tasks.join().await.unwrap();
        tasks.try_put(8).unwrap();
        assert_eq!(tasks.next().await.unwrap().unwrap(), 8);
        tasks.task_done().unwrap();
        assert!(tasks.task_done().is_err());

        tasks.try_put(9).unwrap();
        let child = take_one_and_die::spawn(tasks.get_ref().clone()).unwrap();
        let error = tasks.join().await.unwrap_err();
        assert!(
            matches!(error, mproc::JoinError::Abandoned { count: 1, .. }),
            "{error}"
        );
        child.wait_async().await.unwrap();
    });
}

#[test]
fn bytes_are_received() {
    let _watchdog = watchdog("bytes_are_received", LIMIT);
    one_thread().block_on(async {
        let (mut tx, rx) = pipe::<u64>().unwrap();
        let mut rx = rx.into_async().unwrap();
        let later = async {
            yield_now().await;
            tx.send_bytes(b"hello").unwrap();
        };
        let (bytes, ()) = tokio::join!(rx.recv_bytes(10), later);
        assert_eq!(bytes.unwrap(), b"hello");
        tx.send_bytes(b"four").unwrap();
        let mut numbers = [0_u32; 3];
        assert_eq!(rx.recv_bytes_into(&mut numbers).await.unwrap(), 4);
        assert_eq!(numbers, [u32::from_ne_bytes(*b"four"), 0, 0]);
        assert!(is_pending(rx.recv_bytes_into(&mut numbers)).await);
        tx.send_bytes(b"too long").unwrap();
        // Errors of use are given and not waited out.
        let error = rx.recv_bytes(3).await.unwrap_err();
        assert!(matches!(error, RecvError::TooLong { length: 8, .. }));
        assert!(matches!(rx.recv().await, Err(RecvError::WrongKind)));
        assert_eq!(rx.recv_bytes(8).await.unwrap(), b"too long");
    });
}

/// What came in one way is received in the other, and nothing is left behind of either.
#[test]
fn there_and_back_again() {
    let _watchdog = watchdog("there_and_back_again", LIMIT);
    let runtime = one_thread();
    runtime.block_on(async {
        let (mut tx, mut rx) = pipe::<u64>().unwrap();
        let queue = Queue::<u64>::new().unwrap();
        for round in 0..dose(50, 1_000) as u64 {
            tx.send(round).unwrap();
            tx.send(round + 1).unwrap();
            // Two registrations of one queue at a time.
            let (one, other) = (queue.clone(), queue.clone());
            let (one, other) = (one.into_async().unwrap(), other.into_async().unwrap());
            let mut awaited = rx.into_async().unwrap();
            assert_eq!(awaited.recv().await.unwrap(), round);
            rx = awaited.into_inner();
            assert_eq!(rx.recv().unwrap(), round + 1);
            assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
            assert!(is_pending(one.get()).await);
            one.get_ref().put(round).unwrap();
            assert_eq!(other.get().await.unwrap(), round);
            drop(other);
            one.into_inner().put(round).unwrap();
            assert_eq!(queue.get().unwrap(), round);
        }
        // A runtime that ended is no obstacle to the next one.
        let awaited = rx.into_async().unwrap();
        drop(tx);
        let mut rx = awaited.into_inner();
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    });
}

/// A pipe that always has something does not keep the thread for itself.
#[test]
fn a_busy_pipe_lets_others_have_a_turn() {
    let _watchdog = watchdog("a_busy_pipe_lets_others_have_a_turn", LIMIT);
    one_thread().block_on(async {
        let queue = Queue::new().unwrap().into_async().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let other = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move { stop.store(true, Relaxed) }
        });
        while !stop.load(Relaxed) {
            queue.try_put(1).unwrap();
            assert_eq!(queue.get().await.unwrap(), 1);
        }
        other.await.unwrap();
    });
}
