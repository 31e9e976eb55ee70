//! A child that is killed, at whatever instruction, is an error with its signal: never a wrong value, never a hang (G3, G11).

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mproc::{Child, ErrorKind, Failure, Fd, Stdio};
use mproc_tests::{Dice, dose, eventually, heed_signals, kill_myself, runs, state_of, watchdog};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(120);

fn send(id: u32, signal: Signal) {
    kill(Pid::from_raw(id as i32), signal).expect("the process is there");
}

/// Waits until a child with a piped stdout has written one byte.
fn wait_until_ready<R>(child: &Child<R>) -> std::process::ChildStdout {
    let mut stdout = child.take_stdout().expect("piped");
    stdout.read_exact(&mut [0]).expect("the child is ready");
    stdout
}

fn say_ready() {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(b".")
        .and_then(|()| stdout.flush())
        .expect("somebody reads");
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Joins a child that was sent SIGKILL at some moment: its value, or that it was killed.
fn join_killed<R: serde::de::DeserializeOwned>(child: Child<R>) -> Option<R> {
    let (id, name) = (child.id(), child.name().to_owned());
    match child.join() {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Killed, "{error}");
            assert_eq!(error.signal(), Some(libc::SIGKILL), "{error}");
            assert_eq!(error.exit_code(), Some(-9), "{error}");
            assert_eq!(error.process_id(), Some(id), "{error}");
            assert_eq!(error.process_name(), Some(name.as_str()), "{error}");
            assert!(!error.is_panic());
            None
        }
    }
}

#[mproc::entry]
fn echo(number: u64) -> u64 {
    number
}

#[mproc::entry]
fn ready_then_sleep() {
    heed_signals();
    say_ready();
    sleep_for_ever();
}

#[test]
fn killed_at_any_moment_from_its_start_on() {
    let _watchdog = watchdog("killed_at_any_moment_from_its_start_on", LIMIT);
    let mut dice = Dice::new("killed_at_any_moment_from_its_start_on");
    let mut died = 0;
    let times = dose(300, 20_000) as u64;
    for number in 0..times {
        let child = echo::spawn(number).expect("starts");
        // Up to 1 ms is before the handshake; some live long enough to answer.
        let pause = Duration::from_micros(if number % 2 == 0 { 1000 } else { 6000 });
        dice.pause(pause);
        child.kill().expect("a child may be killed");
        match join_killed(child) {
            Some(value) => assert_eq!(value, number),
            None => died += 1,
        }
    }
    assert!(died > 0, "no kill came early enough to test anything");
}

#[mproc::entry]
fn length(text: &str) -> usize {
    text.len()
}

#[test]
fn killed_while_it_reads_large_arguments() {
    let _watchdog = watchdog("killed_while_it_reads_large_arguments", LIMIT);
    let mut dice = Dice::new("killed_while_it_reads_large_arguments");
    let size = 200 << 20;
    let call = length::bind(&"x".repeat(size));
    let mut died = 0;
    for _ in 0..dose(12, 500) {
        let child = call.clone().spawn().expect("starts");
        dice.pause(Duration::from_millis(120));
        child.kill().expect("a child may be killed");
        match join_killed(child) {
            Some(value) => assert_eq!(value, size),
            None => died += 1,
        }
    }
    assert!(died > 0, "no kill came early enough to test anything");
    // The arguments are still whole.
    assert_eq!(call.spawn().expect("starts").join().expect("joins"), size);
}

#[mproc::entry]
fn large_result(size: usize) -> (String, String) {
    say_ready();
    ("a".repeat(size), "z".repeat(size))
}

#[test]
fn killed_while_it_writes_a_large_result() {
    let _watchdog = watchdog("killed_while_it_writes_a_large_result", LIMIT);
    let mut dice = Dice::new("killed_while_it_writes_a_large_result");
    let mut died = 0;
    for _ in 0..dose(15, 1000) {
        let size = 1 + dice.below(20 << 20) as usize;
        let child = large_result::process(size)
            .stdout(Stdio::piped())
            .start()
            .expect("starts");
        let _stdout = wait_until_ready(&child);
        dice.pause(Duration::from_millis(40));
        child.kill().expect("a child may be killed");
        match join_killed(child) {
            Some((first, second)) => {
                assert_eq!((first.len(), second.len()), (size, size));
                assert!(first.bytes().all(|byte| byte == b'a'));
                assert!(second.bytes().all(|byte| byte == b'z'));
            }
            None => died += 1,
        }
    }
    assert!(died > 0, "no kill came early enough to test anything");
}

