// If this compiled, `spawn(&receiver)` would take the receiver away from whoever lends it.

use mproc::Receiver;

#[mproc::entry]
fn listen(from: &Receiver<Vec<u8>>) -> bool {
    let _ = from;
    true
}

fn main() {}
