//! Whoever is killed, at whatever instruction: locks, permits, events, conditions and barriers go on, and everybody who has to is
//! told (G4).

mod queue_shared;
mod steps;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::thread;
use std::time::Duration;

use mproc::{
    AcquireError, Array, Barrier, BarrierError, BoundedSemaphore, Child, Condition, ErrorKind,
    Event, Lock, Process, Queue, RLock, Semaphore, Value,
};
use mproc_tests::{Dice, dose, eventually, state_of, watchdog};
use queue_shared::Words;
use steps::{COUNT, kill_at_each_step, stepped};

/// A word that the stage of steps leaves to the test.
const FREE: usize = 2;

const LIMIT: Duration = Duration::from_secs(120);

fn started<R: 'static>(process: Process<R>) -> Child<R> {
    process.daemon(true).start().unwrap()
}

/// Kills a process that has no other reason to end, and waits for its end.
fn kill_it<R>(child: &Child<R>) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "it has seen something wrong: {status}"
    );
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

/// Somebody in another thread who does the same again and again, and has to come through.
struct Others<'a> {
    rounds: &'a AtomicU64,
}

impl Others<'_> {
    /// They go on.
    fn go_on(&self) {
        let before = self.rounds.load(SeqCst);
        eventually(|| self.rounds.load(SeqCst) > before + 1);
    }
}

/// Runs `round` in two threads, again and again, while `act` runs.
fn beside(round: impl Fn() + Sync, act: impl FnOnce(Others<'_>)) {
    let (rounds, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    round();
                    rounds.fetch_add(1, SeqCst);
                    thread::yield_now();
                }
            });
        }
        let _stop = Stop(&stop);
        act(Others { rounds: &rounds });
    });
}

// --- locks

#[mproc::entry]
fn steps_through_a_lock(words: &Words, lock: &Lock) {
    let once = || match lock.acquire() {
        Ok(guard) | Err(AcquireError::OwnerDied { guard, .. }) => drop(guard),
        Err(error) => panic!("{error}"),
    };
    once();
    stepped(words, once);
}

