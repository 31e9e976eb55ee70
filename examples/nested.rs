//! Children that start children.
//!
//! ```text
//! cargo run --example nested
//! ```
//!
//! prints, in an order in which each stands below its parent,
//!
//! ```text
//! Process-1 is a child of MainProcess
//! Process-1:1 is a child of Process-1
//! Process-1:2 is a child of Process-1
//! Process-2 is a child of MainProcess
//! Process-2:1 is a child of Process-2
//! Process-2:2 is a child of Process-2
//! 6 descendants
//! ```
//!
//! All of them are daemons, which in Python may not have children. Kill the program with `kill -9` and none is left.

use mproc::Failure;

/// Starts two children, who do the same, until no generation is left. Counts the descendants.
#[mproc::entry]
fn family(generations: u32) -> Result<u32, Failure> {
    if let Some(parent) = mproc::parent_process() {
        let name = mproc::current_process().name();
        println!("{name} is a child of {}", parent.name());
    }
    if generations == 0 {
        return Ok(0);
    }
    let first = family::process(generations - 1).daemon(true).start()?;
    let second = family::process(generations - 1).daemon(true).start()?;
    Ok(2 + first.join()?? + second.join()??)
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        println!("{} descendants", family(2)?);
        Ok(())
    }
}
