// If this compiled, the child would not find the function.

fn hello(name: &str) -> usize {
    name.len()
}

fn main() {
    let _ = hello::spawn("bob");
}
