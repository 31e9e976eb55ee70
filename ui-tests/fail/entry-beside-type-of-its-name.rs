// If this compiled, one name would mean two types.

#[derive(Default)]
struct report;

#[mproc::entry]
fn report() {}

fn main() {}
