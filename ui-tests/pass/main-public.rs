//! `main!` around a `pub fn main` that returns an exit code, with braces' cousins.
#![deny(warnings)]

use std::process::ExitCode;

mproc::main!(
    pub fn main() -> ExitCode {
        ExitCode::SUCCESS
    }
);
