//! A queue from a process to its parent.
//!
//! ```text
//! cargo run --example queue
//! ```
//!
//! prints `(42, None, "hello")`.
//!
//! A queue has a type, so where Python puts a list of three different things, here is a tuple. It is lent to the process, and
//! still the same queue over there. A process that died without a word would be an error of `get`, and no wait for ever.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#exchanging-objects-between-processes>

use mproc::{Failure, Queue};

type Things = (i32, Option<String>, String);

#[mproc::entry]
fn f(queue: &Queue<Things>) -> Result<(), Failure> {
    queue.put((42, None, "hello".into()))?;
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let queue = Queue::new()?;
        let child = f::spawn(&queue)?;
        println!("{:?}", queue.get()?);
        child.join()?
    }
}
