//! The program of `hello.rs`, without `mproc::main!`.
//!
//! ```text
//! cargo run --example no_guard
//! ```
//!
//! prints an error that says what to write, and ends with exit code 1. Nothing is started.
//!
//! A child is the program, executed again. With nobody to recognise it at its beginning it would run `main` like its parent, and
//! start a child like its parent, and so on: what Python's `if __name__ == "__main__"` is there to prevent.
//!
//! `cargo test --workspace` builds it with mproc's feature `test`, under which a child is recognised before `main`: built in that
//! way it prints `hello bob`.

#[mproc::entry]
fn hello(name: &str) {
    println!("hello {name}");
}

fn main() -> mproc::Result<()> {
    hello::spawn("bob")?.join()
}
