//! Both ends of a pipe over memory in which somebody else has written: a value or an error, in time, and nothing worse.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ends;
use super::words::kind;
use crate::channel_error::{Patience, RecvError, Trouble};
use crate::shm::fuzz::{Dice, rounds, scribble};
use crate::sys;

/// 64 MiB may be reserved on the word of a peer, and doubled when more than that comes.
const MOST: usize = 140 * 1024 * 1024;

fn patience(dice: &mut Dice) -> Patience {
    match dice.below(3) {
        0 => Patience::None,
        _ => Patience::of(Duration::from_micros(dice.below(2000))),
    }
}

#[test]
fn a_pipe_in_which_anything_was_written() {
    rounds("a pipe", 1_500, 1_000_000, MOST, |dice| {
        let (mut outlet, mut inlet) = ends().unwrap();
        let payload = vec![7; 200 * 1024];
        let mut buffer = vec![0; 1 << dice.below(18)];
        if dice.below(8) == 0 {
            let _ = inlet.watch();
        }
        for _ in 0..dice.below(30) {
            if dice.below(6) == 0 {
                scribble(&outlet.mouth.memory, dice);
            }
            // What comes of it does not matter, as long as it comes.
            let bits = dice.below(18);
            let length = dice.below(1 << bits) as usize;
            match dice.below(8) {
                0 | 1 => {
                    let payload = &payload[..length];
                    let _ = outlet.mouth.send(
                        kind::VALUE,
                        kind::LONG_VALUE,
                        payload,
                        &[],
                        patience(dice),
                    );
                }
                2 => {
                    let payload = &payload[..length];
                    let _ = outlet.mouth.send(
                        kind::BYTES,
                        kind::LONG_BYTES,
                        payload,
                        &[],
                        patience(dice),
                    );
                }
                3 => {
                    let handles = vec![outlet.mouth.bell.clone(); dice.below(4) as usize];
                    let (short, long) = (kind::VALUE, kind::LONG_VALUE);
                    let _ = outlet.mouth.send(
                        short,
                        long,
                        &payload[..length],
                        &handles,
                        patience(dice),
                    );
                }
                4 => {
                    let _ = inlet
                        .receive(patience(dice))
                        .map(|()| inlet.encoding().0.len());
                }
                5 => {
                    let _ = inlet.receive_bytes(length, patience(dice));
                }
                6 => {
                    let _ = inlet.receive_into(&mut buffer, patience(dice));
                }
                _ => {
                    let _ = inlet.poll(patience(dice));
                }
            }
        }
        inlet.close();
        outlet.mouth.close();
    });
}

/// A peer that rings on and on, and has nothing to say.
#[test]
fn rings_for_nothing_keep_nobody_beyond_the_deadline() {
    let (mut outlet, mut inlet) = ends().unwrap();
    let (bell, line) = (Arc::clone(&outlet.mouth.bell), Arc::clone(&inlet.line));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                sys::strike(bell.as_fd());
                sys::ring_line(line.as_fd());
            }
        });
        for _ in 0..20 {
            let received = inlet.receive(Patience::of(Duration::from_millis(2)));
            assert!(matches!(received, Err(RecvError::Timeout)));
        }
        let payload = vec![7; 512 * 1024];
        let mut send = || {
            let patience = Patience::of(Duration::from_millis(2));
            let (short, long) = (kind::BYTES, kind::LONG_BYTES);
            outlet.mouth.send(short, long, &payload, &[], patience)
        };
        while send().is_ok() {}
        for _ in 0..20 {
            assert!(matches!(send(), Err(Trouble::TimedOut)));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
