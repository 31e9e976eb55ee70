// If this compiled, the program would have two ideas of what `main` is.

mproc::main! {
    fn start() {}
}
