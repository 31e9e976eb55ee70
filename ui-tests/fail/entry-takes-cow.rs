// If this compiled, the child would borrow from another process.

use std::borrow::Cow;

#[mproc::entry]
fn length(text: Cow<'_, str>) -> usize {
    text.len()
}

fn main() {
    let _ = length::spawn(Cow::Borrowed("x"));
}
