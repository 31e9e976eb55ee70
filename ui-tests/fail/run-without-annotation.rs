// If this compiled, the child would not find the `run` to call.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Worker;

impl mproc::Run for Worker {
    type Output = u32;
    fn run(self) -> u32 {
        7
    }
}

fn main() {
    use mproc::Run;
    let _ = Worker.spawn();
}
