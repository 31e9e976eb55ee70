//! How long it takes to send numbers through a pipe, one message each.
//!
//! ```text
//! cargo run --release --example pipe_timing
//! ```
//!
//! prints three lines, with the times of your machine:
//!
//! ```text
//! Sending 10000 numbers to Pipe() took 0.001871 seconds
//! Sending 100000 numbers to Pipe() took 0.015377 seconds
//! Sending 1000000 numbers to Pipe() took 0.110682 seconds
//! ```
//!
//! `python3 examples/python/pipe_timing.py` does the same in Python, to be compared. The clock starts beside the reader, as it
//! does there, so the first line is for the most part the time in which a process begins.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#multiprocessing.Pipe>

use std::time::Instant;

use mproc::{Failure, Receiver, Sender};

/// Reads to the end marker, which is `None`.
#[mproc::entry]
fn reader(mut numbers: Receiver<Option<u64>>) -> Result<(), Failure> {
    while numbers.recv()?.is_some() {}
    Ok(())
}

fn write(count: u64, mut numbers: Sender<Option<u64>>) -> Result<(), Failure> {
    for number in 0..count {
        numbers.send(Some(number))?;
    }
    numbers.send(None)?;
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        for count in [10_000, 100_000, 1_000_000] {
            let (sender, receiver) = mproc::pipe()?;
            let reader = reader::process(receiver).daemon(true).start()?;

            let started = Instant::now();
            write(count, sender)?;
            reader.join()??;
            let seconds = started.elapsed().as_secs_f64();
            println!("Sending {count} numbers to Pipe() took {seconds:.6} seconds");
        }
        Ok(())
    }
}
