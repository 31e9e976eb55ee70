//! An object with behaviour: a value that is sent to a process of its own and run there.
//!
//! ```text
//! cargo run --example worker_type
//! ```
//!
//! prints `In Worker-1` to `In Worker-5`, in any order.
//!
//! In Python this is a subclass of `Process`, which names its processes after itself. Here the value *has* no process until
//! it is given one, and whoever does that gives the name; the default would be `Process-1`.

use mproc::Run;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Worker;

#[mproc::entry]
impl Run for Worker {
    type Output = ();

    fn run(self) {
        println!("In {}", mproc::current_process().name());
    }
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        for number in 1..=5 {
            Worker.process().name(format!("Worker-{number}")).start()?;
        }
        Ok(())
    }
}
