//! Attributes stay on the function; those that say when it exists or is used count for the entry too.
#![deny(warnings)]
#![forbid(unsafe_code)]

/// Documented.
#[mproc::entry]
#[inline]
#[must_use]
fn inlined(x: u8) -> u8 {
    x
}

#[inline(always)]
#[mproc::entry]
#[track_caller]
fn tracked() -> u32 {
    std::panic::Location::caller().line()
}

#[mproc::entry]
const fn constant(x: u8) -> u8 {
    x + 1
}
const TWO: u8 = constant(1);

#[mproc::entry]
#[cfg(not(unix))]
fn absent(x: DoesNotExist) {}

#[cfg(not(unix))]
#[mproc::entry]
fn absent_too(x: DoesNotExist) {}

#[mproc::entry]
#[cfg_attr(unix, cfg(not(unix)))]
fn absent_as_well(x: DoesNotExist) {}

#[mproc::entry]
#[cfg(unix)]
fn present() {}

#[mproc::entry]
#[cfg(not(unix))]
fn one_of_two() -> u8 {
    1
}

#[mproc::entry]
#[cfg(unix)]
fn one_of_two() -> u8 {
    2
}

#[mproc::entry]
#[deprecated(note = "use `inlined`")]
fn old(x: u8) -> u8 {
    x
}

#[mproc::entry]
#[cfg_attr(unix, deprecated)]
fn conditionally_old(x: u8) -> u8 {
    x
}

#[mproc::entry]
#[allow(non_snake_case, unused_variables)]
fn lenient(OddName: u8) {}

#[mproc::entry]
#[expect(unused_variables, reason = "it is for the test")]
fn expecting(x: u8) {}

#[mproc::entry]
#[allow(dead_code)]
fn never_used() {}

fn main() {
    assert_eq!(inlined(1), 1);
    assert_eq!(tracked(), line!());
    assert_eq!(TWO, 2);
    assert_eq!(one_of_two(), 2);
    present();
    let _ = present::bind();
    let _ = one_of_two::bind();
    lenient(1);
    expecting(1);
    #[allow(deprecated)]
    {
        old(1);
        let _ = old::bind(1);
        let _ = conditionally_old::bind(conditionally_old(1));
    }
}
