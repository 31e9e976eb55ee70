//! A start that the system refuses is a clean error that says why, leaves nothing behind, and can be tried again.

use std::error::Error as _;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mproc::{ErrorKind, Process, Stdio};
use mproc_tests::{children_of, descriptors, watchdog};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const LIMIT: Duration = Duration::from_secs(60);

#[mproc::entry]
fn echo(number: u64) -> u64 {
    number
}

fn os_error(error: &mproc::Error) -> Option<i32> {
    error.io_error().and_then(io::Error::raw_os_error)
}

/// Lets the table of descriptors have room for `room` more.
fn leave_room(room: usize) -> Vec<OwnedFd> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    let limit = 64;
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("may be lowered");
    let mut filling: Vec<OwnedFd> = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        filling.push(file.into());
    }
    filling.truncate(filling.len() - room);
    filling
}

#[mproc::entry]
fn start_with_little_room(piped: bool) -> Vec<bool> {
    let describe = |number| {
        let process = echo::process(number);
        if piped {
            process
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
        } else {
            process
        }
    };
    // The first start registers what later ones use.
    describe(0).start().expect("starts").join().expect("joins");
    let mut worked = Vec::new();
    for room in 0..=16 {
        let filling = leave_room(room);
        let before = descriptors_without_opening();
        match describe(7).start() {
            Ok(child) => {
                worked.push(true);
                assert_eq!(child.join().expect("joins"), 7);
            }
            Err(error) => {
                worked.push(false);
                assert_eq!(error.kind(), ErrorKind::Start, "{error}");
                assert_eq!(os_error(&error), Some(libc::EMFILE), "{error}");
                assert_eq!(descriptors_without_opening(), before, "{room}: {error}");
                assert_eq!(children_of(std::process::id()).len(), 0, "{error}");
                // With room made, the same description starts.
                drop(filling);
                let process: Process<u64> = error.into_process().expect("was not started");
                assert_eq!(process.start().expect("starts").join().expect("joins"), 7);
                continue;
            }
        }
        assert_eq!(descriptors_without_opening(), before, "{room}");
    }
    worked
}

/// As `descriptors`, where there is no room for the directory's own.
fn descriptors_without_opening() -> Vec<i32> {
    // SAFETY: F_GETFD takes a number and touches no memory.
    (0..64)
        .filter(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } != -1)
        .collect()
}

#[test]
fn too_few_descriptors() {
    let _watchdog = watchdog("too_few_descriptors", LIMIT);
    for piped in [false, true] {
        let worked = start_with_little_room::spawn(piped)
            .expect("starts")
            .join()
            .expect("all is well");
        assert!(!worked[0] && worked[16], "{worked:?}");
        // More room is never worse.
        assert!(worked.is_sorted(), "{worked:?}");
    }
}

#[mproc::entry]
fn start_as_nobody() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only root can become somebody without processes".into());
    }
    // Of somebody who has no other process, or the limit would be about those.
    let nobody = 54_321;
    nix::unistd::setgid(nix::unistd::Gid::from_raw(nobody)).expect("root may");
    nix::unistd::setuid(nix::unistd::Uid::from_raw(nobody)).expect("root may");
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).expect("there is a limit");
    if let Err(error) = echo::spawn(1).and_then(mproc::Child::join) {
        return Some(format!("this binary cannot be executed by others: {error}"));
    }

    setrlimit(Resource::RLIMIT_NPROC, 1, hard).expect("may be lowered");
    let before = descriptors();
    let error = echo::spawn(2).expect_err("one process is allowed, and this is it");
    assert_eq!(error.kind(), ErrorKind::Start, "{error}");
    assert_eq!(os_error(&error), Some(libc::EAGAIN), "{error}");
    assert!(error.to_string().contains("ulimit -u"), "{error}");
    assert_eq!(descriptors(), before);

    setrlimit(Resource::RLIMIT_NPROC, 2, hard).expect("may be raised again");
    let process: Process<u64> = error.into_process().expect("was not started");
    assert_eq!(process.start().expect("starts").join().expect("joins"), 2);
    None
}

