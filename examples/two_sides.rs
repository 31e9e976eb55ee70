//! The two sides of a queue that holds five messages at most, each side in a process of its own.
//!
//! ```text
//! cargo run --example two_sides
//! ```
//!
//! writes every three seconds, looks every second, and prints
//!
//! ```text
//! queue size 1
//! get msg hello world
//! queue is empty 0
//! queue is empty 0
//! queue size 1
//! get msg hello world
//! …
//! ```
//!
//! for a minute, or as long as `-- --seconds 10` says. Both sides are daemons, so they end with the program.
//!
//! In Python the queue may be a global, which forked processes inherit. A process of ours inherits nothing, and its statics are
//! its own: what it shares it is given.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#multiprocessing.Queue>, and
//! <https://docs.python.org/3/library/multiprocessing.html#all-start-methods> on what to pass on

use std::thread;
use std::time::Duration;

use mproc::{Failure, Queue, RecvError};
use mproc_examples::seconds;

#[mproc::entry]
fn writer(queue: &Queue<String>) -> Result<(), Failure> {
    loop {
        queue.put("hello world".into())?;
        println!("queue size {}", queue.len());
        thread::sleep(Duration::from_secs(3));
    }
}

#[mproc::entry]
fn reader(queue: &Queue<String>) -> Result<(), Failure> {
    loop {
        match queue.try_get() {
            Ok(message) => println!("get msg {message}"),
            Err(RecvError::Empty) => println!("queue is empty {}", queue.len()),
            Err(error) => return Err(error.into()),
        }
        thread::sleep(Duration::from_secs(1));
    }
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let queue = Queue::bounded(5)?;
        writer::process(&queue).daemon(true).start()?;
        reader::process(&queue).daemon(true).start()?;
        thread::sleep(seconds(60.0));
        Ok(())
    }
}
