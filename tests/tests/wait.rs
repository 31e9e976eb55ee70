//! Waiting: by any number of threads, with any timeout, whatever else the program does with signals and children (G11, G14).

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mproc::{Child, ErrorKind, Fd, Stdio};
use mproc_tests::{Dice, dose, eventually, interruptions, storm, watchdog};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(120);

/// Returns when the other end of the pipe is closed.
#[mproc::entry]
fn return_when_released(release: Fd, number: u64) -> u64 {
    let mut release = release.into_inner::<std::fs::File>().expect("ours alone");
    release.read_to_end(&mut Vec::new()).expect("reads");
    number
}

/// A child that returns `number` once what is given beside it is dropped.
fn start_held(number: u64) -> (Child<u64>, std::io::PipeWriter) {
    let (read, write) = std::io::pipe().expect("a pipe");
    let child = return_when_released::spawn(Fd::from(read), number).expect("starts");
    (child, write)
}

#[mproc::entry]
fn echo(number: u64) -> u64 {
    number
}

#[mproc::entry]
fn exit_with(code: i32) {
    std::process::exit(code)
}

#[test]
fn eight_threads_wait_for_one_child_and_hear_the_same() {
    let _watchdog = watchdog("eight_threads_wait_for_one_child", LIMIT);
    for round in 0..dose(40, 5000) {
        let code = (round % 200) as i32;
        let child = exit_with::spawn(code).expect("starts").into_any();
        let together = Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (child, together) = (child.clone(), &together);
                scope.spawn(move || {
                    together.wait();
                    // Every way to learn of the end, side by side.
                    match thread % 4 {
                        0 => assert_eq!(child.wait().expect("waits").exit_code(), code),
                        1 => {
                            let status = child.wait_timeout(LIMIT).expect("waits");
                            assert_eq!(status.expect("in time").exit_code(), code);
                        }
                        2 => eventually(|| child.exit_code() == Some(code)),
                        _ => eventually(|| !child.is_alive()),
                    }
                    assert_eq!(child.exit_code(), Some(code));
                });
            }
        });
    }
}

#[test]
fn the_answer_stays_the_same_for_ever() {
    let _watchdog = watchdog("the_answer_stays_the_same_for_ever", LIMIT);
    let child = exit_with::spawn(3).expect("starts").into_any();
    let id = child.id();
    for _ in 0..100 {
        assert_eq!(child.wait().expect("waits").code(), Some(3));
        assert_eq!(
            child
                .wait_timeout(Duration::ZERO)
                .expect("looks")
                .and_then(mproc::ExitStatus::code),
            Some(3)
        );
        assert_eq!(child.exit_code(), Some(3));
        assert!(!child.is_alive());
        assert_eq!(child.id(), id);
    }
    assert_eq!(child.clone().exit_code(), Some(3));
}

#[test]
fn timeouts_of_every_length() {
    let _watchdog = watchdog("timeouts_of_every_length", LIMIT);
    let (mut child, release) = start_held(5);
    for timeout in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_micros(1),
        Duration::from_millis(20),
    ] {
        let begin = Instant::now();
        assert_eq!(child.wait_timeout(timeout).expect("waits"), None);
        assert!(begin.elapsed() >= timeout, "returned early");
        let begin = Instant::now();
        assert_eq!(child.join_timeout(timeout).expect("waits"), None);
        assert!(begin.elapsed() >= timeout, "returned early");
    }
    assert!(child.is_alive());
    let long = [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(i64::MAX as u64 / 2),
        Duration::from_secs(u32::MAX.into()),
    ];
    std::thread::scope(|scope| {
        let waiters: Vec<_> = long
            .map(|timeout| {
                let child = &child;
                scope.spawn(move || child.wait_timeout(timeout))
            })
            .into_iter()
            .collect();
        drop(release);
        for waiter in waiters {
            let status = waiter
                .join()
                .expect("does not panic")
                .expect("waits")
                .expect("the end and no timeout");
            assert!(status.success());
        }
    });
    assert_eq!(child.join_timeout(Duration::MAX).expect("joins"), Some(5));
}

#[test]
fn a_join_in_vain_leaves_the_child_usable_and_a_second_value_is_an_error() {
    let _watchdog = watchdog("a_join_in_vain_leaves_the_child_usable", LIMIT);
    let (mut child, release) = start_held(6);
    assert_eq!(
        child.join_timeout(Duration::from_millis(1)).expect("waits"),
        None
    );
    drop(release);
    assert_eq!(child.join_timeout(LIMIT).expect("joins"), Some(6));
    for _ in 0..2 {
        let error = child
            .join_timeout(Duration::ZERO)
            .expect_err("its value is gone");
        assert_eq!(error.kind(), ErrorKind::AlreadyJoined);
        assert_eq!(error.process_id(), Some(child.id()));
    }
    assert!(child.wait().expect("waits").success());
    let error = child.join().expect_err("its value is gone");
    assert_eq!(error.kind(), ErrorKind::AlreadyJoined);

    // An error counts as what the child had to give, too.
    let mut child = exit_with::spawn(4).expect("starts");
    assert_eq!(
        child.join_timeout(LIMIT).expect_err("no value").kind(),
        ErrorKind::Exited
    );
    assert_eq!(
        child.join_timeout(LIMIT).expect_err("no value").kind(),
        ErrorKind::AlreadyJoined
    );
}