/// Acquires it, whether or not somebody died with it.
fn any<G>(acquired: Result<G, AcquireError<G>>) -> G {
    match acquired {
        Ok(guard) | Err(AcquireError::OwnerDied { guard, .. }) => guard,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lock_survives_a_kill_at_any_instruction() {
    let _watchdog = watchdog("a_lock_survives_a_kill_at_any_instruction", LIMIT);
    let (words, lock) = (Words::new(COUNT), Lock::new().unwrap());
    let round = || drop(any(lock.acquire()));
    beside(round, |others| {
        kill_at_each_step(
            "lock",
            &words,
            || steps_through_a_lock::process(&words, &lock),
            |_| others.go_on(),
        );
    });
    // Told once, and by now somebody was.
    drop(lock.acquire().unwrap());
}

/// Nobody else is there: exactly one is told, and is told who it was.
#[test]
fn exactly_the_next_one_is_told_who_died() {
    let _watchdog = watchdog("exactly_the_next_one_is_told", LIMIT);
    let (words, lock) = (Words::new(COUNT), Lock::new().unwrap());
    let (mut told, mut named) = (0, 0);
    kill_at_each_step(
        "told",
        &words,
        || steps_through_a_lock::process(&words, &lock),
        |pid| {
            match lock.acquire() {
                Ok(_) => {}
                Err(AcquireError::OwnerDied { process_id, .. }) => {
                    // One that dies right after the exchange has not said who it is; nobody else is named for it.
                    assert!([0, pid].contains(&process_id), "{process_id} for {pid}");
                    named += usize::from(process_id == pid);
                    told += 1;
                }
                Err(error) => panic!("{error}"),
            }
            drop(lock.acquire().unwrap());
        },
    );
    assert!(told > 0, "some died with the lock");
    assert!(named > 0, "{named} of {told} said who they are");
}

#[mproc::entry]
fn holds(lock: &Lock, words: &Words) {
    let _held = any(lock.acquire());
    words[FREE].store(1, SeqCst);
    loop {
        thread::park();
    }
}

#[mproc::entry]
fn waits_for_lock(lock: &Lock) -> u32 {
    match lock.acquire().map(drop) {
        Ok(()) => 0,
        Err(AcquireError::OwnerDied { process_id, .. }) => process_id,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_sleeper_gets_the_lock_of_the_dead_and_is_told_who_it_was() {
    let _watchdog = watchdog("a_sleeper_gets_the_lock_of_the_dead", LIMIT);
    let (words, lock) = (Words::new(COUNT), Lock::new().unwrap());
    for _ in 0..dose(20, 500) {
        words[FREE].store(0, SeqCst);
        let holder = started(holds::process(&lock, &words));
        eventually(|| words[FREE].load(SeqCst) != 0);
        let sleepers = [(); 3].map(|()| started(waits_for_lock::process(&lock)));
        for sleeper in &sleepers {
            until_asleep(sleeper.id());
        }
        // One of them dies in its sleep, which costs nothing.
        let [victim, sleepers @ ..] = sleepers;
        kill_it(&victim);
        kill_it(&holder);
        let mut told = sleepers.map(|sleeper| sleeper.join().unwrap());
        told.sort_unstable();
        assert_eq!(told, [0, holder.id()]);
        assert!(!lock.locked());
    }
}

/// Two words that are the same outside of the lock.
#[mproc::entry]
fn changes_two_words(lock: &RLock, words: &Words, number: usize) {
    loop {
        let (outer, died) = match lock.acquire() {
            Ok(guard) => (guard, false),
            Err(AcquireError::OwnerDied { guard, .. }) => (guard, true),
            Err(error) => panic!("{error}"),
        };
        let inner = lock.acquire();
        if died {
            words[FREE + 1].store(words[FREE].load(Relaxed), Relaxed);
        }
        assert_eq!(words[FREE].load(Relaxed), words[FREE + 1].load(Relaxed));
        words[FREE].fetch_add(1, Relaxed);
        words[FREE + 1].fetch_add(1, Relaxed);
        drop(inner);
        drop(outer);
        words[FREE + 2 + number].fetch_add(1, Relaxed);
    }
}

#[test]
fn an_rlock_survives_random_kills() {
    let _watchdog = watchdog("an_rlock_survives_random_kills", LIMIT);
    const VICTIMS: usize = 4;
    let mut dice = Dice::new("an_rlock_survives_random_kills");
    let (words, lock) = (Words::new(COUNT), RLock::new().unwrap());
    let start = |number| started(changes_two_words::process(&lock, &words, number));
    let mut victims: Vec<_> = (0..VICTIMS).map(start).collect();
    for _ in 0..dose(150, 5000) {
        let number = dice.below(VICTIMS as u64) as usize;
        let before = words[FREE + 2 + number].load(Relaxed);
        if dice.below(4) > 0 {
            eventually(|| words[FREE + 2 + number].load(Relaxed) > before);
        }
        dice.pause(Duration::from_micros(100));
        kill_it(&victims[number]);
        victims[number] = start(number);
        let other = (number + 1) % VICTIMS;
        let before = words[FREE + 2 + other].load(Relaxed);
        eventually(|| words[FREE + 2 + other].load(Relaxed) > before);
    }
    victims.iter().for_each(kill_it);
    let guard = any(lock.acquire());
    assert_eq!(format!("{lock:?}").matches(", 1)>").count(), 1, "{lock:?}");
    drop(guard);
    assert!(!lock.locked());
}

// --- permits

#[mproc::entry]
fn steps_through_a_permit(words: &Words, semaphore: &Semaphore) {
    let once = || drop(semaphore.acquire().unwrap());
    once();
    stepped(words, once);
}

#[test]
fn a_permit_comes_back_from_a_kill_at_any_instruction() {
    let _watchdog = watchdog("a_permit_comes_back", LIMIT);
    let (words, semaphore) = (Words::new(COUNT), Semaphore::new(1).unwrap());
    beside(
        || drop(semaphore.acquire().unwrap()),
        |others| {
            kill_at_each_step(
                "permit",
                &words,
                || steps_through_a_permit::process(&words, &semaphore),
                |_| others.go_on(),
            );
        },
    );
    assert_eq!(semaphore.value().unwrap(), 1);
}

#[test]
fn permits_are_as_many_after_a_kill_at_any_instruction() {
    let _watchdog = watchdog("permits_are_as_many", LIMIT);
    let (words, semaphore) = (Words::new(COUNT), Semaphore::new(3).unwrap());
    kill_at_each_step(
        "permits",
        &words,
        || steps_through_a_permit::process(&words, &semaphore),
        |_| assert_eq!(semaphore.value().unwrap(), 3),
    );
}

#[mproc::entry]
fn steps_through_a_signal(words: &Words, semaphore: &BoundedSemaphore) {
    let once = || {
        semaphore.acquire().unwrap().forget();
        semaphore.release().unwrap();
    };
    once();
    stepped(words, once);
}

/// A permit that was given away is lost with who was to release it, and never more than that.
#[test]
fn signals_are_whole_or_not_there() {
    let _watchdog = watchdog("signals_are_whole_or_not_there", LIMIT);
    let (words, semaphore) = (Words::new(COUNT), BoundedSemaphore::new(2).unwrap());
    kill_at_each_step(
        "signals",
        &words,
        || steps_through_a_signal::process(&words, &semaphore),
        |_| {
            match semaphore.value().unwrap() {
                2 => {}
                1 => semaphore.release().unwrap(),
                value => panic!("{value} permits"),
            }
            let error = semaphore.release().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OverReleased);
        },
    );
}

#[mproc::entry]
fn holds_permits(semaphore: &Semaphore, words: &Words, number: usize, count: usize) {
    let permits: Vec<_> = (0..count).map(|_| semaphore.acquire().unwrap()).collect();
    words[FREE + number].store(permits.len() as u64, SeqCst);
    loop {
        thread::park();
    }
}

#[mproc::entry]
fn takes_one(semaphore: &Semaphore) {
    drop(semaphore.acquire().unwrap());
}

#[test]
fn the_permits_of_the_dead_wake_those_asleep() {
    let _watchdog = watchdog("the_permits_of_the_dead_wake_those_asleep", LIMIT);
    let semaphore = Semaphore::new(5).unwrap();
    for _ in 0..dose(15, 300) {
        let words = Words::new(COUNT);
        let holders =
            [3, 2].map(|count| started(holds_permits::process(&semaphore, &words, count, count)));
        eventually(|| words[FREE + 3].load(SeqCst) == 3 && words[FREE + 2].load(SeqCst) == 2);
        let sleepers = [(); 4].map(|()| started(takes_one::process(&semaphore)));
        for sleeper in &sleepers {
            until_asleep(sleeper.id());
        }
        let [victim, sleepers @ ..] = sleepers;
        kill_it(&victim);
        kill_it(&holders[0]);
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        assert_eq!(semaphore.value().unwrap(), 3);
        kill_it(&holders[1]);
        assert_eq!(semaphore.value().unwrap(), 5);
    }
}

#[mproc::entry]
fn uses_permits(semaphore: &Semaphore, words: &Words, number: usize) {
    loop {
        let _one = semaphore.acquire().unwrap();
        let _other = semaphore.try_acquire();
        words[FREE + number].fetch_add(1, Relaxed);
    }
}

#[test]
fn permits_survive_random_kills() {
    let _watchdog = watchdog("permits_survive_random_kills", LIMIT);
    const VICTIMS: usize = 5;
    let mut dice = Dice::new("permits_survive_random_kills");
    let (words, semaphore) = (Words::new(COUNT), Semaphore::new(2).unwrap());
    let start = |number| started(uses_permits::process(&semaphore, &words, number));
    let mut victims: Vec<_> = (0..VICTIMS).map(start).collect();
    for _ in 0..dose(150, 5000) {
        let number = dice.below(VICTIMS as u64) as usize;
        if dice.below(4) > 0 {
            let before = words[FREE + number].load(Relaxed);
            eventually(|| words[FREE + number].load(Relaxed) > before);
        }
        dice.pause(Duration::from_micros(100));
        kill_it(&victims[number]);
        victims[number] = start(number);
        let all = || {
            (0..VICTIMS)
                .map(|number| words[FREE + number].load(Acquire))
                .sum::<u64>()
        };
        let before = all();
        eventually(|| all() > before + 2);
    }
    victims.iter().for_each(kill_it);
    assert_eq!(semaphore.value().unwrap(), 2);
}

/// Threads that end with what they hold, their guards forgotten, in a process that goes on: as if each had been killed.
#[test]
fn what_threads_end_with_comes_back() {
    let _watchdog = watchdog("what_threads_end_with_comes_back", LIMIT);
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let semaphore = Semaphore::new(2).unwrap();
    let own = std::process::id();
    for _ in 0..dose(200, 20_000) {
        thread::scope(|scope| {
            scope.spawn(|| {
                std::mem::forget(lock.acquire().unwrap());
                std::mem::forget((rlock.acquire().unwrap(), rlock.acquire().unwrap()));
                std::mem::forget((semaphore.acquire().unwrap(), semaphore.acquire().unwrap()));
            });
        });
        // One that waits is woken by the kernel, and told; permits are just back.
        match lock.acquire() {
            Err(AcquireError::OwnerDied { process_id, .. }) => assert_eq!(process_id, own),
            other => panic!("{other:?}"),
        }
        assert!(rlock.acquire().unwrap_err().is_owner_died());
        let permits = (semaphore.acquire().unwrap(), semaphore.acquire().unwrap());
        drop(permits);
        assert_eq!(semaphore.value().unwrap(), 2);
        drop((lock.acquire().unwrap(), rlock.acquire().unwrap()));
    }
}

// --- arrays and values

/// Two halves that are only right together.
fn change(total: &Value<u64>, array: &Array<u64>, lock: &Lock, other: &Array<u64>) -> Changed {
    let mut changed = Changed::default();
    let mut halves = match array.lock() {
        Ok(halves) => halves,
        Err(AcquireError::OwnerDied { guard, .. }) => {
            changed.told += 1;
            let mut halves = guard;
            halves[1] = halves[0];
            halves.mark_consistent();
            halves
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(halves[0], halves[1], "nobody was told of what is half done");
    halves[0] += 1;
    // Most of the time is spent here, so that most who are killed are killed here.
    (0..2000).for_each(|_| std::hint::spin_loop());
    halves[1] += 1;
    drop(halves);
    // The same under a lock that is not its own.
    let mut held = match lock.acquire() {
        Ok(held) => held,
        Err(AcquireError::OwnerDied { guard, .. }) => {
            changed.told += 1;
            let mut held = guard;
            let halves = other.get_mut(&mut held).unwrap();
            halves[1] = halves[0];
            held.mark_consistent();
            held
        }
        Err(error) => panic!("{error}"),
    };
    let halves = other.get_mut(&mut held).unwrap();
    assert_eq!(halves[0], halves[1], "nobody was told of what is half done");
    halves[0] += 1;
    halves[1] += 1;
    drop(held);
    match total.lock() {
        Ok(mut total) => *total += 1,
        Err(AcquireError::OwnerDied { guard, .. }) => {
            changed.told += 1;
            guard.mark_consistent();
        }
        Err(error) => panic!("{error}"),
    }
    changed
}

#[derive(Default)]
struct Changed {
    told: usize,
}

#[mproc::entry]
fn changes(
    total: &Value<u64>,
    array: &Array<u64>,
    lock: &Lock,
    other: &Array<u64>,
    started: &Event,
) {
    started.set().unwrap();
    loop {
        change(total, array, lock, other);
    }
}

#[test]
fn arrays_and_values_survive_random_kills() {
    let _watchdog = watchdog("arrays_and_values_survive_random_kills", LIMIT);
    let mut dice = Dice::new("arrays_and_values_survive_random_kills");
    let (total, array) = (Value::new(0_u64).unwrap(), Array::new(2).unwrap());
    let lock = Lock::new().unwrap();
    let other = Array::with_lock(&lock, &[0_u64, 0]).unwrap();
    let start = |event: &Event| started(changes::process(&total, &array, &lock, &other, event));
    let event = Event::new().unwrap();
    let mut victims: Vec<_> = (0..2).map(|_| start(&event)).collect();
    let (mut told, kills) = (0, dose(150, 5000));
    for round in 0..kills {
        event.wait().unwrap();
        event.clear();
        dice.pause(Duration::from_micros(500));
        kill_it(&victims[round % 2]);
        victims[round % 2] = start(&event);
        for _ in 0..3 {
            told += change(&total, &array, &lock, &other).told;
        }
    }
    victims.iter().for_each(kill_it);
    change(&total, &array, &lock, &other);
    eprintln!("{kills} killed, {told} times told here");
}

// --- events

#[mproc::entry]
fn steps_through_a_set(words: &Words, event: &Event) {
    event.wait_timeout(Duration::ZERO).unwrap();
    stepped(words, || event.set().unwrap());
}

#[test]
fn an_event_is_set_for_all_or_for_nobody() {
    let _watchdog = watchdog("an_event_is_set_for_all_or_for_nobody", LIMIT);
    let (words, event) = (Words::new(COUNT), Event::new().unwrap());
    let (waiting, go) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 1.. {
                    event.wait().unwrap();
                    waiting.fetch_sub(1, SeqCst);
                    eventually(|| go.load(SeqCst) >= round);
                    if go.load(SeqCst) == u64::MAX {
                        return;
                    }
                    waiting.fetch_add(1, SeqCst);
                }
            });
        }
        waiting.fetch_add(3, SeqCst);
        let mut round = 0;
        kill_at_each_step(
            "event",
            &words,
            || steps_through_a_set::process(&words, &event),
            |_| {
                if !event.is_set() {
                    event.set().unwrap();
                }
                eventually(|| waiting.load(SeqCst) == 0);
                event.clear();
                round += 1;
                go.store(round, SeqCst);
                eventually(|| waiting.load(SeqCst) == 3);
            },
        );
        event.set().unwrap();
        go.store(u64::MAX, SeqCst);
    });
}

