//! A hundred pipes, queues and twenty children awaited by one thread. Alone in its file, because it counts the threads of its process.

use std::time::Duration;

use mproc::{Queue, Receiver, pipe};
use mproc_tests::watchdog;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, yield_now};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[mproc::entry]
fn wait_and_square(mut word: Receiver<()>, number: u64) -> u64 {
    let _ = word.recv();
    number * number
}

/// What is spawned may run in any thread; that it compiles is the assertion.
fn send<T: Send>(value: T) -> T {
    value
}

#[test]
fn a_hundred_pipes_and_twenty_children_in_one_thread() {
    let _watchdog = watchdog(
        "a_hundred_pipes_and_twenty_children_in_one_thread",
        Duration::from_secs(120),
    );
    const PIPES: u64 = 100;
    const QUEUES: u64 = 10;
    const CHILDREN: u64 = 20;
    let threads_before = threads();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let sum = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let mut words = Vec::new();
        for number in 0..CHILDREN {
            let (word, hears) = pipe().unwrap();
            words.push(word);
            let mut child = wait_and_square::spawn(hears, number).unwrap();
            tasks.spawn(send(async move {
                assert_eq!(child.join_async().await.unwrap(), number * number);
                0
            }));
        }
        let mut senders = Vec::new();
        for _ in 0..PIPES {
            let (sender, receiver) = pipe::<u64>().unwrap();
            senders.push(sender);
            tasks.spawn(send(async move {
                let mut receiver = receiver.into_async().unwrap();
                let mut sum = 0;
                while let Some(number) = receiver.next().await {
                    sum += number.unwrap();
                }
                sum
            }));
        }
        let mut queues = Vec::new();
        for _ in 0..QUEUES {
            let queue = Queue::<u64>::new().unwrap().into_async().unwrap();
            queues.push(queue.clone());
            tasks.spawn(send(async move {
                let mut sum = 0;
                while let Some(number) = queue.next().await {
                    sum += number.unwrap();
                }
                sum
            }));
        }
        // All of them have begun to wait after this.
        for _ in 0..3 {
            yield_now().await;
        }
        for number in 0..10 {
            for sender in &mut senders {
                sender.send(number).unwrap();
            }
            for queue in &queues {
                queue.try_put(number).unwrap();
            }
            assert_eq!(threads(), threads_before);
            yield_now().await;
        }
        assert_eq!(tasks.len() as u64, PIPES + QUEUES + CHILDREN, "all wait");
        drop((senders, words));
        for queue in &queues {
            queue.close();
        }
        let mut sum = 0;
        while let Some(result) = tasks.join_next().await {
            assert_eq!(threads(), threads_before);
            sum += result.unwrap();
        }
        sum
    });
    assert_eq!(sum, (PIPES + QUEUES) * 45);
}
