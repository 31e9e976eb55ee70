// If this compiled, an entry would have no name to be found by.

#[mproc::entry(name = hello)]
fn hello() {}

#[mproc::entry("bye")]
fn bye() {}

#[mproc::entry(name)]
fn well() {}

fn main() {
    let _ = (hello::bind(), bye::bind(), well::bind());
}
