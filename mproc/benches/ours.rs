//! mproc itself, as any program would use it.

use std::time::Duration;

use mproc::{Connection, Fd, Queue, Receiver};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::floors::ring::sum_to;
use crate::floors::stage::{
    Core, Gate, Standing, cpu_time_of, descriptors, memory_of_descriptors, nanoseconds_each, now,
};

const PILL: u64 = u64::MAX;

#[mproc::entry]
fn read_pipe(mut pipe: Receiver<u64>, gate: Fd, count: u64, core: Core) -> (u64, u64) {
    let gate = Gate::open(gate);
    let _standing = Standing::on(core);
    gate.ready();
    let sum = (0..count).map(|_| pipe.recv().expect("a value")).sum();
    (now(), sum)
}

/// Nanoseconds for one of `count` messages, one way.
pub(crate) fn one_way(count: u64, cores: [Core; 2]) -> f64 {
    let (mut sender, receiver) = mproc::pipe().expect("a pipe");
    let gate = Gate::new();
    let reader = read_pipe::spawn(receiver, gate.fd(), count, cores[1]).expect("it starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let start = now();
    (0..count).for_each(|value| sender.send(value).expect("a reader"));
    let (end, sum) = reader.join().expect("it returns");
    assert_eq!(sum, sum_to(count));
    nanoseconds_each(start, end, count)
}

#[mproc::entry]
fn read_pipe_bytes(mut pipe: Receiver<()>, gate: Fd, count: u64, core: Core) -> (u64, u64) {
    let gate = Gate::open(gate);
    let _standing = Standing::on(core);
    gate.ready();
    let mut sum = 0;
    for _ in 0..count {
        let mut value = [0_u64];
        let length = pipe.recv_bytes_into(&mut value).expect("eight bytes");
        assert_eq!(length, 8);
        sum += value[0];
    }
    (now(), sum)
}

/// The same with bytes in place of values.
pub(crate) fn one_way_bytes(count: u64, cores: [Core; 2]) -> f64 {
    let (mut sender, receiver) = mproc::pipe().expect("a pipe");
    let gate = Gate::new();
    let reader = read_pipe_bytes::spawn(receiver, gate.fd(), count, cores[1]).expect("it starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let start = now();
    for value in 0..count {
        sender.send_bytes(&value.to_ne_bytes()).expect("a reader");
    }
    let (end, sum) = reader.join().expect("it returns");
    assert_eq!(sum, sum_to(count));
    nanoseconds_each(start, end, count)
}

#[mproc::entry]
fn echo(mut peer: Connection<u64, u64>, gate: Fd, core: Core) {
    let gate = Gate::open(gate);
    let _standing = Standing::on(core);
    gate.ready();
    while let Ok(value) = peer.recv() {
        peer.send(value).expect("a reader");
    }
}

/// Half a second, after which a block of what is far too slow ends.
const LONG: u64 = 500_000_000;

/// Nanoseconds for one of up to `count` round trips that follow each other at once.
pub(crate) fn round_trip(count: u64, cores: [Core; 2]) -> f64 {
    let (mut here, there) = mproc::duplex().expect("a connection");
    let gate = Gate::new();
    let child = echo::spawn(there, gate.fd(), cores[1]).expect("it starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let start = now();
    let mut done = 0;
    while done < count && (done % 1000 != 0 || now() - start < LONG) {
        here.send(done).expect("a reader");
        assert_eq!(here.recv().expect("a value"), done);
        done += 1;
    }
    let end = now();
    drop(here);
    child.join().expect("it returns");
    nanoseconds_each(start, end, done)
}

/// The nanoseconds of `count` round trips, one by one, after doing `between` each time.
pub(crate) fn round_trips(count: u64, cores: [Core; 2], mut between: impl FnMut()) -> Vec<f64> {
    let (mut here, there) = mproc::duplex().expect("a connection");
    let gate = Gate::new();
    let child = echo::spawn(there, gate.fd(), cores[1]).expect("it starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let times = (0..count)
        .map(|value| {
            between();
            let start = now();
            here.send(value).expect("a reader");
            assert_eq!(here.recv().expect("a value"), value);
            nanoseconds_each(start, now(), 1)
        })
        .collect();
    drop(here);
    child.join().expect("it returns");
    times
}

/// How large messages are sent and received.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Receive {
    /// As bytes, into a buffer that is used again.
    Into,
    /// As bytes, into a new vector each time.
    Owned,
    /// As a value that is encoded as bytes.
    Blob,
    /// As a `Vec<u8>`, which serde takes for a sequence of numbers.
    Elements,
}

/// Bytes as a value, as `serde_bytes` has them.
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[mproc::entry]
fn read_bulk(
    pipes: (Receiver<()>, Receiver<Blob>, Receiver<Vec<u8>>),
    gate: Fd,
    how: Receive,
    size: usize,
    count: u64,
    core: Core,
) -> (u64, u64) {
    let (mut bytes, mut blobs, mut vectors) = pipes;
    let gate = Gate::open(gate);
    let _standing = Standing::on(core);
    let mut buffer = vec![1_u8; size];
    let mut sum = 0;
    // The first is read before the clock runs.
    for message in 0..=count {
        if message == 1 {
            sum = 0;
            gate.ready();
        }
        match how {
            Receive::Into => {
                let length = bytes.recv_bytes_into(&mut buffer).expect("bytes");
                assert_eq!(length, size);
            }
            Receive::Owned => buffer = bytes.recv_bytes(size).expect("bytes"),
            Receive::Blob => buffer = blobs.recv().expect("bytes").0,
            Receive::Elements => buffer = vectors.recv().expect("bytes"),
        }
        sum += u64::from(buffer[size - 1]);
    }
    (now(), sum)
}

/// Nanoseconds for one of `count` messages of `size` bytes. One more is sent before, so that the ring has become as large as it will be: those of the
/// floors are there from the start.
pub(crate) fn bulk(how: Receive, size: usize, count: u64, cores: [Core; 2]) -> f64 {
    let (mut bytes, bytes_there) = mproc::pipe().expect("a pipe");
    let (mut blobs, blobs_there) = mproc::pipe().expect("a pipe");
    let (mut vectors, vectors_there) = mproc::pipe().expect("a pipe");
    let gate = Gate::new();
    let reader = read_bulk::spawn(
        (bytes_there, blobs_there, vectors_there),
        gate.fd(),
        how,
        size,
        count,
        cores[1],
    )
    .expect("it starts");
    let _standing = Standing::on(cores[0]);
    let message = vec![1; size];
    match how {
        Receive::Into | Receive::Owned => bytes.send_bytes(&message).expect("a reader"),
        Receive::Blob => blobs.send(Blob(message.clone())).expect("a reader"),
        Receive::Elements => vectors.send(message.clone()).expect("a reader"),
    }
    gate.wait_for(1);
    let start = match how {
        Receive::Into | Receive::Owned => {
            let start = now();
            (0..count).for_each(|_| bytes.send_bytes(&message).expect("a reader"));
            start
        }
        // `send` takes the value, so it is made here; not what is measured, but there is no other way to have one each time.
        Receive::Blob => {
            let messages: Vec<_> = (0..count).map(|_| Blob(message.clone())).collect();
            let start = now();
            for message in messages {
                blobs.send(message).expect("a reader");
            }
            start
        }
        Receive::Elements => {
            let messages: Vec<_> = (0..count).map(|_| message.clone()).collect();
            let start = now();
            for message in messages {
                vectors.send(message).expect("a reader");
            }
            start
        }
    };
    let (end, sum) = reader.join().expect("it returns");
    assert_eq!(sum, count);
    nanoseconds_each(start, end, count)
}

#[mproc::entry]
fn produce(queue: Queue<u64>, gate: Fd, count: u64, others: u32) {
    let gate = Gate::open(gate);
    gate.enter();
    (0..count).for_each(|value| queue.put(value).expect("there is room"));
    if gate.is_last(others) {
        (0..others).for_each(|_| queue.put(PILL).expect("there is room"));
    }
}

#[mproc::entry]
fn consume(queue: Queue<u64>, gate: Fd) -> (u64, u64) {
    let gate = Gate::open(gate);
    gate.enter();
    let mut sum = 0;
    loop {
        match queue.get().expect("a value") {
            PILL => return (now(), sum),
            value => sum += value,
        }
    }
}

/// Nanoseconds for one of `count` messages between two producers and two consumers.
pub(crate) fn crowd(capacity: Option<usize>, count: u64) -> f64 {
    let queue = match capacity {
        Some(capacity) => Queue::bounded(capacity),
        None => Queue::new(),
    };
    let (queue, gate) = (queue.expect("a queue"), Gate::new());
    let producers =
        [(); 2].map(|()| produce::spawn(queue.clone(), gate.fd(), count / 2, 2).expect("starts"));
    let consumers = [(); 2].map(|()| consume::spawn(queue.clone(), gate.fd()).expect("starts"));
    let start = gate.open_for(4);
    for producer in producers {
        producer.join().expect("it returns");
    }
    let ends = consumers.map(|child| child.join().expect("it returns"));
    assert_eq!(ends[0].1 + ends[1].1, 2 * sum_to(count / 2));
    nanoseconds_each(start, ends[0].0.max(ends[1].0), count)
}

#[mproc::entry]
fn block_in_recv(mut pipe: Receiver<u64>, gate: Fd) {
    Gate::open(gate).ready();
    pipe.recv().expect("a value");
}

#[mproc::entry]
fn block_in_get(queue: Queue<u64>, gate: Fd) {
    Gate::open(gate).ready();
    queue.get().expect("a value");
}

/// Prints what it costs to wait, and to have what nobody uses.
pub(crate) fn idle(milliseconds: u64) -> mproc::Result<()> {
    println!("\nidle");
    let before = descriptors();
    let (mut sender, receiver) = mproc::pipe::<u64>()?;
    let pipe = memory_of_descriptors(&before);
    let before = descriptors();
    let queue = Queue::<u64>::new()?;
    for (name, (count, bytes)) in [("pipe", pipe), ("queue", memory_of_descriptors(&before))] {
        println!(
            "  an unused {name}, both ends here: {} KiB of shared memory, {count} descriptors; promised a page or two",
            bytes >> 10
        );
    }

    let gate = Gate::new();
    let children = [
        block_in_recv::spawn(receiver, gate.fd())?,
        block_in_get::spawn(queue.clone(), gate.fd())?,
    ];
    gate.wait_for(2);
    // They spin for a moment before they sleep, and what they start with is not what waiting costs.
    std::thread::sleep(Duration::from_millis(100));
    let used = || children.each_ref().map(|child| cpu_time_of(child.id()));
    let before = used();
    std::thread::sleep(Duration::from_millis(milliseconds));
    let after = used();
    for (index, name) in ["recv", "get"].into_iter().enumerate() {
        println!(
            "  a process blocked in {name} for {milliseconds} ms: {} µs of CPU, promised none",
            (after[index] - before[index]).as_micros()
        );
    }
    sender.send(0)?;
    queue.put(0)?;
    for child in children {
        child.join()?;
    }
    Ok(())
}
