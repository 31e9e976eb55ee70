// If this compiled, `spawn(&line)` would take the connection away from whoever lends it, and the signature would not show it.

type Line = mproc::Connection<String, u64>;

#[mproc::entry]
fn answer(line: &Line) {
    let _ = line;
}

fn main() {}
