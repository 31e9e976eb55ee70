//! Events, semaphores and barriers, as they stand, under a model checker: with others at any step, and with deaths at any step. A
//! survivor sleeps only as long as there is nothing for it to do.
//!
//! As in [`queue::model`](crate::queue), preemptions are bounded to 1 where somebody dies; models that take long are run when asked for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::barrier::{Arrived, BarrierCore, BarrierWords, Cause, NotPassed};
use super::event::EventWords;
use super::roster::Roster;
use super::semaphore::{SemaphoreCore, SemaphoreWords};
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
