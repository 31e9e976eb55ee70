// If this compiled, the program would make a future and exit.

mproc::main! {
    async fn main() {}
}
