// If this compiled, each item would leave a parameter without a value.

#[mproc::entry]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

fn map<E: mproc::Unary>() {}

fn main() {
    map::<add>();
}
