//! A leaf.

/// Where it is.
#[mproc::entry]
pub fn deep() -> String {
    "deep".into()
}
