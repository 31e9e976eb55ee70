// If this compiled, the child would follow an address of another process.

#[mproc::entry]
fn address(of: *const u8) -> usize {
    of.addr()
}

fn main() {
    let _ = address::spawn(std::ptr::null::<u8>());
}
