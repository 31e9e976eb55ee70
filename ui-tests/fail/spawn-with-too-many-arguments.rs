// If this compiled, an argument would be left over in the child.

#[mproc::entry]
fn greet(name: &str) -> usize {
    name.len()
}

fn main() {
    let _ = greet::spawn("bob", 3);
}
