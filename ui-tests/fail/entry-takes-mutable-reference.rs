// If this compiled, the caller would look for a change that happened in another process.

#[mproc::entry]
fn fill(buffer: &mut Vec<u8>, value: u8) {
    buffer.fill(value);
}

fn main() {
    let _ = fill::spawn(&mut vec![1], 2);
}
