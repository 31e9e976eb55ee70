// If this compiled, an entry would have no name to be found by.

#[mproc::entry(name = "")]
fn hello() {}

fn main() {
    let _ = hello::spawn();
}