#[test]
fn too_many_processes() {
    let _watchdog = watchdog("too_many_processes", LIMIT);
    if let Some(reason) = start_as_nobody::spawn()
        .expect("starts")
        .join()
        .expect("all is well")
    {
        eprintln!("skipped: {reason}");
    }
}

/// Fails to start `process` and returns the error, having checked that nothing is left and that it can be taken back.
fn refused(process: Process<u64>) -> mproc::Error {
    let error = process.start().expect_err("cannot be started");
    assert_eq!(error.kind(), ErrorKind::Start, "{error}");
    assert_eq!(
        (error.signal(), error.exit_code(), error.process_id()),
        (None, None, None)
    );
    error
}

#[mproc::entry]
fn start_badly() {
    echo::spawn(0).expect("starts").join().expect("joins");
    let before = descriptors();

    let error = refused(echo::process(1).current_dir("/no/such/directory"));
    assert_eq!(os_error(&error), Some(libc::ENOENT), "{error}");
    assert!(error.to_string().contains("directory"), "{error}");
    let error = refused(echo::process(1).current_dir("/dev/null"));
    assert_eq!(os_error(&error), Some(libc::ENOTDIR), "{error}");
    // What was wrong can be put right, and the arguments are still there.
    let process: Process<u64> = error.into_process().expect("was not started");
    assert_eq!(
        process
            .current_dir("/")
            .start()
            .expect("starts")
            .join()
            .expect("joins"),
        1
    );

    for (key, value) in [("A=B", "c"), ("", "c"), ("A\0B", "c"), ("A", "b\0c")] {
        let error = refused(echo::process(2).env(key, value));
        assert!(error.to_string().contains("environment"), "{error}");
        let process: Process<u64> = error.into_process().expect("was not started");
        assert_eq!(
            process
                .env_clear()
                .start()
                .expect("starts")
                .join()
                .expect("joins"),
            2
        );
    }
    let error = refused(echo::process(2).current_dir("a\0b"));
    assert!(error.source().is_some(), "{error}");

    // One string that is too long (128 KiB), and too many of them for the stack.
    let error = refused(echo::process(3).env("LONG", "x".repeat(200_000)));
    assert_eq!(os_error(&error), Some(libc::E2BIG), "{error}");
    let mut process = echo::process(3);
    for number in 0..200 {
        process = process.env(format!("LONG{number}"), "x".repeat(100_000));
    }
    let error = refused(process);
    assert_eq!(os_error(&error), Some(libc::E2BIG), "{error}");
    assert!(error.to_string().contains("environment"), "{error}");

    // An error of another sort has no process in it.
    let error = exit::spawn().expect("starts").join().expect_err("no value");
    let error = error.into_process::<u64>().expect_err("was started");
    assert_eq!(error.exit_code(), Some(3));
    // Neither has one of another type.
    let error = refused(echo::process(1).current_dir("/no/such/directory"));
    let error = error
        .into_process::<String>()
        .expect_err("returns a number");
    assert!(error.into_process::<u64>().is_ok());

    assert_eq!(descriptors(), before);
    assert_eq!(children_of(std::process::id()), []);
}

#[mproc::entry]
fn exit() {
    std::process::exit(3);
}