#[test]
fn killed_while_it_runs() {
    let _watchdog = watchdog("killed_while_it_runs", LIMIT);
    for number in [
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGALRM,
    ] {
        let child = ready_then_sleep::process()
            .stdout(Stdio::piped())
            .start()
            .expect("starts");
        let _stdout = wait_until_ready(&child);
        send(child.id(), number);
        let error = child.join().expect_err("it was killed");
        assert_eq!(error.kind(), ErrorKind::Killed);
        assert_eq!(error.signal(), Some(number as i32));
        assert_eq!(error.exit_code(), Some(-(number as i32)));
        assert!(error.to_string().contains(number.as_str()), "{error}");
    }
}

#[mproc::entry]
fn end_by(way: &str) -> Result<u8, Failure> {
    match way {
        "ok" => Ok(1),
        "err" => Err(Failure::msg("no")),
        "panic" => panic!("this panic is part of a test"),
        "kill" => kill_myself(),
        "abort" => std::process::abort(),
        "trap" => {
            // SAFETY: SIGILL ends the process, which is what this is for.
            unsafe { libc::raise(libc::SIGILL) };
            sleep_for_ever()
        }
        "_exit" => {
            // SAFETY: ends the process at once, without anything that could be half done here.
            unsafe { libc::_exit(9) }
        }
        "panic in a thread" => {
            // A panic elsewhere does not end the process: the value counts.
            let _ = std::thread::spawn(|| panic!("this panic is part of a test")).join();
            Ok(2)
        }
        "exit in a thread" => {
            std::thread::spawn(|| std::process::exit(11));
            sleep_for_ever()
        }
        code => std::process::exit(code.parse().expect("a number")),
    }
}

#[test]
fn exit_codes_are_pythons() {
    let _watchdog = watchdog("exit_codes_are_pythons", LIMIT);
    let ends = [
        ("ok", 0, None),
        ("err", 1, None),
        ("panic in a thread", 0, None),
        ("panic", 101, Some(ErrorKind::Panicked)),
        ("kill", -9, Some(ErrorKind::Killed)),
        ("abort", -6, Some(ErrorKind::Killed)),
        ("trap", -4, Some(ErrorKind::Killed)),
        ("_exit", 9, Some(ErrorKind::Exited)),
        ("exit in a thread", 11, Some(ErrorKind::Exited)),
        // Exiting before there is a value is an error, for 0 too.
        ("0", 0, Some(ErrorKind::Exited)),
        ("1", 1, Some(ErrorKind::Exited)),
        ("77", 77, Some(ErrorKind::Exited)),
        ("255", 255, Some(ErrorKind::Exited)),
        ("256", 0, Some(ErrorKind::Exited)),
        ("-1", 255, Some(ErrorKind::Exited)),
    ];
    for (way, code, kind) in ends {
        let child = end_by::process(way)
            .stderr(Stdio::null())
            .start()
            .expect("starts");
        let status = child.wait().expect("waits");
        assert_eq!(status.exit_code(), code, "{way}");
        assert_eq!(status.code(), (code >= 0).then_some(code), "{way}");
        assert_eq!(status.signal(), (code < 0).then_some(-code), "{way}");
        assert_eq!(status.success(), code == 0, "{way}");
        assert_eq!(child.exit_code(), Some(code), "{way}");
        match (child.join(), kind) {
            (Ok(_), None) => {}
            (Err(error), Some(kind)) => {
                assert_eq!(error.kind(), kind, "{way}");
                assert_eq!(error.exit_code(), Some(code), "{way}");
                assert_eq!(error.is_panic(), kind == ErrorKind::Panicked, "{way}");
            }
            (joined, _) => panic!("{way}: {joined:?}"),
        }
    }
}

