//! An event: two processes wait for it, one of them not for long.
//!
//! ```text
//! cargo run --example event
//! ```
//!
//! prints
//!
//! ```text
//! wait_for_event: starting
//! wait_for_event_timeout: starting
//! main: waiting before calling Event.set()
//! wait_for_event_timeout: e.is_set()-> false
//! main: event is set
//! wait_for_event: e.is_set()-> true
//! ```
//!
//! The event is set after three seconds, the second process waits for two at most; `-- --seconds 1` makes one of the three.
//!
//! In Python: <https://pymotw.com/3/multiprocessing/communication.html#signaling-between-processes>

use std::thread;

use mproc::{Event, Failure};
use mproc_examples::seconds;

#[mproc::entry]
fn wait_for_event(event: &Event) -> Result<(), Failure> {
    println!("wait_for_event: starting");
    event.wait()?;
    println!("wait_for_event: e.is_set()-> {}", event.is_set());
    Ok(())
}

#[mproc::entry]
fn wait_for_event_timeout(event: &Event) -> Result<(), Failure> {
    println!("wait_for_event_timeout: starting");
    let set = event.wait_timeout(seconds(3.0) * 2 / 3)?;
    println!("wait_for_event_timeout: e.is_set()-> {set}");
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let event = Event::new()?;
        let block = wait_for_event::process(&event).name("block").start()?;
        let nonblock = wait_for_event_timeout::process(&event).name("nonblock").start()?;

        println!("main: waiting before calling Event.set()");
        thread::sleep(seconds(3.0));
        // However busy the machine is: the one with the limit has given up.
        nonblock.join()??;
        event.set()?;
        println!("main: event is set");
        block.join()??;
        Ok(())
    }
}
