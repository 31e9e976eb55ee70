//! A process that is terminated, seen before its start, while it runs, and after its end.
//!
//! ```text
//! cargo run --example terminate
//! ```
//!
//! prints the process and whether it is alive, four times:
//!
//! ```text
//! BEFORE:     <Process(Process-1, initial)> false
//! DURING:     <Process(Process-1, started, pid=411)> true
//! TERMINATED: <Process(Process-1, started, pid=411)> true
//! JOINED:     <Process(Process-1, stopped[SIGTERM], pid=411, exit_code=-15)> false
//! ```
//!
//! A signal takes a moment to end a process, so the third line may already say what the fourth does.

use std::thread;
use std::time::Duration;

#[mproc::entry]
fn slow_worker() {
    thread::sleep(Duration::from_secs(60));
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let process = slow_worker::process();
        println!("BEFORE:     {process:?} {}", process.is_alive());

        let child = process.start()?;
        println!("DURING:     {child:?} {}", child.is_alive());

        child.terminate()?;
        println!("TERMINATED: {child:?} {}", child.is_alive());

        child.wait()?;
        println!("JOINED:     {child:?} {}", child.is_alive());
        Ok(())
    }
}