#[test]
fn signals_reach_the_child_and_an_ended_one_is_left_in_peace() {
    let _watchdog = watchdog("signals_reach_the_child", LIMIT);
    type Send = fn(&mproc::AnyChild) -> mproc::Result<()>;
    let ways: [(Send, i32); 3] = [
        (mproc::AnyChild::terminate, libc::SIGTERM),
        (mproc::AnyChild::kill, libc::SIGKILL),
        (mproc::AnyChild::interrupt, libc::SIGINT),
    ];
    for (send, number) in ways {
        let child = ready_then_sleep::process()
            .stdout(Stdio::piped())
            .start()
            .expect("starts")
            .into_any();
        let mut stdout = child.take_stdout().expect("piped");
        stdout.read_exact(&mut [0]).expect("the child is ready");
        assert_eq!(child.exit_code(), None);
        send(&child).expect("sends");
        assert_eq!(child.wait().expect("waits").signal(), Some(number));
        for (send, _) in ways {
            send(&child).expect("nothing is sent");
        }
        let status = child.shutdown(Duration::ZERO).expect("it has ended");
        assert_eq!(
            status.signal(),
            Some(number),
            "the status stays what it was"
        );
    }
}

#[mproc::entry]
fn ignore_sigterm() {
    // SAFETY: ignoring runs no code.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.expect("SIGTERM can be ignored");
    say_ready();
    sleep_for_ever();
}

#[test]
fn shutdown_terminates_and_after_its_grace_kills() {
    let _watchdog = watchdog("shutdown_terminates_and_after_its_grace_kills", LIMIT);
    let stubborn = ignore_sigterm::process()
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    let _stdout = wait_until_ready(&stubborn);
    let status = stubborn.shutdown(Duration::from_millis(30)).expect("ends");
    assert_eq!(status.signal(), Some(libc::SIGKILL));

    let obedient = ready_then_sleep::process()
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    let _stdout = wait_until_ready(&obedient);
    let status = obedient.shutdown(Duration::MAX).expect("ends");
    assert_eq!(status.signal(), Some(libc::SIGTERM));
}

#[test]
fn a_stopped_child_is_alive_and_can_be_killed() {
    let _watchdog = watchdog("a_stopped_child_is_alive_and_can_be_killed", LIMIT);
    let mut child = ready_then_sleep::process()
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    let _stdout = wait_until_ready(&child);
    send(child.id(), Signal::SIGSTOP);
    eventually(|| state_of(child.id()) == Some('T'));
    assert!(child.is_alive());
    assert_eq!(
        child
            .wait_timeout(Duration::from_millis(20))
            .expect("waits"),
        None
    );
    assert_eq!(child.join_timeout(Duration::ZERO).expect("looks"), None);
    // SIGTERM waits for the process to be continued.
    child.terminate().expect("sends");
    assert_eq!(
        child
            .wait_timeout(Duration::from_millis(20))
            .expect("waits"),
        None
    );
    child.kill().expect("sends");
    assert_eq!(child.wait().expect("ends").signal(), Some(libc::SIGKILL));
}

#[mproc::entry]
#[expect(clippy::zombie_processes, reason = "it is to outlive this process")]
fn start_a_program_that_stays() -> u32 {
    let sleep = std::process::Command::new("sleep")
        .arg("3600")
        .spawn()
        .expect("sleep runs");
    sleep.id()
}

#[test]
fn a_grandchild_that_holds_the_pipes_delays_nothing() {
    let _watchdog = watchdog("a_grandchild_that_holds_the_pipes_delays_nothing", LIMIT);
    let child = start_a_program_that_stays::process()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .start()
        .expect("starts");
    let _pipes = (child.take_stdout(), child.take_stderr());
    let sleep = child.join().expect("joins");
    // A raw program is nobody's child by now, and still there.
    assert!(runs(sleep));
    send(sleep, Signal::SIGKILL);
}

#[mproc::entry]
fn fork_a_copy_that_stays() -> u32 {
    // SAFETY: the copy only sleeps.
    match unsafe { libc::fork() } {
        0 => sleep_for_ever(),
        copy => copy as u32,
    }
}

