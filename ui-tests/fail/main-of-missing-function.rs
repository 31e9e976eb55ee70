// If this compiled, there would be nothing to run.

mproc::main!(cli::run);
