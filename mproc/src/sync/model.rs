//! Locks, conditions, events, semaphores and barriers, as they stand, under a model checker: with others at any step, and with deaths at any step. A
//! survivor sleeps only as long as there is nothing for it to do.
//!
//! As in [`queue::model`](crate::queue), preemptions are bounded to 1 where somebody dies; models that take long are run when asked for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::barrier::{Arrived, BarrierCore, BarrierWords, Cause, NotPassed};
use super::condition::{ConditionCore, ConditionWords};
use super::event::EventWords;
use super::lock::{Acquired, LockCore, ModelPage, Patience};
use super::roster::Roster;
use super::semaphore::{SemaphoreCore, SemaphoreWords};
use crate::shm::atomic::{AtomicU32, Ordering, word};
use crate::shm::memory::{Memory, PageOfWords};
use crate::sys::{self, Deadline, Outcome, PAGE, Part};

/// What is the same in all executions.
fn file() -> Arc<OwnedFd> {
    Arc::new(sys::shared_file(PAGE as u64).expect("there is memory"))
}

/// Runs a model with the first `deaths` of its processes dying at each of their steps, together. `scene` makes the parts of one execution
/// and what is to be said of how it ended.
fn check<Scene>(deaths: usize, preemptions: usize, scene: Scene)
where
    Scene:
        Fn() -> (Vec<Box<dyn FnOnce() + Send>>, Box<dyn FnOnce(&Outcome)>) + Send + Sync + 'static,
{
    let scene = Arc::new(scene);
    let mut steps = vec![0; deaths];
    let mut models = 0;
    loop {
        let anybody_died = Arc::new(Mutex::new(vec![false; deaths]));
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.max_branches = 10_000;
        {
            let (scene, steps) = (Arc::clone(&scene), steps.clone());
            let anybody_died = Arc::clone(&anybody_died);
            model.check(move || {
                let (parts, judge) = scene();
                let parts = parts.into_iter().enumerate();
                let parts: Vec<Part> = parts
                    .map(|(index, act)| (act, steps.get(index).copied()))
                    .collect();
                let outcome = sys::run(parts);
                let mut died = anybody_died.lock().unwrap();
                for (died, dies) in died.iter_mut().zip(&outcome.died) {
                    *died |= dies;
                }
                let told = Told;
                judge(&outcome);
                std::mem::forget(told);
            });
        }
        models += 1;
        let died = anybody_died.lock().unwrap().clone();
        let mut next = 0;
        while next < deaths {
            if died[next] {
                steps[next] += 1;
                break;
            }
            steps[next] = 0;
            next += 1;
        }
        if next == deaths {
            break;
        }
    }
    eprintln!("{models} models");
}

/// Tells what happened when an assertion fails.
struct Told;

impl Drop for Told {
    fn drop(&mut self) {
        sys::tell();
    }
}

fn memory<Words: PageOfWords>(file: &Arc<OwnedFd>) -> Memory<Words> {
    Memory::open(Arc::clone(file)).expect("it is long enough")
}

// --- events

#[derive(Clone, Copy)]
enum EventDoes {
    Sets,
    Clears,
    Waits,
}

fn event(does: &'static [EventDoes], deaths: usize, preemptions: usize) {
    let file = file();
    check(deaths, preemptions, move || {
        let words = memory::<EventWords>(&file);
        let parts = does.iter().map(|does| {
            let words = words.elsewhere();
            let act: Box<dyn FnOnce() + Send> = match does {
                EventDoes::Sets => Box::new(move || words.words().set().unwrap()),
                EventDoes::Clears => Box::new(move || words.words().clear()),
                EventDoes::Waits => {
                    Box::new(move || assert!(words.words().wait(Deadline::NEVER).unwrap()))
                }
            };
            act
        });
        let parts = parts.collect();
        let judge = move |outcome: &Outcome| {
            if words.words().is_set() {
                let asleep = outcome.asleep.iter().filter(|words| !words.is_empty());
                assert_eq!(asleep.count(), 0, "one sleeps though the event is set");
            }
        };
        (parts, Box::new(judge))
    });
}

#[test]
fn an_event_is_heard_of() {
    use EventDoes::{Clears, Sets, Waits};
    event(&[Sets, Waits, Waits], 0, 2);
    event(&[Sets, Clears, Waits], 0, 2);
}

#[test]
fn an_event_s_setter_dies() {
    use EventDoes::{Sets, Waits};
    event(&[Sets, Waits, Waits], 1, 1);
}

