//! An entry is an ordinary function wherever a function can stand.
#![deny(warnings)]

#[mproc::entry]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry]
fn cube(x: i64) -> i64 {
    x * x * x
}

type Named = (&'static str, fn(i64) -> i64);

static TABLE: [Named; 2] = [("square", square), ("cube", cube)];

fn twice(f: impl Fn(i64) -> i64, x: i64) -> i64 {
    f(f(x))
}

fn main() {
    assert_eq!(square(3), 9);
    assert!((0..4).map(square).eq([0, 1, 4, 9]));
    assert_eq!([1, 2].iter().copied().map(cube).sum::<i64>(), 9);
    let pointer: fn(i64) -> i64 = square;
    assert_eq!(pointer(2), 4);
    assert_eq!(twice(square, 3), 81);
    assert_eq!(TABLE.map(|(_, f)| f(3)), [9, 27]);
    let reference: &dyn Fn(i64) -> i64 = &square;
    assert_eq!(reference(5), 25);
}
