//! `Event`: Python's rules, and waiters that are woken whatever happens to the flag, or to the one who sets it.

use std::thread;
use std::time::{Duration, Instant};

use mproc::{Event, Failure, Queue};
use mproc_tests::{dose, eventually, state_of, watchdog};

const LIMIT: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(60);

fn never_early<T>(least: Duration, wait: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = wait();
    let took = start.elapsed();
    assert!(took >= least, "{took:?} instead of {least:?}");
    result
}

#[mproc::entry]
fn sets(event: &Event) -> Result<(), Failure> {
    Ok(event.set()?)
}

/// `test_event`.
#[test]
fn cpython_event() {
    let _watchdog = watchdog("cpython_event", LIMIT);
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    assert!(!event.wait_timeout(Duration::ZERO).unwrap());
    assert!(!never_early(SHORT, || event.wait_timeout(SHORT).unwrap()));
    event.set().unwrap();
    assert!(event.is_set());
    event.wait().unwrap();
    assert!(event.wait_timeout(Duration::ZERO).unwrap());
    assert!(event.wait_timeout(Duration::MAX).unwrap());
    assert_eq!(format!("{event:?}"), "<Event set>");
    event.clear();
    assert!(!event.is_set());
    assert!(!event.wait_timeout(Duration::ZERO).unwrap());
    let child = sets::spawn(&event).unwrap();
    event.wait().unwrap();
    child.join().unwrap().unwrap();
}

#[mproc::entry]
fn waits(event: &Event, told: &Queue<u32>) -> Result<(), Failure> {
    told.put(std::process::id())?;
    event.wait()?;
    Ok(())
}

/// Looks a few times whether a process sleeps. Should it not be asleep yet, the test shows less, and is not wrong.
fn until_asleep(id: u32) {
    let mut asleep = 0;
    eventually(|| {
        let sleeps = matches!(state_of(id), Some('S'));
        asleep = if sleeps { asleep + 1 } else { 0 };
        asleep > 2
    });
}

#[test]
fn those_who_were_woken_return_though_it_is_cleared_at_once() {
    let _watchdog = watchdog("those_who_were_woken_return", LIMIT);
    let (event, told) = (Event::new().unwrap(), Queue::new().unwrap());
    let children = [(); 4].map(|()| waits::spawn(&event, &told).unwrap());
    for _ in &children {
        until_asleep(told.get().unwrap());
    }
    event.set().unwrap();
    event.clear();
    for child in children {
        child.join().unwrap().unwrap();
    }
}

#[mproc::entry]
fn answers(question: &Event, answer: &Event, times: usize) -> Result<(), Failure> {
    for _ in 0..times {
        question.wait()?;
        question.clear();
        answer.set()?;
    }
    Ok(())
}

#[test]
fn no_wake_up_is_lost() {
    let _watchdog = watchdog("no_wake_up_is_lost", LIMIT);
    let times = dose(5_000, 200_000);
    let (question, answer) = (Event::new().unwrap(), Event::new().unwrap());
    let child = answers::spawn(&question, &answer, times).unwrap();
    for _ in 0..times {
        question.set().unwrap();
        answer.wait().unwrap();
        answer.clear();
    }
    child.join().unwrap().unwrap();
}

#[test]
fn threads_wait_too() {
    let _watchdog = watchdog("threads_wait_too", LIMIT);
    let event = Event::new().unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| event.wait().unwrap());
        }
        event.set().unwrap();
    });
}
