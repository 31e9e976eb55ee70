// If this compiled, the child would call a closure whose captures it does not have.

#[mproc::entry]
fn call(task: Box<dyn FnOnce() -> u32>) -> u32 {
    task()
}

fn main() {}
