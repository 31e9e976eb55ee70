//! A branch.

pub mod leaf;

/// Not the trunk of the module above.
#[mproc::entry]
pub fn trunk() -> String {
    "trunk of a branch".into()
}
