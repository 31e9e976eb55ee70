// If this compiled, the child would be lent a reference that points nowhere.

#[mproc::entry]
fn length(text: &&str) -> usize {
    text.len()
}

fn main() {
    let _ = length::spawn(&"x");
}
