//! A tree of modules.

pub mod branch;

/// Where it is.
#[mproc::entry]
pub fn trunk() -> String {
    "trunk".into()
}
