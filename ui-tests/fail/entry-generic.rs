// If this compiled, no name would stand for one function.

#[mproc::entry]
fn largest<T: PartialOrd>(values: Vec<T>) -> Option<T> {
    values.into_iter().reduce(|a, b| if a > b { a } else { b })
}

fn main() {
    let _ = largest::spawn(vec![1, 2]);
}
