// If this compiled, each mistake would be found only after the one before it is put right.

#[mproc::entry]
async unsafe fn update<T>(table: &mut Vec<T>, names: Vec<&str>) -> Option<&T> {
    drop(names);
    table.first()
}

fn main() {
    let _ = update::spawn(&mut vec![1], vec![]);
}
