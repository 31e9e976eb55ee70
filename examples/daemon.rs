//! A daemon is terminated when the program ends; other processes are waited for.
//!
//! ```text
//! cargo run --example daemon
//! ```
//!
//! prints `Starting:` of both processes, but `Exiting :` only of the one that is no daemon.
//!
//! ```text
//! cargo run --example daemon -- --join
//! ```
//!
//! waits for the daemon, too, and prints all four lines.
//!
//! ```text
//! cargo run --example daemon -- --join-timeout
//! ```
//!
//! waits one second for it and prints `is_alive() true` instead of its `Exiting :`.
//!
//! The daemon sleeps two seconds; `--seconds 60` makes it sleep longer, and the program no slower unless it joins.

use std::thread;
use std::time::Duration;

use mproc_examples::seconds;

#[mproc::entry]
fn daemon() {
    let me = mproc::current_process();
    println!("Starting: {} {}", me.name(), me.id());
    thread::sleep(seconds(2.0));
    println!("Exiting : {} {}", me.name(), me.id());
}

#[mproc::entry]
fn non_daemon() {
    let me = mproc::current_process();
    println!("Starting: {} {}", me.name(), me.id());
    println!("Exiting : {} {}", me.name(), me.id());
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let mut daemon = daemon::process().name("daemon").daemon(true).start()?;
        non_daemon::process().name("non-daemon").start()?;

        match std::env::args().nth(1).as_deref() {
            Some("--join") => daemon.join()?,
            Some("--join-timeout") => {
                daemon.join_timeout(Duration::from_secs(1))?;
                println!("is_alive() {}", daemon.is_alive());
            }
            // Without a pause the program may be over before the daemon has said anything.
            _ => thread::sleep(Duration::from_secs(1)),
        }
        Ok(())
    }
}
