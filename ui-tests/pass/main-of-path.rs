//! `main!` of a function that stands elsewhere.
#![deny(warnings)]

mod cli {
    pub(crate) fn run() -> Result<(), std::fmt::Error> {
        Ok(())
    }
}

mproc::main!(cli::run);
