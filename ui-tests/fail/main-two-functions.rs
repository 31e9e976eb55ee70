// If this compiled, a helper would hide inside `main`.

mproc::main! {
    fn main() {
        helper();
    }

    fn helper() {}
}
