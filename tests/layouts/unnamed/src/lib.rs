//! An entry in a crate that some programs depend on and never name: the linker leaves it out of those.

/// Gives its argument back.
#[mproc::entry]
pub fn hidden(x: u64) -> u64 {
    x
}
