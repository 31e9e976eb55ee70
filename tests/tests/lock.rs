//! What `Lock` and `RLock` do when nobody dies: Python's rules, deadlines, owners in words, handles that travel, and the limits.
//! Those named `cpython_…` are ported from CPython's `test.test_multiprocessing` (`_TestLock`).

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use mproc::{AcquireError, ErrorKind, Failure, Lock, Queue, RLock};
use mproc_tests::{descriptors, dose, eventually, watchdog};

const LIMIT: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(60);

/// Runs what has to take at least `least`.
fn never_early<T>(least: Duration, wait: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = wait();
    let took = start.elapsed();
    assert!(took >= least, "{took:?} instead of {least:?}");
    result
}

/// `test_lock`. Releasing once too often is no method that one could call.
#[test]
fn cpython_lock() {
    let lock = Lock::new().unwrap();
    let guard = lock.acquire().unwrap();
    assert!(lock.locked());
    assert!(matches!(lock.try_acquire(), Err(AcquireError::WouldBlock)));
    drop(guard);
    assert!(!lock.locked());
    drop(lock.try_acquire().unwrap());
    assert!(!lock.locked());
}

#[mproc::entry]
fn hold(lock: &Lock, told: &Queue<()>, go_on: &Queue<()>) -> Result<(), Failure> {
    let held = lock.acquire().map_err(mproc::Error::from)?;
    told.put(())?;
    go_on.get()?;
    drop(held);
    Ok(())
}

/// `test_lock_locked_2processes`, and what a try and a deadline say meanwhile.
#[test]
fn cpython_lock_locked_2processes() {
    let _watchdog = watchdog("cpython_lock_locked_2processes", LIMIT);
    let lock = Lock::new().unwrap();
    let (told, go_on) = (Queue::new().unwrap(), Queue::new().unwrap());
    let child = hold::spawn(&lock, &told, &go_on).unwrap();
    told.get().unwrap();
    assert!(lock.locked());
    assert!(matches!(lock.try_acquire(), Err(AcquireError::WouldBlock)));
    let late = never_early(SHORT, || lock.acquire_timeout(SHORT).map(drop));
    assert!(late.is_err_and(|error| matches!(error, AcquireError::Timeout)));
    assert_eq!(format!("{lock:?}"), "<Lock(owner=SomeOtherProcess)>");
    go_on.put(()).unwrap();
    drop(lock.acquire().unwrap());
    child.join().unwrap().unwrap();
}

/// `test_repr_lock`.
#[test]
fn cpython_repr_lock() {
    let lock = Lock::new().unwrap();
    assert_eq!(format!("{lock:?}"), "<Lock(owner=None)>");
    thread::Builder::new()
        .name("T1".into())
        .spawn({
            let lock = lock.clone();
            move || {
                let _held = lock.acquire().unwrap();
                assert_eq!(format!("{lock:?}"), "<Lock(owner=MainProcess|T1)>");
                let other = lock.clone();
                let seen = thread::spawn(move || format!("{other:?}")).join().unwrap();
                assert_eq!(seen, "<Lock(owner=SomeOtherThread)>");
            }
        })
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(format!("{lock:?}"), "<Lock(owner=None)>");
}

#[mproc::entry]
fn shows_itself(lock: &Lock) -> String {
    let _held = lock.acquire().unwrap();
    format!("{lock:?}")
}

#[test]
fn the_owner_is_shown_with_the_name_of_its_process() {
    let lock = Lock::new().unwrap();
    let child = shows_itself::process(&lock).name("worker").start().unwrap();
    assert_eq!(child.join().unwrap(), "<Lock(owner=worker)>");
}

#[mproc::entry]
fn shows_rlock(lock: &RLock) -> String {
    format!("{lock:?}")
}

/// `test_rlock`, `test_repr_rlock`.
#[test]
fn cpython_rlock() {
    let lock = RLock::new().unwrap();
    assert_eq!(format!("{lock:?}"), "<RLock(None, 0)>");
    let name = thread::current().name().map(str::to_owned).unwrap();
    let mut guards = Vec::new();
    for level in 1..=3 {
        guards.push(lock.acquire().unwrap());
        assert_eq!(
            format!("{lock:?}"),
            format!("<RLock(MainProcess|{name}, {level})>")
        );
    }
    let child = shows_rlock::spawn(&lock).unwrap();
    assert_eq!(child.join().unwrap(), "<RLock(SomeOtherProcess, nonzero)>");
    for _ in 0..3 {
        assert!(lock.locked());
        thread::scope(|scope| {
            let other = scope.spawn(|| lock.try_acquire().is_err());
            assert!(other.join().unwrap());
        });
        drop(guards.remove(0));
    }
    assert!(!lock.locked());
    assert_eq!(format!("{lock:?}"), "<RLock(None, 0)>");
}

#[test]
fn waiting_for_oneself_is_an_error() {
    let lock = Lock::new().unwrap();
    let _held = lock.acquire().unwrap();
    let error = lock.acquire().map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::Deadlock), "{error}");
    assert_eq!(mproc::Error::from(error).kind(), ErrorKind::Deadlock);
    let error = never_early(SHORT, || lock.acquire_timeout(SHORT).map(drop)).unwrap_err();
    assert!(matches!(error, AcquireError::Timeout), "{error}");
}

