//! Numbers, a text and an array of structs in shared memory, with a lock for several of them and without one.
//!
//! ```text
//! cargo run --example shared_structures
//! ```
//!
//! prints
//!
//! ```text
//! 49
//! 0.1111111111111111
//! HELLO WORLD
//! [(3.515625, 39.0625), (33.0625, 4.0), (5.640625, 90.25), (16.0, 1.0)]
//! ```
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#module-multiprocessing.sharedctypes>

use bytemuck::{Pod, Zeroable};
use mproc::{Array, Failure, Lock, RawValue, Value};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Point {
    x: f64,
    y: f64,
}

#[mproc::entry]
fn modify(
    number: &Value<i32>,
    ratio: &RawValue<f64>,
    lock: &Lock,
    text: &Array<u8>,
    points: &Array<Point>,
) -> Result<(), Failure> {
    let squared = number.get()?.pow(2);
    number.set(squared)?;
    ratio.set(ratio.get() * ratio.get());
    // One lock for both, so nobody sees one changed and the other not.
    let mut held = lock.acquire().map_err(mproc::Error::from)?;
    text.get_mut(&mut held)?.make_ascii_uppercase();
    for point in points.get_mut(&mut held)? {
        point.x *= point.x;
        point.y *= point.y;
    }
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let number = Value::new(7)?;
        let ratio = RawValue::new(1.0 / 3.0)?;
        let lock = Lock::new()?;
        let text = Array::with_lock(&lock, b"hello world")?;
        let points = [(1.875, -6.25), (-5.75, 2.0), (2.375, 9.5), (4.0, 1.0)];
        let points = points.map(|(x, y)| Point { x, y });
        let points = Array::with_lock(&lock, &points)?;
        modify::spawn(&number, &ratio, &lock, &text, &points)?.join()??;
        println!("{}", number.get()?);
        println!("{}", ratio.get());
        let mut held = lock.acquire().map_err(mproc::Error::from)?;
        println!("{}", String::from_utf8_lossy(text.get_mut(&mut held)?));
        let points: Vec<_> = points.get_mut(&mut held)?.iter().map(|point| (point.x, point.y)).collect();
        println!("{points:?}");
        Ok(())
    }
}
