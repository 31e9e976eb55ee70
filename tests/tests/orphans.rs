//! A parent that dies takes its children with it, whatever killed it at whatever instruction (G11).

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use mproc_tests::{Dice, dose, watchdog};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(120);

fn shared_memory_files() -> BTreeSet<std::ffi::OsString> {
    let files = std::fs::read_dir("/dev/shm").into_iter().flatten();
    files
        .filter_map(|file| Some(file.ok()?.file_name()))
        .collect()
}

/// Makes this process, and not pid 1, the parent of orphans below it, so that it can wait for them.
fn adopt_orphans() {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    assert_eq!(result, 0);
}

/// Starts the breeder in a process group of its own, ends it after a random time, and waits until nobody of it is left.
/// Returns how many processes there were.
#[expect(
    clippy::zombie_processes,
    reason = "collected by number, with all of its group"
)]
fn end_at_any_moment(dice: &mut Dice, threads: &str, number: Signal) -> usize {
    let program = Command::new(env!("CARGO_BIN_EXE_breeder"))
        .arg(threads)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let group = Pid::from_raw(program.id() as i32);
    std::thread::sleep(Duration::from_micros(dice.below(60_000)));
    kill(group, number).expect("it runs");
    // Whoever lost its parent is our child by now. A process that lives on keeps us here until the watchdog barks.
    let everybody = Pid::from_raw(-group.as_raw());
    let mut ended = 0;
    loop {
        match waitpid(everybody, None) {
            Ok(_) => ended += 1,
            Err(Errno::ECHILD) => return ended,
            Err(error) => panic!("waitpid: {error}"),
        }
    }
}

#[test]
fn a_parent_killed_at_any_moment_leaves_nothing() {
    let _watchdog = watchdog("a_parent_killed_at_any_moment_leaves_nothing", LIMIT);
    let mut dice = Dice::new("a_parent_killed_at_any_moment_leaves_nothing");
    adopt_orphans();
    let (descriptors, files) = (mproc_tests::descriptors(), shared_memory_files());
    for (threads, number, times) in [
        ("1", Signal::SIGKILL, dose(60, 3000)),
        ("3", Signal::SIGKILL, dose(30, 1500)),
        // No exit handler runs for a signal, either.
        ("2", Signal::SIGTERM, dose(10, 500)),
    ] {
        let counts: Vec<usize> = (0..times)
            .map(|_| end_at_any_moment(&mut dice, threads, number))
            .collect();
        assert!(
            counts.iter().any(|count| *count > 5),
            "too few processes to test anything: {counts:?}"
        );
    }
    assert_eq!(mproc_tests::descriptors(), descriptors);
    assert_eq!(shared_memory_files(), files);
}