#[mproc::entry]
fn steps_through_an_event_wait(words: &Words, event: &Event) {
    event.wait_timeout(Duration::ZERO).unwrap();
    stepped(words, || {
        event.wait_timeout(Duration::from_micros(100)).unwrap()
    });
}

#[test]
fn a_dead_waiter_of_an_event_costs_nothing() {
    let _watchdog = watchdog("a_dead_waiter_of_an_event", LIMIT);
    let (words, event) = (Words::new(COUNT), Event::new().unwrap());
    kill_at_each_step(
        "event wait",
        &words,
        || steps_through_an_event_wait::process(&words, &event),
        |_| {
            thread::scope(|scope| {
                scope.spawn(|| event.wait().unwrap());
                event.set().unwrap();
            });
            event.clear();
        },
    );
}

// --- conditions

#[mproc::entry]
fn steps_through_a_wait(words: &Words, condition: &Condition) {
    let once = || {
        let mut guard = any(condition.acquire());
        let waited = condition.wait_timeout(&mut guard, Duration::from_micros(50));
        // The lock may have been that of a dead one.
        assert!(waited.is_ok() || waited.unwrap_err().kind() == ErrorKind::OwnerDied);
    };
    once();
    stepped(words, once);
}

/// Waits in a thread here, and has it woken by exactly one notify.
fn notify_reaches(condition: &Condition) {
    let waiting = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = any(condition.acquire());
            waiting.store(true, SeqCst);
            condition.wait(&mut guard).unwrap();
        });
        // Under the lock: it waits, or has not come to say that it does.
        loop {
            let guard = any(condition.acquire());
            if waiting.load(SeqCst) {
                assert_eq!(condition.notify().unwrap(), 1);
                assert_eq!(condition.notify().unwrap(), 0);
                break;
            }
            drop(guard);
            thread::yield_now();
        }
    });
}

