//! Python's own tests of `Process`, ported: `_TestProcess`, `_TestSubclassingProcess` and `_TestPollEintr` of CPython's
//! `test/_test_multiprocessing.py`, by their names. Left out is what has no counterpart here: `authkey`, `close`, threads that a
//! child waits for when it ends, and the fork server.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mproc::{ErrorKind, Fd, Run, Stdio, active_children, current_process, parent_process};
use mproc_tests::{eventually, watchdog};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn current() {
    let current = current_process();
    assert_eq!(current.name(), "MainProcess");
    assert!(!current.daemon());
    assert_eq!(current.id(), std::process::id());
    assert_eq!(
        format!("{current:?}"),
        format!("<Process(MainProcess, started, pid={})>", current.id())
    );
    assert!(parent_process().is_none());
}

type Pair = (Option<char>, Vec<u8>);

#[mproc::entry]
fn give_back(number: i64, text: &str, list: &[f64], pair: Pair) -> (i64, String, Vec<f64>, Pair) {
    (number, text.to_owned(), list.to_vec(), pair)
}

#[test]
fn args_argument() {
    let _watchdog = watchdog("args_argument", LIMIT);
    let pair = (Some('é'), vec![0, 255]);
    let child = give_back::spawn(-1, "foo", &[0.1, f64::INFINITY], pair.clone()).expect("starts");
    assert_eq!(
        child.join().expect("joins"),
        (-1, "foo".to_owned(), vec![0.1, f64::INFINITY], pair)
    );
}

#[mproc::entry]
fn daemon_flags_of_children() -> Vec<bool> {
    let described = [None, Some(true), Some(false)].map(|flag| match flag {
        None => am_i_a_daemon::process(),
        Some(flag) => am_i_a_daemon::process().daemon(flag),
    });
    let seen = described.map(|process| {
        let child = process.start().expect("starts");
        let told = child.daemon();
        assert_eq!(child.join().expect("joins"), told);
        told
    });
    seen.to_vec()
}

#[mproc::entry]
fn am_i_a_daemon() -> bool {
    current_process().daemon()
}

#[test]
fn daemon_argument() {
    let _watchdog = watchdog("daemon_argument", LIMIT);
    assert_eq!(daemon_flags_of_children(), [false, true, false]);
    // Python forbids daemons to have children. Here the flag is inherited, unless told otherwise.
    let daemon = daemon_flags_of_children::process()
        .daemon(true)
        .start()
        .expect("starts");
    assert_eq!(daemon.join().expect("joins"), [true, true, false]);
}

#[mproc::entry]
fn parent_attributes() -> (u32, String, bool) {
    let parent = parent_process().expect("started by somebody");
    (parent.id(), parent.name().to_owned(), parent.is_alive())
}

#[mproc::entry]
fn parent_attributes_of_a_child() -> (u32, String, bool) {
    parent_attributes::spawn()
        .expect("starts")
        .join()
        .expect("joins")
}

#[test]
fn parent_process_attributes() {
    let _watchdog = watchdog("parent_process_attributes", LIMIT);
    let seen = parent_attributes::spawn()
        .expect("starts")
        .join()
        .expect("joins");
    assert_eq!(seen, (std::process::id(), "MainProcess".to_owned(), true));
    let child = parent_attributes_of_a_child::process()
        .name("middle")
        .start()
        .expect("starts");
    let id = child.id();
    assert_eq!(
        child.join().expect("joins"),
        (id, "middle".to_owned(), true)
    );
}

/// Python's `test_parent_process`: the grandchild sees its parent alive, and then not.
#[mproc::entry]
fn report_parent(said: Fd, go: Fd) {
    let mut said = said.into_inner::<std::fs::File>().expect("ours alone");
    let parent = parent_process().expect("started by somebody");
    let mut say = |text: String| said.write_all(text.as_bytes()).expect("somebody reads");
    say(format!(
        "{} {} ",
        parent.name(),
        if parent.is_alive() {
            "alive"
        } else {
            "not alive"
        }
    ));
    drop(go);
    assert!(parent.wait_timeout(LIMIT).expect("waits"));
    say(if parent.is_alive() {
        "alive".into()
    } else {
        "not alive".into()
    });
}

