//! The whole of sending and receiving, as it stands, under a model checker: with the other side at any step, and with its death at any
//! step. Nobody sleeps who could go on, or who could hear that the other one is gone.
//!
//! The ring is a page, so that a writer soon waits for room.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use super::inlet::Inlet;
use super::outlet::{Mouth, Outlet};
use super::words::{GROWTH, PART, PipeWords, kind};
use crate::channel_error::{Patience, RecvError, Trouble};
use crate::shm::lane::HasLane;
use crate::shm::memory::{Memory, Segment};
use crate::sys::{self, Deadline, Outcome};

const SEGMENT: Segment = Segment {
    first: 1,
    pages: GROWTH.first,
};

const WRITER: usize = 0;
const READER: usize = 1;

/// What is the same in all executions: a file, and names for the bell and the line.
struct Things {
    file: Arc<OwnedFd>,
    bell: Arc<OwnedFd>,
    line: Arc<OwnedFd>,
}

impl Things {
    fn new() -> std::io::Result<Self> {
        let (bell, line) = sys::seqpacket_pair()?;
        Ok(Self {
            file: Arc::new(sys::shared_file(SEGMENT.end())?),
            bell: Arc::new(bell),
            line: Arc::new(line),
        })
    }

    fn ends(&self) -> (Mouth, Inlet) {
        let memory = Memory::<PipeWords>::open(Arc::clone(&self.file)).expect("it is long enough");
        memory.words().lane().begin_in(SEGMENT);
        sys::hangs_up_with(self.bell.as_fd(), WRITER);
        sys::hangs_up_with(self.line.as_fd(), READER);
        let (bell, line) = (&self.bell, &self.line);
        let outlet = Outlet::new(
            memory.elsewhere(),
            Arc::clone(bell),
            Arc::clone(bell),
            Arc::clone(line),
        );
        let inlet = Inlet::new(memory, Arc::clone(bell), Arc::clone(line));
        (outlet.mouth, inlet)
    }
}

/// What a process of a model does.
#[derive(Clone, Copy)]
struct Does {
    /// So many messages are sent and received, of this length.
    messages: u8,
    length: usize,
    /// The writer says that no more will come; otherwise it just ends.
    closes: bool,
    /// The reader receives one less and then just ends.
    leaves: bool,
    /// The reader waits for its descriptor, and does not otherwise.
    watches: bool,
}

/// Runs the model with `dies` dying at each of its steps, or nobody.
fn check(does: Does, dies: Option<usize>, preemptions: usize) {
    let things = Arc::new(Things::new().unwrap());
    let mut steps = 0;
    loop {
        let died = Arc::new(Mutex::new(false));
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.max_branches = 20_000;
        {
            let (things, died) = (Arc::clone(&things), Arc::clone(&died));
            model.check(move || {
                let outcome = execute(&things, does, dies.map(|dies| (dies, steps)));
                *died.lock().unwrap() |= outcome.died.iter().any(|died| *died);
            });
        }
        steps += 1;
        let died = *died.lock().unwrap();
        if !died {
            break;
        }
    }
    eprintln!("{steps} models");
}

/// What an event loop does.
fn wait_until_readable(inlet: &Inlet) {
    if !inlet.has_rung() {
        let heard = sys::wait_line(inlet.bell.as_fd(), Deadline::NEVER);
        heard.expect("there is a bell");
    }
}

