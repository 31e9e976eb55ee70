//! Ends with the failure of its child.

use std::io;

use mproc::Failure;

#[mproc::entry]
fn fail() -> Result<(), Failure> {
    Err(io::Error::other("disk on fire"))?
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let result = fail::spawn()?.join()?;
        result.map_err(|failure| failure.context("cannot start"))
    }
}
