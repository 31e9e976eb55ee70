// If this compiled, the child could not read what the parent wrote.

#[derive(serde::Serialize)]
struct Task {
    id: u32,
}

#[mproc::entry]
fn run(task: Task) -> u32 {
    task.id
}

fn main() {}
