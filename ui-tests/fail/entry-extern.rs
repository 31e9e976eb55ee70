// If this compiled, a declaration of another language's would pass for a Rust function.

#[mproc::entry]
extern "C" fn callback(x: i32) -> i32 {
    x
}

fn main() {
    let _ = callback::spawn(1);
}
