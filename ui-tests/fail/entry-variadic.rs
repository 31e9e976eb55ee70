// If this compiled, the child could not know how many arguments to read.

#[mproc::entry]
unsafe extern "C" fn print(format: u8, ...) {}

fn main() {
    let _ = print::spawn(1);
}