#[mproc::entry]
fn counts(lock: &Lock, count: &Queue<u64>, times: u64) -> Result<(), Failure> {
    for _ in 0..times {
        let _held = lock.acquire().map_err(mproc::Error::from)?;
        // Two steps that another could come between.
        let seen = count.try_get()?;
        count.put(seen + 1)?;
    }
    Ok(())
}

#[test]
fn one_at_a_time() {
    let _watchdog = watchdog("one_at_a_time", LIMIT);
    let times = dose(2_000, 100_000) as u64;
    let lock = Lock::new().unwrap();
    let count = Queue::new().unwrap();
    count.put(0).unwrap();
    let children = [(); 3].map(|()| counts::spawn(&lock, &count, times).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| counts(&lock, &count, times).unwrap());
        scope.spawn(|| counts(&lock, &count, times).unwrap());
    });
    for child in children {
        child.join().unwrap().unwrap();
    }
    assert_eq!(count.get().unwrap(), 5 * times);
}

#[mproc::entry]
fn takes_from_queue(locks: &Queue<(String, Lock)>) -> bool {
    let (_, lock) = locks.get().unwrap();
    let _held = lock.acquire().unwrap();
    lock.locked()
}

#[test]
fn a_lock_travels_in_messages_and_in_statics() {
    let _watchdog = watchdog("a_lock_travels_in_messages_and_in_statics", LIMIT);
    static LOCK: OnceLock<Lock> = OnceLock::new();
    let lock = LOCK.get_or_init(|| Lock::new().unwrap());
    let locks = Queue::new().unwrap();
    locks.put(("a lock".into(), lock.clone())).unwrap();
    assert!(takes_from_queue::spawn(&locks).unwrap().join().unwrap());
    // And back into this process: the same lock.
    locks.put(("a lock".into(), lock.clone())).unwrap();
    let (_, other) = locks.get().unwrap();
    let held = other.acquire().unwrap();
    assert!(lock.locked());
    drop(held);
    assert!(!lock.locked());
}

#[test]
fn outside_mproc_a_lock_is_not_serialized() {
    let error = serde_json::to_string(&Lock::new().unwrap()).unwrap_err();
    assert!(error.to_string().contains("travels only in"), "{error}");
}

#[test]
fn many_locks_are_released_in_any_order() {
    let locks: Vec<Lock> = (0..200).map(|_| Lock::new().unwrap()).collect();
    let mut guards: Vec<_> = locks.iter().map(|lock| lock.acquire().unwrap()).collect();
    let mut odd = false;
    guards.retain(|_| {
        odd = !odd;
        odd
    });
    assert!(locks[0].locked() && !locks[1].locked() && locks[2].locked());
    guards.extend(
        locks
            .iter()
            .skip(1)
            .step_by(2)
            .map(|lock| lock.acquire().unwrap()),
    );
    assert!(locks.iter().all(Lock::locked));
    drop(guards);
    assert!(locks.iter().all(|lock| !lock.locked()));
}

#[mproc::entry]
fn holds_as_many_as_it_can(told: &Queue<usize>) -> Result<(), Failure> {
    // A descriptor each.
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_NOFILE,
        hard.min(4096),
        hard,
    )?;
    let locks = (0..2001)
        .map(|_| Lock::new())
        .collect::<mproc::Result<Vec<_>>>()?;
    let mut guards = Vec::new();
    for lock in &locks[..2000] {
        guards.push(lock.acquire().map_err(mproc::Error::from)?);
    }
    let error = locks[2000].acquire().map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::TooMany), "{error}");
    assert!(!locks[2000].locked());
    told.put(guards.len())?;
    guards.pop();
    drop(locks[2000].acquire().map_err(mproc::Error::from)?);
    Ok(())
}

/// The kernel looks at no more than 2048 when a thread dies.
#[test]
fn a_thread_holds_two_thousand_locks_and_no_more() {
    let _watchdog = watchdog("a_thread_holds_two_thousand_locks_and_no_more", LIMIT);
    let told = Queue::new().unwrap();
    let child = holds_as_many_as_it_can::spawn(&told).unwrap();
    child.join().unwrap().unwrap();
    assert_eq!(told.get().unwrap(), 2000);
}

#[test]
fn a_forgotten_guard_keeps_the_lock_and_harms_nobody() {
    let _watchdog = watchdog("a_forgotten_guard_keeps_the_lock_and_harms_nobody", LIMIT);
    let lock = Lock::new().unwrap();
    let elsewhere = Queue::new().unwrap();
    elsewhere.put(lock.clone()).unwrap();
    let elsewhere = elsewhere.get().unwrap();
    thread::spawn(move || {
        std::mem::forget(lock.acquire().unwrap());
        // The last handle of this mapping. The next lock would fault if that had gone.
        drop(lock);
        let other = Lock::new().unwrap();
        for _ in 0..100 {
            drop(other.acquire().unwrap());
        }
        std::mem::forget(other.acquire().unwrap());
        drop(other);
    })
    .join()
    .unwrap();
    // The thread has ended with it.
    let error = elsewhere.acquire().map(drop).unwrap_err();
    assert!(error.is_owner_died(), "{error}");
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(error);
    drop(elsewhere.acquire().unwrap());
}

