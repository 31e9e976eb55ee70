// If this compiled, the child would not find the function.

fn square(x: i64) -> i64 {
    x * x
}

fn map<E: mproc::Unary>() {}

fn main() {
    square(1);
    map::<square>();
}
