//! `name = "…"` and `crate = path`.
#![deny(warnings)]

use mproc::Entry;

mod vendored {
    pub(crate) use mproc as multi;
}

#[mproc::entry(name = "jobs/square")]
fn square(x: i64) -> i64 {
    x * x
}

#[mproc::entry(crate = crate::vendored::multi, name = "cube",)]
fn cube(x: i64) -> i64 {
    x * x * x
}

#[mproc::entry()]
fn plain() {}

fn main() {
    assert_eq!(square::NAME, "jobs/square");
    assert_eq!(cube::NAME, "cube");
    assert_eq!(plain::NAME, concat!(module_path!(), "::plain"));
    assert_eq!(square(2) + cube(2), 12);
    plain();
}
