// If this compiled, a closure has no path.

mproc::main!(|| {});
