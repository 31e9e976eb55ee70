//! `Barrier` when nobody dies: Python's rules (`_TestBarrier`), in processes and in threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use mproc::{Barrier, BarrierError, Call, Failure, Queue};
use mproc_tests::{dose, eventually, watchdog};

const LIMIT: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(60);
const PARTIES: u32 = 5;

#[mproc::entry]
fn in_lockstep(barrier: &Barrier, steps: &[Queue<()>], passes: usize) -> Result<(), Failure> {
    for _ in 0..passes {
        steps[0].put(())?;
        barrier.wait()?;
        // All have put, and nobody has put again.
        assert_eq!(steps[0].len() % PARTIES as usize, 0);
        barrier.wait()?;
    }
    Ok(())
}

/// `test_barrier`, `test_barrier_10`: all pass in lockstep.
#[test]
fn cpython_barrier() {
    let _watchdog = watchdog("cpython_barrier", LIMIT);
    let passes = dose(1_000, 10_000);
    let barrier = Barrier::new(PARTIES).unwrap();
    let steps = [Queue::new().unwrap()];
    let children: Vec<_> = (0..PARTIES)
        .map(|_| in_lockstep::spawn(&barrier, &steps, passes).unwrap())
        .collect();
    for child in children {
        child.join().unwrap().unwrap();
    }
    assert_eq!(steps[0].len(), PARTIES as usize * passes);
    assert!(!barrier.is_broken());
    // Others may go on where they have ended in peace.
    let children: Vec<_> = (0..PARTIES)
        .map(|_| in_lockstep::spawn(&barrier, &steps, 2).unwrap())
        .collect();
    for child in children {
        child.join().unwrap().unwrap();
    }
}

/// Runs the parties as threads.
fn all(parties: u32, part: impl Fn(u32) + Sync) {
    thread::scope(|scope| {
        for number in 0..parties {
            let part = &part;
            scope.spawn(move || part(number));
        }
    });
}

/// `test_wait_return`.
#[test]
fn cpython_wait_return() {
    let _watchdog = watchdog("cpython_wait_return", LIMIT);
    let barrier = Barrier::new(PARTIES).unwrap();
    let sum = AtomicU32::new(0);
    let firsts = AtomicU32::new(0);
    all(PARTIES, |_| {
        let index = barrier.wait().unwrap();
        sum.fetch_add(index, Ordering::SeqCst);
        firsts.fetch_add(u32::from(index == 0), Ordering::SeqCst);
    });
    assert_eq!(sum.into_inner(), 10);
    assert_eq!(firsts.into_inner(), 1);
    assert_eq!((barrier.parties(), barrier.waiting()), (PARTIES, 0));
}

#[mproc::entry]
fn counts(passes: &Queue<()>) {
    passes.put(()).unwrap();
}

/// `test_action`: once in each pass, before anybody leaves.
#[test]
fn cpython_action() {
    let _watchdog = watchdog("cpython_action", LIMIT);
    let passes = Queue::new().unwrap();
    let action: Call<()> = counts::bind(&passes);
    let barrier = Barrier::new(PARTIES).unwrap().action(action);
    let quiet = Barrier::new(PARTIES).unwrap();
    all(PARTIES, |_| {
        for pass in 1..=20 {
            barrier.wait().unwrap();
            assert_eq!(passes.len(), pass);
            quiet.wait().unwrap();
        }
    });
}

/// `test_abort`.
#[test]
fn cpython_abort() {
    let _watchdog = watchdog("cpython_abort", LIMIT);
    let barrier = Barrier::new(PARTIES).unwrap();
    let broken = AtomicU32::new(0);
    all(PARTIES, |number| {
        if number == PARTIES / 2 {
            eventually(|| barrier.waiting() == PARTIES - 1);
            barrier.abort().unwrap();
            return;
        }
        let error = barrier.wait().unwrap_err();
        assert!(
            matches!(error, BarrierError::Broken { died: false, .. }),
            "{error}"
        );
        broken.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(broken.into_inner(), PARTIES - 1);
    assert!(barrier.is_broken());
    assert!(matches!(barrier.wait(), Err(BarrierError::Broken { .. })));
}

/// `test_reset`.
#[test]
fn cpython_reset() {
    let _watchdog = watchdog("cpython_reset", LIMIT);
    let barrier = Barrier::new(PARTIES).unwrap();
    all(PARTIES, |number| {
        if number == PARTIES / 2 {
            eventually(|| barrier.waiting() == PARTIES - 1);
            barrier.reset().unwrap();
        } else {
            let error = barrier.wait().unwrap_err();
            assert!(
                matches!(
                    error,
                    BarrierError::Broken {
                        process_id: None,
                        ..
                    }
                ),
                "{error}"
            );
        }
        barrier.wait().unwrap();
    });
    assert!(!barrier.is_broken());
}

/// `test_abort_and_reset`.
#[test]
fn cpython_abort_and_reset() {
    let _watchdog = watchdog("cpython_abort_and_reset", LIMIT);
    let (barrier, other) = (
        Barrier::new(PARTIES).unwrap(),
        Barrier::new(PARTIES).unwrap(),
    );
    for _ in 0..dose(20, 1000) {
        all(PARTIES, |number| {
            if number == PARTIES / 2 {
                eventually(|| barrier.waiting() == PARTIES - 1);
                barrier.abort().unwrap();
            } else {
                assert!(barrier.wait().is_err());
            }
            if other.wait().unwrap() == 0 {
                barrier.reset().unwrap();
            }
            other.wait().unwrap();
            barrier.wait().unwrap();
        });
    }
}

/// `test_timeout`, `test_default_timeout`: one is late, and all get to know it, it too.
#[test]
fn cpython_timeout() {
    let _watchdog = watchdog("cpython_timeout", LIMIT);
    let barrier = Barrier::new(PARTIES).unwrap();
    all(PARTIES, |number| {
        if number == PARTIES / 2 {
            eventually(|| barrier.is_broken());
        }
        assert!(barrier.wait_timeout(SHORT).is_err());
    });
    let barrier = Barrier::new(PARTIES).unwrap().timeout(SHORT);
    all(PARTIES - 1, |_| assert!(barrier.wait().is_err()));
    assert!(matches!(barrier.wait(), Err(BarrierError::Broken { .. })));
}

/// `test_single_thread`.
#[test]
fn one_party_never_waits() {
    let barrier = Barrier::new(1).unwrap();
    assert_eq!(barrier.wait().unwrap(), 0);
    assert_eq!(barrier.wait().unwrap(), 0);
}

#[mproc::entry]
fn panics() {
    panic!("in the action");
}

#[test]
fn an_action_that_panics_breaks_the_barrier() {
    let _watchdog = watchdog("an_action_that_panics", LIMIT);
    let barrier = Barrier::new(2).unwrap().action(panics::bind());
    thread::scope(|scope| {
        let outcomes = [(); 2].map(|()| {
            scope.spawn(|| {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| barrier.wait().map(drop)))
            })
        });
        let outcomes = outcomes.map(|outcome| outcome.join().unwrap());
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_err()).count(),
            1
        );
        let broken = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Ok(Err(_))));
        assert_eq!(broken.count(), 1);
    });
    assert!(barrier.is_broken());
}

#[test]
fn a_barrier_for_nobody_is_refused() {
    assert!(Barrier::new(0).is_err());
    assert!(Barrier::new(1025).is_err());
}
