//! The limit inside one process: crossbeam's channels between threads.

use std::sync::Barrier;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::ring::sum_to;
use super::stage::{Core, Standing, nanoseconds_each, now};

fn channel(capacity: Option<usize>) -> (Sender<u64>, Receiver<u64>) {
    match capacity {
        Some(capacity) => bounded(capacity),
        None => unbounded(),
    }
}

/// Nanoseconds for one of `count` messages from `pairs` threads to `pairs` others.
pub(crate) fn crowd(capacity: Option<usize>, pairs: u64, count: u64, cores: [Core; 2]) -> f64 {
    let (sender, receiver) = channel(capacity);
    let barrier = Barrier::new(2 * pairs as usize + 1);
    let (start, ends) = std::thread::scope(|scope| {
        for _ in 0..pairs {
            let (sender, barrier) = (sender.clone(), &barrier);
            scope.spawn(move || {
                let _standing = Standing::on(cores[0]);
                barrier.wait();
                (0..count / pairs).for_each(|value| sender.send(value).expect("a receiver"));
            });
        }
        drop(sender);
        let receivers: Vec<_> = (0..pairs)
            .map(|_| {
                let (receiver, barrier) = (receiver.clone(), &barrier);
                scope.spawn(move || {
                    let _standing = Standing::on(cores[1]);
                    barrier.wait();
                    let sum = receiver.iter().sum::<u64>();
                    (now(), sum)
                })
            })
            .collect();
        barrier.wait();
        let start = now();
        let ends: Vec<_> = receivers
            .into_iter()
            .map(|receiver| receiver.join().expect("it returns"))
            .collect();
        (start, ends)
    });
    let sum: u64 = ends.iter().map(|(_, sum)| sum).sum();
    assert_eq!(sum, pairs * sum_to(count / pairs));
    let end = ends.iter().map(|(end, _)| *end).max().expect("somebody");
    nanoseconds_each(start, end, count)
}
