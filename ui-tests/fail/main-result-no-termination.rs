// If this compiled, the program would not know its exit code.

mproc::main! {
    fn main() -> u32 {
        7
    }
}
