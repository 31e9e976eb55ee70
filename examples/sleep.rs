//! A function of another crate, here of std, in a process that is stopped before it is done.
//!
//! ```text
//! cargo run --example sleep
//! ```
//!
//! prints
//!
//! ```text
//! <Process(Process-1, initial)> false
//! <Process(Process-1, started, pid=411)> true
//! <Process(Process-1, stopped[SIGTERM], pid=411, exit_code=-15)> false
//! true
//! ```
//!
//! Python takes `time.sleep` itself for a target, because it finds any function by its module and name. Here an entry is
//! declared where it is compiled, so a function that is not ours gets one of our own around it.

use std::time::Duration;

#[mproc::entry]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let process = sleep::process(Duration::from_secs(1000));
        println!("{process:?} {}", process.is_alive());

        let child = process.start()?;
        println!("{child:?} {}", child.is_alive());

        child.terminate()?;
        child.wait()?;
        println!("{child:?} {}", child.is_alive());
        println!("{}", child.exit_code() == Some(-15));
        Ok(())
    }
}
