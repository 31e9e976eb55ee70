//! What is detached lives on, and knows; what is in the middle dies with all below it (G11).

use std::io::{Read, Write};
use std::time::Duration;

use mproc::{Fd, Stdio};
use mproc_tests::{eventually, kill_myself, runs, watchdog};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);

/// Says what it sees of its parent before and after the parent's end.
#[mproc::entry]
fn outlive(said: Fd, parent_may_go: Fd) {
    let mut said = said.into_inner::<std::fs::File>().expect("ours alone");
    let parent = mproc::parent_process().expect("started by somebody");
    let seen = |when: &str| {
        format!(
            "{when}: {} {}\n",
            parent.is_alive(),
            parent.wait_timeout(Duration::ZERO).expect("looks")
        )
    };
    said.write_all(seen("before").as_bytes())
        .expect("somebody reads");
    drop(parent_may_go);
    assert!(parent.wait_timeout(Duration::MAX).expect("waits"));
    said.write_all(seen("after").as_bytes())
        .expect("somebody reads");
    said.write_all(format!("{parent:?}").as_bytes())
        .expect("somebody reads");
}

/// Starts a detached child and ends in some way when that has seen it alive.
#[mproc::entry]
fn start_detached_and_end(said: Fd, how: &str) -> u32 {
    let (mut may_go, theirs) = std::io::pipe().expect("a pipe");
    let child = outlive::process(said, Fd::from(theirs))
        .detached()
        .start()
        .expect("starts");
    let id = child.id();
    assert!(
        mproc::active_children()
            .iter()
            .any(|child| child.id() == id)
    );
    may_go.read_to_end(&mut Vec::new()).expect("reads");
    match how {
        "returns" => id,
        "exits" => std::process::exit(5),
        "panics" => panic!("a panic that is part of a test"),
        _ => kill_myself(),
    }
}

#[test]
fn a_detached_child_outlives_its_parent_and_sees_it_end() {
    let _watchdog = watchdog("a_detached_child_outlives_its_parent", LIMIT);
    for how in ["returns", "exits", "panics", "is killed"] {
        let (mut said, write) = std::io::pipe().expect("a pipe");
        let parent = start_detached_and_end::process(Fd::from(write), how)
            .name("parent")
            .stderr(Stdio::null())
            .start()
            .expect("starts");
        let id = parent.id();
        let _ = parent.join();
        // Ends when the detached child does: it has done so by itself.
        let mut text = String::new();
        said.read_to_string(&mut text).expect("reads");
        let expected = format!(
            "before: true false\nafter: false true\n<ParentProcess(parent, stopped, pid={id})>"
        );
        assert_eq!(text, expected, "{how}");
    }
}

/// A chain of three, the last of which reports everybody's id and holds the pipe open.
#[mproc::entry]
fn chain(report: Fd, left: u32, ids: Vec<u32>) {
    let mut ids = ids;
    ids.push(std::process::id());
    if left > 0 {
        let child = chain::spawn(report, left - 1, ids).expect("starts");
        let _ = child.wait();
        return;
    }
    let mut report = report.into_inner::<std::fs::File>().expect("ours alone");
    report
        .write_all(format!("{ids:?}\n").as_bytes())
        .expect("somebody reads");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn start_chain() -> (mproc::AnyChild, std::io::PipeReader, Vec<u32>) {
    let (mut read, write) = std::io::pipe().expect("a pipe");
    let child = chain::spawn(Fd::from(write), 3, Vec::new())
        .expect("starts")
        .into_any();
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with('\n') {
        read.read_exact(&mut byte).expect("the last one reports");
        text.push(char::from(byte[0]));
    }
    let ids = text
        .trim()
        .trim_matches(['[', ']'])
        .split(", ")
        .map(|id| id.parse().expect("a number"));
    (child, read, ids.collect())
}

#[test]
fn whoever_dies_takes_all_below_and_nobody_above() {
    let _watchdog = watchdog("whoever_dies_takes_all_below", LIMIT);
    for victim in 0..4 {
        for number in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGABRT] {
            let (child, mut read, ids) = start_chain();
            assert_eq!(ids.len(), 4);
            kill(Pid::from_raw(ids[victim] as i32), number).expect("it runs");
            // The last one held the pipe; it is dead when this ends.
            read.read_to_end(&mut Vec::new()).expect("reads");
            let status = child.wait().expect("waits");
            if victim == 0 {
                assert_eq!(status.signal(), Some(number as i32));
            } else {
                // Those above were not touched: they waited for the dead one, and returned.
                assert!(status.success(), "{status}");
            }
            eventually(|| !ids.iter().any(|id| runs(*id)));
        }
    }
}

/// Two children die with a parent that has given up its privileges, left its terminal and closed its streams.
#[mproc::entry]
fn become_a_daemon_of_the_old_sort(said: Fd) {
    nix::unistd::setsid().expect("not a leader");
    if nix::unistd::geteuid().is_root() {
        nix::unistd::setgid(nix::unistd::Gid::from_raw(65534)).expect("root may");
        nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).expect("root may");
    }
    // SAFETY: numbers only; nothing here uses the standard streams from now on.
    unsafe { libc::close_range(0, 2, 0) };
    let child = chain::spawn(said, 1, Vec::new()).expect("starts");
    child.wait().expect("waits");
}

#[test]
fn a_parent_with_closed_streams_and_another_user_takes_its_children_too() {
    let _watchdog = watchdog("a_parent_with_closed_streams_and_another_user", LIMIT);
    let (mut read, write) = std::io::pipe().expect("a pipe");
    let child = become_a_daemon_of_the_old_sort::spawn(Fd::from(write)).expect("starts");
    read.read_exact(&mut [0]).expect("the last one reports");
    child.kill().expect("sends");
    read.read_to_end(&mut Vec::new()).expect("reads");
    assert_eq!(
        child.join().expect_err("killed").signal(),
        Some(libc::SIGKILL)
    );
}
