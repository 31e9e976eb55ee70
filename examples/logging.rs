//! What mproc does, as log records on stderr.
//!
//! ```text
//! cargo run --example logging
//! ```
//!
//! prints `Doing some work`, and around it what happens to the process that prints it:
//!
//! ```text
//! [INFO/Process-1] child process calling worker
//! [INFO/Process-1] Working at it
//! [INFO/Process-1] process exiting with exitcode 0
//! ```
//!
//! The second is the worker's own. What a child gives to the `log` crate arrives in the logger of the program.

#[mproc::entry]
fn worker() {
    println!("Doing some work");
    log::info!("Working at it");
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        mproc::log_to_stderr(log::LevelFilter::Info)?;
        worker::spawn()?.join()
    }
}
