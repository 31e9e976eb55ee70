//! A semaphore: of many processes, three at a time are active.
//!
//! ```text
//! cargo run --example limited
//! ```
//!
//! prints, in an order that depends on who is quicker,
//!
//! ```text
//! A starts with [A]
//! B starts with [A, B]
//! C starts with [A, B, C]
//! A ends
//! D starts with [B, C, D]
//! …
//! ```
//!
//! for ten processes, and never more than three in brackets. Kill one that is active with `kill -9`: its permit comes back, and the
//! next one starts. In Python the place is lost for good.
//!
//! In Python: <https://pymotw.com/3/multiprocessing/communication.html#controlling-concurrent-access-to-resources>

use std::thread;

use mproc::{Failure, Lock, Queue, Semaphore};
use mproc_examples::seconds;

/// Who is active: a queue of one list, which whoever has the lock takes out and puts back.
fn change(
    lock: &Lock,
    active: &Queue<Vec<String>>,
    change: impl FnOnce(&mut Vec<String>),
) -> Result<(), Failure> {
    let _held = lock.acquire().map_err(mproc::Error::from)?;
    let mut names = active.get()?;
    change(&mut names);
    active.put(names)?;
    Ok(())
}

#[mproc::entry]
fn work(semaphore: &Semaphore, lock: &Lock, active: &Queue<Vec<String>>) -> Result<(), Failure> {
    let name = mproc::current_process().name();
    let _permit = semaphore.acquire()?;
    change(lock, active, |names| {
        names.push(name.to_owned());
        println!("{name} starts with [{}]", names.join(", "));
    })?;
    thread::sleep(seconds(0.1));
    change(lock, active, |names| {
        names.retain(|other| other != name);
        println!("{name} ends");
    })
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let semaphore = Semaphore::new(3)?;
        let lock = Lock::new()?;
        let active = Queue::new()?;
        active.put(Vec::new())?;
        let children = ('A'..='J')
            .map(|name| work::process(&semaphore, &lock, &active).name(name.to_string()).start())
            .collect::<Result<Vec<_>, _>>()?;
        for child in children {
            child.join()??;
        }
        Ok(())
    }
}
