//! `Condition` when nobody dies: Python's rules (`_TestCondition`), whichever lock it has.

use std::thread;
use std::time::{Duration, Instant};

use mproc::{Array, Condition, ErrorKind, Failure, Lock, Queue, RLock, Semaphore, Value};
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

/// Says under the lock that it is about to wait, so whoever has the lock after that finds it waiting.
#[mproc::entry]
fn sleeps(
    condition: &Condition,
    sleeping: &Semaphore,
    woken: &Semaphore,
    timeout: Option<Duration>,
) -> Result<bool, Failure> {
    let mut guard = condition.acquire().map_err(mproc::Error::from)?;
    sleeping.release()?;
    let notified = match timeout {
        None => condition.wait(&mut guard).map(|()| true)?,
        Some(timeout) => condition.wait_timeout(&mut guard, timeout)?,
    };
    woken.release()?;
    Ok(notified)
}

fn three() -> (Condition, Semaphore, Semaphore) {
    let semaphore = || Semaphore::new(0).unwrap();
    (Condition::new().unwrap(), semaphore(), semaphore())
}

/// Takes so many permits for good.
fn take(semaphore: &Semaphore, count: usize) {
    for _ in 0..count {
        semaphore.acquire().unwrap().forget();
    }
}

/// `test_notify`, `test_notify_n`: a process and threads wait, and each notify wakes so many.
#[test]
fn cpython_notify() {
    let _watchdog = watchdog("cpython_notify", LIMIT);
    let (condition, sleeping, woken) = three();
    let processes: Vec<_> = (0..3)
        .map(|_| sleeps::spawn(&condition, &sleeping, &woken, None).unwrap())
        .collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| sleeps(&condition, &sleeping, &woken, None).unwrap());
        }
        take(&sleeping, 6);
        for (wanted, there) in [(1, 1), (2, 2), (usize::MAX, 3), (3, 0)] {
            let guard = condition.acquire().unwrap();
            assert_eq!(condition.notify_up_to(wanted).unwrap(), there);
            // They need the lock.
            assert_eq!(woken.value().unwrap(), 0);
            drop(guard);
            take(&woken, there);
            // And no more than those.
            assert_eq!(woken.value().unwrap(), 0);
        }
    });
    for process in processes {
        assert!(process.join().unwrap().unwrap());
    }
}

/// `test_notify_all`: those whose time was over do not count.
#[test]
fn cpython_notify_all() {
    let _watchdog = watchdog("cpython_notify_all", LIMIT);
    let (condition, sleeping, woken) = three();
    let late: Vec<_> = (0..3)
        .map(|_| sleeps::spawn(&condition, &sleeping, &woken, Some(SHORT)).unwrap())
        .collect();
    take(&sleeping, 3);
    take(&woken, 3);
    for process in late {
        assert!(!process.join().unwrap().unwrap());
    }
    let children: Vec<_> = (0..3)
        .map(|_| sleeps::spawn(&condition, &sleeping, &woken, None).unwrap())
        .collect();
    take(&sleeping, 3);
    let guard = condition.acquire().unwrap();
    assert_eq!(condition.notify_all().unwrap(), 3);
    drop(guard);
    take(&woken, 3);
    for process in children {
        assert!(process.join().unwrap().unwrap());
    }
}

/// `test_timeout`, `test_waitfor_timeout`, `test_wait_result`.
#[test]
fn cpython_timeout() {
    let condition = Condition::new().unwrap();
    let mut guard = condition.acquire().unwrap();
    assert!(!condition.wait_timeout(&mut guard, Duration::ZERO).unwrap());
    assert!(!never_early(SHORT, || {
        condition.wait_timeout(&mut guard, SHORT).unwrap()
    }));
    assert!(!never_early(SHORT, || {
        condition
            .wait_for_timeout(&mut guard, || false, SHORT)
            .unwrap()
    }));
    assert!(
        condition
            .wait_for_timeout(&mut guard, || true, SHORT)
            .unwrap()
    );
    drop(guard);
}

#[mproc::entry]
fn waits_for(condition: &Condition, state: &Queue<u32>, end: usize) -> Result<(), Failure> {
    let mut guard = condition.acquire().map_err(mproc::Error::from)?;
    condition.wait_for(&mut guard, || state.len() == end)?;
    Ok(())
}

/// `test_waitfor`.
#[test]
fn cpython_waitfor() {
    let _watchdog = watchdog("cpython_waitfor", LIMIT);
    let condition = Condition::new().unwrap();
    let state = Queue::new().unwrap();
    let child = waits_for::spawn(&condition, &state, 4).unwrap();
    for number in 0..4 {
        let _guard = condition.acquire().unwrap();
        state.put(number).unwrap();
        condition.notify().unwrap();
    }
    child.join().unwrap().unwrap();
}

#[test]
fn without_the_lock_nothing_is_notified() {
    let condition = Condition::new().unwrap();
    assert_eq!(condition.notify().unwrap_err().kind(), ErrorKind::NotOwned);
    assert_eq!(
        condition.notify_all().unwrap_err().kind(),
        ErrorKind::NotOwned
    );
    let other = Lock::new().unwrap();
    let mut guard = other.acquire().unwrap();
    let error = condition.wait(&mut guard).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotOwned);
    assert!(other.locked());
    // Nobody waits: that is no error.
    let _guard = condition.acquire().unwrap();
    assert_eq!(condition.notify().unwrap(), 0);
}

