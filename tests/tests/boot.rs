//! What a process is to become is decided before anything of the user runs, and leaves no trace (G1).

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::Duration;

use mproc::Stdio;
use mproc_tests::{ScratchFile, program, watchdog};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

const PROGRAM: &str = env!("CARGO_BIN_EXE_boot");
const MARK: &str = "__MPROC_CHILD";
const LIMIT: Duration = Duration::from_secs(60);

fn run(what: &str, trace: &ScratchFile) -> Output {
    let mut command = program(PROGRAM);
    command.arg(what).arg(trace.path());
    command.output().expect("the program runs")
}

fn assert_success(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
}

#[test]
fn user_main_runs_once_however_many_processes_there_are() {
    let _watchdog = watchdog("user_main_runs_once", LIMIT);
    let trace = ScratchFile::new("main");
    let mut command = program(PROGRAM);
    command.arg("generations").arg(trace.path());
    // Arguments are what they were in every generation, whatever they are.
    command.args(["", "--flag", "two words"]);
    command.arg(OsStr::from_bytes(b"not \xff UTF-8"));
    assert_success(&command.output().expect("the program runs"));
    assert_eq!(trace.read(), "main ran\n");
}

#[test]
fn booting_again_changes_nothing() {
    let _watchdog = watchdog("booting_again_changes_nothing", LIMIT);
    let trace = ScratchFile::new("again");
    assert_success(&run("boot-again", &trace));
    assert_eq!(trace.read(), "main ran\n");
}

#[test]
fn names_count_descriptions() {
    let _watchdog = watchdog("names_count_descriptions", LIMIT);
    assert_success(&run("names", &ScratchFile::new("names")));
}

#[test]
fn a_chain_without_an_end_is_ended() {
    let _watchdog = watchdog("a_chain_without_an_end_is_ended", LIMIT);
    let trace = ScratchFile::new("chain");
    assert_success(&run("chain", &trace));
    assert_eq!(trace.read(), "main ran\n");
}

/// Runs the program with a mark made by hand and, at 50 and 51, the descriptors given.
fn run_marked(
    mark: &str,
    at_50_and_51: Option<[&OwnedFd; 2]>,
    user: Option<u32>,
) -> (Output, String) {
    let trace = ScratchFile::new("marked");
    let mut command = program(PROGRAM);
    command.arg("nothing").arg(trace.path()).env(MARK, mark);
    if let Some(user) = user {
        command.uid(user);
    }
    if let Some(sources) = at_50_and_51 {
        let sources = sources.map(AsRawFd::as_raw_fd);
        // SAFETY: only `dup2`, on numbers that stay open until the program has started.
        unsafe {
            command.pre_exec(move || {
                for (source, target) in sources.into_iter().zip([50 as RawFd, 51]) {
                    if libc::dup2(source, target) == -1 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            })
        };
    }
    let output = command.output().expect("the program runs");
    (output, trace.read())
}

fn assert_refused(what: &str, (output, trace): &(Output, String)) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {stderr}");
    assert!(stderr.starts_with("mproc: "), "{what}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
    assert!(trace.is_empty(), "{what}: user main ran");
}

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).expect("a pair of sockets")
}

#[test]
fn a_mark_that_is_none_ends_the_program() {
    let _watchdog = watchdog("a_mark_that_is_none_ends_the_program", LIMIT);
    let marks = [
        "",
        "garbage",
        "main",
        "main:50",
        "main:50:51:52",
        "main:0:1",
        "main:50:50",
        "main:-1:51",
        "fork:50:51",
        "main:99999999999:51",
    ];
    for mark in marks {
        assert_refused(mark, &run_marked(mark, None, None));
    }
}

#[test]
fn a_mark_whose_descriptors_are_closed_ends_the_program() {
    let _watchdog = watchdog("a_mark_whose_descriptors_are_closed", LIMIT);
    for mark in ["main:50:51", "harness:50:51", "main:1000000:1000001"] {
        assert_refused(mark, &run_marked(mark, None, None));
    }
}

