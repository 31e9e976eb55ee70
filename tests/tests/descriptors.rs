//! A child has the descriptors that it was given and no other; the parent keeps none that it did not ask for.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use mproc::{ErrorKind, Fd, Process, Stdio};
use mproc_tests::{descriptors, dose, watchdog};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

const LIMIT: Duration = Duration::from_secs(60);

/// The descriptors of a process and, for each, what it is.
#[mproc::entry]
fn see_descriptors() -> Vec<(i32, String)> {
    let name = |number: &i32| {
        let link = std::fs::read_link(format!("/proc/self/fd/{number}"));
        link.map_or_else(|error| error.to_string(), |link| link.display().to_string())
    };
    descriptors()
        .into_iter()
        .map(|number| (number, name(&number)))
        .collect()
}

/// Standard streams, mproc's socket and the line, and nothing else.
fn assert_bare(seen: &[(i32, String)]) {
    let numbers: Vec<i32> = seen.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), 5, "{seen:?}");
    assert_eq!(numbers[..3], [0, 1, 2], "{seen:?}");
    let kinds = |kind: &str| {
        seen[3..]
            .iter()
            .filter(|(_, name)| name.starts_with(kind))
            .count()
    };
    assert_eq!((kinds("socket:"), kinds("pipe:")), (1, 1), "{seen:?}");
    assert_eq!(seen[0].1, "/dev/null", "{seen:?}");
}

/// A descriptor as a careless library makes it: programs that are executed inherit it.
fn inheritable() -> OwnedFd {
    let file = File::open("/dev/null").expect("opens");
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("is open");
    file.into()
}

#[mproc::entry]
fn start_among_open_files() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let standing: Vec<OwnedFd> = (0..10).map(|_| inheritable()).collect();
    // SAFETY: 700 is open nowhere else, and the result is owned here alone.
    let high = unsafe {
        assert_eq!(libc::dup2(standing[0].as_raw_fd(), 700), 700);
        OwnedFd::from_raw_fd(700)
    };
    let restless = std::thread::spawn(|| {
        while !DONE.load(SeqCst) {
            let some: Vec<OwnedFd> = (0..20).map(|_| inheritable()).collect();
            drop(some);
        }
    });
    for _ in 0..dose(10, 2000) {
        let children: Vec<_> = (0..2)
            .map(|_| see_descriptors::spawn().expect("starts"))
            .collect();
        for child in children {
            assert_bare(&child.join().expect("joins"));
        }
    }
    DONE.store(true, SeqCst);
    restless.join().expect("does not panic");
    drop((standing, high));
}

