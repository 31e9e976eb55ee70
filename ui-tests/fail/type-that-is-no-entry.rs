// If this compiled, the child would not find the function.

struct Square;

fn map<E: mproc::Unary>() {}

fn main() {
    map::<Square>();
}