#[test]
fn an_event_s_setter_and_a_waiter_die() {
    use EventDoes::{Sets, Waits};
    event(&[Sets, Waits, Waits], 2, 1);
}

// --- semaphores

#[derive(Clone, Copy)]
enum PermitDoes {
    /// Takes one and gives it back.
    Uses,
    /// Takes one and keeps it.
    Keeps,
    Signals,
}

fn permits(permits: u32, does: &'static [PermitDoes], deaths: usize, preemptions: usize) {
    let file = file();
    check(deaths, preemptions, move || {
        let roster = Roster::<SemaphoreWords>::open(Arc::clone(&file)).unwrap();
        let core = SemaphoreCore::over(roster.elsewhere());
        core.begin(permits, 0);
        let parts = does.iter().map(|does| {
            let core = SemaphoreCore::over(roster.elsewhere());
            let does = *does;
            let act: Box<dyn FnOnce() + Send> = Box::new(move || match does {
                PermitDoes::Uses => {
                    let seat = core.acquire(Some(Deadline::NEVER)).unwrap();
                    core.give_back(seat, false).unwrap();
                }
                PermitDoes::Keeps => {
                    core.acquire(Some(Deadline::NEVER)).unwrap();
                }
                PermitDoes::Signals => core.signal().unwrap(),
            });
            act
        });
        let parts = parts.collect();
        let judge = move |outcome: &Outcome| {
            let asleep = outcome.asleep.iter().filter(|words| !words.is_empty());
            let asleep = asleep.count();
            // Those who were to keep one and came to their end have it, whether or not the process is there.
            let kept = does
                .iter()
                .enumerate()
                .filter(|(index, does)| {
                    matches!(does, PermitDoes::Keeps)
                        && !outcome.died[*index]
                        && outcome.asleep[*index].is_empty()
                })
                .count() as u32;
            let signals = |dead| {
                does.iter()
                    .enumerate()
                    .filter(|(index, does)| {
                        matches!(does, PermitDoes::Signals) && (dead || !outcome.died[*index])
                    })
                    .count() as u32
            };
            let free = core.free_in_model();
            let least = permits + signals(false) - kept;
            let most = permits + signals(true) - kept;
            assert!((least..=most).contains(&free), "{free} free, {kept} kept");
            assert!(
                free == 0 || asleep == 0,
                "one sleeps though there is a permit"
            );
        };
        (parts, Box::new(judge))
    });
}

use PermitDoes::{Keeps, Signals, Uses};

#[test]
fn a_permit_goes_round() {
    permits(1, &[Uses, Uses, Uses], 0, 1);
}

#[test]
fn a_signal_is_heard_of() {
    permits(0, &[Signals, Keeps, Uses], 0, 1);
}

#[test]
fn a_holder_of_a_permit_dies() {
    permits(1, &[Keeps, Uses], 1, 2);
    permits(1, &[Uses, Uses, Uses], 1, 1);
}

#[test]
fn a_signaller_dies() {
    permits(0, &[Signals, Keeps, Signals], 1, 1);
}

#[test]
#[ignore = "some minutes"]
fn a_holder_and_a_sleeper_die() {
    permits(1, &[Keeps, Uses, Uses], 2, 1);
}

// --- barriers

