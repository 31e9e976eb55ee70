// If this compiled, a misspelt argument would be silently without effect.

#[mproc::entry(nmae = "greet")]
fn hello() {}

fn main() {
    let _ = hello::spawn();
}
