// If this compiled, the child would treat bytes of a message as if they lived for ever.

#[mproc::entry]
fn length(text: &'static str) -> usize {
    text.len()
}

fn main() {
    let _ = length::spawn("x");
}
