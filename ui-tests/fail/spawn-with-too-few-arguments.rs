// If this compiled, the child would wait for an argument that was never sent.

#[mproc::entry]
fn greet(name: &str, times: u32) -> String {
    name.repeat(times as usize)
}

fn main() {
    let _ = greet::spawn("bob");
}
