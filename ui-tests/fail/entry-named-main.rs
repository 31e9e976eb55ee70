// If this compiled, a child that runs the program's `main` would start children for ever.

#[mproc::entry]
fn main() {}
