//! Compiles `pass/` and `fail/`, and compares what the compiler says about the latter with the `.stderr` beside it.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p mproc-ui-tests`, then read the diff.

use std::process::Command;

/// The compiler whose words stand in the `.stderr` files. Another one may put the same thing differently.
const PINNED: &str = "rustc 1.95.";

#[test]
fn messages() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .expect("cargo has just used it");
    let version = String::from_utf8_lossy(&version.stdout);
    if !version.starts_with(PINNED) {
        println!(
            "skipped: the messages are those of {PINNED}x, and this is {}",
            version.trim()
        );
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.pass("pass/*.rs");
    cases.compile_fail("fail/*.rs");
}
