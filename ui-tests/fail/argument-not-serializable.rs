// If this compiled, the logger's open file would have to be rebuilt from bytes in the child.

struct Logger {
    file: std::fs::File,
}

#[mproc::entry]
fn log(to: Logger, line: String) {
    drop((to.file, line));
}

fn main() {}
