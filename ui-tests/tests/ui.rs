//! Compiles `pass/` and `fail/`, and compares what the compiler says about the latter with the `.stderr` beside it.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p mproc-ui-tests`, then read the diff.
//!
//! Two tests, because trybuild checks all of `fail/` in one go if nothing among it has to run.

use std::process::Command;

/// The compiler whose words stand in the `.stderr` files. Another one may put the same thing differently.
const PINNED: &str = "rustc 1.95.";

fn runs_pinned_compiler() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .expect("cargo has just used it");
    let version = String::from_utf8_lossy(&version.stdout);
    let pinned = version.starts_with(PINNED);
    if !pinned {
        println!(
            "skipped: the messages are those of {PINNED}x, and this is {}",
            version.trim()
        );
    }
    pinned
}

#[test]
fn what_is_right_compiles_and_runs() {
    trybuild::TestCases::new().pass("pass/*.rs");
}

#[test]
fn each_mistake_has_its_message() {
    if runs_pinned_compiler() {
        trybuild::TestCases::new().compile_fail("fail/*.rs");
    }
}