#[test]
fn a_forked_copy_that_holds_the_socket_delays_nothing() {
    let _watchdog = watchdog("a_forked_copy_that_holds_the_socket_delays_nothing", LIMIT);
    let copy = fork_a_copy_that_stays::spawn()
        .expect("starts")
        .join()
        .expect("joins");
    assert!(runs(copy));
    send(copy, Signal::SIGKILL);
}

/// What a process of its own finds out: in it, nobody else starts children or opens files.
#[mproc::entry]
fn terminate_two_hundred() {
    let before = mproc_tests::descriptors();
    let start_and_terminate = |number: u64| {
        let mut dice = Dice::new("terminate_two_hundred");
        for number in number..number + 50 {
            let mut child = echo::spawn(number).expect("starts");
            dice.pause(Duration::from_micros(500));
            child.terminate().expect("sends");
            let status = child.wait().expect("waits");
            match child.join_timeout(Duration::ZERO) {
                Ok(value) => assert_eq!(value, Some(number)),
                Err(error) => assert_eq!(error.signal(), Some(libc::SIGTERM), "{error}"),
            }
            assert!(matches!(status.exit_code(), 0 | -15), "{status}");
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || start_and_terminate(thread * 1000));
        }
    });
    assert_eq!(mproc_tests::children_of(std::process::id()), []);
    assert_eq!(mproc_tests::descriptors(), before);

    // All at once: started first, terminated in one go.
    let children: Vec<_> = (0..200)
        .map(|number| echo::spawn(number).expect("starts"))
        .collect();
    for child in &children {
        child.terminate().expect("sends");
    }
    for (number, child) in (0..).zip(children) {
        match child.join() {
            Ok(value) => assert_eq!(value, number),
            Err(error) => assert_eq!(error.signal(), Some(libc::SIGTERM), "{error}"),
        }
    }
    assert_eq!(mproc_tests::children_of(std::process::id()), []);
    assert_eq!(mproc_tests::descriptors(), before);
}

#[test]
fn two_hundred_terminated_in_the_middle_of_their_start() {
    let _watchdog = watchdog("two_hundred_terminated", LIMIT);
    for _ in 0..dose(1, 50) {
        terminate_two_hundred::spawn()
            .expect("starts")
            .join()
            .expect("all is well");
    }
}

