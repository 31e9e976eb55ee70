//! As many parameters as a function may have; no trait is implemented for tuples of some lengths only.
#![deny(warnings)]

#[mproc::entry]
#[allow(clippy::too_many_arguments)]
fn sum(
    a: u8,
    b: u8,
    c: u8,
    d: u8,
    e: u8,
    f: u8,
    g: u8,
    h: u8,
    i: u8,
    j: u8,
    k: u8,
    l: u8,
    m: u8,
    n: u8,
    o: &u8,
    p: &[u8],
    q: u8,
) -> u8 {
    a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p.len() as u8 + q
}

fn main() {
    assert_eq!(
        sum(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, &1, &[1], 1),
        17
    );
    let _ = sum::bind(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, &1, &[1], 1);
}
