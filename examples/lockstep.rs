//! A barrier: three processes that do everything step by step, together.
//!
//! ```text
//! cargo run --example lockstep
//! ```
//!
//! prints, the lines of one step in any order, but no line of a step before all of the one before,
//!
//! ```text
//! step 1: Process-1
//! step 1: Process-3
//! step 1: Process-2
//! step 2: Process-1
//! …
//! ```
//!
//! to step 5. With `-- --die` the second process is killed in step 3, and the others say which one it was, where Python's would
//! wait for it for ever:
//!
//! ```text
//! …
//! Process-1: the barrier is broken: a party of it (pid 4711) died; `reset` mends it
//! ```
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#multiprocessing.Barrier>

use mproc::{Barrier, Failure};

const STEPS: u32 = 5;

#[mproc::entry]
fn walk(barrier: &Barrier, dies_in: Option<u32>) -> Result<(), Failure> {
    let name = mproc::current_process().name();
    for step in 1..=STEPS {
        if dies_in == Some(step) {
            std::process::abort();
        }
        println!("step {step}: {name}");
        if let Err(broken) = barrier.wait() {
            println!("{name}: {broken}");
            return Ok(());
        }
    }
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let dies = std::env::args().any(|argument| argument == "--die");
        let barrier = Barrier::new(3)?;
        let children = (1..=3)
            .map(|number| walk::spawn(&barrier, (dies && number == 2).then_some(3)))
            .collect::<Result<Vec<_>, _>>()?;
        for child in children {
            match child.join() {
                Ok(walked) => walked?,
                Err(error) if error.signal().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
