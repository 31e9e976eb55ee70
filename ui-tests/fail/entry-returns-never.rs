// If this compiled, `join` would wait for a value that cannot come.

#[mproc::entry]
fn serve() -> ! {
    loop {}
}

fn main() {
    let _ = serve::spawn();
}
