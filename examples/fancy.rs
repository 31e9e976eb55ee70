//! A value with behaviour, sent through a queue.
//!
//! ```text
//! cargo run --example fancy
//! ```
//!
//! prints `Doing something fancy in Process-1 for Fancy Dan!`.
//!
//! Only the value's fields travel. Its methods are there already, because the process is the same program.
//!
//! In Python: <https://pymotw.com/3/multiprocessing/communication.html#passing-messages-to-processes>

use mproc::{Failure, Queue};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct MyFancyClass {
    name: String,
}

impl MyFancyClass {
    fn do_something(&self) {
        let process = mproc::current_process().name();
        println!("Doing something fancy in {process} for {}!", self.name);
    }
}

#[mproc::entry]
fn worker(queue: &Queue<MyFancyClass>) -> Result<(), Failure> {
    queue.get()?.do_something();
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let queue = Queue::new()?;
        let child = worker::spawn(&queue)?;
        queue.put(MyFancyClass { name: "Fancy Dan".into() })?;
        child.join()?
    }
}
