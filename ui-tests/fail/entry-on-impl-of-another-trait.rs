// If this compiled, there would be nothing to run.

struct Worker;

#[mproc::entry]
impl Iterator for Worker {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        None
    }
}

fn main() {
    Worker.next();
}
