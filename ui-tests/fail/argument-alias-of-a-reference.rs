// If this compiled, the child would treat bytes of a message as if they lived for ever.

type Text = &'static str;

#[mproc::entry]
fn measure(text: Text) -> usize {
    text.len()
}

fn main() {}
