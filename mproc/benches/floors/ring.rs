//! A ring of words between one producer and one consumer, in two versions: with a header before each message, as any transport
//! of messages has, and without, the leanest there can be.
//!
//! # Ordering
//!
//! *message there*: the producer stores `tail` with Release, the consumer loads it with Acquire. *room there*: the consumer stores
//! `head` with Release, the producer loads it with Acquire. Each side keeps a copy of the other's index and looks again only when
//! the copy says that there is nothing to do.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use mproc::Fd;

use super::stage::{Core, Gate, Shared, Standing, nanoseconds_each, now};

const TAIL: usize = 0;
const HEAD: usize = 256;
const DATA: usize = 4096;

/// The header of a message of eight bytes.
const HEADER: u64 = 8;

/// What to do between two looks at the other's index.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wait {
    /// Only a pause: for two processes on two cores.
    Spin,
    /// After some pauses, let others run: for more processes than cores.
    Yield,
}

impl Wait {
    pub(crate) fn until(self, mut condition: impl FnMut() -> bool) {
        let mut rounds = 0;
        while !condition() {
            rounds += 1;
            if self == Self::Yield && rounds > 100 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Makes a ring with room for so many bytes, a power of two.
pub(crate) fn create(bytes: usize) -> Shared {
    assert!(bytes.is_power_of_two());
    Shared::new(DATA + bytes)
}

pub(crate) struct Producer<'a> {
    tail: &'a AtomicU64,
    head: &'a AtomicU64,
    words: *mut u64,
    room: u64,
    position: u64,
    head_seen: u64,
    wait: Wait,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(ring: &'a Shared, wait: Wait) -> Self {
        Self {
            tail: ring.atomic(TAIL),
            head: ring.atomic(HEAD),
            words: ring.at(DATA),
            room: ring.length_from(DATA) as u64 / 8,
            position: 0,
            head_seen: 0,
            wait,
        }
    }

    #[inline]
    fn put<const WORDS: usize>(&mut self, message: [u64; WORDS]) {
        let end = self.position + WORDS as u64;
        if end - self.head_seen > self.room {
            let (head, room) = (self.head, self.room);
            let mut seen = self.head_seen;
            self.wait.until(|| {
                seen = head.load(Acquire);
                end - seen <= room
            });
            self.head_seen = seen;
        }
        for (index, word) in message.into_iter().enumerate() {
            let slot = (self.position + index as u64) & (self.room - 1);
            // SAFETY: inside by the mask; ours to write, because the consumer's index has passed it.
            unsafe { self.words.add(slot as usize).write(word) };
        }
        self.position = end;
        self.tail.store(end, Release);
    }

    #[inline]
    pub(crate) fn send(&mut self, value: u64) {
        self.put([HEADER, value]);
    }

    #[inline]
    pub(crate) fn send_lean(&mut self, value: u64) {
        self.put([value]);
    }
}

pub(crate) struct Consumer<'a> {
    tail: &'a AtomicU64,
    head: &'a AtomicU64,
    words: *const u64,
    room: u64,
    position: u64,
    tail_seen: u64,
    given_back: u64,
    wait: Wait,
}

impl<'a> Consumer<'a> {
    pub(crate) fn new(ring: &'a Shared, wait: Wait) -> Self {
        Self {
            tail: ring.atomic(TAIL),
            head: ring.atomic(HEAD),
            words: ring.at(DATA),
            room: ring.length_from(DATA) as u64 / 8,
            position: 0,
            tail_seen: 0,
            given_back: 0,
            wait,
        }
    }

    #[inline]
    fn get<const WORDS: usize>(&mut self) -> [u64; WORDS] {
        if self.position == self.tail_seen {
            let (tail, position) = (self.tail, self.position);
            let mut seen = position;
            self.wait.until(|| {
                seen = tail.load(Acquire);
                seen != position
            });
            self.tail_seen = seen;
        }
        let message = std::array::from_fn(|index| {
            let slot = (self.position + index as u64) & (self.room - 1);
            // SAFETY: inside by the mask; ours to read, because the producer's index has passed it.
            unsafe { self.words.add(slot as usize).read() }
        });
        self.position += WORDS as u64;
        message
    }

    #[inline]
    pub(crate) fn recv(&mut self) -> u64 {
        let [header, value] = self.get();
        assert_eq!(header, HEADER);
        self.head.store(self.position, Release);
        value
    }

    /// Gives room back an eighth of the ring at a time.
    #[inline]
    pub(crate) fn recv_lean(&mut self) -> u64 {
        let [value] = self.get();
        if self.position - self.given_back >= self.room / 8 {
            self.head.store(self.position, Release);
            self.given_back = self.position;
        }
        value
    }
}

#[mproc::entry]
fn read_ring(ring: Fd, gate: Fd, count: u64, lean: bool, core: Core) -> (u64, u64) {
    let (ring, gate) = (Shared::open(ring), Gate::open(gate));
    let _standing = Standing::on(core);
    let mut consumer = Consumer::new(&ring, Wait::Spin);
    gate.ready();
    let sum = if lean {
        (0..count).fold(0_u64, |sum, _| sum.wrapping_add(consumer.recv_lean()))
    } else {
        (0..count).fold(0_u64, |sum, _| sum.wrapping_add(consumer.recv()))
    };
    (now(), sum)
}

/// Nanoseconds for one of `count` messages, one way.
pub(crate) fn one_way(bytes: usize, count: u64, lean: bool, cores: [Core; 2]) -> f64 {
    let (ring, gate) = (create(bytes), Gate::new());
    let reader = read_ring::spawn(ring.fd(), gate.fd(), count, lean, cores[1]).expect("it starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let mut producer = Producer::new(&ring, Wait::Spin);
    let start = now();
    if lean {
        (0..count).for_each(|value| producer.send_lean(value));
    } else {
        (0..count).for_each(|value| producer.send(value));
    }
    let (end, sum) = reader.join().expect("it returns");
    assert_eq!(sum, sum_to(count));
    nanoseconds_each(start, end, count)
}

/// What readers of the numbers below `count` must find.
pub(crate) fn sum_to(count: u64) -> u64 {
    count * count.saturating_sub(1) / 2
}

#[mproc::entry]
fn echo_ring(there: Fd, back: Fd, gate: Fd, count: u64, core: Core) {
    let (there, back, gate) = (Shared::open(there), Shared::open(back), Gate::open(gate));
    let _standing = Standing::on(core);
    let mut consumer = Consumer::new(&there, Wait::Spin);
    let mut producer = Producer::new(&back, Wait::Spin);
    gate.ready();
    for _ in 0..count {
        producer.send(consumer.recv());
    }
}

/// Nanoseconds for one of `count` round trips, both sides spinning.
pub(crate) fn round_trip(count: u64, cores: [Core; 2]) -> f64 {
    let (there, back, gate) = (create(4096), create(4096), Gate::new());
    let echo = echo_ring::spawn(there.fd(), back.fd(), gate.fd(), count, cores[1]).expect("starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let mut producer = Producer::new(&there, Wait::Spin);
    let mut consumer = Consumer::new(&back, Wait::Spin);
    let start = now();
    for value in 0..count {
        producer.send(value);
        assert_eq!(consumer.recv(), value);
    }
    let end = now();
    echo.join().expect("it returns");
    nanoseconds_each(start, end, count)
}
