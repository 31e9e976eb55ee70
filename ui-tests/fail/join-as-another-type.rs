// If this compiled, the parent would read a text out of a number.

#[mproc::entry]
fn length(name: &str) -> usize {
    name.len()
}

fn run() -> mproc::Result<String> {
    length::spawn("bob")?.join()
}

fn main() {
    let _ = run();
}
