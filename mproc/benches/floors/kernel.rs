//! The kernel's own pipe: eight bytes a message, one system call each side.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;

use mproc::Fd;

use super::ring::sum_to;
use super::stage::{Core, Gate, Standing, nanoseconds_each, now};

/// Says that nothing more comes.
const PILL: u64 = u64::MAX;

fn reader(fd: Fd) -> PipeReader {
    fd.into_inner::<OwnedFd>().expect("the only holder").into()
}

fn writer(fd: Fd) -> PipeWriter {
    fd.into_inner::<OwnedFd>().expect("the only holder").into()
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().expect("a pipe")
}

fn fd(end: impl Into<OwnedFd>) -> Fd {
    Fd::from(end.into())
}

#[inline]
fn send(pipe: &mut PipeWriter, value: u64) {
    pipe.write_all(&value.to_ne_bytes()).expect("a reader");
}

#[inline]
fn recv(pipe: &mut PipeReader) -> u64 {
    let mut bytes = [0; 8];
    pipe.read_exact(&mut bytes).expect("a writer");
    u64::from_ne_bytes(bytes)
}

#[mproc::entry]
fn read_pipe(pipe: Fd, gate: Fd, count: u64, core: Core) -> (u64, u64) {
    let (mut pipe, gate) = (reader(pipe), Gate::open(gate));
    let _standing = Standing::on(core);
    gate.ready();
    let sum = (0..count).map(|_| recv(&mut pipe)).sum();
    (now(), sum)
}

/// Nanoseconds for one of `count` messages, one way.
pub(crate) fn one_way(count: u64, cores: [Core; 2]) -> f64 {
    let ((theirs, mut ours), gate) = (pipe(), Gate::new());
    let child = read_pipe::spawn(fd(theirs), gate.fd(), count, cores[1]).expect("it starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let start = now();
    (0..count).for_each(|value| send(&mut ours, value));
    let (end, sum) = child.join().expect("it returns");
    assert_eq!(sum, sum_to(count));
    nanoseconds_each(start, end, count)
}

#[mproc::entry]
fn echo_pipe(there: Fd, back: Fd, gate: Fd, count: u64, core: Core) {
    let (mut there, mut back, gate) = (reader(there), writer(back), Gate::open(gate));
    let _standing = Standing::on(core);
    gate.ready();
    for _ in 0..count {
        let value = recv(&mut there);
        send(&mut back, value);
    }
}

/// The nanoseconds of `count` round trips, one by one, after doing `between` each time.
pub(crate) fn round_trips(count: u64, cores: [Core; 2], mut between: impl FnMut()) -> Vec<f64> {
    let ((their_reader, mut ours), (mut answers, their_writer)) = (pipe(), pipe());
    let gate = Gate::new();
    let child = echo_pipe::spawn(
        fd(their_reader),
        fd(their_writer),
        gate.fd(),
        count,
        cores[1],
    )
    .expect("it starts");
    gate.wait_for(1);
    let _standing = Standing::on(cores[0]);
    let times = (0..count)
        .map(|value| {
            between();
            let start = now();
            send(&mut ours, value);
            assert_eq!(recv(&mut answers), value);
            nanoseconds_each(start, now(), 1)
        })
        .collect();
    child.join().expect("it returns");
    times
}

#[mproc::entry]
fn produce(pipe: Fd, gate: Fd, count: u64, others: u32) {
    let (mut pipe, gate) = (writer(pipe), Gate::open(gate));
    gate.enter();
    (0..count).for_each(|value| send(&mut pipe, value));
    if gate.is_last(others) {
        (0..others).for_each(|_| send(&mut pipe, PILL));
    }
}

#[mproc::entry]
fn consume(pipe: Fd, gate: Fd) -> (u64, u64) {
    let (mut pipe, gate) = (reader(pipe), Gate::open(gate));
    gate.enter();
    let mut sum = 0;
    loop {
        match recv(&mut pipe) {
            PILL => return (now(), sum),
            value => sum += value,
        }
    }
}

/// Nanoseconds for one of `count` messages between two producers and two consumers of one pipe.
pub(crate) fn crowd(count: u64) -> f64 {
    let ((theirs, ours), gate) = (pipe(), Gate::new());
    let (theirs, ours) = (fd(theirs), fd(ours));
    let producers =
        [(); 2].map(|()| produce::spawn(ours.clone(), gate.fd(), count / 2, 2).expect("starts"));
    let consumers = [(); 2].map(|()| consume::spawn(theirs.clone(), gate.fd()).expect("starts"));
    let start = gate.open_for(4);
    for producer in producers {
        producer.join().expect("it returns");
    }
    let ends = consumers.map(|child| child.join().expect("it returns"));
    assert_eq!(ends[0].1 + ends[1].1, 2 * sum_to(count / 2));
    nanoseconds_each(start, ends[0].0.max(ends[1].0), count)
}
