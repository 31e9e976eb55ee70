//! A pipe with two directions: a question goes to a process, and its answer comes back.
//!
//! ```text
//! cargo run --example pipe
//! ```
//!
//! prints `(42, None, "hello")`.
//!
//! Each direction has a type, and each end names first what it sends. The end that is sent to the process is gone here, so
//! neither side closes anything by hand, and both see when the other is gone.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#exchanging-objects-between-processes>

use mproc::{Connection, Failure};

type Things = (i32, Option<String>, String);

#[mproc::entry]
fn f(mut parent: Connection<Things, i32>) -> Result<(), Failure> {
    let number = parent.recv()?;
    parent.send((number, None, "hello".into()))?;
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let (mut ours, theirs) = mproc::duplex()?;
        let child = f::spawn(theirs)?;
        ours.send(42)?;
        println!("{:?}", ours.recv()?);
        child.join()?
    }
}
