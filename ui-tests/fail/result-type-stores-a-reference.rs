// If this compiled, the parent would read the memory of a child that is gone.

#[derive(serde::Serialize, serde::Deserialize)]
struct Name<'a> {
    text: &'a str,
}

#[mproc::entry]
fn greet() -> Name<'static> {
    Name { text: "bob" }
}

fn main() {}
