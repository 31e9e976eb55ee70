// If this compiled, the child would read the memory of another process.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Worker<'a>(&'a str);

#[mproc::entry]
impl mproc::Run for Worker<'_> {
    type Output = usize;
    fn run(self) -> usize {
        self.0.len()
    }
}

fn main() {}
