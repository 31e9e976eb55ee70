// If this compiled, the child would have no object to call the method of.

struct Counter;

impl Counter {
    #[mproc::entry]
    fn count(&self, by: u32) -> u32 {
        by
    }
}

fn main() {
    Counter.count(1);
}
