//! A local, parameter, field or pattern may be called like the entry.
#![deny(warnings)]

#[mproc::entry]
fn work(x: u32) -> u32 {
    x + 1
}

struct Report {
    work: u32,
}

fn with_parameter(work: u32) -> u32 {
    work + 1
}

fn main() {
    let report = Report { work: work(3) };
    let work = report.work;
    assert_eq!(with_parameter(work), 5);
    match Some(7) {
        Some(work) => assert_eq!(work, 7),
        None => unreachable!(),
    }
    let closure = |work: u32| work;
    assert_eq!(closure(1), 1);
}
