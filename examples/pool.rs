//! A pool of processes that squares three numbers.
//!
//! ```text
//! cargo run --example pool
//! ```
//!
//! prints `[1, 4, 9]`.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#introduction>

#[mproc::entry]
fn f(x: i64) -> i64 {
    x * x
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let pool = mproc::Pool::new(5)?;
        println!("{:?}", pool.map::<f>([1, 2, 3])?);
        Ok(())
    }
}
