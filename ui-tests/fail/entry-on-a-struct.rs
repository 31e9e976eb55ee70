// If this compiled, there would be nothing to run.

#[mproc::entry]
struct Task {
    id: u32,
}

fn main() {
    drop(Task { id: 1 }.id);
}