#[test]
fn a_notify_never_chooses_a_waiter_that_is_dead() {
    let _watchdog = watchdog("a_notify_never_chooses_the_dead", LIMIT);
    let (words, condition) = (Words::new(COUNT), Condition::new().unwrap());
    kill_at_each_step(
        "wait",
        &words,
        || steps_through_a_wait::process(&words, &condition),
        |_| notify_reaches(&condition),
    );
}

#[mproc::entry]
fn steps_through_a_notify(words: &Words, condition: &Condition) {
    let once = |count| {
        let guard = any(condition.acquire());
        condition.notify_up_to(count).unwrap();
        drop(guard);
    };
    once(0);
    stepped(words, || once(2));
}

/// Three wait, one that notifies two of them is killed: none, one or two have woken, and each that was chosen has.
#[test]
fn those_whom_a_dead_one_has_notified_wake() {
    let _watchdog = watchdog("those_whom_a_dead_one_has_notified_wake", LIMIT);
    let (words, condition) = (Words::new(COUNT), Condition::new().unwrap());
    let (waiting, woken, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut guard = any(condition.acquire());
                while !stop.load(SeqCst) {
                    waiting.fetch_add(1, SeqCst);
                    match condition.wait(&mut guard) {
                        Ok(()) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::OwnerDied),
                    }
                    waiting.fetch_sub(1, SeqCst);
                    woken.fetch_add(1, SeqCst);
                }
            });
        }
        let all_wait = || {
            eventually(|| {
                let _guard = any(condition.acquire());
                waiting.load(SeqCst) == 3
            });
        };
        all_wait();
        kill_at_each_step(
            "notify",
            &words,
            || steps_through_a_notify::process(&words, &condition),
            |_| {
                // Whoever was chosen comes through, so that in the end all three can be notified.
                eventually(|| {
                    let _guard = any(condition.acquire());
                    // One that was chosen, and has yet to get the lock, is not reached again.
                    waiting.load(SeqCst) == 3 && condition.notify_all().unwrap() == 3
                });
                let before = woken.load(SeqCst);
                eventually(|| woken.load(SeqCst) >= before.max(3));
                all_wait();
            },
        );
        stop.store(true, SeqCst);
        eventually(|| {
            let _guard = any(condition.acquire());
            condition.notify_all().unwrap();
            waiting.load(SeqCst) == 0
        });
    });
}

