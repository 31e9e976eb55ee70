//! Functions that end badly: what the parent is told (G17).
//!
//! Here children are booted before `main` by the feature `test`; `src/bin/ends-badly.rs` does the same in an ordinary program,
//! where std has installed its handlers.

use std::panic::{catch_unwind, panic_any, resume_unwind, set_hook, take_hook};
use std::time::Duration;

use mproc::{Child, Error, ErrorKind, Failure, Run, Stdio};
use mproc_tests::{program, watchdog};
use nix::sys::resource::{Resource, setrlimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(120);

/// What `join` says of a child that gives no value. Its stderr is nobody's business.
fn error_of<R: DeserializeOwned + 'static>(process: mproc::Process<R>) -> Error {
    let child = process.stderr(Stdio::null()).start().expect("it starts");
    child.join().err().expect("there is no value")
}

#[track_caller]
fn panicked(error: &Error, message: &str) {
    assert!(error.is_panic(), "{error}");
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(error.panic().unwrap().message(), message);
}

#[mproc::entry]
fn index(list: &[u8], at: usize) -> u8 {
    list[at]
}

#[test]
fn a_panic_arrives_with_message_place_backtrace_and_thread() {
    let _watchdog = watchdog(
        "a_panic_arrives_with_message_place_backtrace_and_thread",
        LIMIT,
    );
    let error = error_of(index::process(&[1, 2, 3], 7).name("indexer"));
    let message = "index out of bounds: the len is 3 but the index is 7";
    panicked(&error, message);
    assert_eq!((error.exit_code(), error.signal()), (Some(101), None));
    assert_eq!(error.process_name(), Some("indexer"));
    let panic = error.panic().unwrap();
    assert_eq!(panic.thread(), "main");
    let location = panic.location().unwrap();
    assert!(location.contains("panics.rs:"), "{location}");
    let backtrace = panic.backtrace().unwrap();
    assert!(backtrace.contains("panics::index"), "{backtrace}");

    let pid = error.process_id().unwrap();
    assert_eq!(
        error.to_string(),
        format!("process `indexer` (pid {pid}) panicked: {message}")
    );
    let debug = format!("{error:?}");
    for part in [message, location, "panics::index", "thread `main`"] {
        assert!(debug.contains(part), "`{part}` is missing: {debug}");
    }
}

#[test]
fn the_backtrace_can_be_turned_off() {
    let _watchdog = watchdog("the_backtrace_can_be_turned_off", LIMIT);
    let error = error_of(index::process(&[], 0).env("RUST_BACKTRACE", "0"));
    assert_eq!(error.panic().unwrap().backtrace(), None);
    // Without the variable it is taken, though nothing is printed.
    let error = error_of(index::process(&[], 0).env_remove("RUST_BACKTRACE"));
    assert!(error.panic().unwrap().backtrace().is_some());
}

#[test]
fn payloads_of_every_type_arrive() {
    let _watchdog = watchdog("payloads_of_every_type_arrive", LIMIT);
    #[mproc::entry]
    fn throw(which: u8) {
        match which {
            0 => panic!("literal"),
            1 => panic!("formatted {which}"),
            2 => panic_any("a &str"),
            3 => panic_any(String::from("a String")),
            4 => panic_any(42_i32),
            5 => panic!(),
            6 => panic!("{}", "long ".repeat(100_000)),
            7 => panic!("several\nlines\n\0 and a zero"),
            _ => drop(std::fs::read("/no/such/file").unwrap()),
        }
    }
    let long = "long ".repeat(100_000);
    let expected = [
        "literal",
        "formatted 1",
        "a &str",
        "a String",
        "a panic whose payload is no text",
        "explicit panic",
        &long,
        "several\nlines\n\0 and a zero",
        r#"called `Result::unwrap()` on an `Err` value: Os { code: 2, kind: NotFound, message: "No such file or directory" }"#,
    ];
    for (which, message) in (0..).zip(expected) {
        let error = error_of(throw::process(which));
        panicked(&error, message);
        assert_eq!(error.exit_code(), Some(101));
        assert!(error.panic().unwrap().location().is_some());
    }
}

#[test]
fn a_panic_of_a_value_with_run_arrives() {
    let _watchdog = watchdog("a_panic_of_a_value_with_run_arrives", LIMIT);
    #[derive(Serialize, Deserialize)]
    struct Bomb;
    #[mproc::entry]
    impl Run for Bomb {
        type Output = u8;
        fn run(self) -> u8 {
            panic!("boom")
        }
    }
    panicked(&error_of(Bomb.process()), "boom");
}

#[test]
fn a_panic_of_a_grandchild_is_told_by_the_child() {
    let _watchdog = watchdog("a_panic_of_a_grandchild_is_told_by_the_child", LIMIT);
    #[mproc::entry]
    fn ask_child() -> Result<u8, Failure> {
        let child = index::process(&[], 0).stderr(Stdio::null()).start()?;
        Ok(child.join()?)
    }
    #[mproc::entry]
    fn unwrap_child() -> u8 {
        let child = index::process(&[], 0).stderr(Stdio::null()).start();
        child.unwrap().join().unwrap()
    }
    let failure = ask_child::spawn().unwrap().join().unwrap().unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("panicked: index out of bounds"),
        "{failure}"
    );
    let error = error_of(unwrap_child::process());
    assert!(
        error
            .panic()
            .unwrap()
            .message()
            .contains("panicked: index out of bounds"),
        "{error}"
    );
}

