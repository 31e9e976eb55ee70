// If this compiled, the parent would read the memory of a child that is gone.

#[mproc::entry]
fn first<'a>(words: &'a [String]) -> Option<&'a str> {
    words.first().map(String::as_str)
}

fn main() {
    let _ = first::spawn(&[String::new()]);
}
