// If this compiled, the child would read the memory of another process.

#[derive(serde::Serialize, serde::Deserialize)]
struct Name<'a> {
    text: &'a str,
}

#[mproc::entry]
fn greet<'a>(name: Name<'a>) -> usize {
    name.text.len()
}

fn main() {}
