//! A pool of two as lean as it can be: a ring of words each way for each worker, everybody looks all the time, nobody may die.

#![allow(dead_code, reason = "one of the benches uses it")]

use mproc::Fd;

use super::ring::{Consumer, Producer, Wait, create};
use super::stage::{Core, Gate, Shared, Standing, nanoseconds_each, now};

#[mproc::entry]
fn square_words(there: Fd, back: Fd, gate: Fd, count: u64, core: Core) {
    let (there, back, gate) = (Shared::open(there), Shared::open(back), Gate::open(gate));
    let _standing = Standing::on(core);
    let mut consumer = Consumer::new(&there, Wait::Yield);
    let mut producer = Producer::new(&back, Wait::Yield);
    gate.ready();
    for _ in 0..count {
        let x = consumer.recv_lean();
        producer.send_lean(x.wrapping_mul(x));
    }
}

/// Nanoseconds for one of `count` squares, a message each way for each. At most `ahead` are under way.
pub(crate) fn squares(count: u64, ahead: u64) -> f64 {
    let each = count / 2;
    let gate = Gate::new();
    let rings: Vec<_> = (0..2)
        .map(|_| (create(64 << 10), create(64 << 10)))
        .collect();
    let start_one = |(there, back): &(Shared, Shared)| {
        square_words::spawn(there.fd(), back.fd(), gate.fd(), each, None).expect("it starts")
    };
    let workers: Vec<_> = rings.iter().map(start_one).collect();
    gate.wait_for(2);
    let mut ends: Vec<_> = rings
        .iter()
        .map(|(there, back)| {
            (
                Producer::new(there, Wait::Yield),
                Consumer::new(back, Wait::Yield),
            )
        })
        .collect();
    let start = now();
    let (mut sent, mut sum) = (0, 0_u64);
    while sent < each {
        let some = (each - sent).min(ahead / 2);
        for x in sent..sent + some {
            ends.iter_mut()
                .for_each(|(producer, _)| producer.send_lean(x));
        }
        for _ in 0..some {
            for (_, consumer) in &mut ends {
                sum = sum.wrapping_add(consumer.recv_lean());
            }
        }
        sent += some;
    }
    let end = now();
    assert_ne!(sum, 0);
    for worker in workers {
        worker.join().expect("it returns");
    }
    nanoseconds_each(start, end, 2 * each)
}

/// Uses the processor for so many nanoseconds, by its own clock: being preempted takes longer and is no work.
pub(crate) fn burn(rounds: u64) -> u64 {
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..rounds {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    std::hint::black_box(x)
}

#[mproc::entry]
fn burn_alone(gate: Fd, tasks: u64, rounds: u64, core: Core) -> u64 {
    let gate = Gate::open(gate);
    let _standing = Standing::on(core);
    gate.enter();
    for _ in 0..tasks {
        burn(rounds);
    }
    now()
}

/// Nanoseconds that bare processes need for `tasks` together, each on a core of its own.
pub(crate) fn burn_pinned(tasks: u64, rounds: u64, cores: &[Core]) -> f64 {
    let gate = Gate::new();
    let each = tasks / cores.len() as u64;
    let children: Vec<_> = cores
        .iter()
        .map(|core| burn_alone::spawn(gate.fd(), each, rounds, *core).expect("it starts"))
        .collect();
    let start = gate.open_for(cores.len() as u32);
    let ends = children
        .into_iter()
        .map(|child| child.join().expect("it returns"));
    (ends.max().expect("some") - start) as f64
}
