// If this compiled, the child would jump to an address of another process.

#[mproc::entry]
fn apply(f: fn(u32) -> u32, x: u32) -> u32 {
    f(x)
}

fn main() {
    let _ = apply::spawn(u32::count_ones, 1);
}