#[mproc::entry]
fn start_reporter(said: Fd) {
    let (mut go, theirs) = std::io::pipe().expect("a pipe");
    report_parent::process(said, Fd::from(theirs))
        .detached()
        .start()
        .expect("starts");
    go.read_to_end(&mut Vec::new()).expect("reads");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[test]
fn parent_process_dies() {
    let _watchdog = watchdog("parent_process_dies", LIMIT);
    let (mut said, write) = std::io::pipe().expect("a pipe");
    let child = start_reporter::process(Fd::from(write))
        .name("parent")
        .start()
        .expect("starts");
    let mut first = [0; 13];
    said.read_exact(&mut first).expect("the grandchild reports");
    assert_eq!(&first, b"parent alive ");
    child.terminate().expect("sends");
    assert_eq!(
        std::io::read_to_string(&mut said).expect("reads"),
        "not alive"
    );
    assert_eq!(child.wait().expect("waits").exit_code(), -15);
}

#[mproc::entry]
fn tell_facts(a: i32, b: &str, go: Fd) -> (i32, String, String, u32) {
    let mut go = go.into_inner::<std::fs::File>().expect("ours alone");
    go.read_to_end(&mut Vec::new()).expect("reads");
    let current = current_process();
    (a, b.to_owned(), current.name().to_owned(), current.id())
}

#[mproc::entry]
fn go_through_states() {
    let (go, release) = std::io::pipe().expect("a pipe");
    let process = tell_facts::process(1, "two", Fd::from(go))
        .name("SomeProcess")
        .daemon(true);
    assert!(!process.is_alive());
    assert_eq!(process.get_name(), "SomeProcess");
    assert_eq!(active_children().len(), 0);

    let child = process.start().expect("starts");
    assert!(child.is_alive() && child.daemon());
    assert_eq!(child.exit_code(), None);
    assert_eq!(active_children().len(), 1);
    assert_eq!(active_children()[0].id(), child.id());

    drop(release);
    let (id, any) = (child.id(), (*child).clone());
    assert_eq!(
        child.join().expect("joins"),
        (1, "two".to_owned(), "SomeProcess".to_owned(), id)
    );
    assert_eq!(any.exit_code(), Some(0));
    assert!(!any.is_alive());
    assert_eq!(active_children().len(), 0);
}

#[test]
fn process() {
    let _watchdog = watchdog("process", LIMIT);
    go_through_states::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

/// Each writes its place in the tree, then lets two children do so, one after the other.
#[mproc::entry]
fn recurse(to: Fd, path: Vec<u8>) {
    let line = path
        .iter()
        .map(|digit| char::from(b'0' + digit))
        .collect::<String>()
        + "\n";
    let mut file = to
        .clone()
        .into_inner::<std::fs::File>()
        .expect("room for one");
    file.write_all(line.as_bytes()).expect("somebody reads");
    if path.len() < 3 {
        for digit in 0..2 {
            let path = path.iter().copied().chain([digit]).collect();
            recurse::spawn(to.clone(), path)
                .expect("starts")
                .join()
                .expect("joins");
        }
    }
}

#[test]
fn recursion() {
    let _watchdog = watchdog("recursion", LIMIT);
    let (mut read, write) = std::io::pipe().expect("a pipe");
    recurse::spawn(Fd::from(write), vec![])
        .expect("starts")
        .join()
        .expect("joins");
    let order = [
        "", "0", "00", "000", "001", "01", "010", "011", "1", "10", "100", "101", "11", "110",
        "111",
    ];
    let seen = std::io::read_to_string(&mut read).expect("reads");
    assert_eq!(seen.lines().collect::<Vec<_>>(), order);
}

#[test]
fn sentinel() {
    let _watchdog = watchdog("sentinel", LIMIT);
    let (go, release) = std::io::pipe().expect("a pipe");
    let child = tell_facts::spawn(1, "", Fd::from(go)).expect("starts");
    let ready = |timeout| {
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).expect("polls") == 1
    };
    assert!(!ready(PollTimeout::ZERO));
    drop(release);
    assert!(ready(PollTimeout::NONE));
    assert!(!child.is_alive());
}

/// Holds a descriptor, so that others can see when it is gone.
#[derive(Serialize, Deserialize)]
struct Holder(Fd);

#[mproc::entry]
impl Run for Holder {
    type Output = bool;
    fn run(self) -> bool {
        self.0.into_inner::<std::fs::File>().is_ok()
    }
}

#[test]
fn lose_target_ref() {
    let _watchdog = watchdog("lose_target_ref", LIMIT);
    let (mut read, write) = std::io::pipe().expect("a pipe");
    let mut child = Holder(Fd::from(write)).spawn().expect("starts");
    assert_eq!(child.join_timeout(LIMIT).expect("joins"), Some(true));
    // The handle lives, and what was given to the child does not: the last write end is closed.
    assert_eq!(read.read(&mut [0]).expect("reads"), 0);
    drop(child);
}

#[mproc::entry]
fn print_and_return() -> u8 {
    // Fails where there is no stdout, which is no reason to fail.
    let _ = writeln!(std::io::stdout(), "to nobody");
    let _ = writeln!(std::io::stderr(), "to nobody");
    5
}

#[mproc::entry]
fn start_without_streams(closed: bool) -> u8 {
    if closed {
        // SAFETY: numbers only; nobody else in this process uses them.
        unsafe { libc::close_range(0, 2, 0) };
    }
    print_and_return::spawn()
        .expect("starts")
        .join()
        .expect("joins")
}

#[test]
fn error_on_stdio_flush() {
    let _watchdog = watchdog("error_on_stdio_flush", LIMIT);
    for closed in [false, true] {
        assert_eq!(
            start_without_streams::spawn(closed)
                .expect("starts")
                .join()
                .expect("joins"),
            5
        );
    }
    // A stdout whose reader is gone: SIGPIPE is ignored in the child, as std does it.
    let (read, write) = std::io::pipe().expect("a pipe");
    drop(read);
    let child = print_and_return::process()
        .stdout(write.try_clone().expect("room"))
        .stderr(write)
        .start()
        .expect("starts");
    assert_eq!(child.join().expect("joins"), 5);
}

#[mproc::entry]
fn fail_with_a_word() {
    panic!("zero division, so to speak");
}

#[test]
fn stderr_flush() {
    let _watchdog = watchdog("stderr_flush", LIMIT);
    let child = fail_with_a_word::process()
        .stderr(Stdio::piped())
        .start()
        .expect("starts");
    let mut stderr = child.take_stderr().expect("piped");
    let status = child.wait().expect("waits");
    assert_eq!(status.code(), Some(101));
    let text = std::io::read_to_string(&mut stderr).expect("reads");
    assert!(text.contains("zero division, so to speak"), "{text}");
    assert!(text.contains(file!()), "{text}");
    let error = child.join().expect_err("panicked");
    let panic = error.panic().expect("panicked");
    assert_eq!(panic.message(), "zero division, so to speak");
    assert!(
        panic
            .location()
            .is_some_and(|place| place.starts_with(file!())),
        "{panic:?}"
    );
}

#[mproc::entry]
fn exit_as_told(code: i32) {
    std::process::exit(code)
}

#[test]
fn sys_exit() {
    let _watchdog = watchdog("sys_exit", LIMIT);
    for code in [0, 1, 8, 255] {
        let child = exit_as_told::spawn(code).expect("starts");
        child.wait().expect("waits");
        assert_eq!(child.exit_code(), Some(code));
        let error = child.join().expect_err("no value");
        assert_eq!(
            (error.kind(), error.exit_code()),
            (ErrorKind::Exited, Some(code))
        );
    }
}

extern "C" fn do_nothing(_: libc::c_int) {}

#[mproc::entry]
fn send_signal_to_parent(go_on: Fd) -> u8 {
    let parent = parent_process().expect("started by somebody").id() as i32;
    for _ in 0..20 {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), Signal::SIGUSR1)
            .expect("it is there");
        std::thread::yield_now();
    }
    drop(go_on);
    9
}

