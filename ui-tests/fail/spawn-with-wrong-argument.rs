// If this compiled, the child would read a number out of a text.

#[mproc::entry]
fn repeat(name: &str, (low, high): (u32, u32)) -> String {
    name.repeat((high - low) as usize)
}

fn main() {
    let _ = repeat::spawn(7, (1, 2));
    let _ = repeat::bind("bob", (1, "2"));
}
