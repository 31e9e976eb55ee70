//! Three threads of one process that share a queue with each other and with the parent.
//!
//! ```text
//! cargo run --example threads
//! ```
//!
//! prints that each of the threads `One`, `Two` and `Three` starts and exits, and for each of five words who took it:
//!
//! ```text
//! Starting One
//! One processing the
//! Starting Two
//! Two processing quick
//! Starting Three
//! …
//! Exiting Three
//! ```
//!
//! A queue is one for threads and processes: no lock around it, no flag beside it. Closing it says that the work is over;
//! what is still in it is taken first.
//!
//! In Python: <https://docs.python.org/3/library/queue.html>, with threads only

use std::thread;
use std::time::Duration;

use mproc::{Failure, Queue, RecvError};

/// Takes words until the queue is closed and empty.
fn work(name: &str, words: &Queue<String>) -> Result<(), RecvError> {
    println!("Starting {name}");
    for word in words {
        println!("{name} processing {}", word?);
        thread::sleep(Duration::from_millis(100)); // as if it were hard
    }
    println!("Exiting {name}");
    Ok(())
}

#[mproc::entry]
fn crew(words: &Queue<String>) -> Result<(), Failure> {
    thread::scope(|scope| {
        let threads = ["One", "Two", "Three"].map(|name| scope.spawn(move || work(name, words)));
        for thread in threads {
            thread.join().expect("a worker does not panic")?;
        }
        Ok(())
    })
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let words = Queue::bounded(10)?;
        let crew = crew::spawn(&words)?;
        for word in ["the", "quick", "brown", "fox", "jumps"] {
            words.put(word.into())?;
        }
        words.close();
        crew.join()?
    }
}
