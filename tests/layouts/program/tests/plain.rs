//! An integration test as cargo makes it: `main` is the harness's. Also run by nextest, one process for each test.

use std::time::Duration;

#[mproc::entry]
fn here(x: u64) -> u64 {
    x + 1
}

#[mproc::entry]
fn wait_for_ever() {
    loop {
        std::thread::park();
    }
}

/// Prints, too: a runner that holds the streams of a test would see a child that outlives it.
#[mproc::entry]
fn wait_for_input() -> usize {
    println!("a child prints");
    std::io::read_to_string(std::io::stdin()).unwrap().len()
}

#[test]
fn an_entry_of_the_test_is_found() {
    assert_eq!(here::spawn(3).unwrap().join().unwrap(), 4);
}

#[test]
fn entries_of_dependencies_are_found() {
    assert_eq!(layout_library::double::spawn(3).unwrap().join().unwrap(), 6);
    let [second, third] = layout_library::both_inner();
    assert_eq!(second.spawn().unwrap().join().unwrap(), "second");
    assert_eq!(third.spawn().unwrap().join().unwrap(), "third");
    assert_eq!(layout_unnamed::hidden::spawn(3).unwrap().join().unwrap(), 3);
}

#[test]
fn children_of_several_threads_are_found() {
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                assert_eq!(here::spawn(number).unwrap().join().unwrap(), number + 1)
            });
        }
    });
}

/// When the program ends, daemons are terminated.
#[test]
fn a_daemon_does_not_outlive_the_tests() {
    let child = wait_for_ever::process().daemon(true).start().unwrap();
    assert!(child.is_alive());
}

/// When the program ends, the others are waited for.
#[test]
fn a_child_that_nobody_joins_does_not_outlive_the_tests() {
    let child = wait_for_input::process()
        .stdin(mproc::Stdio::piped())
        .start()
        .unwrap();
    // The pipe's write end closes here, and the child ends when it ends.
    drop(child.take_stdin());
    let _ = child.wait_timeout(Duration::ZERO).unwrap();
}