// --- barriers

#[mproc::entry]
fn steps_through_a_barrier(words: &Words, barrier: &Barrier) {
    barrier.wait().unwrap();
    stepped(words, || barrier.wait().unwrap());
    // It has taken part, and dies.
    loop {
        thread::park();
    }
}

#[test]
fn a_party_that_dies_breaks_the_barrier_with_its_process() {
    let _watchdog = watchdog("a_party_that_dies_breaks_the_barrier", LIMIT);
    let (words, barrier) = (Words::new(COUNT), Barrier::new(3).unwrap());
    let (broken, go) = (AtomicU64::new(0), AtomicU64::new(0));
    let pid = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 1.. {
                    let error = loop {
                        if let Err(error) = barrier.wait() {
                            break error;
                        }
                    };
                    if go.load(SeqCst) == u64::MAX {
                        return;
                    }
                    eventually(|| pid.load(SeqCst) != 0);
                    assert_eq!(
                        error.dead_process(),
                        Some(pid.load(SeqCst) as u32),
                        "{error}"
                    );
                    broken.fetch_add(1, SeqCst);
                    eventually(|| go.load(SeqCst) >= round);
                    if go.load(SeqCst) == u64::MAX {
                        return;
                    }
                }
            });
        }
        let mut round = 0;
        kill_at_each_step(
            "barrier",
            &words,
            || {
                pid.store(0, SeqCst);
                steps_through_a_barrier::process(&words, &barrier)
            },
            |dead| {
                pid.store(u64::from(dead), SeqCst);
                eventually(|| broken.load(SeqCst) == 2);
                broken.store(0, SeqCst);
                assert!(matches!(
                    barrier.wait(),
                    Err(BarrierError::Broken { died: true, .. })
                ));
                barrier.reset().unwrap();
                round += 1;
                go.store(round, SeqCst);
            },
        );
        go.store(u64::MAX, SeqCst);
        barrier.abort().unwrap();
    });
}

