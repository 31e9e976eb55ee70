// If this compiled, the parent would have to rebuild a thread of the child from bytes.

use std::thread::JoinHandle;

#[mproc::entry]
fn start() -> JoinHandle<()> {
    std::thread::spawn(|| {})
}

fn main() {}
