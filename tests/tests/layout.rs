//! Where entries may stand, and what runs them: the workspace in `layouts/`, built as a user would.
//!
//! Here in the dev profile alone; `.ci/linkage` goes through profiles, linkers and flags.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use mproc_tests::watchdog;

/// Long, because what it builds may have to be built from nothing, beside other things.
const LIMIT: Duration = Duration::from_secs(900);

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("layouts")
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("layouts")
}

fn cargo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace()).args(arguments);
    command.env("CARGO_TARGET_DIR", target());
    // Nobody debugs these programs, and they are built much faster so.
    command.env("CARGO_PROFILE_DEV_DEBUG", "false");
    // Of the runner around this test.
    for (key, _) in std::env::vars_os() {
        if key.to_str().is_some_and(|key| key.starts_with("NEXTEST")) {
            command.env_remove(key);
        }
    }
    command.output().expect("cargo runs")
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    stdout + &stderr
}

/// The programs, built once.
fn program(name: &str) -> Command {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        std::fs::copy(lock, workspace().join("Cargo.lock")).unwrap();
        succeeded(&cargo(&["build"]));
    });
    Command::new(target().join("debug").join(name))
}

#[test]
fn entries_of_every_place_are_found() {
    let _watchdog = watchdog("entries_of_every_place_are_found", LIMIT);
    let output = program("layout-program").output().unwrap();
    assert_eq!(succeeded(&output), "25 checks passed\n");
}

#[test]
fn two_entries_of_one_name_are_told_at_boot() {
    let _watchdog = watchdog("two_entries_of_one_name_are_told_at_boot", LIMIT);
    let output = program("layout-duplicates").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"", "main has not begun");
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        "two entries are named `layout: twice`",
        "layout-duplicates.rs:3:1",
        "layout-duplicates.rs:7:5",
    ] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

#[test]
fn a_call_of_another_program_runs_or_says_why_not() {
    let _watchdog = watchdog("a_call_of_another_program_runs_or_says_why_not", LIMIT);
    let calls = program("layout-writer").output().unwrap();
    let mut reader = program("layout-reader")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    reader
        .stdin
        .take()
        .unwrap()
        .write_all(&calls.stdout)
        .unwrap();
    let output = succeeded(&reader.wait_with_output().unwrap());
    let lines: Vec<&str> = output.lines().collect();
    let [own, common, unnamed, unknown, parameter, result] = lines[..] else {
        panic!("{output}");
    };
    assert_eq!((own, common), ("2", "42"));
    let says = |line: &str, parts: &[&str]| {
        for part in parts {
            assert!(line.contains(part), "`{part}` is missing: {line}");
        }
    };
    let known = "layout_library::double, ";
    says(
        unnamed,
        &[
            "no entry `layout_unnamed::hidden`",
            known,
            "`use the_crate as _;`",
        ],
    );
    says(unknown, &["no entry `layout_writer::only_here`", known]);
    for (line, name) in [
        (parameter, "`layout: other parameter`"),
        (result, "`layout: other result`"),
    ] {
        says(
            line,
            &[
                name,
                "other parameters or another result",
                "different sources",
            ],
        );
    }
}

/// Unit tests of a library and of bin targets, integration tests with and without a harness, doctests.
#[test]
fn every_kind_of_test_can_have_children() {
    let _watchdog = watchdog("every_kind_of_test_can_have_children", LIMIT);
    program("layout-program");
    let text = succeeded(&cargo(&["test"]));
    for part in [
        "test tests::entries_of_unit_tests_are_found ... ok",
        "test tests::a_bin_target_can_test_itself ... ok",
        "test tests::a_start_is_refused ... ok",
        "Running tests/own-main.rs",
        "test entries_of_dependencies_are_found ... ok",
        "Doc-tests layout_library",
        "test result: ok. 4 passed",
    ] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

/// nextest runs each test in a process of its own, and tells of those whose children hold their streams: leaks.
#[test]
fn nextest_finds_no_leak() {
    let _watchdog = watchdog("nextest_finds_no_leak", LIMIT);
    if !cargo(&["nextest", "--version"]).status.success() {
        eprintln!("skipped: cargo-nextest is not installed");
        return;
    }
    program("layout-program");
    let text = succeeded(&cargo(&["nextest", "run"]));
    assert!(text.contains("11 tests run: 11 passed"), "{text}");
    assert!(!text.to_lowercase().contains("leak"), "{text}");
}