fn execute(things: &Things, does: Does, dies: Option<(usize, usize)>) -> Outcome {
    let (mut mouth, mut inlet) = things.ends();
    let watched = mouth.memory.elsewhere();
    let seen = Arc::new(Mutex::new((Vec::new(), None)));
    let write = move || {
        for number in 0..does.messages {
            let payload = vec![number; does.length];
            let (short, long) = (kind::VALUE, kind::LONG_VALUE);
            match mouth.send(short, long, &payload, &[], Patience::FOREVER) {
                Ok(()) => {}
                Err(Trouble::Disconnected) => break,
                Err(trouble) => panic!("{trouble:?}"),
            }
        }
        if does.closes {
            mouth.close();
        }
    };
    let read = {
        let seen = Arc::clone(&seen);
        move || {
            if does.watches {
                inlet.watch().expect("there is room for descriptors");
            }
            // Who watches reads to the end.
            let most = does.messages - u8::from(does.leaves) + u8::from(does.watches);
            for _ in 0..most {
                let patience = if does.watches {
                    wait_until_readable(&inlet);
                    Patience::None
                } else {
                    Patience::FOREVER
                };
                match inlet.receive(patience) {
                    Ok(()) => {
                        let (bytes, _) = inlet.encoding();
                        assert_eq!(bytes.len(), does.length, "a torn message");
                        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                        seen.lock().unwrap().0.push(bytes[0]);
                    }
                    Err(error) => {
                        assert!(matches!(error, RecvError::Disconnected), "{error:?}");
                        seen.lock().unwrap().1 = Some(error);
                        break;
                    }
                }
            }
        }
    };
    let steps = |process| dies.and_then(|(dies, steps)| (dies == process).then_some(steps));
    let outcome = sys::run(vec![
        (Box::new(write), steps(WRITER)),
        (Box::new(read), steps(READER)),
    ]);
    let tell = Told;
    for (name, asleep) in ["the writer", "the reader"].iter().zip(&outcome.asleep) {
        assert!(asleep.is_empty(), "{name} sleeps for ever");
    }
    let (numbers, error) = &*seen.lock().unwrap();
    let expected: Vec<u8> = (0..numbers.len() as u8).collect();
    assert_eq!(*numbers, expected, "in order, once");
    if error.is_some() {
        let is_all = numbers.len() == usize::from(does.messages);
        assert!(outcome.died[WRITER] || is_all, "an end before the end");
        assert!(
            watched.words().lane().is_empty(),
            "an end before the last message"
        );
    }
    if !outcome.died[READER] && !outcome.died[WRITER] {
        assert_eq!(
            numbers.len(),
            usize::from(does.messages - u8::from(does.leaves))
        );
    }
    std::mem::forget(tell);
    outcome
}

/// Tells what happened when an assertion fails.
struct Told;

impl Drop for Told {
    fn drop(&mut self) {
        sys::tell();
    }
}

const FEW: Does = Does {
    messages: 2,
    length: 8,
    closes: false,
    leaves: false,
    watches: false,
};

/// Three fit, so the writer waits for room.
const MANY: Does = Does {
    messages: 5,
    length: 1000,
    ..FEW
};

/// Of two parts each, and they fill the ring.
const LONG: Does = Does {
    messages: 2,
    length: 2 * PART,
    ..FEW
};

#[test]
fn a_message_is_heard_of() {
    check(FEW, None, 3);
}

#[test]
fn a_full_pipe_goes_on() {
    check(MANY, None, 1);
}

#[test]
fn long_messages_go_through() {
    check(LONG, None, 1);
}

#[test]
fn the_end_is_heard_of() {
    check(
        Does {
            messages: 3,
            closes: true,
            ..FEW
        },
        None,
        2,
    );
}

/// With the writer stopped before it looks whether to ring, and between that and the ring.
#[test]
fn what_is_announced_is_there() {
    for closes in [false, true] {
        let does = Does {
            closes,
            watches: true,
            ..FEW
        };
        check(does, None, 3);
    }
}

#[test]
fn what_is_announced_of_a_full_pipe_is_there() {
    let does = Does {
        watches: true,
        ..MANY
    };
    check(does, None, 1);
}

#[test]
fn what_a_dead_writer_announced_is_there() {
    let does = Does {
        watches: true,
        ..FEW
    };
    check(does, Some(WRITER), 2);
}

#[test]
fn the_writer_dies() {
    check(FEW, Some(WRITER), 2);
}

#[test]
fn the_writer_of_a_full_pipe_dies() {
    check(MANY, Some(WRITER), 1);
}

#[test]
fn the_reader_of_a_full_pipe_dies() {
    check(MANY, Some(READER), 1);
}

#[test]
fn the_reader_of_a_full_pipe_leaves() {
    check(
        Does {
            leaves: true,
            messages: 6,
            ..MANY
        },
        None,
        1,
    );
}
