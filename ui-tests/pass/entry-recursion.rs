//! An entry may call itself, start itself, and be mutually recursive with another.
#![deny(warnings)]

#[mproc::entry]
fn factorial(n: u64) -> u64 {
    if n == 0 { 1 } else { n * factorial(n - 1) }
}

#[mproc::entry]
fn is_even(n: u32) -> bool {
    n == 0 || is_odd(n - 1)
}

#[mproc::entry]
fn is_odd(n: u32) -> bool {
    n != 0 && is_even(n - 1)
}

#[mproc::entry]
fn descend(depth: u32) -> mproc::Result<(), String> {
    if depth > 0 {
        let child = descend::spawn(depth - 1).map_err(|error| error.to_string())?;
        return child.join().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn main() {
    assert_eq!(factorial(5), 120);
    assert!(is_even(4) && is_odd(3));
    assert_eq!(descend(0), Ok(()));
}