#[test]
fn children_inherit_nothing_that_was_not_given() {
    let _watchdog = watchdog("children_inherit_nothing", LIMIT);
    start_among_open_files::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

#[mproc::entry]
fn see_descriptors_in_a_grandchild() -> Vec<(i32, String)> {
    see_descriptors::spawn()
        .expect("starts")
        .join()
        .expect("joins")
}

#[test]
fn grandchildren_inherit_nothing_either() {
    let _watchdog = watchdog("grandchildren_inherit_nothing_either", LIMIT);
    assert_bare(
        &see_descriptors_in_a_grandchild::spawn()
            .expect("starts")
            .join()
            .expect("joins"),
    );
}

/// Descriptors of a raw program that a child starts.
#[mproc::entry]
fn see_descriptors_of_a_program() -> String {
    let output = std::process::Command::new("ls")
        .arg("/proc/self/fd")
        .output()
        .expect("ls runs");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn programs_that_a_child_starts_get_nothing_of_ours() {
    let _watchdog = watchdog("programs_that_a_child_starts", LIMIT);
    let seen = see_descriptors_of_a_program::spawn()
        .expect("starts")
        .join()
        .expect("joins");
    // The last one is the directory that `ls` reads.
    assert_eq!(seen, "0\n1\n2\n3\n");
}

#[mproc::entry]
fn echo(text: String, fd: Option<Fd>) -> (String, Option<Fd>) {
    (text, fd)
}

#[mproc::entry]
fn panic_or_exit(panics: bool) {
    if panics {
        panic!("a panic that is part of a test");
    }
    std::process::exit(3);
}

#[mproc::entry]
fn start_a_thousand_and_count() {
    let round = || {
        let file = File::open("/dev/null").expect("opens");
        let child = echo::spawn("x".repeat(100_000), Some(Fd::from(file))).expect("starts");
        let (text, fd) = child.join().expect("joins");
        assert_eq!((text.len(), fd.is_some()), (100_000, true));
        for panics in [false, true] {
            let process = panic_or_exit::process(panics).stderr(Stdio::null());
            assert!(process.start().expect("starts").join().is_err());
        }
        let piped = echo::process(String::new(), None)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = piped.start().expect("starts");
        let clone = child.into_any();
        clone.wait().expect("waits");
        // A process that is never started.
        let _: Process<(String, Option<Fd>)> = echo::process("x".repeat(100_000), None);
        // One that cannot be.
        let failed = echo::process(String::new(), None)
            .current_dir("/no/such/directory")
            .start();
        assert_eq!(
            failed.expect_err("no such directory").kind(),
            ErrorKind::Start
        );
    };
    round();
    let before = descriptors();
    for _ in 0..dose(5, 1000) {
        round();
    }
    assert_eq!(descriptors(), before);
    assert_eq!(mproc_tests::children_of(std::process::id()), []);
}

#[test]
fn the_parent_keeps_nothing_of_children_that_ended() {
    let _watchdog = watchdog("the_parent_keeps_nothing", LIMIT);
    start_a_thousand_and_count::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

#[mproc::entry]
fn close_standard_streams_and_start() {
    let (report, write) = nix::unistd::pipe().expect("a pipe");
    for closed in [
        vec![0],
        vec![1],
        vec![2],
        vec![0, 1],
        vec![0, 2],
        vec![1, 2],
        vec![0, 1, 2],
    ] {
        // In a child of its own, so that each begins with all three.
        let missing =
            start_with_closed::spawn(closed.clone(), Fd::from(write.try_clone().expect("room")))
                .expect("starts");
        missing
            .join()
            .unwrap_or_else(|error| panic!("{closed:?}: {error:?}"));
    }
    drop((report, write));
}

#[mproc::entry]
fn start_with_closed(numbers: Vec<i32>, held: Fd) {
    for number in &numbers {
        // SAFETY: numbers only; nobody else in this process uses them.
        unsafe { libc::close(*number) };
    }
    for _ in 0..3 {
        let seen = see_descriptors::process()
            .stdin(Stdio::null())
            .start()
            .expect("starts")
            .join()
            .expect("joins");
        assert!(
            seen.iter()
                .all(|(number, name)| *number > 2 || !name.starts_with("socket:")),
            "{seen:?}"
        );
        assert_eq!(
            seen.iter().filter(|(number, _)| *number > 2).count(),
            2,
            "{seen:?}"
        );
        // Streams given to a child whose parent lacks them.
        let (mut read, write) = std::io::pipe().expect("a pipe");
        let child = say_something::process()
            .stdout(write)
            .stderr(Stdio::null())
            .start()
            .expect("starts");
        child.join().expect("joins");
        assert_eq!(
            std::io::read_to_string(&mut read).expect("reads"),
            "something\n"
        );
        let child = say_something::process()
            .stdout(Stdio::piped())
            .start()
            .expect("starts");
        let mut stdout = child.take_stdout().expect("piped");
        assert_eq!(
            std::io::read_to_string(&mut stdout).expect("reads"),
            "something\n"
        );
        child.join().expect("joins");
    }
    drop(held);
}

#[mproc::entry]
fn say_something() {
    println!("something");
}

#[test]
fn a_parent_without_standard_streams_has_children() {
    let _watchdog = watchdog("a_parent_without_standard_streams", LIMIT);
    close_standard_streams_and_start::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

#[test]
fn streams_may_be_crossed() {
    let _watchdog = watchdog("streams_may_be_crossed", LIMIT);
    let (mut out_read, out_write) = std::io::pipe().expect("a pipe");
    let (mut err_read, err_write) = std::io::pipe().expect("a pipe");
    let child = say_both::process()
        .stdout(err_write)
        .stderr(out_write)
        .start()
        .expect("starts");
    child.join().expect("joins");
    assert_eq!(
        std::io::read_to_string(&mut err_read).expect("reads"),
        "to stdout\n"
    );
    assert_eq!(
        std::io::read_to_string(&mut out_read).expect("reads"),
        "to stderr\n"
    );
}

#[mproc::entry]
fn say_both() {
    println!("to stdout");
    eprintln!("to stderr");
}

#[test]
fn streams_that_are_taken_are_taken_once() {
    let _watchdog = watchdog("streams_that_are_taken_are_taken_once", LIMIT);
    let child = copy_stdin::process()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    assert!(child.take_stderr().is_none(), "not piped");
    let (stdin, stdout) = (child.take_stdin(), child.take_stdout());
    assert!(child.take_stdin().is_none() && child.take_stdout().is_none());
    let (mut stdin, mut stdout) = (stdin.expect("piped"), stdout.expect("piped"));
    std::io::Write::write_all(&mut stdin, b"there and back").expect("the child reads");
    drop(stdin);
    assert_eq!(
        std::io::read_to_string(&mut stdout).expect("reads"),
        "there and back"
    );
    child.join().expect("joins");
}

#[mproc::entry]
fn copy_stdin() {
    std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).expect("copies");
}
