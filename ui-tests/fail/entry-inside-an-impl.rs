// If this compiled, no type can be declared inside an `impl`, so the entry would have no name.

struct Counter;

impl Counter {
    #[mproc::entry]
    fn count(by: u32) -> u32 {
        by + 1
    }
}

fn main() {
    Counter::count(1);
}