#[mproc::entry]
fn drop_and_look() {
    let child = ready_then_sleep::process()
        .stdout(Stdio::piped())
        .start()
        .expect("starts");
    let _stdout = wait_until_ready(&child);
    let id = child.id();
    drop(child);
    assert!(runs(id), "dropping the handle does not end the process");
    send(id, Signal::SIGKILL);
    // No call of mproc from here on: nobody asks, and still it is collected.
    eventually(|| state_of(id).is_none());

    // An ended one is collected by the drop itself.
    let child = echo::spawn(1).expect("starts");
    let id = child.id();
    eventually(|| state_of(id) == Some('Z'));
    drop(child);
    assert_eq!(state_of(id), None);

    // Many at once, and one that is listed again and let go again.
    let ids: Vec<u32> = (0..20)
        .map(|_| {
            let child = ready_then_sleep::process()
                .stdout(Stdio::null())
                .start()
                .expect("starts");
            child.id()
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(mproc::active_children().len(), 20);
    }
    for id in &ids {
        send(*id, Signal::SIGKILL);
    }
    eventually(|| ids.iter().all(|id| state_of(*id).is_none()));
    assert_eq!(mproc::active_children().len(), 0);
}

#[test]
fn a_dropped_child_lives_on_and_leaves_no_zombie() {
    let _watchdog = watchdog("a_dropped_child_lives_on_and_leaves_no_zombie", LIMIT);
    drop_and_look::spawn()
        .expect("starts")
        .join()
        .expect("all is well");
}

#[test]
fn the_end_of_the_thread_that_started_it_does_not_end_a_child() {
    let _watchdog = watchdog("the_end_of_the_thread_that_started_it", LIMIT);
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let child = std::thread::spawn(move || wait_for_end_of::spawn(Fd::from(read)).expect("starts"))
        .join()
        .expect("the thread ends");
    // The thread is gone from the kernel's table before a join returns, and with it a death signal of the wrong sort.
    assert_eq!(
        child
            .wait_timeout(Duration::from_millis(50))
            .expect("waits"),
        None
    );
    drop(write);
    assert_eq!(child.join().expect("it lived on"), 7);
}

#[mproc::entry]
fn wait_for_end_of(pipe: Fd) -> u8 {
    let mut file = pipe.into_inner::<std::fs::File>().expect("ours alone");
    file.read_to_end(&mut Vec::new()).expect("reads");
    7
}

#[mproc::entry]
fn fork_a_copy_that_exits() -> u8 {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let child = wait_for_end_of::process(Fd::from(read))
        .daemon(false)
        .start()
        .expect("starts");
    let daemon = ready_then_sleep::process()
        .stdout(Stdio::piped())
        .daemon(true)
        .start()
        .expect("starts");
    let _stdout = wait_until_ready(&daemon);
    // SAFETY: the copy exits, with all exit handlers, as user code that forks does. One thread runs here.
    match unsafe { libc::fork() } {
        0 => {
            // What the copy looks at is not its own, and looking changes nothing.
            assert!(child.is_alive() && daemon.is_alive());
            // SAFETY: runs the exit handlers that the copy inherited.
            unsafe { libc::exit(0) }
        }
        copy => {
            let mut status = 0;
            // SAFETY: `status` lives through the call.
            assert_eq!(unsafe { libc::waitpid(copy, &mut status, 0) }, copy);
            assert_eq!(status, 0, "the copy ended well");
        }
    }
    assert!(
        daemon.is_alive(),
        "the copy's exit handlers ended somebody else's daemon"
    );
    assert!(child.is_alive());
    daemon.kill().expect("sends");
    assert_eq!(daemon.wait().expect("waits").exit_code(), -9);
    drop(write);
    child.join().expect("it was not disturbed")
}

#[test]
fn a_forked_copy_that_exits_disturbs_no_child() {
    let _watchdog = watchdog("a_forked_copy_that_exits_disturbs_no_child", LIMIT);
    assert_eq!(
        fork_a_copy_that_exits::spawn()
            .expect("starts")
            .join()
            .expect("all is well"),
        7
    );
}

#[mproc::entry]
fn close_everything_and_return(first: i32) -> String {
    // Somebody's "daemonize" closes all descriptors, mproc's among them.
    // SAFETY: numbers only; what is closed is used by nobody in this process from here on but by mproc, on purpose.
    unsafe { libc::close_range(first as u32, u32::MAX, 0) };
    String::from("nobody hears this")
}

#[test]
fn a_child_that_closes_all_descriptors_is_an_error_and_no_hang() {
    let _watchdog = watchdog("a_child_that_closes_all_descriptors", LIMIT);
    let child = close_everything_and_return::spawn(3)
        .expect("starts")
        .into_any();
    child.wait().expect("it ends");
}

#[test]
fn a_descriptor_in_a_killed_childs_arguments_is_closed() {
    let _watchdog = watchdog("a_descriptor_in_a_killed_childs_arguments_is_closed", LIMIT);
    let mut dice = Dice::new("a_descriptor_in_a_killed_childs_arguments_is_closed");
    for _ in 0..dose(50, 2000) {
        let (mut read, write) = std::io::pipe().expect("a pipe");
        let child = hold::spawn(Fd::from(OwnedFd::from(write))).expect("starts");
        dice.pause(Duration::from_millis(3));
        child.kill().expect("sends");
        // Ends when the last copy of the write end is closed, wherever it was at that moment.
        read.read_to_end(&mut Vec::new()).expect("reads");
        assert_eq!(child.wait().expect("waits").exit_code(), -9);
    }
}

#[mproc::entry]
fn hold(fd: Fd) {
    let fd: OwnedFd = fd.into_inner().expect("ours alone");
    assert!(fd.as_raw_fd() > 2);
    sleep_for_ever();
}
