//! Large messages: copied into shared memory by one process and out of it by another, which is what any transport that does
//! not lend its memory has to do.
//!
//! Two ways. *Whole*: two buffers of a message's size, one filled while the other is emptied. *Streamed*: a small ring that
//! stays in the caches, in steps of some kilobytes, each announced as soon as it is copied.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use mproc::Fd;
use serde::{Deserialize, Serialize};

use super::ring::Wait;
use super::stage::{Core, Gate, Shared, Standing, nanoseconds_each, now};

const WRITTEN: usize = 0;
const READ: usize = 256;
const DATA: usize = 4096;

/// A way through shared memory: `steps` of `step` bytes lie in it at once, copied whole or in pieces.
///
/// Pieces, because the C library takes `rep movsb` for what is longer than some kilobytes, which is best on some processors and
/// fifteen times slower than a loop on others (AMD Zen 3), where the target lies a few bytes behind the source within a page, as it does
/// between shared memory and what `malloc` gives.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Way {
    step: usize,
    steps: usize,
    piece: Option<usize>,
}

impl Way {
    pub(crate) const fn whole(size: usize) -> Self {
        Self {
            step: size,
            steps: 2,
            piece: None,
        }
    }

    pub(crate) const fn streamed(step: usize, steps: usize) -> Self {
        Self {
            step,
            steps,
            piece: None,
        }
    }

    /// In pieces that the C library copies in a loop everywhere.
    pub(crate) const fn in_pieces(self) -> Self {
        Self {
            piece: Some(2048),
            ..self
        }
    }

    fn place(self, number: u64) -> usize {
        DATA + (number as usize % self.steps) * self.step
    }
}

/// Copies a step as fast as there is a way to.
///
/// # Safety
///
/// As `copy_nonoverlapping`.
unsafe fn copy(from: *const u8, to: *mut u8, length: usize, way: Way) {
    let piece = way.piece.unwrap_or(length);
    let mut done = 0;
    while done < length {
        let piece = piece.min(length - done);
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.add(done), to.add(done), piece) };
        done += piece;
    }
}

fn write(memory: &Shared, way: Way, number: &mut u64, message: &[u8]) {
    let (written, read) = (
        memory.atomic::<AtomicU64>(WRITTEN),
        memory.atomic::<AtomicU64>(READ),
    );
    for part in message.chunks(way.step) {
        Wait::Spin.until(|| *number - read.load(Acquire) < way.steps as u64);
        // SAFETY: the place is inside, and ours until it is announced.
        unsafe {
            let place = memory.at::<u8>(way.place(*number));
            copy(part.as_ptr(), place, part.len(), way);
        }
        *number += 1;
        written.store(*number, Release); // pairs with "part there" in `read`
    }
}

/// Reads one message of so many bytes to `target`.
///
/// # Safety
///
/// `target` has room for `size` bytes, to which nobody else has a reference.
unsafe fn read(memory: &Shared, way: Way, number: &mut u64, target: *mut u8, size: usize) {
    let (written, read) = (
        memory.atomic::<AtomicU64>(WRITTEN),
        memory.atomic::<AtomicU64>(READ),
    );
    for start in (0..size).step_by(way.step) {
        Wait::Spin.until(|| written.load(Acquire) > *number); // "part there"
        let length = way.step.min(size - start);
        // SAFETY: the place is inside, and ours until it is given back; the target has the room.
        unsafe {
            let place = memory.at::<u8>(way.place(*number));
            copy(place, target.add(start), length, way);
        }
        *number += 1;
        read.store(*number, Release);
    }
}

#[mproc::entry]
fn read_bulk(
    memory: Fd,
    gate: Fd,
    way: Way,
    size: usize,
    count: u64,
    allocate: bool,
    core: Core,
) -> (u64, u64) {
    let (memory, gate) = (Shared::open(memory), Gate::open(gate));
    let _standing = Standing::on(core);
    let mut buffer = vec![1_u8; size];
    let (mut number, mut sum) = (0, 0);
    // The first is read before the clock runs.
    for message in 0..=count {
        if message == 1 {
            sum = 0;
            gate.ready();
        }
        if allocate {
            buffer = Vec::with_capacity(size);
        }
        // SAFETY: the buffer has room for as many bytes, and is ours.
        unsafe {
            read(&memory, way, &mut number, buffer.as_mut_ptr(), size);
            buffer.set_len(size);
        }
        sum += u64::from(buffer[size - 1]);
    }
    (now(), sum)
}

/// Nanoseconds for one of `count` messages of `size` bytes; the reader's buffer is its own, or a new one each time.
pub(crate) fn one_way(way: Way, size: usize, count: u64, allocate: bool, cores: [Core; 2]) -> f64 {
    let (memory, gate) = (Shared::new(DATA + way.step * way.steps), Gate::new());
    let reader = read_bulk::spawn(memory.fd(), gate.fd(), way, size, count, allocate, cores[1])
        .expect("it starts");
    let _standing = Standing::on(cores[0]);
    let message = vec![1; size];
    let mut number = 0;
    write(&memory, way, &mut number, &message);
    gate.wait_for(1);
    let start = now();
    (0..count).for_each(|_| write(&memory, way, &mut number, &message));
    let (end, sum) = reader.join().expect("it returns");
    assert_eq!(sum, count);
    nanoseconds_each(start, end, count)
}
