//! `Semaphore` and `BoundedSemaphore` when nobody dies: Python's rules, deadlines, signalling, and many holders.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mproc::{BoundedSemaphore, ErrorKind, Failure, Queue, Semaphore};
use mproc_tests::{dose, watchdog};

const LIMIT: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(60);

fn never_early<T>(least: Duration, wait: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = wait();
    let took = start.elapsed();
    assert!(took >= least, "{took:?} instead of {least:?}");
    result
}

/// `test_semaphore`.
#[test]
fn cpython_semaphore() {
    let semaphore = Semaphore::new(2).unwrap();
    assert_eq!(semaphore.value().unwrap(), 2);
    let one = semaphore.acquire().unwrap();
    assert_eq!(semaphore.value().unwrap(), 1);
    assert!(!semaphore.locked());
    let other = semaphore.acquire().unwrap();
    assert_eq!(semaphore.value().unwrap(), 0);
    assert!(semaphore.locked());
    let error = semaphore.try_acquire().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(one);
    assert_eq!(semaphore.value().unwrap(), 1);
    drop(other);
    assert_eq!(semaphore.value().unwrap(), 2);
    // Above where it began.
    semaphore.release().unwrap();
    assert_eq!(semaphore.value().unwrap(), 3);
    semaphore.release().unwrap();
    assert_eq!(format!("{semaphore:?}"), "<Semaphore(value=4)>");
}

/// `test_bounded_semaphore`, which Python leaves out where the system cannot count.
#[test]
fn cpython_bounded_semaphore() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let too_often = |semaphore: &BoundedSemaphore| {
        let error = semaphore.release().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OverReleased);
    };
    too_often(&semaphore);
    let permit = semaphore.acquire().unwrap();
    // The one that is missing is in a guard, and comes back with it.
    too_often(&semaphore);
    semaphore.acquire().unwrap().forget();
    assert_eq!(semaphore.value().unwrap(), 0);
    semaphore.release().unwrap();
    too_often(&semaphore);
    drop(permit);
    too_often(&semaphore);
    assert_eq!(
        format!("{semaphore:?}"),
        "<BoundedSemaphore(value=2, maxvalue=2)>"
    );
}

/// `test_timeout`.
#[test]
fn cpython_timeout() {
    let semaphore = Semaphore::new(0).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(1), SHORT] {
        let late = never_early(timeout, || semaphore.acquire_timeout(timeout).map(drop));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert_eq!(
        semaphore.try_acquire().unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    semaphore.release().unwrap();
    drop(semaphore.acquire_timeout(Duration::MAX).unwrap());
}

#[mproc::entry]
fn takes(semaphore: &Semaphore, times: u32) -> Result<u32, Failure> {
    for _ in 0..times {
        semaphore.acquire()?.forget();
    }
    Ok(times)
}

/// One process signals, others wait.
#[test]
fn permits_are_signals() {
    let _watchdog = watchdog("permits_are_signals", LIMIT);
    let times = dose(2_000, 100_000) as u32;
    let semaphore = Semaphore::new(0).unwrap();
    let children = [(); 3].map(|()| takes::spawn(&semaphore, times).unwrap());
    for _ in 0..3 * times {
        semaphore.release().unwrap();
    }
    for child in children {
        assert_eq!(child.join().unwrap().unwrap(), times);
    }
    assert_eq!(semaphore.value().unwrap(), 0);
}

#[mproc::entry]
fn at_most_three(semaphore: &Semaphore, inside: &Queue<()>, times: u32) -> Result<usize, Failure> {
    let mut most = 0;
    for _ in 0..times {
        let _permit = semaphore.acquire()?;
        inside.put(())?;
        most = most.max(inside.len());
        inside.get()?;
    }
    Ok(most)
}

#[test]
fn no_more_than_there_are_permits_hold_one() {
    let _watchdog = watchdog("no_more_than_there_are_permits", LIMIT);
    let times = dose(500, 20_000) as u32;
    let semaphore = Semaphore::new(3).unwrap();
    let inside = Queue::new().unwrap();
    let children: Vec<_> = (0..6)
        .map(|_| at_most_three::spawn(&semaphore, &inside, times).unwrap())
        .collect();
    for child in children {
        assert!(child.join().unwrap().unwrap() <= 3);
    }
    assert_eq!(semaphore.value().unwrap(), 3);
}

/// More than a sleeper can watch.
#[test]
fn many_threads_hold_permits() {
    let _watchdog = watchdog("many_threads_hold_permits", LIMIT);
    const THREADS: u32 = 200;
    let semaphore = Semaphore::new(THREADS).unwrap();
    let inside = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let first = semaphore.acquire().unwrap();
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < THREADS {
                    thread::yield_now();
                }
                drop(first);
            });
        }
        while inside.load(Ordering::SeqCst) < THREADS {
            thread::yield_now();
        }
        drop(semaphore.acquire().unwrap());
    });
    assert_eq!(semaphore.value().unwrap(), THREADS);
}

#[test]
fn one_thread_holds_many_permits_in_any_order() {
    let semaphore = Semaphore::new(5000).unwrap();
    let mut permits: Vec<_> = (0..5000).map(|_| semaphore.acquire().unwrap()).collect();
    assert_eq!(semaphore.value().unwrap(), 0);
    permits.swap(0, 4999);
    permits.truncate(10);
    assert_eq!(semaphore.value().unwrap(), 4990);
    permits.remove(5).forget();
    drop(permits);
    assert_eq!(semaphore.value().unwrap(), 4999);
}

#[test]
fn a_bounded_semaphore_without_permits_is_refused() {
    assert!(BoundedSemaphore::new(0).is_err());
}