/// Each of them waits once. Those that died are told apart from those that passed.
fn barrier(parties: u32, aborts: bool, deaths: usize, preemptions: usize) {
    let file = file();
    check(deaths, preemptions, move || {
        let roster = Roster::<BarrierWords>::open(Arc::clone(&file)).unwrap();
        let core = BarrierCore::over(roster.elsewhere());
        core.begin(parties);
        let passed = Arc::new(Mutex::new(Vec::new()));
        let broken = Arc::new(Mutex::new(0));
        let mut parts: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for _ in 0..parties {
            let core = BarrierCore::over(roster.elsewhere());
            let (passed, broken) = (Arc::clone(&passed), Arc::clone(&broken));
            parts.push(Box::new(move || {
                let waited = match core.arrive(Deadline::NEVER, false) {
                    Ok(Arrived::Wait(waiting)) => core.wait(waiting, Deadline::NEVER),
                    Ok(Arrived::Passed(index)) => Ok(index),
                    Ok(Arrived::Act(_)) => unreachable!("nothing to do"),
                    Err(error) => Err(error),
                };
                match waited {
                    Ok(index) => passed.lock().unwrap().push(index),
                    Err(NotPassed::Broken(..)) => *broken.lock().unwrap() += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }));
        }
        if aborts {
            let core = BarrierCore::over(roster.elsewhere());
            parts.push(Box::new(move || core.abort(Cause::Aborted).unwrap()));
        }
        let judge = move |outcome: &Outcome| {
            let asleep = outcome.asleep.iter().filter(|words| !words.is_empty());
            let asleep = asleep.count();
            let passed = passed.lock().unwrap().len();
            let sleeps_on = core.is_broken();
            assert!(!(sleeps_on && asleep > 0), "one sleeps though it is broken");
            let died = outcome.died.iter().filter(|died| **died).count();
            if passed > 0 {
                assert_eq!(asleep, 0, "one sleeps though others have passed");
            }
            if died == 0 && !aborts {
                assert_eq!(passed, parties as usize, "all pass");
            }
        };
        (parts, Box::new(judge))
    });
}

#[test]
fn all_pass_a_barrier() {
    barrier(2, false, 0, 2);
}

#[test]
fn three_pass_a_barrier() {
    barrier(3, false, 0, 1);
}

#[test]
fn a_barrier_is_aborted() {
    barrier(2, true, 0, 2);
}

#[test]
fn a_party_dies() {
    barrier(2, false, 1, 2);
}

#[test]
fn one_of_three_parties_dies() {
    barrier(3, false, 1, 1);
}

#[test]
#[ignore = "some minutes"]
fn two_of_three_parties_die() {
    barrier(3, false, 2, 1);
}

// --- locks

/// Half done: between taking the lock and freeing it.
#[derive(Debug, Default)]
struct Scene {
    dirty: AtomicU32,
    inside: AtomicU32,
    tokens: AtomicU32,
}

impl Scene {
    /// What has just been taken by `me` is looked at: what is half done is no surprise, and nobody else is there.
    fn enter(&self, me: u32, acquired: Acquired) {
        let dirty = self.dirty.load(Ordering::Relaxed) == 1;
        assert!(
            !dirty || acquired != Acquired::Clean,
            "one was not told of what is half done"
        );
        self.inside.store(me, Ordering::Relaxed);
        self.dirty.store(1, Ordering::Relaxed);
    }

    fn leave(&self, me: u32) {
        assert_eq!(self.inside.load(Ordering::Relaxed), me, "two are inside");
        self.dirty.store(0, Ordering::Relaxed);
    }
}

/// Nobody sleeps for a lock that is free.
fn nobody_waits_for_what_is_free(lock: &LockCore, outcome: &Outcome) {
    let address = word(lock.state()).address();
    let waits = |words: &Vec<usize>| words.contains(&address);
    assert!(
        lock.owner() != 0 || !outcome.asleep.iter().any(waits),
        "one sleeps though the lock is free"
    );
}

fn lock(users: u32, guards_data: bool, deaths: usize, preemptions: usize) {
    let file = file();
    check(deaths, preemptions, move || {
        let lock = LockCore::over(memory::<ModelPage>(&file), guards_data);
        let scene = Arc::new(Scene::default());
        let parts = (1..=users).map(|me| {
            let (lock, scene) = (lock.elsewhere(), Arc::clone(&scene));
            let act: Box<dyn FnOnce() + Send> = Box::new(move || {
                let acquired = lock.acquire(Patience::FOREVER).unwrap();
                scene.enter(me, acquired);
                scene.leave(me);
                if acquired != Acquired::Clean {
                    lock.mark_consistent();
                }
                lock.release();
            });
            act
        });
        let parts = parts.collect();
        let judge = move |outcome: &Outcome| {
            nobody_waits_for_what_is_free(&lock, outcome);
            let asleep = outcome.asleep.iter().filter(|words| !words.is_empty());
            assert_eq!(asleep.count(), 0, "somebody never got it");
        };
        (parts, Box::new(judge))
    });
}

#[test]
fn a_lock_goes_round() {
    lock(3, false, 0, 1);
    lock(2, false, 0, 2);
}

#[test]
fn an_owner_dies() {
    lock(2, false, 1, 2);
    lock(3, false, 1, 1);
}

#[test]
fn an_owner_of_data_dies() {
    lock(3, true, 1, 1);
}

#[test]
#[ignore = "some minutes"]
fn two_owners_die() {
    lock(3, true, 2, 1);
}

// --- conditions

#[derive(Clone, Copy, PartialEq)]
enum ConditionDoes {
    /// Waits for a token and takes it.
    Waits,
    /// Puts one there and notifies one.
    Notifies,
    /// Puts one there for each waiter and notifies all.
    NotifiesAll,
}

fn condition(does: &'static [ConditionDoes], deaths: usize, preemptions: usize) {
    use ConditionDoes::{Notifies, NotifiesAll, Waits};
    let file = file();
    check(deaths, preemptions, move || {
        let lock = LockCore::over(memory::<ModelPage>(&file), false);
        let roster = Roster::<ConditionWords>::open(Arc::clone(&file)).unwrap();
        let scene = Arc::new(Scene::default());
        // Of those who notified one and lived to tell.
        let reached = Arc::new(Mutex::new(Vec::new()));
        let parts = does.iter().zip(1..).map(|(does, me)| {
            let (lock, scene) = (lock.elsewhere(), Arc::clone(&scene));
            let core = ConditionCore::over(roster.elsewhere());
            let reached = Arc::clone(&reached);
            let does = *does;
            let act: Box<dyn FnOnce() + Send> = Box::new(move || {
                scene.enter(me, lock.acquire(Patience::FOREVER).unwrap());
                if does == Waits {
                    while scene.tokens.load(Ordering::Relaxed) == 0 {
                        scene.leave(me);
                        let waited = core.wait(&lock, Deadline::NEVER).unwrap();
                        scene.enter(me, waited.acquired);
                        assert!(waited.notified);
                    }
                    scene.tokens.fetch_sub(1, Ordering::Relaxed);
                } else {
                    let count = if does == Notifies { 1 } else { 3 };
                    scene.tokens.fetch_add(count, Ordering::Relaxed);
                    let chosen = core.notify(&lock, count as usize).unwrap();
                    if does == Notifies {
                        reached.lock().unwrap().push(chosen);
                    }
                }
                scene.leave(me);
                lock.release();
            });
            act
        });
        let parts = parts.collect();
        let judge = move |outcome: &Outcome| {
            nobody_waits_for_what_is_free(&lock, outcome);
            assert_eq!(lock.owner(), 0, "somebody holds the lock for ever");
            let asleep = outcome
                .asleep
                .iter()
                .filter(|words| !words.is_empty())
                .count();
            // Who was chosen is awake, whoever chose it and died.
            for seat in 0..roster.used() {
                let state = &roster.seat(seat).state;
                let address = word(state).address();
                let sleeps = outcome.asleep.iter().any(|words| words.contains(&address));
                assert!(
                    !sleeps || state.load(Ordering::SeqCst) == super::condition::WAITING,
                    "one sleeps though it was chosen"
                );
            }
            let lived = |wanted| {
                let pairs = does.iter().zip(&outcome.died);
                pairs
                    .filter(|(does, died)| **does == wanted && !**died)
                    .count()
            };
            if lived(NotifiesAll) > 0 {
                assert_eq!(asleep, 0, "one sleeps though all were notified");
            }
            let reached: usize = reached.lock().unwrap().iter().sum();
            let died = outcome.died.iter().filter(|died| **died).count();
            if died == 0 {
                let (waiters, notifiers) = (lived(Waits), lived(Notifies));
                if notifiers > 0 {
                    assert_eq!(asleep, waiters.saturating_sub(notifiers));
                }
            }
            // Who sleeps though there is a token for it has lost it to one who was chosen and then died.
            let tokens = scene.tokens.load(Ordering::SeqCst);
            let notifiers = does.iter().filter(|does| **does == Notifies).count();
            if asleep > 0 && tokens > 0 && notifiers > 0 && lived(Notifies) == notifiers {
                assert!(died > 0 && reached > 0, "a notify was lost");
            }
        };
        (parts, Box::new(judge))
    });
}

use ConditionDoes::{Notifies, NotifiesAll, Waits as Awaits};

#[test]
fn a_notify_reaches_one() {
    condition(&[Awaits, Notifies], 0, 2);
    condition(&[Awaits, Awaits, Notifies], 0, 1);
}

#[test]
fn all_are_notified() {
    condition(&[Awaits, Awaits, NotifiesAll], 0, 1);
}

#[test]
fn a_waiter_dies() {
    condition(&[Awaits, Notifies], 1, 1);
    condition(&[Awaits, Awaits, Notifies], 1, 1);
}

#[test]
fn who_notifies_dies() {
    condition(&[NotifiesAll, Awaits, Awaits], 1, 2);
    condition(&[Notifies, Awaits, Awaits], 1, 2);
}

#[test]
#[ignore = "some minutes"]
fn who_notifies_and_a_waiter_die() {
    condition(&[Notifies, Awaits, Awaits], 2, 1);
}