#[test]
fn a_child_is_a_pidfd_that_is_ready_from_its_end_on() {
    let _watchdog = watchdog("a_child_is_a_pidfd", LIMIT);
    let (child, release) = start_held(1);
    let ready = |timeout: PollTimeout| {
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).expect("polls") == 1
    };
    assert!(!ready(PollTimeout::ZERO));
    drop(release);
    assert!(ready(PollTimeout::NONE));
    child.wait().expect("waits");
    assert!(ready(PollTimeout::ZERO));
}

/// Starts children that end in every way and checks what becomes known of them. For scenes where others meddle.
fn check_ends(times: u64) {
    let mut dice = Dice::new("check_ends");
    for number in 0..times {
        let child = echo::spawn(number).expect("starts");
        dice.pause(Duration::from_millis(3));
        assert_eq!(child.wait().expect("waits").exit_code(), 0);
        assert_eq!(child.join().expect("joins"), number);

        let code = (number % 100) as i32 + 1;
        let error = exit_with::spawn(code)
            .expect("starts")
            .join()
            .expect_err("no value");
        assert_eq!(error.exit_code(), Some(code), "{error}");

        let (child, _release) = start_held(number);
        child.kill().expect("sends");
        let error = child.join().expect_err("killed");
        assert_eq!(error.signal(), Some(libc::SIGKILL), "{error}");
    }
}

#[mproc::entry]
fn ignore_sigchld(times: u64) {
    // SAFETY: ignoring runs no code.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.expect("SIGCHLD can be ignored");
    check_ends(times);
    assert_eq!(mproc::active_children().len(), 0);
}

#[test]
fn sigchld_ignored() {
    let _watchdog = watchdog("sigchld_ignored", LIMIT);
    ignore_sigchld::spawn(dose(50, 10_000) as u64)
        .expect("starts")
        .join()
        .expect("all is well");
}

#[mproc::entry]
fn wait_for_anybody(times: u64) -> usize {
    static DONE: AtomicBool = AtomicBool::new(false);
    let thief = std::thread::spawn(|| {
        let mut stolen = 0;
        while !DONE.load(SeqCst) {
            let mut status = 0;
            // SAFETY: `status` lives through the call.
            match unsafe { libc::waitpid(-1, &mut status, 0) } {
                -1 => std::thread::yield_now(),
                _ => stolen += 1,
            }
        }
        stolen
    });
    check_ends(times);
    DONE.store(true, SeqCst);
    thief.join().expect("does not panic")
}

#[test]
fn a_foreign_wait_steals_statuses() {
    let _watchdog = watchdog("a_foreign_wait_steals_statuses", LIMIT);
    let times = dose(50, 10_000) as u64;
    let stolen = wait_for_anybody::spawn(times)
        .expect("starts")
        .join()
        .expect("all is well");
    assert!(stolen > 0, "nothing was stolen, so nothing was tested");
}

#[mproc::entry]
fn wait_in_a_storm(times: u64) -> u64 {
    storm();
    for number in 0..times {
        let (mut child, release) = start_held(number);
        assert_eq!(child.wait_timeout(Duration::ZERO).expect("waits"), None);
        let begin = Instant::now();
        let timeout = Duration::from_millis(3);
        assert_eq!(child.wait_timeout(timeout).expect("waits"), None);
        assert_eq!(child.join_timeout(timeout).expect("waits"), None);
        assert!(begin.elapsed() >= 2 * timeout, "returned early");
        drop(release);
        assert!(child.wait().expect("waits").success());
        assert_eq!(child.join().expect("joins"), number);
        // A large argument and result: written and read in the storm, too.
        let text = "x".repeat(300_000);
        assert_eq!(
            repeat::spawn(&text)
                .expect("starts")
                .join()
                .expect("joins")
                .len(),
            600_000
        );
    }
    interruptions()
}

#[mproc::entry]
fn repeat(text: &str) -> String {
    text.repeat(2)
}

#[test]
fn a_storm_of_signals_interrupts_nothing() {
    let _watchdog = watchdog("a_storm_of_signals_interrupts_nothing", LIMIT);
    let times = dose(60, 5000) as u64;
    let interrupted = wait_in_a_storm::spawn(times)
        .expect("starts")
        .join()
        .expect("all is well");
    assert!(interrupted > times, "{interrupted} signals are no storm");
}

