//! The ways to use a pool: one call, many at once, one after the other, and one that takes too long.
//!
//! ```text
//! cargo run --example pool_of_workers
//! ```
//!
//! prints 100, the first ten squares, three of them one by one, all of them in any order, and `time is over`. The program does not wait for
//! the sleeper: leaving the scope of the pool ends it.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#using-a-pool-of-workers>

use std::thread;
use std::time::Duration;

use mproc::{ErrorKind, Pool};

#[mproc::entry]
fn f(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn sleep(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let second = Duration::from_secs(1);
        let pool = Pool::new(4)?;

        let mut result = pool.apply_async(f::bind(10))?;
        println!("{}", result.get_timeout(second)?);

        println!("{:?}", pool.map::<f>(0..10)?);

        let mut squares = pool.imap::<f>(0..10);
        println!("{:?}", squares.next().transpose()?);
        println!("{:?}", squares.next().transpose()?);
        println!("{:?}", squares.next_timeout(second).transpose()?);

        for square in pool.imap_unordered::<f>(0..10) {
            print!("{} ", square?);
        }
        println!();

        let mut result = pool.apply_async(sleep::bind(10))?;
        match result.get_timeout(second) {
            Err(error) if error.kind() == ErrorKind::Timeout => println!("time is over"),
            other => other?,
        }
        Ok(())
    }
}
