// If this compiled, the parent would have to rebuild a thread of the child from bytes.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Worker;

#[mproc::entry]
impl mproc::Run for Worker {
    type Output = std::thread::JoinHandle<()>;
    fn run(self) -> std::thread::JoinHandle<()> {
        std::thread::spawn(|| {})
    }
}

fn main() {}