#[mproc::entry]
fn be_interrupted_in_join() -> u8 {
    let action = SigAction::new(
        SigHandler::Handler(do_nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("SIGUSR1 can be handled");
    let fd = Fd::from(std::fs::File::open("/dev/null").expect("opens"));
    let child = send_signal_to_parent::spawn(fd).expect("starts");
    let status = child.wait().expect("waits");
    assert_eq!(status.exit_code(), 0);
    child.join().expect("joins")
}

#[test]
fn poll_eintr() {
    let _watchdog = watchdog("poll_eintr", LIMIT);
    assert_eq!(
        be_interrupted_in_join::spawn()
            .expect("starts")
            .join()
            .expect("all is well"),
        9
    );
}

#[mproc::entry]
fn sleep_some(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Python's `test_terminate` and `test_kill`.
#[test]
fn terminate_and_kill() {
    let _watchdog = watchdog("terminate_and_kill", LIMIT);
    for (number, end) in [
        (15, mproc::AnyChild::terminate as fn(&_) -> _),
        (9, mproc::AnyChild::kill),
    ] {
        let mut child = sleep_some::process(3600)
            .daemon(true)
            .start()
            .expect("starts");
        assert!(child.is_alive());
        assert_eq!(child.exit_code(), None);
        let begin = Instant::now();
        assert!(child.join_timeout(Duration::ZERO).expect("looks").is_none());
        assert!(
            child
                .join_timeout(Duration::from_millis(10))
                .expect("waits")
                .is_none()
        );
        assert!(begin.elapsed() >= Duration::from_millis(10));
        end(&child).expect("sends");
        eventually(|| !child.is_alive());
        assert_eq!(child.exit_code(), Some(-number));
        assert_eq!(child.join().expect_err("killed").signal(), Some(number));
    }
}

/// Python's `test_many_processes`, and `test_cpu_count` for how many.
#[test]
fn many_processes() {
    let _watchdog = watchdog("many_processes", LIMIT);
    assert!(mproc::cpu_count() >= 1);
    let children: Vec<_> = (0..20)
        .map(|_| sleep_some::spawn(0).expect("starts"))
        .collect();
    for child in children {
        child.join().expect("joins");
    }
    let children: Vec<_> = (0..20)
        .map(|_| sleep_some::spawn(3600).expect("starts"))
        .collect();
    for child in &children {
        child.terminate().expect("sends");
    }
    for child in children {
        assert_eq!(child.wait().expect("waits").exit_code(), -15);
    }
}

/// Python's `test_subclassing`: an object with behaviour and state.
#[derive(Serialize, Deserialize)]
struct UpperCaser {
    prefix: String,
    words: Vec<String>,
}

#[mproc::entry]
impl Run for UpperCaser {
    type Output = Vec<String>;
    fn run(self) -> Vec<String> {
        self.words
            .iter()
            .map(|word| format!("{}{}", self.prefix, word.to_uppercase()))
            .collect()
    }
}

#[test]
fn subclassing() {
    let _watchdog = watchdog("subclassing", LIMIT);
    let worker = UpperCaser {
        prefix: "> ".into(),
        words: vec!["hello".into(), "world".into()],
    };
    let child = worker.process().daemon(true).start().expect("starts");
    assert_eq!(child.join().expect("joins"), ["> HELLO", "> WORLD"]);
}
