// If this compiled, the function would be listed under two names.

#[mproc::entry]
#[mproc::entry]
fn hello() {}

fn main() {
    let _ = hello::spawn();
}
