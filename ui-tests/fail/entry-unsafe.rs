// If this compiled, nobody in the child could promise what the function asks of its caller.

#[mproc::entry]
unsafe fn peek(address: usize) -> u8 {
    // SAFETY: not argued; this file does not compile.
    unsafe { *(address as *const u8) }
}

fn main() {
    let _ = peek::spawn(1);
}
