// If this compiled, no name would stand for one `run`.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Worker<T>(T);

#[mproc::entry]
impl<T: std::fmt::Display> mproc::Run for Worker<T> {
    type Output = String;
    fn run(self) -> String {
        self.0.to_string()
    }
}

fn main() {
    use mproc::Run;
    let _ = Worker(7).spawn();
}
