// If this compiled, the function would run before the child could find its entry.

fn run() {}

mproc::main!(run());
