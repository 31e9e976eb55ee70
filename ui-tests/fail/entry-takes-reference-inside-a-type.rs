// If this compiled, the child would own references into another process.

#[mproc::entry]
fn join(words: Vec<&str>, separator: Option<&str>, all: &[&std::path::Path]) -> usize {
    words.len() + separator.map_or(0, str::len) + all.len()
}

fn main() {
    let _ = join::spawn(vec![], None, &[]);
}