#[mproc::entry]
fn counts_descriptors() -> (usize, usize) {
    let before = descriptors().len();
    let lock = Lock::new().unwrap();
    let clone = lock.clone();
    drop(clone.acquire().unwrap());
    (before, descriptors().len())
}

#[test]
fn a_lock_costs_one_descriptor() {
    let (before, with_it) = counts_descriptors::spawn().unwrap().join().unwrap();
    assert_eq!(with_it, before + 1);
}

/// libc's own robust mutexes come and go among ours, in any order.
#[test]
fn robust_mutexes_of_libc_are_held_among_ours() {
    use nix::libc;
    use std::mem::MaybeUninit;

    struct Robust(Box<MaybeUninit<libc::pthread_mutex_t>>);
    impl Robust {
        fn new() -> Self {
            let mut mutex = Box::new(MaybeUninit::uninit());
            // SAFETY: initialized here before its use, and it stays where it is.
            unsafe {
                let mut attribute = MaybeUninit::uninit();
                libc::pthread_mutexattr_init(attribute.as_mut_ptr());
                libc::pthread_mutexattr_setrobust(
                    attribute.as_mut_ptr(),
                    libc::PTHREAD_MUTEX_ROBUST,
                );
                assert_eq!(
                    libc::pthread_mutex_init(mutex.as_mut_ptr(), attribute.as_ptr()),
                    0
                );
            }
            Self(mutex)
        }
        fn lock(&mut self) -> i32 {
            // SAFETY: initialized by `new`.
            unsafe { libc::pthread_mutex_lock(self.0.as_mut_ptr()) }
        }
        fn unlock(&mut self) {
            // SAFETY: as above, and held.
            let result = unsafe { libc::pthread_mutex_unlock(self.0.as_mut_ptr()) };
            assert_eq!(result, 0);
        }
    }

    let locks = [(); 3].map(|()| Lock::new().unwrap());
    let mut mutexes = [(); 3].map(|()| Robust::new());
    // Every order of releasing six that were taken in turns.
    let mut order = [0, 1, 2, 3, 4, 5];
    permutations(&mut order, 6, &mut |order| {
        let mut guards: Vec<_> = Vec::new();
        for (lock, mutex) in locks.iter().zip(&mut mutexes) {
            guards.push(Some(lock.acquire().unwrap()));
            assert_eq!(mutex.lock(), 0);
        }
        for &index in order {
            match index {
                0..3 => drop(guards[index].take()),
                _ => mutexes[index - 3].unlock(),
            }
        }
        assert!(locks.iter().all(|lock| !lock.locked()));
    });
    // And a thread that ends with all of them.
    thread::scope(|scope| {
        scope.spawn(|| {
            for (lock, mutex) in locks.iter().zip(&mut mutexes) {
                assert_eq!(mutex.lock(), 0);
                std::mem::forget(lock.acquire().unwrap());
            }
        });
    });
    for (lock, mutex) in locks.iter().zip(&mut mutexes) {
        eventually(|| !lock.locked());
        assert!(
            lock.acquire()
                .map(drop)
                .is_err_and(|error| error.is_owner_died())
        );
        assert_eq!(mutex.lock(), libc::EOWNERDEAD);
        // SAFETY: initialized and held.
        unsafe { libc::pthread_mutex_consistent(mutex.0.as_mut_ptr()) };
        mutex.unlock();
    }
}

fn permutations(items: &mut [usize], count: usize, act: &mut impl FnMut(&[usize])) {
    if count == 1 {
        return act(items);
    }
    for index in 0..count {
        permutations(items, count - 1, act);
        let other = if count.is_multiple_of(2) { index } else { 0 };
        items.swap(other, count - 1);
    }
}

/// A guard is forgotten, the handle dropped, and the lock comes back: it is the same, so its owner does not wait for itself.
#[test]
fn a_lock_that_was_forgotten_comes_back_as_the_same() {
    let _watchdog = watchdog("a_lock_that_was_forgotten_comes_back_as_the_same", LIMIT);
    let (locks, rlocks) = (
        Queue::<Lock>::new().unwrap(),
        Queue::<RLock>::new().unwrap(),
    );
    let lock = Lock::new().unwrap();
    locks.put(lock.clone()).unwrap();
    std::mem::forget(lock.acquire().unwrap());
    drop(lock);
    let back = locks.get().unwrap();
    assert!(matches!(back.acquire(), Err(AcquireError::Deadlock)));
    let rlock = RLock::new().unwrap();
    rlocks.put(rlock.clone()).unwrap();
    std::mem::forget(rlock.acquire().unwrap());
    drop(rlock);
    let back = rlocks.get().unwrap();
    drop(back.acquire().unwrap());
}