/// All levels of an `RLock` are released, and restored.
#[test]
fn a_wait_releases_all_levels() {
    let _watchdog = watchdog("a_wait_releases_all_levels", LIMIT);
    let lock = RLock::new().unwrap();
    let condition = Condition::with_lock(&lock).unwrap();
    let sleeping = Semaphore::new(0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _outer = lock.acquire().unwrap();
            let _middle = condition.acquire().unwrap();
            let mut inner = lock.acquire().unwrap();
            sleeping.release().unwrap();
            condition.wait(&mut inner).unwrap();
            assert!(format!("{lock:?}").ends_with(", 3)>"), "{lock:?}");
        });
        take(&sleeping, 1);
        let guard = lock.acquire().unwrap();
        assert_eq!(condition.notify().unwrap(), 1);
        drop(guard);
    });
    assert!(!lock.locked());
}

/// Two conditions of one plain lock: a queue of one place, full or empty.
#[mproc::entry]
fn produces(
    lock: &Lock,
    empty: &Condition,
    full: &Condition,
    place: &Queue<usize>,
    times: usize,
) -> Result<(), Failure> {
    for number in 0..times {
        let mut guard = lock.acquire().map_err(mproc::Error::from)?;
        empty.wait_for(&mut guard, || place.is_empty())?;
        place.put(number)?;
        full.notify()?;
    }
    Ok(())
}

#[test]
fn two_conditions_share_a_lock() {
    let _watchdog = watchdog("two_conditions_share_a_lock", LIMIT);
    let times = dose(2_000, 50_000);
    let lock = Lock::new().unwrap();
    let empty = Condition::with_lock(&lock).unwrap();
    let full = Condition::with_lock(&lock).unwrap();
    let place = Queue::new().unwrap();
    let child = produces::spawn(&lock, &empty, &full, &place, times).unwrap();
    for number in 0..times {
        let mut guard = lock.acquire().unwrap();
        full.wait_for(&mut guard, || !place.is_empty()).unwrap();
        assert_eq!(place.try_get().unwrap(), number);
        empty.notify().unwrap();
    }
    child.join().unwrap().unwrap();
}

#[mproc::entry]
fn goes_deeper(lock: &RLock, condition: &Condition, other: &Queue<RLock>) -> String {
    let _outer = lock.acquire().unwrap();
    let _middle = condition.acquire().unwrap();
    let again = other.get().unwrap();
    let _inner = again.acquire().unwrap();
    format!("{lock:?}")
}

/// However a lock came into a process: it is one, and its owner may acquire it again.
#[test]
fn a_lock_that_comes_several_ways_is_one() {
    let _watchdog = watchdog("a_lock_that_comes_several_ways_is_one", LIMIT);
    let lock = RLock::new().unwrap();
    let condition = Condition::with_lock(&lock).unwrap();
    let other = Queue::new().unwrap();
    other.put(lock.clone()).unwrap();
    let child = goes_deeper::process(&lock, &condition, &other).name("deep");
    assert_eq!(child.start().unwrap().join().unwrap(), "<RLock(deep, 3)>");
    // Back where it was made.
    other.put(lock.clone()).unwrap();
    let back = other.get().unwrap();
    let _outer = lock.acquire().unwrap();
    let _inner = back.acquire().unwrap();
    assert!(format!("{back:?}").ends_with(", 2)>"), "{back:?}");
}

#[mproc::entry]
fn waits_for_value(value: &Value<u64>, changed: &Condition) -> Result<u64, Failure> {
    let mut guard = value.lock().map_err(mproc::Error::from)?;
    while *guard < 3 {
        changed.wait(&mut guard)?;
    }
    Ok(*guard)
}

#[test]
fn a_condition_shares_the_lock_of_a_value() {
    let _watchdog = watchdog("a_condition_shares_the_lock_of_a_value", LIMIT);
    let value = Value::new(0_u64).unwrap();
    let changed = Condition::with_lock(&value).unwrap();
    let child = waits_for_value::spawn(&value, &changed).unwrap();
    for _ in 0..3 {
        let mut guard = value.lock().unwrap();
        *guard += 1;
        changed.notify_all().unwrap();
    }
    assert_eq!(child.join().unwrap().unwrap(), 3);
}

#[mproc::entry]
fn waits_for_sum(numbers: &Array<u64>, changed: &Condition, sum: u64) -> Result<u64, Failure> {
    let mut guard = numbers.lock().map_err(mproc::Error::from)?;
    while guard.iter().sum::<u64>() < sum {
        changed.wait(&mut guard)?;
    }
    guard[0] += 1;
    Ok(guard.iter().sum())
}

/// Nothing of the array is borrowed while its guard waits: others change it, and what is seen afterwards is what they have left.
#[test]
fn a_condition_shares_the_lock_of_an_array() {
    let _watchdog = watchdog("a_condition_shares_the_lock_of_an_array", LIMIT);
    let numbers = Array::from_slice(&[0_u64; 1000]).unwrap();
    let changed = Condition::with_lock(&numbers).unwrap();
    let children = [999_u64, 500].map(|sum| waits_for_sum::spawn(&numbers, &changed, sum).unwrap());
    for index in 1..1000 {
        let mut guard = numbers.lock().unwrap();
        guard[index] += 1;
        changed.notify_all().unwrap();
    }
    for (child, least) in children.into_iter().zip([1000, 501]) {
        assert!(child.join().unwrap().unwrap() >= least);
    }
    assert_eq!(numbers.lock().unwrap()[0], 2);
    // The guard of another lock is refused.
    let other = Array::from_slice(&[0_u64]).unwrap();
    let mut guard = other.lock().unwrap();
    assert_eq!(
        changed.wait(&mut guard).unwrap_err().kind(),
        ErrorKind::NotOwned
    );
}
