// If this compiled, there would be nothing to run.

#[mproc::entry]
mod tasks {
    pub(crate) fn run() {}
}

fn main() {
    tasks::run();
}
