// If this compiled, the parent could not know which type to read.

#[mproc::entry]
fn squares(up_to: u32) -> impl Iterator<Item = u32> {
    (0..up_to).map(|x| x * x)
}

fn main() {
    let _ = squares::spawn(1);
}
