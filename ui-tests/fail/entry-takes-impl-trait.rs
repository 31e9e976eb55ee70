// If this compiled, the child could not know which type to read.

#[mproc::entry]
fn show(value: impl std::fmt::Display) -> String {
    value.to_string()
}

fn main() {
    let _ = show::spawn(1);
}
