// If this compiled, the child could not know which method to call.

struct Worker;

#[mproc::entry]
impl Worker {
    fn run(self) {}
}

fn main() {
    Worker.run();
}
