//! A lock, so that lines from several processes come out whole.
//!
//! ```text
//! cargo run --example lock
//! ```
//!
//! prints, in an order that depends on who is quicker,
//!
//! ```text
//! hello world 0
//! hello world 1
//! …
//! hello world 9
//! ```
//!
//! `-- --hold` runs the variant in which three processes hold the lock for three seconds each (`--seconds` changes that), one
//! after the other:
//!
//! ```text
//! process 0 has the lock
//! process 0 gives it up
//! process 1 has the lock
//! …
//! ```
//!
//! Kill the one that has it with `kill -9`: the next one gets the lock, and is told. Python's would wait for ever.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#synchronization-between-processes>

use std::thread;

use mproc::{AcquireError, Failure, Lock};
use mproc_examples::seconds;

#[mproc::entry]
fn hello(lock: &Lock, number: u32) -> Result<(), Failure> {
    let _held = lock.acquire().map_err(mproc::Error::from)?;
    println!("hello world {number}");
    Ok(())
}

#[mproc::entry]
fn hold(lock: &Lock, number: u32) -> Result<(), Failure> {
    let _held = match lock.acquire() {
        Ok(held) => held,
        Err(AcquireError::OwnerDied { guard, process_id }) => {
            println!("process {number} is told that {process_id} died with the lock");
            guard
        }
        Err(error) => return Err(mproc::Error::from(error).into()),
    };
    println!("process {number} has the lock");
    thread::sleep(seconds(3.0));
    println!("process {number} gives it up");
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let lock = Lock::new()?;
        let holding = std::env::args().any(|argument| argument == "--hold");
        let children = if holding {
            (0..3).map(|number| hold::spawn(&lock, number)).collect::<Result<Vec<_>, _>>()?
        } else {
            (0..10).map(|number| hello::spawn(&lock, number)).collect::<Result<Vec<_>, _>>()?
        };
        for child in children {
            child.join()??;
        }
        Ok(())
    }
}
