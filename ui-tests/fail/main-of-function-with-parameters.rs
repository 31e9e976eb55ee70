// If this compiled, nobody would pass the arguments.

fn run(arguments: Vec<String>) {
    drop(arguments);
}

mproc::main!(run);
