// If this compiled, the program would boot and do nothing.

mproc::main!();