#[mproc::entry]
fn passes(barrier: &Barrier, words: &Words) {
    while barrier.wait().is_ok() {
        words[FREE].fetch_add(1, Relaxed);
    }
    loop {
        thread::park();
    }
}

#[test]
fn a_barrier_breaks_at_random_kills_and_is_mended() {
    let _watchdog = watchdog("a_barrier_breaks_at_random_kills", LIMIT);
    const PARTIES: usize = 4;
    let mut dice = Dice::new("a_barrier_breaks_at_random_kills");
    let barrier = Barrier::new(PARTIES as u32).unwrap();
    for _ in 0..dose(25, 600) {
        let words = Words::new(COUNT);
        let parties: Vec<_> = (0..PARTIES)
            .map(|_| started(passes::process(&barrier, &words)))
            .collect();
        eventually(|| words[FREE].load(Relaxed) > 4);
        dice.pause(Duration::from_micros(300));
        let victim = dice.below(PARTIES as u64) as usize;
        kill_it(&parties[victim]);
        let error = barrier.wait().unwrap_err();
        assert_eq!(error.dead_process(), Some(parties[victim].id()), "{error}");
        for (number, party) in parties.iter().enumerate() {
            if number != victim {
                until_asleep(party.id());
                kill_it(party);
            }
        }
        barrier.reset().unwrap();
        assert!(!barrier.is_broken());
    }
}