#[test]
fn a_panic_of_another_thread_is_that_threads_business() {
    let _watchdog = watchdog("a_panic_of_another_thread_is_that_threads_business", LIMIT);
    #[mproc::entry]
    fn outlive() -> String {
        let thread = std::thread::spawn(|| panic!("in a thread"));
        let payload = thread.join().unwrap_err();
        payload.downcast_ref::<&str>().unwrap().to_string()
    }
    let child = outlive::process().stderr(Stdio::null()).start().unwrap();
    assert_eq!(child.join().unwrap(), "in a thread");
}

#[test]
fn a_panic_handed_on_from_another_thread_keeps_its_message() {
    let _watchdog = watchdog(
        "a_panic_handed_on_from_another_thread_keeps_its_message",
        LIMIT,
    );
    #[mproc::entry]
    fn hand_on(scoped: bool) {
        let thread = || panic!("in a {}", "thread");
        if scoped {
            std::thread::scope(|scope| {
                scope.spawn(thread);
            });
        } else {
            resume_unwind(std::thread::spawn(thread).join().unwrap_err());
        }
    }
    panicked(&error_of(hand_on::process(false)), "in a thread");
    panicked(
        &error_of(hand_on::process(true)),
        "a scoped thread panicked",
    );
}

#[test]
fn a_caught_panic_is_nobodys_business() {
    let _watchdog = watchdog("a_caught_panic_is_nobodys_business", LIMIT);
    #[mproc::entry]
    fn catch(then: u8) -> u8 {
        let caught = catch_unwind(|| panic!("caught")).unwrap_err();
        assert_eq!(caught.downcast_ref(), Some(&"caught"));
        match then {
            0 => 42,
            1 => panic!("not caught"),
            2 => resume_unwind(Box::new("resumed")),
            3 => std::process::exit(3),
            _ => {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
                unreachable!()
            }
        }
    }
    let quiet = |then| catch::process(then).stderr(Stdio::null());
    assert_eq!(quiet(0).start().unwrap().join().unwrap(), 42);
    panicked(&error_of(quiet(1)), "not caught");
    panicked(&error_of(quiet(2)), "resumed");
    let error = error_of(quiet(3));
    assert_eq!((error.kind(), error.is_panic()), (ErrorKind::Exited, false));
    let error = error_of(quiet(4));
    assert_eq!((error.kind(), error.is_panic()), (ErrorKind::Killed, false));
}

#[derive(Serialize, Deserialize)]
struct PanicsWhenDropped(String);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        let message = std::mem::take(&mut self.0);
        if !message.is_empty() {
            panic!("{message}");
        }
    }
}

#[test]
fn a_panic_while_the_result_is_dropped_is_a_panic() {
    let _watchdog = watchdog("a_panic_while_the_result_is_dropped_is_a_panic", LIMIT);
    #[mproc::entry]
    fn give() -> PanicsWhenDropped {
        PanicsWhenDropped("the result".into())
    }
    panicked(&error_of(give::process()), "the result");
}

#[test]
fn a_panic_while_panicking_still_brings_the_first_message() {
    let _watchdog = watchdog(
        "a_panic_while_panicking_still_brings_the_first_message",
        LIMIT,
    );
    #[mproc::entry]
    fn twice() {
        no_core_dump();
        let _guard = PanicsWhenDropped("the second".into());
        panic!("the first");
    }
    let error = error_of(twice::process());
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!((error.exit_code(), error.signal()), (Some(-6), Some(6)));
    let message = error.panic().unwrap().message();
    assert_eq!(message, "the first, then: the second");
}

#[test]
fn a_panic_that_may_not_unwind_brings_its_message() {
    let _watchdog = watchdog("a_panic_that_may_not_unwind_brings_its_message", LIMIT);
    #[mproc::entry]
    fn through_c(thread: bool) {
        extern "C" fn callback() {
            panic!("in a callback");
        }
        no_core_dump();
        // One that was caught, on whichever thread, is not the cause.
        let _ = catch_unwind(|| panic!("caught"));
        if thread {
            let _ = std::thread::Builder::new()
                .name("caller".into())
                .spawn(|| callback())
                .unwrap()
                .join();
        } else {
            callback();
        }
    }
    for thread in [false, true] {
        let error = error_of(through_c::process(thread));
        assert_eq!(error.kind(), ErrorKind::Panicked, "{error}");
        assert_eq!(error.signal(), Some(6));
        let panic = error.panic().unwrap();
        assert_eq!(panic.thread(), if thread { "caller" } else { "main" });
        assert_eq!(panic.message(), "in a callback");
        assert!(panic.location().unwrap().contains("panics.rs"), "{error:?}");
    }
}

