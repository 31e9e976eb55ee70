//! Consumers that take tasks from one queue and put the results into another.
//!
//! ```text
//! cargo run --example consumers
//! ```
//!
//! prints, with four consumers and in an order that depends on who is quicker,
//!
//! ```text
//! Creating 4 consumers
//! Process-1: 0 * 0
//! Process-2: 1 * 1
//! …
//! Process-3: Exiting
//! …
//! Result: 0 * 0 = 0
//! Result: 1 * 1 = 1
//! …
//! ```
//!
//! with ten tasks, ten results, and an end for each consumer. There are twice as many of them as processors.
//!
//! A consumer is a value with a `run` method in place of a subclass of `Process`, so it has the default name. It calls no
//! `task_done()`: what `get_job` gives is done when it goes out of scope. Kill a consumer with `kill -9` in the middle of a
//! task (`-- --seconds 5` makes them longer), and `join()` is an error that says how many were lost, where Python's waits for
//! ever.
//!
//! In Python: <https://pymotw.com/3/multiprocessing/communication.html#passing-messages-to-processes>

use std::fmt;
use std::thread;

use mproc::{Failure, JoinableQueue, Queue, Run};
use mproc_examples::seconds;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Task {
    a: u32,
    b: u32,
}

impl Task {
    fn multiply(&self) -> String {
        thread::sleep(seconds(0.1)); // as if it were hard
        format!("{self} = {}", self.a * self.b)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} * {}", self.a, self.b)
    }
}

#[derive(Serialize, Deserialize)]
struct Consumer {
    /// `None` is the pill: whoever takes it ends.
    tasks: JoinableQueue<Option<Task>>,
    results: Queue<String>,
}

#[mproc::entry]
impl Run for Consumer {
    type Output = Result<(), Failure>;

    fn run(self) -> Result<(), Failure> {
        let name = mproc::current_process().name();
        loop {
            let job = self.tasks.get_job()?;
            let Some(task) = &*job else {
                println!("{name}: Exiting");
                return Ok(());
            };
            println!("{name}: {task}");
            self.results.put(task.multiply())?;
        }
    }
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let tasks = JoinableQueue::new()?;
        let results = Queue::new()?;

        let consumers = 2 * mproc::cpu_count();
        println!("Creating {consumers} consumers");
        for _ in 0..consumers {
            Consumer { tasks: tasks.clone(), results: results.clone() }.spawn()?;
        }

        for number in 0..10 {
            tasks.put(Some(Task { a: number, b: number }))?;
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
