// If this compiled, one of the two names would be silently without effect.

#[mproc::entry(name = "greet", name = "hello")]
fn hello() {}

fn main() {
    let _ = hello::spawn();
}
