// If this compiled, the child would have to rebuild an open file from bytes.

struct Worker {
    log: std::fs::File,
}

#[mproc::entry]
impl mproc::Run for Worker {
    type Output = ();
    fn run(self) {
        drop(self.log);
    }
}

fn main() {}
