// If this compiled, the parent would read the memory of a child that is gone.

#[mproc::entry]
fn first(words: &[String]) -> &str {
    &words[0]
}

fn main() {
    let _ = first::spawn(&[String::new()]);
}
