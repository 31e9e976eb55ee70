//! What it costs to run a function in a process of its own: start, a typed value, join.
//!
//! ```text
//! cargo bench -p mproc --bench spawn
//! ```
//!
//! The *floor* is the least that a program can do to get the same: execute itself again through `/proc/self/exe` with std's
//! `Command`, one socket inherited, eight bytes in, eight bytes out, wait. The same binary, so the same loading and linking.
//! Ours and the floor alternate, so that the machine's moods hit both; the ratio is that of the medians, and the median of the
//! ratios of neighbours is printed beside it.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

const FLOOR: &str = "SPAWN_BENCH_FLOOR";

#[mproc::entry]
fn square(x: u64) -> u64 {
    x * x
}

#[mproc::entry]
fn length(text: String) -> usize {
    text.len()
}

#[mproc::entry]
fn private_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux has it");
    let kib = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|number| number.parse::<u64>().ok())
    };
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(kib)
        .sum()
}

#[mproc::entry]
fn clock() -> u64 {
    now()
}

/// Nanoseconds of the monotonic clock.
fn now() -> u64 {
    let mut time = nix::libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call.
    unsafe { nix::libc::clock_gettime(nix::libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn floor_child(number: i32) -> ! {
    // SAFETY: the parent opened this descriptor for us.
    let mut socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) });
    let mut bytes = [0; 8];
    socket.read_exact(&mut bytes).expect("the parent writes");
    let x = u64::from_le_bytes(bytes);
    socket
        .write_all(&(x * x).to_le_bytes())
        .expect("the parent reads");
    std::process::exit(0)
}

fn floor(x: u64) -> u64 {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    let number = theirs.as_raw_fd();
    let mut command = Command::new("/proc/self/exe");
    command.env(FLOOR, number.to_string());
    // Made inheritable around the spawn, because the way std offers to do it in the child keeps it off its fast path.
    set_inheritable(number, true);
    let mut child = command.spawn().expect("it starts");
    set_inheritable(number, false);
    drop(theirs);
    ours.write_all(&x.to_le_bytes()).expect("the child reads");
    let mut bytes = [0; 8];
    ours.read_exact(&mut bytes).expect("the child writes");
    assert!(child.wait().expect("it ends").success());
    u64::from_le_bytes(bytes)
}

fn set_inheritable(number: i32, inheritable: bool) {
    // SAFETY: sets a flag of a descriptor that is open.
    unsafe {
        nix::libc::fcntl(
            number,
            nix::libc::F_SETFD,
            if inheritable {
                0
            } else {
                nix::libc::FD_CLOEXEC
            },
        )
    };
}

fn ours(x: u64) -> u64 {
    square::spawn(x)
        .expect("it starts")
        .join()
        .expect("it returns")
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    values[values.len() / 2]
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        if let Ok(number) = std::env::var(FLOOR) {
            floor_child(number.parse().expect("a number"));
        }
        let rounds = if std::env::args().any(|argument| argument == "--test") { 5 } else { 1000 };
        for x in 0..rounds / 10 {
            assert_eq!(floor(x), ours(x));
        }
        let (mut floors, mut ourses, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for x in 0..rounds {
            let floor = time(|| assert_eq!(floor(x), x * x)).as_secs_f64() * 1e6;
            let ours = time(|| assert_eq!(ours(x), x * x)).as_secs_f64() * 1e6;
            floors.push(floor);
            ourses.push(ours);
            ratios.push(ours / floor);
        }
        let (floor, ours, ratio) = (median(&mut floors), median(&mut ourses), median(&mut ratios));
        let quartile = |values: &[f64], part: usize| values[values.len() * part / 4];
        println!("start + typed value + join, {rounds} pairs, µs");
        println!("  floor (bare self re-exec over a socket)  median {floor:7.0}   quartiles {:.0} {:.0}", quartile(&floors, 1), quartile(&floors, 3));
        println!("  mproc                                    median {ours:7.0}   quartiles {:.0} {:.0}", quartile(&ourses, 1), quartile(&ourses, 3));
        println!("  ratio of medians {:.3}, median of ratios {ratio:.3}, promised ≤ 1.15", ours / floor);

        // Where the time goes; the clock is the same in all processes.
        let mut steps = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            let begin = now();
            let child = clock::spawn()?;
            let started = now();
            let running = child.join()?;
            let joined = now();
            for (step, time) in steps.iter_mut().zip([started - begin, running - started, joined - running]) {
                step.push(time as f64 / 1e3);
            }
        }
        let [started, running, joined] = steps.map(|mut step| median(&mut step));
        println!("of which, medians: {started:.0} µs until `spawn` returns (the new program has been mapped), {running:.0} µs until the");
        println!("  function runs (loading, linking, boot), {joined:.0} µs until its value is here (exit, teardown, wake-up)");

        for size in [1 << 10, 1 << 20, 1 << 26] {
            let text = "x".repeat(size);
            let mut times: Vec<f64> = (0..(rounds / 50).max(3)).map(|_| {
                let text = text.clone();
                time(|| assert_eq!(length::spawn(text).expect("it starts").join().expect("it returns"), size)).as_secs_f64() * 1e3
            }).collect();
            println!("with an argument of {:>6} KiB: median {:.2} ms", size >> 10, median(&mut times));
        }
        println!("a child's private memory: {} KiB, promised < 2048", private_kib::spawn()?.join()?);
        Ok(())
    }
}
