//! Processes with names, each of which reads its own.
//!
//! ```text
//! cargo run --example names
//! ```
//!
//! prints `worker 1 Starting`, `Process-3 Starting` and `my_service Starting`, and each with `Exiting` when it is done: the
//! workers after two seconds, the service after three. `-- --seconds 0` makes all of them quick.
//!
//! The process without a name of its own is called for being the third that this program describes.

use std::thread;

use mproc_examples::seconds;

#[mproc::entry]
fn worker() {
    let name = mproc::current_process().name();
    println!("{name} Starting");
    thread::sleep(seconds(2.0));
    println!("{name} Exiting");
}

#[mproc::entry]
fn my_service() {
    let name = mproc::current_process().name();
    println!("{name} Starting");
    thread::sleep(seconds(3.0));
    println!("{name} Exiting");
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let service = my_service::process().name("my_service");
        let named_worker = worker::process().name("worker 1");
        let default_worker = worker::process();

        named_worker.start()?;
        default_worker.start()?;
        service.start()?;
        Ok(())
    }
}
