// If this compiled, the thread handle inside the map would have to be rebuilt from bytes in the child.

use std::collections::HashMap;
use std::thread::JoinHandle;

#[mproc::entry]
fn wait(threads: HashMap<String, JoinHandle<()>>) {
    drop(threads);
}

fn main() {}
