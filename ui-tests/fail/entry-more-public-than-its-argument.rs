// If this compiled, whoever sees the entry could not name what it takes.

mod tasks {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Task;

    #[mproc::entry]
    pub fn run(task: Task) {
        drop(task);
    }
}

fn main() {}