// --- together with queues

#[mproc::entry]
fn moves_items(lock: &Lock, from: &Queue<u64>, to: &Queue<u64>, words: &Words, number: usize) {
    loop {
        let _held = any(lock.acquire());
        // The queue's own turns are pending while the lock is in the list.
        if let Ok(item) = from.try_get() {
            to.put(item + 1).unwrap();
        } else if let Ok(item) = to.try_get() {
            from.put(item + 1).unwrap();
        }
        words[FREE + number].fetch_add(1, Relaxed);
    }
}

/// A killed one may take the item in its hand with it, and nothing else.
#[test]
fn queues_are_used_under_a_lock_and_both_survive() {
    let _watchdog = watchdog("queues_are_used_under_a_lock", LIMIT);
    const VICTIMS: usize = 3;
    const ITEMS: usize = 5;
    let mut dice = Dice::new("queues_are_used_under_a_lock");
    let (words, lock) = (Words::new(COUNT), Lock::new().unwrap());
    let (one, other) = (Queue::new().unwrap(), Queue::new().unwrap());
    let start = |number| started(moves_items::process(&lock, &one, &other, &words, number));
    for item in 0..ITEMS {
        one.put(item as u64).unwrap();
    }
    let mut victims: Vec<_> = (0..VICTIMS).map(start).collect();
    for _ in 0..dose(100, 3000) {
        let number = dice.below(VICTIMS as u64) as usize;
        if dice.below(4) > 0 {
            let before = words[FREE + number].load(Relaxed);
            eventually(|| words[FREE + number].load(Relaxed) > before);
        }
        dice.pause(Duration::from_micros(100));
        kill_it(&victims[number]);
        {
            let _held = any(lock.acquire());
            let there = one.len() + other.len();
            assert!(there == ITEMS || there + 1 == ITEMS, "{there} items");
            for item in there..ITEMS {
                one.put(item as u64).unwrap();
            }
        }
        victims[number] = start(number);
        let next = (number + 1) % VICTIMS;
        let before = words[FREE + next].load(Relaxed);
        eventually(|| words[FREE + next].load(Relaxed) > before);
    }
    victims.iter().for_each(kill_it);
    let _held = any(lock.acquire());
    // Each of those that were killed last may have had one.
    assert!(one.len() + other.len() >= ITEMS - VICTIMS);
}
