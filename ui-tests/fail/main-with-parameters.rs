// If this compiled, nobody would pass the arguments.

mproc::main! {
    fn main(arguments: Vec<String>) {
        drop(arguments);
    }
}
