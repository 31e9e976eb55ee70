//! A number and a list of numbers in shared memory, changed by a child.
//!
//! ```text
//! cargo run --example value_and_array
//! ```
//!
//! prints
//!
//! ```text
//! 3.1415927
//! [0, -1, -2, -3, -4, -5, -6, -7, -8, -9]
//! ```
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#sharing-state-between-processes>

use mproc::{Array, Failure, Value};

#[mproc::entry]
#[expect(clippy::approx_constant, reason = "as Python's manual has it")]
fn change(number: &Value<f64>, numbers: &Array<i32>) -> Result<(), Failure> {
    number.set(3.1415927)?;
    for number in numbers.lock().map_err(mproc::Error::from)?.iter_mut() {
        *number = -*number;
    }
    Ok(())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let number = Value::new(0.0)?;
        let numbers = Array::from_iter(0..10)?;
        change::spawn(&number, &numbers)?.join()??;
        println!("{}", number.get()?);
        println!("{:?}", numbers.lock().map_err(mproc::Error::from)?);
        Ok(())
    }
}