/// Traces a process as a debugger does; lets it go when stdin ends.
#[mproc::entry]
fn trace(id: i32) -> bool {
    // SAFETY: the request takes no memory.
    let seized = unsafe {
        libc::ptrace(
            libc::PTRACE_SEIZE,
            id,
            std::ptr::null_mut::<u8>(),
            std::ptr::null_mut::<u8>(),
        )
    };
    let mut stdout = std::io::stdout();
    stdout
        .write_all(b".")
        .and_then(|()| stdout.flush())
        .expect("somebody reads");
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("reads");
    if seized == -1 {
        return false;
    }
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    unsafe { libc::waitpid(id, &mut status, libc::__WALL) };
    true
}

#[test]
fn a_child_under_a_debugger_has_ended_when_the_debugger_lets_it_go() {
    let _watchdog = watchdog("a_child_under_a_debugger", LIMIT);
    let (child, _release) = start_held(1);
    let tracer = trace::process(child.id() as i32)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    let stdin = tracer.take_stdin();
    tracer
        .take_stdout()
        .expect("piped")
        .read_exact(&mut [0])
        .expect("the tracer is ready");
    child.kill().expect("sends");
    eventually(|| mproc_tests::state_of(child.id()) == Some('Z'));
    // It is dead, but its tracer has to hear of it first; until then the kernel does not tell us its status.
    let early = child
        .wait_timeout(Duration::from_millis(50))
        .expect("waits");
    let _ = child.exit_code();
    // A start collects children; one that cannot be collected yet is not in its way.
    assert_eq!(echo::spawn(3).expect("starts").join().expect("joins"), 3);
    drop(stdin);
    if !tracer.join().expect("joins") {
        eprintln!("skipped: tracing is not allowed here");
        return;
    }
    let status = child.wait().expect("waits");
    assert_eq!(
        status.signal(),
        Some(libc::SIGKILL),
        "{status}, early: {early:?}"
    );
    assert_eq!(echo::spawn(4).expect("starts").join().expect("joins"), 4);
    assert_eq!(mproc_tests::state_of(child.id()), None);
}

#[mproc::entry]
fn who_lives() {
    let ids = || {
        mproc::active_children()
            .iter()
            .map(mproc::AnyChild::id)
            .collect::<HashSet<u32>>()
    };
    assert_eq!(ids(), HashSet::new());
    let (first, release_first) = start_held(1);
    let (second, release_second) = start_held(2);
    assert_eq!(ids(), HashSet::from([first.id(), second.id()]));
    // A listed child is the same child: it can be waited for and signalled, and owns nothing.
    let listed = mproc::active_children();
    let listed_second = listed
        .iter()
        .find(|child| child.id() == second.id())
        .expect("listed");
    drop(release_first);
    assert_eq!(first.join().expect("joins"), 1);
    assert_eq!(ids(), HashSet::from([second.id()]));
    assert_eq!(listed_second.name(), second.name());
    drop(release_second);
    assert!(listed_second.wait().expect("waits").success());
    assert_eq!(ids(), HashSet::new());
    assert_eq!(second.join().expect("joins"), 2);

    // One whose handle is dropped is still listed while it lives.
    let (third, release_third) = start_held(3);
    let id = third.id();
    drop(third);
    assert_eq!(ids(), HashSet::from([id]));
    let third = mproc::active_children().remove(0);
    drop(release_third);
    assert_eq!(third.wait().expect("waits").exit_code(), 0);
    assert_eq!(ids(), HashSet::new());
}

#[test]
fn active_children_are_those_that_live() {
    let _watchdog = watchdog("active_children_are_those_that_live", LIMIT);
    who_lives::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

#[test]
fn debug_tells_state_and_status() {
    let _watchdog = watchdog("debug_tells_state_and_status", LIMIT);
    let (read, release) = std::io::pipe().expect("a pipe");
    let process = return_when_released::process(Fd::from(read), 1).name("ann");
    assert_eq!(format!("{process:?}"), "<Process(ann, initial)>");
    assert_eq!(process.get_name(), "ann");
    assert!(!process.is_alive());
    let child = process.daemon(true).start().expect("starts");
    let id = child.id();
    assert_eq!(
        format!("{child:?}"),
        format!("<Process(ann, started, pid={id}, daemon)>")
    );
    assert_eq!(format!("{child:?}"), format!("{:?}", (*child).clone()));
    kill(Pid::from_raw(id as i32), Signal::SIGTERM).expect("it lives");
    child.wait().expect("waits");
    assert_eq!(
        format!("{child:?}"),
        format!("<Process(ann, stopped[SIGTERM], pid={id}, exit_code=-15, daemon)>")
    );
    drop(release);

    let child = exit_with::process(7)
        .name("bob")
        .daemon(false)
        .start()
        .expect("starts");
    child.wait().expect("waits");
    assert_eq!(
        format!("{child:?}"),
        format!("<Process(bob, stopped, pid={}, exit_code=7)>", child.id())
    );
    assert_eq!(child.wait().expect("waits").to_string(), "exit code 7");
}
