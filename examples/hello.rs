//! A function in a process of its own.
//!
//! ```text
//! cargo run --example hello
//! ```
//!
//! prints `hello bob`.

#[mproc::entry]
fn hello(name: &str) {
    println!("hello {name}");
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        hello::spawn("bob")?.join()
    }
}
