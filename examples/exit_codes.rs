//! The exit codes of five processes that end in five ways, and return different types.
//!
//! ```text
//! cargo run --example exit_codes
//! ```
//!
//! prints
//!
//! ```text
//! exit_error = 1
//! exit_ok = 0
//! return_value = 0
//! raises = 101
//! terminated = -15
//! ```
//!
//! and, on stderr, the message of the panic. A panic exits with 101, as it does in every Rust program; in Python, `raises`
//! is 1. A signal is negative, as there.

use std::time::Duration;

#[mproc::entry]
fn exit_error() {
    std::process::exit(1)
}

#[mproc::entry]
fn exit_ok() {}

#[mproc::entry]
fn return_value() -> i32 {
    1
}

#[mproc::entry]
fn raises() {
    panic!("there was an error");
}

#[mproc::entry]
fn terminated() {
    std::thread::sleep(Duration::from_secs(60));
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        // `into_any` forgets the type of the result, so that they fit into one list.
        let children = [
            exit_error::process().name("exit_error").start()?.into_any(),
            exit_ok::process().name("exit_ok").start()?.into_any(),
            return_value::process().name("return_value").start()?.into_any(),
            raises::process().name("raises").start()?.into_any(),
            terminated::process().name("terminated").start()?.into_any(),
        ];
        children[4].terminate()?;

        for child in &children {
            println!("{} = {}", child.name(), child.wait()?.exit_code());
        }
        Ok(())
    }
}
