// If this compiled, the child would borrow from another process.

use std::borrow::Cow;

#[mproc::entry]
fn length(text: Option<Cow<str>>) -> usize {
    text.map_or(0, |text| text.len())
}

fn main() {
    let _ = length::spawn(None);
}
