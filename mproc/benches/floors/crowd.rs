//! Two producers and two consumers through shared memory: one ring for all, after Dmitry Vyukov's bounded queue
//! (<https://www.1024cores.net/home/lock-free-algorithms/queues/bounded-mpmc-queue>), and, for what sharing costs, a ring of its
//! own for each pair.
//!
//! # Ordering
//!
//! Both edges are on a slot's `turn`: *filled* and *emptied* are stored with Release and loaded with Acquire by whoever waits for
//! that turn. The two counters only hand out places.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use mproc::Fd;

use super::ring::{self, Consumer, Producer, Wait, sum_to};
use super::stage::{Gate, Shared, nanoseconds_each, now};

const PUTS: usize = 0;
const GETS: usize = 256;
const SLOTS: usize = 4096;
const PILL: u64 = u64::MAX;

#[repr(C)]
struct Slot {
    turn: AtomicU64,
    value: AtomicU64,
}

struct Ring<'a> {
    puts: &'a AtomicU64,
    gets: &'a AtomicU64,
    slots: &'a [Slot],
}

impl<'a> Ring<'a> {
    fn new(memory: &'a Shared) -> Self {
        let count = memory.length_from(SLOTS) / size_of::<Slot>();
        // SAFETY: mapped for `'a`, inside and aligned, atomics are valid for any bytes.
        let slots = unsafe { std::slice::from_raw_parts(memory.at::<Slot>(SLOTS), count) };
        Self {
            puts: memory.atomic(PUTS),
            gets: memory.atomic(GETS),
            slots,
        }
    }

    fn prepare(&self) {
        for (turn, slot) in self.slots.iter().enumerate() {
            slot.turn.store(turn as u64, Relaxed);
        }
    }

    /// Takes the next place of `counter` once its slot has reached the turn that is `ahead` of it.
    #[inline]
    fn place(&self, counter: &AtomicU64, ahead: u64) -> (u64, &Slot) {
        let mut place = counter.load(Relaxed);
        let mut found = &self.slots[0];
        Wait::Yield.until(|| {
            found = &self.slots[place as usize & (self.slots.len() - 1)];
            let turn = found.turn.load(Acquire);
            if turn == place + ahead {
                match counter.compare_exchange_weak(place, place + 1, Relaxed, Relaxed) {
                    Ok(_) => return true,
                    Err(other) => place = other,
                }
            } else {
                place = counter.load(Relaxed);
            }
            false
        });
        (place, found)
    }

    #[inline]
    fn put(&self, value: u64) {
        let (place, slot) = self.place(self.puts, 0);
        slot.value.store(value, Relaxed);
        slot.turn.store(place + 1, Release);
    }

    #[inline]
    fn get(&self) -> u64 {
        let (place, slot) = self.place(self.gets, 1);
        let value = slot.value.load(Relaxed);
        slot.turn.store(place + self.slots.len() as u64, Release);
        value
    }
}

#[mproc::entry]
fn produce(memory: Fd, gate: Fd, count: u64, others: u32) {
    let (memory, gate) = (Shared::open(memory), Gate::open(gate));
    let ring = Ring::new(&memory);
    gate.enter();
    (0..count).for_each(|value| ring.put(value));
    if gate.is_last(others) {
        (0..others).for_each(|_| ring.put(PILL));
    }
}

#[mproc::entry]
fn consume(memory: Fd, gate: Fd) -> (u64, u64) {
    let (memory, gate) = (Shared::open(memory), Gate::open(gate));
    let ring = Ring::new(&memory);
    gate.enter();
    let mut sum = 0;
    loop {
        match ring.get() {
            PILL => return (now(), sum),
            value => sum += value,
        }
    }
}

/// Nanoseconds for one of `count` messages through one ring of so many bytes.
pub(crate) fn shared(bytes: usize, count: u64) -> f64 {
    let (memory, gate) = (Shared::new(SLOTS + bytes), Gate::new());
    Ring::new(&memory).prepare();
    let producers =
        [(); 2].map(|()| produce::spawn(memory.fd(), gate.fd(), count / 2, 2).expect("starts"));
    let consumers = [(); 2].map(|()| consume::spawn(memory.fd(), gate.fd()).expect("starts"));
    let start = gate.open_for(4);
    for producer in producers {
        producer.join().expect("it returns");
    }
    let ends = consumers.map(|child| child.join().expect("it returns"));
    assert_eq!(ends[0].1 + ends[1].1, 2 * sum_to(count / 2));
    nanoseconds_each(start, ends[0].0.max(ends[1].0), count)
}

#[mproc::entry]
fn produce_alone(memory: Fd, gate: Fd, count: u64) {
    let (memory, gate) = (Shared::open(memory), Gate::open(gate));
    let mut producer = Producer::new(&memory, Wait::Yield);
    gate.enter();
    (0..count).for_each(|value| producer.send(value));
}

#[mproc::entry]
fn consume_alone(memory: Fd, gate: Fd, count: u64) -> (u64, u64) {
    let (memory, gate) = (Shared::open(memory), Gate::open(gate));
    let mut consumer = Consumer::new(&memory, Wait::Yield);
    gate.enter();
    let sum = (0..count).map(|_| consumer.recv()).sum();
    (now(), sum)
}

/// The same with a ring of so many bytes for each pair.
pub(crate) fn apart(bytes: usize, count: u64) -> f64 {
    let gate = Gate::new();
    let rings = [(); 2].map(|()| ring::create(bytes));
    let pairs = rings.each_ref().map(|ring| {
        (
            produce_alone::spawn(ring.fd(), gate.fd(), count / 2).expect("it starts"),
            consume_alone::spawn(ring.fd(), gate.fd(), count / 2).expect("it starts"),
        )
    });
    let start = gate.open_for(4);
    let ends = pairs.map(|(producer, consumer)| {
        producer.join().expect("it returns");
        consumer.join().expect("it returns").0
    });
    nanoseconds_each(start, ends[0].max(ends[1]), count)
}
