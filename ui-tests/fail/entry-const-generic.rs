// If this compiled, no name would stand for one function.

#[mproc::entry]
fn sum<const N: usize>(values: [u32; N]) -> u32 {
    values.iter().sum()
}

fn main() {
    let _ = sum::spawn([1, 2]);
}
