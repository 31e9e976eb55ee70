//! The program of `consumers.rs`, with calls for tasks: functions with their arguments, that travel and are run elsewhere.
//!
//! ```text
//! cargo run --example consumers_of_calls
//! ```
//!
//! prints, with four consumers and in an order that depends on who is quicker,
//!
//! ```text
//! Creating 4 consumers
//! Process-1: consumers_of_calls::multiply
//! Process-2: consumers_of_calls::add
//! …
//! Process-3: Exiting
//! …
//! Result: 0 * 0 = 0
//! Result: 1 + 1 = 2
//! …
//! ```
//!
//! The consumers know nothing of what they run but that it gives a `String`. This time they say `task_done()` themselves, as
//! Python's do; one that ends without saying so is still seen by `join()`.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#multiprocessing.JoinableQueue>, with functions and
//! tuples of arguments in it

use std::thread;
use std::time::Duration;

use mproc::{Call, Failure, JoinableQueue, Queue};

#[mproc::entry]
fn multiply(a: u32, b: u32) -> String {
    thread::sleep(Duration::from_millis(100)); // as if it were hard
    format!("{a} * {b} = {}", a * b)
}

#[mproc::entry]
fn add(a: u32, b: u32) -> String {
    thread::sleep(Duration::from_millis(100));
    format!("{a} + {b} = {}", a + b)
}

/// `None` is the pill: whoever takes it ends.
type Tasks = JoinableQueue<Option<Call<String>>>;

#[mproc::entry]
fn consumer(tasks: &Tasks, results: &Queue<String>) -> Result<(), Failure> {
    let name = mproc::current_process().name();
    while let Some(call) = tasks.get()? {
        println!("{name}: {}", call.name());
        results.put(call.run()?)?;
        tasks.task_done()?;
    }
    println!("{name}: Exiting");
    tasks.task_done()?;
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let tasks = Tasks::new()?;
        let results = Queue::new()?;

        let consumers = 2 * mproc::cpu_count();
        println!("Creating {consumers} consumers");
        for _ in 0..consumers {
            consumer::spawn(&tasks, &results)?;
        }

        for number in (0..10).step_by(2) {
            tasks.put(Some(multiply::bind(number, number)))?;
            tasks.put(Some(add::bind(number + 1, number + 1)))?;
        }
        for _ in 0..consumers {
            tasks.put(None)?;
        }

        tasks.join()?;
        for _ in 0..10 {
            println!("Result: {}", results.get()?);
        }
        Ok(())
    }
}
