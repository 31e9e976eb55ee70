// If this compiled, nobody would choose the type.

mproc::main! {
    fn main<T>() {}
}
