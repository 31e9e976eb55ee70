// If this compiled, the child would return a future that nobody polls.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Worker;

#[mproc::entry]
impl mproc::Run for Worker {
    type Output = u32;
    async fn run(self) -> u32 {
        7
    }
}

fn main() {}
