// If this compiled, the child would call a function whose arguments nobody can check.

unsafe extern "C" {
    #[mproc::entry]
    fn abs(x: i32) -> i32;
}

fn main() {}
