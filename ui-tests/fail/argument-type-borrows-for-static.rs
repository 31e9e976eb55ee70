// If this compiled, the child would treat bytes of a message as if they lived for ever.

#[derive(serde::Serialize, serde::Deserialize)]
struct Name<'a> {
    text: &'a str,
}

#[mproc::entry]
fn greet(name: Name<'static>) -> usize {
    name.text.len()
}

fn main() {}
