// If this compiled, no type can be declared inside an `impl`, so the entry would have no name.

struct Counter(u32);

impl Counter {
    #[mproc::entry]
    fn count(by: u32) -> u32 {
        Self(by).0
    }
}

fn main() {
    Counter::count(1);
}
