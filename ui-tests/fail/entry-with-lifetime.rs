// If this compiled, the lifetime would promise that the child borrows from its parent.

#[mproc::entry]
fn length<'a>(text: &'a str) -> usize {
    text.len()
}

fn main() {
    let _ = length::spawn("x");
}
