// If this compiled, one name would mean two types.

mod report {}

#[mproc::entry]
fn report() {}

fn main() {}