#[test]
fn what_cannot_be_started_says_why() {
    let _watchdog = watchdog("what_cannot_be_started_says_why", LIMIT);
    start_badly::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

/// A program that has been deleted or replaced while it runs still has children.
#[test]
fn a_deleted_program_has_children() {
    let _watchdog = watchdog("a_deleted_program_has_children", LIMIT);
    let copy = mproc_tests::ScratchFile::new("copy-of-boot");
    std::fs::copy(env!("CARGO_BIN_EXE_boot"), copy.path()).expect("copies");
    let trace = mproc_tests::ScratchFile::new("trace");
    // It has deleted itself before it starts anybody: a shell does that between its own exec and the program's.
    let script = "exec 3<\"$0\"; rm \"$0\"; exec /proc/self/fd/3 names \"$1\"";
    let output = std::process::Command::new("bash")
        .args(["-c", script])
        .arg(copy.path())
        .arg(trace.path())
        .output()
        .expect("bash runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[mproc::entry]
fn facts() -> (String, bool, Option<String>, String) {
    let directory = std::env::current_dir().expect("there is one");
    let me = mproc::current_process();
    (
        me.name().to_owned(),
        me.daemon(),
        std::env::var("GIVEN").ok(),
        directory.display().to_string(),
    )
}

#[test]
fn settings_reach_the_child() {
    let _watchdog = watchdog("settings_reach_the_child", LIMIT);
    let process = facts::process()
        .name("ann")
        .daemon(true)
        .env("GIVEN", "yes")
        .current_dir("/");
    let seen = process.start().expect("starts").join().expect("joins");
    assert_eq!(seen, ("ann".into(), true, Some("yes".into()), "/".into()));

    let here = std::env::current_dir()
        .expect("there is one")
        .display()
        .to_string();
    let process = facts::process()
        .name("")
        .env("GIVEN", "yes")
        .env_remove("GIVEN");
    let seen = process.start().expect("starts").join().expect("joins");
    assert_eq!(seen, (String::new(), false, None, here));
    // Of two settings the last one counts.
    let process = facts::process()
        .name("a")
        .name("b")
        .env("GIVEN", "1")
        .env_clear()
        .env("GIVEN", "2")
        .env("GIVEN", "3");
    let seen = process.start().expect("starts").join().expect("joins");
    assert_eq!((seen.0.as_str(), seen.2.as_deref()), ("b", Some("3")));
}

/// The signals that this process blocks, and those that it ignores.
#[mproc::entry]
fn signals() -> (Vec<i32>, Vec<i32>) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let bits = u64::from_str_radix(line.expect("is there").trim(), 16).expect("a number");
        (1..=64)
            .filter(|number| bits & (1 << (number - 1)) != 0)
            .collect::<Vec<i32>>()
    };
    (set("SigBlk:"), set("SigIgn:"))
}

extern "C" fn do_nothing(_: libc::c_int) {}

#[mproc::entry]
fn start_with_signals_blocked() {
    use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
    SigSet::all().thread_block().expect("may be blocked");
    // SAFETY: ignoring runs no code, and the handler does nothing.
    unsafe {
        signal(Signal::SIGUSR2, SigHandler::SigIgn).expect("can be ignored");
        signal(Signal::SIGUSR1, SigHandler::Handler(do_nothing)).expect("can be handled");
    }
    let (mine_blocked, mine_ignored) = signals();
    let (blocked, ignored) = signals::spawn().expect("starts").join().expect("joins");
    assert_eq!(blocked, []);
    // Ignored signals pass through `exec`, as they do from a shell, and handled ones are at their default again.
    assert_eq!(ignored, mine_ignored);
    assert!(ignored.contains(&libc::SIGUSR2) && ignored.contains(&libc::SIGPIPE));
    // Ours are what they were.
    assert!(mine_blocked.contains(&libc::SIGTERM));
    assert_eq!(signals(), (mine_blocked, mine_ignored));
}

#[test]
fn a_child_starts_with_no_signal_blocked() {
    let _watchdog = watchdog("a_child_starts_with_no_signal_blocked", LIMIT);
    start_with_signals_blocked::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

/// Registered before mproc's own exit handler, so it runs after that.
extern "C" fn start_too_late() {
    let error = echo::spawn(1).expect_err("the program is ending");
    println!("{:?}", error.kind());
}

#[mproc::entry]
fn end_with_a_handler() {
    // SAFETY: a plain function.
    assert_eq!(unsafe { libc::atexit(start_too_late) }, 0);
    echo::spawn(1).expect("starts").join().expect("joins");
}

#[test]
fn nothing_is_started_when_the_program_has_ended() {
    let _watchdog = watchdog("nothing_is_started_when_the_program_has_ended", LIMIT);
    let child = end_with_a_handler::process()
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    let mut stdout = child.take_stdout().expect("piped");
    child.join().expect("joins");
    assert_eq!(io::read_to_string(&mut stdout).expect("reads"), "Exiting\n");
}
