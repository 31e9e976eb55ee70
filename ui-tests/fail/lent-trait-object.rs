// If this compiled, the child could not know which type is behind the trait object.

#[mproc::entry]
fn show(value: &dyn std::fmt::Display) -> String {
    value.to_string()
}

fn main() {}
