// If this compiled, the runtime would call a function whose conditions it does not know.

mproc::main! {
    unsafe fn main() {}
}
