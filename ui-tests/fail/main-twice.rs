// If this compiled, the program would begin in two places.

mproc::main! {
    fn main() {}
}

fn run() {}

mproc::main!(run);
