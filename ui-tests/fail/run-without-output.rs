// If this compiled, `join` would not know what to give.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Worker;

#[mproc::entry]
impl mproc::Run for Worker {
    fn run(self) {}
}

fn main() {}
