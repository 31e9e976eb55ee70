//! A public entry adds nothing that is undocumented, and no link that is broken.
#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub)]

/// Tasks.
pub mod tasks {
    /// Squares.
    #[mproc::entry]
    pub fn square(x: i64) -> i64 {
        x * x
    }

    /// Says what kind.
    #[mproc::entry]
    pub fn r#type(of: &str) -> String {
        of.to_owned()
    }
}

fn main() {
    assert_eq!(tasks::square(2), 4);
}
