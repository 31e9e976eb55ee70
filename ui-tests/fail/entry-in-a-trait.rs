// If this compiled, the child could not know whose implementation to call.

trait Count {
    #[mproc::entry]
    fn count(by: u32) -> u32;
}

fn main() {}
