// If this compiled, two programs would disagree about what is in the message.

#[mproc::entry]
fn greet(#[cfg(unix)] name: String) {
    drop(name);
}

fn main() {
    let _ = greet::spawn("x".to_owned());
}