#[test]
fn a_hook_of_the_function_is_kept_and_called() {
    let _watchdog = watchdog("a_hook_of_the_function_is_kept_and_called", LIMIT);
    #[mproc::entry]
    fn hooked(which: u8) {
        match which {
            // Replaces mproc's hook: what unwinds is all there is.
            0 => set_hook(Box::new(|_| {})),
            1 => {
                let earlier = take_hook();
                set_hook(Box::new(move |info| {
                    println!("before");
                    earlier(info);
                }));
            }
            _ => drop(take_hook()),
        }
        panic!("hooked {which}");
    }
    for which in 0..3 {
        let process = hooked::process(which).stdout(Stdio::piped());
        let child = process.stderr(Stdio::null()).start().unwrap();
        let mut stdout = child.take_stdout().unwrap();
        let text = std::io::read_to_string(&mut stdout).unwrap();
        let error = child.join().unwrap_err();
        panicked(&error, &format!("hooked {which}"));
        assert_eq!(text, if which == 1 { "before\n" } else { "" });
        assert_eq!(error.panic().unwrap().location().is_some(), which == 1);
    }
}

#[test]
fn a_panic_without_any_stderr_arrives() {
    let _watchdog = watchdog("a_panic_without_any_stderr_arrives", LIMIT);
    #[mproc::entry]
    fn close_and_panic() {
        nix::unistd::close(2).unwrap();
        panic!("unheard");
    }
    panicked(&error_of(close_and_panic::process()), "unheard");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let process = index::process(&[], 0).stderr(std::os::fd::OwnedFd::from(writer));
    let error = process.start().unwrap().join().unwrap_err();
    assert!(error.is_panic(), "{error}");
}

/// The text goes where the streams of the child go, as always.
#[test]
fn a_panic_is_printed_by_the_child_as_always() {
    let _watchdog = watchdog("a_panic_is_printed_by_the_child_as_always", LIMIT);
    let process = index::process(&[1], 2).stderr(Stdio::piped());
    let child = process.env("RUST_BACKTRACE", "0").start().unwrap();
    let mut stderr = child.take_stderr().unwrap();
    let text = std::io::read_to_string(&mut stderr).unwrap();
    assert!(child.join().unwrap_err().is_panic());
    for part in [
        "panicked at",
        "panics.rs:",
        "the len is 1 but the index is 2",
    ] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

fn no_core_dump() {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
}

#[mproc::entry]
fn end(how: &str) {
    mproc_tests::end_badly(how);
}

#[track_caller]
fn ended(error: &Error, kind: ErrorKind, code: i32) {
    assert_eq!(
        (error.kind(), error.exit_code()),
        (kind, Some(code)),
        "{error}"
    );
    assert_eq!(error.signal(), (code < 0).then_some(-code));
    assert!(!error.is_panic());
}

#[test]
fn other_ends_are_told_by_signal_or_code() {
    let _watchdog = watchdog("other_ends_are_told_by_signal_or_code", LIMIT);
    for (how, kind, code) in [
        ("exit 0", ErrorKind::Exited, 0),
        ("exit 7", ErrorKind::Exited, 7),
        ("exit 255", ErrorKind::Exited, 255),
        ("exit 7 in a thread", ErrorKind::Exited, 7),
        ("abort", ErrorKind::Killed, -6),
        ("segmentation fault", ErrorKind::Killed, -11),
        // std's handler, which explains, is not there before `main`.
        ("stack overflow", ErrorKind::Killed, -11),
        ("illegal instruction", ErrorKind::Killed, -4),
        ("sigterm", ErrorKind::Killed, -15),
    ] {
        let error = error_of(end::process(how));
        ended(&error, kind, code);
        let text = error.to_string();
        let part = match kind {
            ErrorKind::Killed => "was killed by",
            _ => "before its function returned a value",
        };
        assert!(text.contains(part), "{text}");
    }
}

/// Ignores what the child's type would have been: nothing is decoded.
#[test]
fn a_value_that_was_returned_survives_a_bad_end() {
    let _watchdog = watchdog("a_value_that_was_returned_survives_a_bad_end", LIMIT);
    #[mproc::entry]
    fn abort_at_exit() -> u8 {
        extern "C" fn abort() {
            std::process::abort();
        }
        no_core_dump();
        mproc_tests::at_exit(abort);
        42
    }
    let child: Child<u8> = abort_at_exit::spawn().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(6));
    assert_eq!(child.join().unwrap(), 42);
}

#[test]
fn an_ordinary_program_tells_the_same() {
    let _watchdog = watchdog("an_ordinary_program_tells_the_same", LIMIT);
    let output = program(env!("CARGO_BIN_EXE_ends-badly")).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let expected = "\
panic: Panicked Some(101) index out of bounds: the len is 0 but the index is 7
panic in a thread that is handed on: Panicked Some(101) handed on
panic while panicking: Panicked Some(-6) the first
exit 0: Exited Some(0)
exit 7: Exited Some(7)
exit 7 in a thread: Exited Some(7)
abort: Killed Some(-6)
segmentation fault: Killed Some(-11)
stack overflow: Killed Some(-6)
illegal instruction: Killed Some(-4)
sigterm: Killed Some(-15)
";
    assert_eq!(
        stdout,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success());
}
