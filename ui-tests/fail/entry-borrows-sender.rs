// If this compiled, `spawn(&sender)` would take the sender away from whoever lends it.

#[mproc::entry]
fn report(text: &str, to: &mproc::Sender<String>) {
    let _ = (text, to);
}

fn main() {}
