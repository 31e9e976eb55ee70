// If this compiled, the generated code would look for a crate named by a string.

#[mproc::entry(crate = "mproc")]
fn hello() {}

fn main() {
    let _ = hello::spawn();
}
