//! Five processes at once, each with a number.
//!
//! ```text
//! cargo run --example five_workers
//! ```
//!
//! prints `Worker: 0` to `Worker: 4`, in the order in which the processes get to it. Nobody joins them: the end of the
//! program waits for its children.

#[mproc::entry]
fn worker(number: u32) {
    println!("Worker: {number}");
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        for number in 0..5 {
            worker::spawn(number)?;
        }
        Ok(())
    }
}