#[test]
fn a_mark_with_something_else_than_our_socket_ends_the_program() {
    let _watchdog = watchdog("a_mark_with_something_else_than_our_socket", LIMIT);
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    assert_refused(
        "a pipe",
        &run_marked("main:50:51", Some([&read, &write]), None),
    );

    let file: OwnedFd = std::fs::File::open("/dev/null").expect("opens").into();
    assert_refused(
        "a file",
        &run_marked("main:50:51", Some([&file, &read]), None),
    );

    let (ours, theirs) = pair(SockType::SeqPacket);
    assert_refused(
        "half a mark",
        &run_marked("main:50:52", Some([&theirs, &read]), None),
    );
    drop(ours);
}

#[test]
fn a_socket_that_says_something_else_ends_the_program_without_main() {
    let _watchdog = watchdog("a_socket_that_says_something_else", LIMIT);
    let (line, _line_write) = nix::unistd::pipe().expect("a pipe");
    let mut cut_short = b"mp\x01\0".to_vec();
    cut_short.extend(1000_u64.to_le_bytes());
    let packets: [&[u8]; 4] = [
        b"hello",
        b"mp\x01\0\0\0\0\0\0\0\0\0",
        b"mp\x07\0\0\0\0\0\0\0\0\0",
        &cut_short,
    ];
    for packet in packets {
        for kind in [SockType::SeqPacket, SockType::Stream] {
            let (ours, theirs) = pair(kind);
            nix::unistd::write(&ours, packet).expect("room for a packet");
            drop(ours);
            let (output, trace) = run_marked("main:50:51", Some([&theirs, &line]), None);
            assert_eq!(output.status.code(), Some(1), "{packet:?}");
            assert!(trace.is_empty(), "{packet:?}: user main ran");
        }
    }
}

#[test]
fn a_parent_that_is_gone_ends_the_program_without_main() {
    let _watchdog = watchdog("a_parent_that_is_gone", LIMIT);
    let (line, _line_write) = nix::unistd::pipe().expect("a pipe");
    let (ours, theirs) = pair(SockType::SeqPacket);
    drop(ours);
    let (output, trace) = run_marked("main:50:51", Some([&theirs, &line]), None);
    assert_eq!(output.status.code(), Some(1));
    assert!(trace.is_empty(), "user main ran");
}

#[test]
fn a_mark_set_by_another_user_ends_the_program() {
    let _watchdog = watchdog("a_mark_set_by_another_user", LIMIT);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can run programs as somebody else");
        return;
    }
    let (line, _line_write) = nix::unistd::pipe().expect("a pipe");
    let (_ours, theirs) = pair(SockType::SeqPacket);
    let refused = run_marked("main:50:51", Some([&theirs, &line]), Some(65534));
    assert_refused("another user's", &refused);
    assert!(String::from_utf8_lossy(&refused.0.stderr).contains("user 0 set"));
}

#[mproc::entry]
fn generations_of_a_test(left: u32) -> (u32, Vec<std::ffi::OsString>) {
    if left == 0 {
        return (0, std::env::args_os().collect());
    }
    let child = generations_of_a_test::process(left - 1)
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    let mut stdout = child.take_stdout().expect("piped");
    let (below, arguments) = child.join().expect("joins");
    let said = std::io::read_to_string(&mut stdout).expect("reads");
    assert_eq!(said, "", "the harness ran");
    (below + 1, arguments)
}

#[test]
fn children_of_a_test_do_not_run_the_tests() {
    let _watchdog = watchdog("children_of_a_test_do_not_run_the_tests", LIMIT);
    let (generations, arguments) = generations_of_a_test(3);
    assert_eq!(generations, 3);
    assert_eq!(arguments, std::env::args_os().collect::<Vec<_>>());
}

const COUNT: &str = "MPROC_TESTS_COUNT";

/// Not a test of its own: [`a_test_that_starts_processes_runs_once`] runs it and counts.
#[test]
#[ignore = "run by another test"]
fn counted() {
    if let Some(path) = std::env::var_os(COUNT) {
        ScratchFile::append_to(path.as_ref(), "ran");
        assert_eq!(generations_of_a_test(2).0, 2);
    }
}

#[test]
fn a_test_that_starts_processes_runs_once() {
    let _watchdog = watchdog("a_test_that_starts_processes_runs_once", LIMIT);
    let count = ScratchFile::new("count");
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command
        .args(["--ignored", "--exact", "counted"])
        .env(COUNT, count.path());
    assert_success(&command.output().expect("this binary runs"));
    assert_eq!(count.read(), "ran\n");
}
