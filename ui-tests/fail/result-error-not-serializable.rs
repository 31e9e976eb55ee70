// If this compiled, the error would be lost on its way to the parent.

#[mproc::entry]
fn read(path: String) -> Result<Vec<u8>, std::io::Error> {
    std::fs::read(path)
}

fn main() {}
