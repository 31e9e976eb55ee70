//! Pipes: whole messages in order, deadlines that hold, errors that hand back what they got (G9, G14, G16).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mproc::{Child, Connection, Fd, Receiver, RecvError, SendError, Sender, pipe};
use mproc_tests::{Dice, descriptors, dose, eventually, interruptions, state_of, storm, watchdog};
use nix::libc;
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use serde::de::Error as _;
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LIMIT: Duration = Duration::from_secs(120);

/// Long enough to tell that something never comes from that it comes late on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What message `number` says. Two numbers never say the same, and no part of it is another message.
fn text(number: u64, length: usize) -> String {
    let mut text = format!("{number:015};").repeat(length / 16 + 1);
    text.truncate(length);
    text
}

/// How long message `number` is: mostly small, now and then too long for any buffer.
fn length_of(number: u64) -> usize {
    let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    match scattered % 64 {
        0 => scattered as usize % (3 << 20),
        1..8 => scattered as usize % (64 << 10),
        _ => scattered as usize % 200,
    }
}

fn check(number: u64, (got, said): &(u64, String)) {
    assert_eq!(*got, number, "out of order");
    assert!(
        *said == text(number, length_of(number)),
        "message {number} is torn"
    );
}

#[mproc::entry]
fn send_numbers(mut tx: Sender<u64>, from: u64, to: u64) {
    for number in from..to {
        tx.send(number).unwrap();
    }
}

#[mproc::entry]
fn send_texts(mut tx: Sender<(u64, String)>, count: u64) {
    for number in 0..count {
        tx.send((number, text(number, length_of(number)))).unwrap();
    }
}

#[mproc::entry]
fn check_texts(mut rx: Receiver<(u64, String)>) -> u64 {
    let mut number = 0;
    for message in &mut rx {
        check(number, &message.unwrap());
        number += 1;
    }
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    number
}

#[test]
fn numbers_arrive_in_order() {
    let _watchdog = watchdog("numbers_arrive_in_order", LIMIT);
    let count = dose(200_000, 20_000_000) as u64;
    let (tx, rx) = pipe().unwrap();
    let child = send_numbers::spawn(tx, 0, count).unwrap();
    let mut expected = 0..count;
    for number in rx {
        assert_eq!(Some(number.unwrap()), expected.next());
    }
    assert_eq!(expected.next(), None, "the end came early");
    child.join().unwrap();
}

#[test]
fn texts_of_all_lengths_arrive_whole() {
    let _watchdog = watchdog("texts_of_all_lengths_arrive_whole", LIMIT);
    let count = dose(2000, 200_000) as u64;
    let (from_parent, to_child) = pipe().unwrap();
    let child = check_texts::spawn(to_child).unwrap();
    let (to_parent, from_child) = pipe().unwrap();
    let other = send_texts::spawn(to_parent, count).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| send_texts(from_parent, count));
        assert_eq!(check_texts(from_child), count);
    });
    assert_eq!(child.join().unwrap(), count);
    other.join().unwrap();
}

/// Around every length at which a buffer, a word or a page may end.
#[test]
fn every_length_around_the_edges() {
    let _watchdog = watchdog("every_length_around_the_edges", LIMIT);
    let edges = (9..=23).flat_map(|power| {
        let edge = 1_usize << power;
        edge - 9..=edge + 9
    });
    let lengths: Vec<usize> = (0..300).chain(edges).collect();
    let (mut tx, mut rx) = pipe::<String>().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, &length) in lengths.iter().enumerate() {
                tx.send(text(number as u64, length)).unwrap();
                tx.send_bytes(text(number as u64, length).as_bytes())
                    .unwrap();
            }
            tx.close();
        });
        for (number, &length) in lengths.iter().enumerate() {
            let expected = text(number as u64, length);
            assert!(rx.recv().unwrap() == expected, "length {length}");
            assert!(rx.recv_bytes(length).unwrap() == expected.as_bytes());
        }
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    });
}

#[test]
fn values_of_every_shape() {
    let _watchdog = watchdog("values_of_every_shape", LIMIT);
    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    enum Shape {
        Unit,
        Tuple(u8, Option<i128>, String),
        Struct { map: BTreeMap<String, Vec<f64>> },
        Nested(Vec<Shape>),
    }
    #[mproc::entry]
    fn echo(rx: Receiver<Shape>, mut tx: Sender<Shape>) {
        for shape in rx {
            tx.send(shape.unwrap()).unwrap();
        }
    }
    let mut deep = Shape::Unit;
    for _ in 0..60 {
        deep = Shape::Nested(vec![deep, Shape::Unit]);
    }
    let shapes = [
        Shape::Unit,
        Shape::Tuple(42, None, "hello".into()),
        Shape::Tuple(0, Some(i128::MIN), String::new()),
        Shape::Struct {
            map: BTreeMap::from([("x".into(), vec![f64::MAX; 1000])]),
        },
        Shape::Nested(vec![Shape::Unit; 100_000]),
        deep,
    ];
    let (mut to_child, theirs) = pipe().unwrap();
    let (ours, mut from_child) = pipe().unwrap();
    let child = echo::spawn(theirs, ours).unwrap();
    for shape in &shapes {
        to_child.send(shape.clone()).unwrap();
        assert_eq!(from_child.recv().unwrap(), *shape);
    }
    to_child.close();
    child.join().unwrap();
    assert!(matches!(from_child.recv(), Err(RecvError::Disconnected)));
}

/// A value without bytes is a message all the same: it counts, and it is something to read (Python's `empty_string`).
#[test]
fn empty_messages_are_messages() {
    let _watchdog = watchdog("empty_messages_are_messages", LIMIT);
    let count = dose(20_000, 1_000_000);
    let (mut tx, mut rx) = pipe::<()>().unwrap();
    assert!(!rx.poll(Duration::ZERO).unwrap());
    tx.send(()).unwrap();
    assert!(rx.poll(Duration::ZERO).unwrap());
    rx.recv().unwrap();
    assert!(!rx.poll(Duration::ZERO).unwrap());
    tx.send_bytes(b"").unwrap();
    assert!(rx.poll(Duration::ZERO).unwrap());
    assert_eq!(rx.recv_bytes(0).unwrap(), b"");
    tx.send_bytes(b"").unwrap();
    assert_eq!(rx.recv_bytes_into(&mut [0_u64; 0]).unwrap(), 0);
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..count {
                tx.send(()).unwrap();
            }
        });
        assert_eq!(rx.iter().map(Result::unwrap).count(), count);
    });
    let (mut tx, mut rx) = pipe::<String>().unwrap();
    tx.send(String::new()).unwrap();
    tx.send("after".into()).unwrap();
    assert_eq!(rx.recv().unwrap(), "");
    assert_eq!(rx.recv().unwrap(), "after");
}

/// As long as there is nothing in the pipe, wherever in its memory the last one ended.
#[test]
fn an_empty_pipe_takes_any_message_that_fits_at_all() {
    let _watchdog = watchdog("an_empty_pipe_takes_any_message", LIMIT);
    let (mut tx, mut rx) = pipe::<()>().unwrap();
    for megabytes in [0.5, 1.5, 1.9, 1.1, 0.1, 1.99] {
        let bytes = vec![1; (megabytes * f64::from(1 << 20)) as usize];
        for round in 0..5 {
            tx.try_send_bytes(&bytes)
                .unwrap_or_else(|error| panic!("{megabytes} MiB, round {round}: {error}"));
            assert!(rx.recv_bytes(usize::MAX).unwrap() == bytes);
        }
    }
}

/// Python's `sendbytes`, with slices in place of offset and size.
#[test]
fn bytes_go_into_vectors_and_into_arrays() {
    let _watchdog = watchdog("bytes_go_into_vectors_and_into_arrays", LIMIT);
    #[mproc::entry]
    fn echo_bytes(mut rx: Receiver<()>, mut tx: Sender<()>) {
        while let Ok(bytes) = rx.recv_bytes(usize::MAX) {
            tx.send_bytes(&bytes).unwrap();
        }
    }
    let (mut tx, theirs) = pipe().unwrap();
    let (ours, mut rx) = pipe().unwrap();
    let child = echo_bytes::spawn(theirs, ours).unwrap();
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    for slice in [
        &letters[..],
        &letters[5..],
        &letters[7..15],
        &letters[26..],
        b"",
    ] {
        tx.send_bytes(slice).unwrap();
        assert_eq!(rx.recv_bytes(26).unwrap(), slice);
    }
    let numbers: Vec<u8> = [42_i32, 1729]
        .into_iter()
        .flat_map(i32::to_ne_bytes)
        .collect();
    tx.send_bytes(&numbers).unwrap();
    let mut array = [0_i32; 5];
    assert_eq!(rx.recv_bytes_into(&mut array).unwrap(), 8);
    assert_eq!(array, [42, 1729, 0, 0, 0]);
    // What is behind the message in the array stays, also within an element.
    tx.send_bytes(&[0; 6]).unwrap();
    let mut array = [u32::MAX; 3];
    assert_eq!(rx.recv_bytes_into_timeout(&mut array, LONG).unwrap(), 6);
    let mut expected = [0xFF; 12];
    expected[..6].fill(0);
    assert_eq!(array.map(u32::to_ne_bytes).concat(), expected);
    tx.close();
    child.join().unwrap();
}

#[test]
fn bytes_and_values_are_told_apart_and_the_message_stays() {
    let _watchdog = watchdog(
        "bytes_and_values_are_told_apart_and_the_message_stays",
        LIMIT,
    );
    for length in [0, 1, 100, 1 << 20] {
        let (mut tx, mut rx) = pipe::<String>().unwrap();
        let said = text(1, length);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                tx.send(said.clone()).unwrap();
                tx.send_bytes(said.as_bytes()).unwrap();
                tx.send("last".into()).unwrap();
            });
            for _ in 0..3 {
                assert!(rx.poll(LONG).unwrap());
                let wrong = rx.recv_bytes(usize::MAX).unwrap_err();
                assert!(matches!(wrong, RecvError::WrongKind), "{wrong:?}");
                let wrong = rx.recv_bytes_into(&mut [0_u8; 4]).unwrap_err();
                assert!(matches!(wrong, RecvError::WrongKind), "{wrong:?}");
                let wrong = rx.recv_bytes_timeout(usize::MAX, LONG).unwrap_err();
                assert!(matches!(wrong, RecvError::WrongKind), "{wrong:?}");
            }
            assert!(rx.recv().unwrap() == said);
            for _ in 0..3 {
                let wrong = rx.recv().unwrap_err();
                assert!(matches!(wrong, RecvError::WrongKind), "{wrong:?}");
                let wrong = rx.recv_timeout(LONG).unwrap_err();
                assert!(matches!(wrong, RecvError::WrongKind), "{wrong:?}");
                // The rest of a long one may still be under way.
                assert!(rx.poll(LONG).unwrap());
            }
            assert!(rx.recv_bytes(length).unwrap() == said.as_bytes());
            assert_eq!(rx.recv().unwrap(), "last");
        });
    }
}

/// In Python, a message that is longer than allowed costs the connection.
#[test]
fn a_message_that_is_too_long_stays_and_one_that_does_not_fit_comes_in_the_error() {
    let _watchdog = watchdog("a_message_that_is_too_long_stays", LIMIT);
    for length in [1, 8, 100, 5 << 20] {
        let (mut tx, mut rx) = pipe::<u64>().unwrap();
        let said = text(7, length).into_bytes();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    tx.send_bytes(&said).unwrap();
                    tx.send(5).unwrap();
                }
            });
            for max in [0, length / 2, length - 1] {
                match rx.recv_bytes(max).unwrap_err() {
                    RecvError::TooLong { length: told, .. } => assert_eq!(told, length),
                    other => panic!("{other:?}"),
                }
            }
            assert!(rx.recv_bytes(length).unwrap() == said);
            assert_eq!(rx.recv().unwrap(), 5);
            let mut small = vec![0_u8; length - 1];
            match rx.recv_bytes_into(&mut small).unwrap_err() {
                RecvError::TooShort(whole) => assert!(whole == said),
                other => panic!("{other:?}"),
            }
            assert_eq!(rx.recv().unwrap(), 5);
        });
    }
}

thread_local! {
    static MOOD: Cell<Mood> = const { Cell::new(Mood::Good) };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Good,
    Errs,
    Panics,
}

/// Serializes half of itself, then does as its thread is in the mood for. Deserializing it does so too.
#[derive(Debug)]
struct Moody {
    before: Vec<Fd>,
    after: String,
}

fn in_a_mood<E>(error: impl FnOnce() -> E) -> Result<(), E> {
    match MOOD.get() {
        Mood::Good => Ok(()),
        Mood::Errs => Err(error()),
        Mood::Panics => std::panic::resume_unwind(Box::new("in the mood to")),
    }
}

impl Serialize for Moody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.before)?;
        in_a_mood(|| S::Error::custom("not in the mood"))?;
        tuple.serialize_element(&self.after)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Moody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (before, after) = Deserialize::deserialize(deserializer)?;
        in_a_mood(|| D::Error::custom("not in the mood"))?;
        Ok(Self { before, after })
    }
}

fn in_the_mood<T>(mood: Mood, act: impl FnOnce() -> T) -> std::thread::Result<T> {
    MOOD.set(mood);
    let result = catch_unwind(AssertUnwindSafe(act));
    MOOD.set(Mood::Good);
    result
}

/// In a process of its own, which counts its descriptors.
#[mproc::entry]
fn fail_to_encode() {
    let (mut tx, mut rx) = pipe::<Moody>().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = Fd::from(OwnedFd::from(writer));
    // First, so that whatever a first descriptor needs is there.
    tx.send(Moody {
        before: vec![writer.clone()],
        after: "first".into(),
    })
    .unwrap();
    let before = descriptors().len();
    // More than fits into any buffer, if each used up a little.
    for round in 0..dose(3000, 300_000) {
        let mood = [Mood::Errs, Mood::Panics][round % 2];
        let length = if round % 100 == 0 { 1 << 20 } else { 1000 };
        let moody = Moody {
            before: vec![writer.clone(); round % 3],
            after: text(1, length),
        };
        match (mood, in_the_mood(mood, || tx.send(moody))) {
            (Mood::Errs, Ok(Err(SendError::Encode(moody, error)))) => {
                assert!(error.to_string().contains("not in the mood"), "{error}");
                assert_eq!(moody.after.len(), length);
            }
            (Mood::Panics, Err(_)) => {}
            (mood, other) => panic!("{mood:?}: {other:?}"),
        }
    }
    assert_eq!(descriptors().len(), before);
    tx.send(Moody {
        before: vec![writer],
        after: "second".into(),
    })
    .unwrap();
    assert_eq!(rx.recv().unwrap().after, "first");
    assert_eq!(rx.recv().unwrap().after, "second");
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    drop((tx, rx));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "a copy is left open");
}

#[test]
fn what_cannot_be_encoded_uses_nothing_up() {
    let _watchdog = watchdog("what_cannot_be_encoded_uses_nothing_up", LIMIT);
    fail_to_encode::spawn().unwrap().join().unwrap();
}

#[mproc::entry]
fn fail_to_decode() {
    let (mut tx, mut rx) = pipe::<Moody>().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = Fd::from(OwnedFd::from(writer));
    let mut open = None;
    for round in 0..dose(600, 60_000) {
        let mood = [Mood::Errs, Mood::Panics][round % 2];
        for number in 0..3 {
            let sent = Moody {
                before: vec![writer.clone(); (round + number) % 3],
                after: text(number as u64, 5 + round % 1000),
            };
            tx.send(sent).unwrap();
        }
        assert_eq!(rx.recv().unwrap().after, text(0, 5 + round % 1000));
        match (mood, in_the_mood(mood, || rx.recv())) {
            (Mood::Errs, Ok(Err(RecvError::Decode(error)))) => {
                assert!(error.to_string().contains("not in the mood"), "{error}");
            }
            (Mood::Panics, Err(_)) => {}
            (mood, other) => panic!("{mood:?}: {other:?}"),
        }
        let third = rx.recv().unwrap();
        assert_eq!(third.after, text(2, 5 + round % 1000));
        assert_eq!(third.before.len(), (round + 2) % 3);
        drop(third);
        // How many, not which: now and then descriptors travel in another socket.
        let now = descriptors().len();
        assert_eq!(*open.get_or_insert(now), now, "round {round}");
    }
    drop((tx, rx, writer));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "a copy is left open");
}

#[test]
fn what_cannot_be_decoded_costs_one_message() {
    let _watchdog = watchdog("what_cannot_be_decoded_costs_one_message", LIMIT);
    fail_to_decode::spawn().unwrap().join().unwrap();
}

/// Both sides have the type, but what is written is not what is read.
#[test]
fn a_message_that_lies_is_an_error_and_no_allocation() {
    let _watchdog = watchdog("a_message_that_lies_is_an_error", LIMIT);
    #[derive(Debug)]
    struct Lies(Vec<String>);
    impl Serialize for Lies {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0.is_empty() {
                (u64::MAX, u64::MAX, "no strings").serialize(serializer)
            } else {
                (&self.0,).serialize(serializer)
            }
        }
    }
    impl<'de> Deserialize<'de> for Lies {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <(Vec<String>,)>::deserialize(deserializer).map(|(strings,)| Self(strings))
        }
    }
    let (mut tx, mut rx) = pipe::<Lies>().unwrap();
    for _ in 0..100 {
        tx.send(Lies(Vec::new())).unwrap();
        tx.send(Lies(vec!["true".into()])).unwrap();
        let error = rx.recv().unwrap_err();
        assert!(matches!(error, RecvError::Decode(_)), "{error:?}");
        assert_eq!(rx.recv().unwrap().0, ["true"]);
    }
}

#[test]
fn nesting_without_end_is_an_error_at_the_sender() {
    let _watchdog = watchdog("nesting_without_end_is_an_error_at_the_sender", LIMIT);
    #[derive(Serialize, Deserialize, Debug)]
    struct Nest(Option<Box<Nest>>);
    let (mut tx, mut rx) = pipe::<Nest>().unwrap();
    let nest = |depth| (0..depth).fold(Nest(None), |inner, _| Nest(Some(Box::new(inner))));
    for depth in [1000, 5000] {
        match tx.send(nest(depth)) {
            Err(SendError::Encode(_, error)) => {
                assert!(error.to_string().contains("deep"), "{error}");
            }
            other => panic!("{:?}", other.is_ok()),
        }
    }
    tx.send(nest(3)).unwrap();
    assert!(rx.recv().unwrap().0.unwrap().0.unwrap().0.is_some());
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
}

/// Puts numbers until there is no more room; the next one to be sent.
fn fill(tx: &mut Sender<(u64, String)>, length: usize) -> u64 {
    for number in 0.. {
        match tx.try_send((number, text(number, length))) {
            Ok(()) => {}
            Err(SendError::Full((handed_back, said))) => {
                assert_eq!(handed_back, number);
                assert!(said == text(number, length));
                return number;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(number < 100_000_000, "a pipe holds its sender back");
    }
    unreachable!()
}

/// Leaves no room for anything: behind the numbers there are as many empty messages as the second number says.
fn stuff(tx: &mut Sender<(u64, String)>, length: usize) -> (u64, u64) {
    let numbers = fill(tx, length);
    let mut empty = 0;
    loop {
        match tx.try_send_bytes(b"") {
            Ok(()) => empty += 1,
            Err(SendError::Full(())) => return (numbers, empty),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_pipe_hands_back_and_goes_on() {
    let _watchdog = watchdog("a_full_pipe_hands_back_and_goes_on", LIMIT);
    for length in [0, 10, 1000, 100_000] {
        let (mut tx, mut rx) = pipe().unwrap();
        let mut expected = 0;
        let mut next = fill(&mut tx, length);
        assert!(next > 0, "an empty pipe has room for {length}");
        for round in 0..1000_u64 {
            for _ in 0..=round % 7 {
                let Ok((number, said)) = rx.try_recv() else {
                    break;
                };
                assert_eq!(number, expected);
                assert!(said == text(number, length));
                expected += 1;
            }
            if tx.try_send((next, text(next, length))).is_ok() {
                next += 1;
            }
        }
        for (number, said) in std::iter::from_fn(|| rx.try_recv().ok()) {
            assert_eq!(number, expected);
            assert!(said == text(number, length));
            expected += 1;
        }
        assert_eq!(expected, next);
        tx.try_send((next, text(next, length))).unwrap();
        assert_eq!(rx.recv().unwrap().0, next);
    }
}

/// Also nothing of the room: what follows finds the pipe as empty as it was.
#[test]
fn what_did_not_fit_uses_nothing_up() {
    let _watchdog = watchdog("what_did_not_fit_uses_nothing_up", LIMIT);
    let (mut tx, mut rx) = pipe().unwrap();
    for length in [2 << 20, 3 << 20, 32 << 20] {
        for _ in 0..20 {
            let error = tx.try_send((0, text(0, length))).unwrap_err();
            assert!(matches!(error, SendError::Full(_)));
            let error = tx.try_send_bytes(&vec![0; length]).unwrap_err();
            assert!(matches!(error, SendError::Full(())));
        }
        for number in 0..100 {
            tx.try_send((number, text(number, 1000))).unwrap();
        }
        for number in 0..100 {
            assert_eq!(rx.try_recv().unwrap(), (number, text(number, 1000)));
        }
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    }
}

/// With nobody who makes room, a deadline is all that ends a send; after it the pipe is as before.
#[test]
fn deadlines_of_sends_hold_and_hand_back() {
    let _watchdog = watchdog("deadlines_of_sends_hold_and_hand_back", LIMIT);
    let (mut tx, mut rx) = pipe().unwrap();
    let (count, empty) = stuff(&mut tx, 10);
    for timeout in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_micros(300),
        Duration::from_millis(30),
    ] {
        for length in [10, 64 << 20] {
            let message = (count, text(count, length));
            let begin = Instant::now();
            match tx.send_timeout(message, timeout) {
                Err(SendError::Timeout((number, said))) => {
                    assert!(begin.elapsed() >= timeout, "returned early");
                    assert_eq!((number, said.len()), (count, length));
                }
                other => panic!("{:?}", other.is_ok()),
            }
            let begin = Instant::now();
            match tx.send_bytes_timeout(&vec![1; length], timeout) {
                Err(SendError::Timeout(())) => assert!(begin.elapsed() >= timeout),
                other => panic!("{other:?}"),
            }
        }
    }
    for number in 0..count {
        assert_eq!(rx.recv().unwrap(), (number, text(number, 10)));
    }
    for _ in 0..empty {
        assert_eq!(rx.recv_bytes(0).unwrap(), b"");
    }
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    tx.send_timeout((count, "more".into()), Duration::MAX)
        .unwrap();
    assert_eq!(rx.recv_timeout(Duration::MAX).unwrap().1, "more");
}

#[test]
fn deadlines_of_receives_hold() {
    let _watchdog = watchdog("deadlines_of_receives_hold", LIMIT);
    let (mut tx, mut rx) = pipe::<String>().unwrap();
    for timeout in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_micros(300),
        Duration::from_millis(30),
    ] {
        let hold = |receive: &mut dyn FnMut() -> bool| {
            let begin = Instant::now();
            assert!(receive(), "something came");
            assert!(begin.elapsed() >= timeout, "returned early");
        };
        hold(&mut || matches!(rx.recv_timeout(timeout), Err(RecvError::Timeout)));
        hold(&mut || matches!(rx.recv_bytes_timeout(9, timeout), Err(RecvError::Timeout)));
        hold(&mut || {
            let into = rx.recv_bytes_into_timeout(&mut [0_u8; 9], timeout);
            matches!(into, Err(RecvError::Timeout))
        });
        hold(&mut || !rx.poll(timeout).unwrap());
    }
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    for timeout in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(u32::MAX.into()),
    ] {
        std::thread::scope(|scope| {
            let waiter =
                scope.spawn(|| rx.poll(timeout).unwrap() && rx.recv_timeout(timeout).is_ok());
            tx.send("there".into()).unwrap();
            assert!(waiter.join().unwrap());
        });
    }
}

/// Sends with random deadlines; gives the numbers of those that were sent.
fn send_impatiently(mut tx: Sender<(u64, String)>, times: u64, length: u64) -> Vec<u64> {
    let mut dice = Dice::new("send_impatiently");
    let mut sent = Vec::new();
    for number in 0..times {
        let length = dice.below(length) as usize;
        let patience = Duration::from_micros(dice.below(1 << (6 + number % 7)));
        match tx.send_timeout((number, text(number, length)), patience) {
            Ok(()) => sent.push(number),
            Err(SendError::Timeout((handed_back, said))) => {
                assert_eq!(handed_back, number);
                assert!(said == text(number, length));
            }
            Err(error) => panic!("{error}"),
        }
    }
    // However it went before, this one arrives.
    tx.send((times, "the end".into())).unwrap();
    sent
}

/// Receives with random deadlines and pauses; gives the numbers of those that came whole.
fn receive_impatiently(mut rx: Receiver<(u64, String)>) -> Vec<u64> {
    let mut dice = Dice::new("receive_impatiently");
    let mut got = Vec::new();
    loop {
        let patience = Duration::from_micros(dice.below(500));
        match rx.recv_timeout(patience) {
            Ok((_, said)) if said == "the end" => return got,
            Ok((number, said)) => {
                assert!(said == text(number, said.len()), "message {number} is torn");
                got.push(number);
            }
            Err(RecvError::Timeout) => dice.pause(Duration::from_micros(300)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A send that times out in the middle of a long message takes back what the other side has of it; a receive that does
/// goes on at the next call. So what arrives is what was sent, whoever was impatient.
#[test]
fn deadlines_in_the_middle_of_long_messages() {
    let _watchdog = watchdog("deadlines_in_the_middle_of_long_messages", LIMIT);
    #[mproc::entry]
    fn receive(rx: Receiver<(u64, String)>) -> Vec<u64> {
        receive_impatiently(rx)
    }
    for length in [1000, 200_000, 8 << 20] {
        let times = dose(400, 20_000) as u64;
        let (tx, rx) = pipe().unwrap();
        let child = receive::spawn(rx).unwrap();
        let sent = send_impatiently(tx, times, length);
        assert!(child.join().unwrap() == sent);
        // The short ones always found room.
        let all = sent.len() as u64 == times;
        assert!(!all || length < 1 << 20, "no deadline was short enough");
    }
}

#[test]
fn a_receive_goes_on_with_the_message_that_it_gave_up() {
    let _watchdog = watchdog("a_receive_goes_on_with_the_message_that_it_gave_up", LIMIT);
    let (mut tx, mut rx) = pipe::<String>().unwrap();
    let long = text(3, 100 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tx.send(long.clone()).unwrap();
            tx.send_bytes(long.as_bytes()).unwrap();
            tx.send("next".into()).unwrap();
        });
        let mut gave_up = 0;
        let mut whole = loop {
            match rx.recv_timeout(Duration::from_micros(10)) {
                Err(RecvError::Timeout) => gave_up += 1,
                other => break other.unwrap(),
            }
        };
        assert!(whole == long);
        whole.clear();
        let mut buffer = vec![0_u8; long.len() + 1];
        let length = loop {
            match rx.recv_bytes_into_timeout(&mut buffer, Duration::from_micros(10)) {
                Err(RecvError::Timeout) => gave_up += 1,
                other => break other.unwrap(),
            }
        };
        assert!(&buffer[..length] == long.as_bytes());
        assert_eq!(rx.recv().unwrap(), "next");
        assert!(gave_up > 0, "no deadline was short enough to test anything");
    });
}

fn stop(child: &Child<impl Sized>) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).unwrap();
    // Or it has ended, which it may do at any moment.
    eventually(|| matches!(state_of(child.id()), Some('T' | 'Z' | 'X') | None));
}

fn resume(child: &Child<impl Sized>) {
    // OK to ignore: who has ended is not resumed.
    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT);
}

/// Deadlines hold while the other side is stopped at whatever moment, and all goes on after.
#[test]
fn a_stopped_reader_costs_time_and_nothing_else() {
    let _watchdog = watchdog("a_stopped_reader_costs_time_and_nothing_else", LIMIT);
    let mut dice = Dice::new("a_stopped_reader_costs_time_and_nothing_else");
    let (mut tx, rx) = pipe().unwrap();
    let child = check_texts::spawn(rx).unwrap();
    let mut number = 0;
    for _ in 0..dose(60, 5000) {
        dice.pause(Duration::from_micros(500));
        stop(&child);
        loop {
            let message = (number, text(number, length_of(number)));
            let timeout = Duration::from_micros(dice.below(5000));
            let begin = Instant::now();
            match tx.send_timeout(message, timeout) {
                Ok(()) => number += 1,
                Err(SendError::Timeout(message)) => {
                    assert!(begin.elapsed() >= timeout, "returned early");
                    resume(&child);
                    tx.send(message).unwrap();
                    number += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    tx.close();
    assert_eq!(child.join().unwrap(), number);
}

#[test]
fn a_stopped_writer_costs_time_and_nothing_else() {
    let _watchdog = watchdog("a_stopped_writer_costs_time_and_nothing_else", LIMIT);
    let mut dice = Dice::new("a_stopped_writer_costs_time_and_nothing_else");
    let (tx, mut rx) = pipe().unwrap();
    let count = dose(3000, 300_000) as u64;
    let child = send_texts::spawn(tx, count).unwrap();
    let mut stops = 0;
    let mut number = 0;
    while number < count {
        if dice.below(50) == 0 && stops < dose(60, 5000) && child.is_alive() {
            stops += 1;
            stop(&child);
            // What it sent before is there; then, in the middle of a message or not, there is nothing.
            loop {
                let timeout = Duration::from_micros(dice.below(3000));
                let begin = Instant::now();
                match rx.recv_timeout(timeout) {
                    Ok(message) => {
                        check(number, &message);
                        number += 1;
                    }
                    Err(RecvError::Timeout) => {
                        assert!(begin.elapsed() >= timeout, "returned early");
                        break;
                    }
                    Err(RecvError::Disconnected) if number == count => break,
                    Err(error) => panic!("{error}"),
                }
            }
            resume(&child);
        } else {
            check(number, &rx.recv().unwrap());
            number += 1;
        }
    }
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    child.join().unwrap();
}

#[mproc::entry]
fn send_in_a_storm(mut tx: Sender<(u64, String)>, count: u64) -> u64 {
    storm();
    let mut dice = Dice::new("send_in_a_storm");
    for number in 0..count {
        if dice.below(20) == 0 {
            dice.pause(Duration::from_millis(1));
        }
        let message = (number, text(number, length_of(number)));
        match number % 3 {
            0 => tx.send(message).unwrap(),
            _ => tx.send_timeout(message, LONG).unwrap(),
        }
    }
    interruptions()
}

#[mproc::entry]
fn check_in_a_storm(mut rx: Receiver<(u64, String)>) -> u64 {
    storm();
    let mut dice = Dice::new("check_in_a_storm");
    let mut number = 0;
    loop {
        if dice.below(20) == 0 {
            dice.pause(Duration::from_millis(1));
        }
        if number % 5 == 0 {
            assert!(rx.poll(LONG).unwrap());
        }
        let message = match number % 3 {
            0 => rx.recv(),
            _ => rx.recv_timeout(LONG),
        };
        match message {
            Ok(message) => check(number, &message),
            Err(RecvError::Disconnected) => break,
            Err(error) => panic!("{error}"),
        }
        number += 1;
    }
    assert!(interruptions() > 0);
    number
}

#[test]
fn a_storm_of_signals_interrupts_nothing() {
    let _watchdog = watchdog("a_storm_of_signals_interrupts_nothing", LIMIT);
    let count = dose(1500, 100_000) as u64;
    let (tx, rx) = pipe().unwrap();
    let sender = send_in_a_storm::spawn(tx, count).unwrap();
    let receiver = check_in_a_storm::spawn(rx).unwrap();
    assert!(sender.join().unwrap() > 0, "no signal came");
    assert_eq!(receiver.join().unwrap(), count);
}

#[test]
fn a_storm_of_signals_moves_no_deadline() {
    let _watchdog = watchdog("a_storm_of_signals_moves_no_deadline", LIMIT);
    #[mproc::entry]
    fn hold_in_a_storm() -> u64 {
        storm();
        let (mut tx, mut rx) = pipe().unwrap();
        let timeout = Duration::from_millis(40);
        let begin = Instant::now();
        assert!(matches!(rx.recv_timeout(timeout), Err(RecvError::Timeout)));
        assert!(begin.elapsed() >= timeout, "returned early");
        let begin = Instant::now();
        assert!(!rx.poll(timeout).unwrap());
        assert!(begin.elapsed() >= timeout, "returned early");
        let (count, _) = stuff(&mut tx, 1000);
        for length in [0, 32 << 20] {
            let begin = Instant::now();
            let error = tx.send_timeout((count, text(count, length)), timeout);
            assert!(matches!(error, Err(SendError::Timeout(_))));
            assert!(begin.elapsed() >= timeout, "returned early");
        }
        interruptions()
    }
    assert!(hold_in_a_storm::spawn().unwrap().join().unwrap() > 0);
}

/// Bytes that cost little to make and to check: each MiB begins with its number.
fn stamp(bytes: &mut [u8]) {
    for (number, block) in bytes.chunks_mut(1 << 20).enumerate() {
        block.fill(number as u8);
        block[..8].copy_from_slice(&number.to_ne_bytes());
    }
}

fn check_stamps(bytes: &[u8]) {
    let mut expected = vec![0; 1 << 20];
    for (number, block) in bytes.chunks(1 << 20).enumerate() {
        expected.fill(number as u8);
        expected[..8].copy_from_slice(&number.to_ne_bytes());
        assert!(*block == expected[..block.len()], "MiB {number} is torn");
    }
}

#[mproc::entry]
fn send_stamped(mut tx: Sender<String>, size: usize) {
    let mut bytes = vec![0; size];
    stamp(&mut bytes);
    tx.send_bytes(&bytes).unwrap();
    drop(bytes);
    tx.send("next".into()).unwrap();
}

/// Python's `send_bytes` may fail from 32 MiB on.
#[test]
fn gigabytes_in_one_message() {
    let _watchdog = watchdog("gigabytes_in_one_message", LIMIT);
    let size = dose(256 << 20, 4 << 30) + 12_345;
    let (tx, mut rx) = pipe::<String>().unwrap();
    let child = send_stamped::spawn(tx, size).unwrap();
    let mut bytes = vec![0_u8; size + 100];
    assert_eq!(rx.recv_bytes_into(&mut bytes).unwrap(), size);
    check_stamps(&bytes[..size]);
    assert_eq!(rx.recv().unwrap(), "next");
    child.join().unwrap();

    let (mut tx, rx) = pipe::<String>().unwrap();
    #[mproc::entry]
    fn check_stamped(mut rx: Receiver<String>) -> usize {
        let bytes = rx.recv_bytes(usize::MAX).unwrap();
        check_stamps(&bytes);
        bytes.len()
    }
    let child = check_stamped::spawn(rx).unwrap();
    stamp(&mut bytes[..size]);
    tx.send_bytes(&bytes[..size]).unwrap();
    drop(bytes);
    assert_eq!(child.join().unwrap(), size);
}

#[test]
fn a_huge_value_in_one_message() {
    let _watchdog = watchdog("a_huge_value_in_one_message", LIMIT);
    let size = dose(64 << 20, 1 << 30);
    let (mut tx, rx) = pipe::<(Vec<String>, u8)>().unwrap();
    #[mproc::entry]
    fn check_halves(rx: Receiver<(Vec<String>, u8)>) -> usize {
        let mut count = 0;
        for message in rx {
            let (halves, seven) = message.unwrap();
            assert!(halves[0] == text(0, halves[0].len()));
            assert!(halves[1] == text(1, halves[1].len()));
            assert_eq!(seven, 7);
            count += 1;
        }
        count
    }
    let child = check_halves::spawn(rx).unwrap();
    for size in [size, 0, size / 3] {
        let halves = vec![text(0, size / 2), text(1, size - size / 2)];
        tx.send((halves, 7)).unwrap();
    }
    tx.close();
    assert_eq!(child.join().unwrap(), 3);
}

#[test]
fn the_end_is_heard_on_both_sides() {
    let _watchdog = watchdog("the_end_is_heard_on_both_sides", LIMIT);
    let (mut tx, mut rx) = pipe::<u64>().unwrap();
    tx.send(1).unwrap();
    tx.send_bytes(b"two").unwrap();
    tx.close();
    assert!(rx.poll(Duration::ZERO).unwrap());
    assert_eq!(rx.recv().unwrap(), 1);
    assert_eq!(rx.recv_bytes(3).unwrap(), b"two");
    for _ in 0..3 {
        assert!(rx.poll(Duration::ZERO).unwrap(), "the end is something");
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
        assert!(matches!(rx.try_recv(), Err(RecvError::Disconnected)));
        assert!(matches!(
            rx.recv_timeout(LONG),
            Err(RecvError::Disconnected)
        ));
        assert!(matches!(rx.recv_bytes(1), Err(RecvError::Disconnected)));
        assert!(rx.iter().next().is_none());
    }

    let (mut tx, rx) = pipe::<u64>().unwrap();
    tx.send(1).unwrap();
    rx.close();
    for number in 0..3 {
        assert!(matches!(tx.send(number), Err(SendError::Disconnected(back)) if back == number));
        assert!(
            matches!(tx.try_send(number), Err(SendError::Disconnected(back)) if back == number)
        );
        let error = tx.send_timeout(number, LONG).unwrap_err();
        assert!(matches!(error, SendError::Disconnected(_)));
        assert_eq!(error.into_inner(), number);
        let error = tx.send_bytes(b"x").unwrap_err();
        assert!(matches!(error, SendError::Disconnected(())));
    }
}

/// Whoever sleeps when the other end goes is woken.
#[test]
fn sleepers_hear_the_end() {
    let _watchdog = watchdog("sleepers_hear_the_end", LIMIT);
    let mut dice = Dice::new("sleepers_hear_the_end");
    for round in 0..dose(300, 30_000) {
        let (mut tx, mut rx) = pipe().unwrap();
        let moment = Duration::from_micros(300);
        if round % 3 == 0 {
            let reader = std::thread::spawn(move || rx.recv());
            dice.pause(moment);
            drop(tx);
            let end = reader.join().unwrap();
            assert!(matches!(end, Err(RecvError::Disconnected)));
        } else {
            let length = if round % 3 == 1 { 10 } else { 2 << 20 };
            let writer = std::thread::spawn(move || {
                for number in 0.. {
                    match tx.send((number, text(number, length))) {
                        Ok(()) => {}
                        Err(SendError::Disconnected((handed_back, said))) => {
                            assert_eq!(handed_back, number);
                            assert!(said == text(number, length));
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            dice.pause(moment);
            drop(rx);
            writer.join().unwrap();
        }
    }
}

#[test]
fn iteration_ends_at_the_end_and_lends_or_takes() {
    let _watchdog = watchdog("iteration_ends_at_the_end_and_lends_or_takes", LIMIT);
    let (mut tx, mut rx) = pipe::<u64>().unwrap();
    for number in 0..10 {
        tx.send(number).unwrap();
    }
    let mut got: Vec<u64> = rx.iter().take(3).map(Result::unwrap).collect();
    for number in &mut rx {
        got.push(number.unwrap());
        if got.len() == 6 {
            break;
        }
    }
    drop(tx);
    for number in rx {
        got.push(number.unwrap());
    }
    assert_eq!(got, (0..10).collect::<Vec<_>>());
}

/// An error in the middle is an item, and not the end.
#[test]
fn iteration_goes_on_behind_an_error() {
    let _watchdog = watchdog("iteration_goes_on_behind_an_error", LIMIT);
    #[derive(Serialize, Debug)]
    struct Odd(u64);
    impl<'de> Deserialize<'de> for Odd {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(Deserialize)]
            struct Odd(u64);
            match Odd::deserialize(deserializer)? {
                Odd(number) if number % 2 == 1 => Ok(Self(number)),
                Odd(_) => Err(D::Error::custom("even")),
            }
        }
    }
    let (mut tx, rx) = pipe().unwrap();
    for number in 0..10 {
        tx.send(Odd(number)).unwrap();
    }
    drop(tx);
    let got: Vec<Option<u64>> = rx
        .into_iter()
        .map(|odd| odd.ok().map(|odd| odd.0))
        .collect();
    let expected: Vec<Option<u64>> = (0..10).map(|n| (n % 2 == 1).then_some(n)).collect();
    assert_eq!(got, expected);
}

#[test]
fn errors_speak_and_convert() {
    let _watchdog = watchdog("errors_speak_and_convert", LIMIT);
    fn fails() -> mproc::Result<()> {
        let (mut tx, rx) = pipe::<String>()?;
        rx.close();
        tx.send("x".into())?;
        Ok(())
    }
    fn ends() -> mproc::Result<u64> {
        let (tx, mut rx) = pipe::<u64>()?;
        tx.close();
        Ok(rx.recv()?)
    }
    fn is_an_error(_: &(dyn std::error::Error + Send + Sync + 'static)) {}
    for text in [
        fails().unwrap_err().to_string(),
        ends().unwrap_err().to_string(),
    ] {
        assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
        assert!(
            text.chars().next().is_some_and(char::is_lowercase),
            "{text}"
        );
    }
    let (mut tx, mut rx) = pipe::<String>().unwrap();
    is_an_error(&rx.try_recv().unwrap_err());
    drop(rx);
    is_an_error(&tx.send("x".into()).unwrap_err());
    // What cannot be shown can be sent; the error can be shown all the same.
    struct Silent;
    impl Serialize for Silent {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("silent"))
        }
    }
    let (mut tx, _rx) = pipe::<Silent>().unwrap();
    let Err(error) = tx.send(Silent) else {
        panic!("it was sent");
    };
    assert!(error.to_string().contains("silent"), "{error}");
    let Silent = error.into_inner();
}

/// An end may be given to another thread, and shared by a lock.
#[test]
fn threads_share_an_end_in_a_static() {
    let _watchdog = watchdog("threads_share_an_end_in_a_static", LIMIT);
    static TX: Mutex<Option<Sender<(usize, u64)>>> = Mutex::new(None);
    static RX: Mutex<Option<Receiver<(usize, u64)>>> = Mutex::new(None);
    let (tx, rx) = pipe().unwrap();
    *TX.lock().unwrap() = Some(tx);
    *RX.lock().unwrap() = Some(rx);
    let count = dose(5000, 500_000) as u64;
    let got: Vec<Vec<(usize, u64)>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    for number in 0..count {
                        let mut tx = TX.lock().unwrap();
                        tx.as_mut().unwrap().send((thread, number)).unwrap();
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut got = Vec::new();
                    loop {
                        let mut rx = RX.lock().unwrap();
                        match rx.as_mut().unwrap().recv() {
                            Ok(message) => got.push(message),
                            Err(RecvError::Disconnected) => return got,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        TX.lock().unwrap().take();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect()
    });
    RX.lock().unwrap().take();
    let mut all = BTreeMap::<usize, Vec<u64>>::new();
    for got in got {
        let mut last = BTreeMap::new();
        for (thread, number) in got {
            assert!(last.insert(thread, number).is_none_or(|last| last < number));
            all.entry(thread).or_default().push(number);
        }
    }
    assert_eq!(all.len(), 4);
    for (_, mut numbers) in all {
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..count), "each exactly once");
    }
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros as u64)
}

/// The time is passed by the side that waits, in calls that are to return when it has passed.
#[test]
fn who_waits_uses_no_processor_time() {
    let _watchdog = watchdog("who_waits_uses_no_processor_time", LIMIT);
    #[mproc::entry]
    fn wait_for_nothing(mut rx: Receiver<u64>, mut ready: Sender<()>) -> Duration {
        let (mut tx, _full) = pipe().unwrap();
        let (count, _) = stuff(&mut tx, 1000);
        let before = cpu_time();
        let long = Duration::from_millis(300);
        assert!(matches!(rx.recv_timeout(long), Err(RecvError::Timeout)));
        assert!(!rx.poll(long).unwrap());
        let message = (count, text(count, 1 << 20));
        let error = tx.send_timeout(message, long);
        assert!(matches!(error, Err(SendError::Timeout(_))));
        ready.send(()).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        cpu_time() - before
    }
    let (mut tx, rx) = pipe().unwrap();
    let (ready, mut is_ready) = pipe().unwrap();
    let child = wait_for_nothing::spawn(rx, ready).unwrap();
    is_ready.recv().unwrap();
    eventually(|| state_of(child.id()) == Some('S'));
    // It sleeps in a receive without a deadline; this is for how long.
    assert!(
        child
            .wait_timeout(Duration::from_millis(300))
            .unwrap()
            .is_none()
    );
    tx.send(1).unwrap();
    let used = child.join().unwrap();
    // A tenth of what polling would use; what is used is a few spins.
    assert!(used < Duration::from_millis(120), "{used:?} of 1200 ms");
}

/// In a process of its own, which may open as many descriptors as it has and these.
#[mproc::entry]
fn make_pipes_in_need(most: u64) -> (u64, u64) {
    let highest = descriptors().last().copied().unwrap() as u64 + 1;
    // All numbers below are taken, so that what is free is what the limit says.
    let mut fillers = Vec::new();
    setrlimit(Resource::RLIMIT_NOFILE, highest, 4096).unwrap();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fillers.push(file);
    }
    setrlimit(Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
    let open = descriptors();
    let (mut made, mut refused) = (0, 0);
    for free in 0..most {
        setrlimit(Resource::RLIMIT_NOFILE, highest + free, 4096).unwrap();
        let result = pipe::<u64>();
        let duplex = result.is_err().then(mproc::duplex::<u64, u64>);
        setrlimit(Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
        match result {
            Ok((mut tx, mut rx)) => {
                made += 1;
                tx.send(free).unwrap();
                assert_eq!(rx.recv().unwrap(), free);
            }
            Err(error) => {
                refused += 1;
                let code = error.io_error().and_then(std::io::Error::raw_os_error);
                assert_eq!(code, Some(libc::EMFILE), "{error}");
                // What one pipe does not find, two do not.
                let error = duplex.unwrap().map(drop).unwrap_err();
                let code = error.io_error().and_then(std::io::Error::raw_os_error);
                assert_eq!(code, Some(libc::EMFILE), "{error}");
            }
        }
        assert_eq!(descriptors(), open, "with {free} free ones");
    }
    (made, refused)
}

#[test]
fn without_descriptors_there_is_an_error_and_nothing_is_left_open() {
    let _watchdog = watchdog("without_descriptors_there_is_an_error", LIMIT);
    let child = make_pipes_in_need::spawn(24).unwrap();
    let (made, refused) = child.join().unwrap();
    assert!(made > 0 && refused > 0, "{made} {refused}");
}

/// A send and a receive on an existing pipe need no descriptor, and no more of anything for being many.
#[test]
fn an_existing_pipe_works_without_a_free_descriptor() {
    let _watchdog = watchdog("an_existing_pipe_works_without_a_free_descriptor", LIMIT);
    #[mproc::entry]
    fn work_in_need(mut tx: Sender<String>, mut rx: Receiver<String>) {
        let highest = descriptors().last().copied().unwrap() as u64 + 1;
        // All numbers below are taken, so that the limit is exact.
        let mut fillers = Vec::new();
        setrlimit(Resource::RLIMIT_NOFILE, highest, 4096).unwrap();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            fillers.push(file);
        }
        for number in 0..500 {
            let said = text(number, 100 * number as usize);
            std::thread::scope(|scope| {
                scope.spawn(|| tx.send(said.clone()).unwrap());
                assert!(rx.recv().unwrap() == said);
            });
            let error = pipe::<u64>().map(drop).unwrap_err();
            assert_eq!(
                error.io_error().and_then(std::io::Error::raw_os_error),
                Some(libc::EMFILE)
            );
        }
    }
    let (tx, rx) = pipe().unwrap();
    work_in_need::spawn(tx, rx).unwrap().join().unwrap();
}

#[derive(Serialize, Deserialize, Debug)]
enum Parcel {
    Witness(Fd),
    Sender(Sender<Parcel>),
    Receiver(Receiver<Parcel>),
    Connection(Connection<Parcel, Parcel>),
}

/// A pipe whose other end sees its end when the `Fd` is nowhere any more.
fn witness() -> (std::io::PipeReader, Parcel) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, Parcel::Witness(OwnedFd::from(writer).into()))
}

fn is_gone(mut witness: std::io::PipeReader) {
    assert_eq!(witness.read(&mut [0]).unwrap(), 0);
}

#[mproc::entry]
fn make_pipes_that_hold_themselves() {
    let before = descriptors();
    for _ in 0..dose(20, 2000) {
        let (mut tx, rx) = pipe::<Parcel>().unwrap();
        let (seen, parcel) = witness();
        tx.send(parcel).unwrap();
        tx.send(Parcel::Receiver(rx)).unwrap();
        drop(tx);
        is_gone(seen);

        let (mut here, there) = mproc::duplex::<Parcel, Parcel>().unwrap();
        let (seen, parcel) = witness();
        here.send(parcel).unwrap();
        here.send(Parcel::Connection(there)).unwrap();
        drop(here);
        is_gone(seen);

        // Two, each of which holds the other.
        let (mut one, from_one) = pipe::<Parcel>().unwrap();
        let (mut other, from_other) = pipe::<Parcel>().unwrap();
        let (seen_one, parcel) = witness();
        one.send(parcel).unwrap();
        let (seen_other, parcel) = witness();
        other.send(parcel).unwrap();
        one.send(Parcel::Receiver(from_other)).unwrap();
        other.send(Parcel::Receiver(from_one)).unwrap();
        drop((one, other));
        is_gone(seen_one);
        is_gone(seen_other);
    }
    assert_eq!(descriptors(), before);
}

/// An end that lies unread in its own pipe is held by nobody, and goes with what lies beside it.
#[test]
fn a_pipe_that_holds_itself_still_closes() {
    let _watchdog = watchdog("a_pipe_that_holds_itself_still_closes", LIMIT);
    make_pipes_that_hold_themselves::spawn()
        .unwrap()
        .join()
        .unwrap();
}

/// A message that is never read takes what is in it along.
#[test]
fn unread_messages_close_what_they_carry() {
    let _watchdog = watchdog("unread_messages_close_what_they_carry", LIMIT);
    let (mut tx, rx) = pipe::<Parcel>().unwrap();
    let (inner_tx, mut inner_rx) = pipe::<Parcel>().unwrap();
    let (mut other_tx, other_rx) = pipe::<Parcel>().unwrap();
    let (seen, parcel) = witness();
    for parcel in [parcel, Parcel::Sender(inner_tx), Parcel::Receiver(other_rx)] {
        tx.send(parcel).unwrap();
    }
    assert!(matches!(inner_rx.try_recv(), Err(RecvError::Empty)));
    drop(rx);
    is_gone(seen);
    assert!(matches!(inner_rx.recv(), Err(RecvError::Disconnected)));
    let (_seen, parcel) = witness();
    assert!(matches!(
        other_tx.send(parcel),
        Err(SendError::Disconnected(_))
    ));
}

#[mproc::entry]
fn make_and_drop_pipes() -> usize {
    let before = descriptors();
    for round in 0..dose(2000, 100_000) as u64 {
        let (mut tx, mut rx) = pipe().unwrap();
        tx.send(round).unwrap();
        if round % 2 == 0 {
            assert_eq!(rx.recv().unwrap(), round);
        }
    }
    assert_eq!(descriptors(), before);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd")).count()
}

#[test]
fn pipes_come_and_go_and_leave_nothing() {
    let _watchdog = watchdog("pipes_come_and_go_and_leave_nothing", LIMIT);
    let mappings = make_and_drop_pipes::spawn().unwrap().join().unwrap();
    assert!(mappings < 8, "{mappings} mappings are left");
}

/// A regular read of the wrong sort is refused by the type; what the type allows works in either direction at once.
#[test]
fn an_end_can_be_sent_to_another_thread_and_back() {
    let _watchdog = watchdog("an_end_can_be_sent_to_another_thread_and_back", LIMIT);
    fn can_be_sent<T: Send>(value: T) -> T {
        value
    }
    let (mut tx, rx) = pipe::<u64>().unwrap();
    let rx = std::thread::spawn(move || {
        let mut rx = can_be_sent(rx);
        assert_eq!(rx.recv().unwrap(), 1);
        rx
    });
    tx.send(1).unwrap();
    let mut rx = rx.join().unwrap();
    let tx = std::thread::spawn(move || {
        tx.send(2).unwrap();
        can_be_sent(tx)
    });
    assert_eq!(rx.recv().unwrap(), 2);
    drop(tx.join().unwrap());
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
}

#[test]
fn an_end_outside_of_messages_is_an_error_that_says_why() {
    let _watchdog = watchdog("an_end_outside_of_messages", LIMIT);
    let (tx, rx) = pipe::<u64>().unwrap();
    for error in [
        serde_json::to_string(&tx).unwrap_err(),
        serde_json::to_value(vec![Some(&rx)]).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("travels only in arguments, results and messages"),
            "{text}"
        );
    }
    serde_json::from_str::<Sender<u64>>("0").unwrap_err();
    serde_json::from_str::<Receiver<u64>>("[0,1,2,null]").unwrap_err();
    // The attempt has not moved them.
    let (mut tx, mut rx) = (tx, rx);
    tx.send(3).unwrap();
    assert_eq!(rx.recv().unwrap(), 3);
}

/// A limit of file sizes makes a pipe shorter, and nothing else.
#[mproc::entry]
fn fill_below_a_limit_of_file_sizes() {
    setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, 1 << 20).unwrap();
    let (mut sender, mut receiver) = pipe::<Vec<u8>>().unwrap();
    let mut sent = 0;
    loop {
        match sender.try_send(vec![1; 1000]) {
            Ok(()) => sent += 1,
            Err(SendError::Full(_)) => break,
            Err(error) => panic!("{error}, after {sent}"),
        }
    }
    for _ in 0..sent {
        assert_eq!(receiver.recv().unwrap(), [1; 1000]);
    }
    sender.send(vec![2; 1000]).unwrap();
    assert_eq!(receiver.recv().unwrap(), [2; 1000]);
}

#[test]
fn a_limit_of_file_sizes_makes_a_pipe_shorter() {
    let _watchdog = watchdog("a_limit_of_file_sizes_makes_a_pipe_shorter", LIMIT);
    let child = fill_below_a_limit_of_file_sizes::spawn().unwrap();
    child.join().unwrap();
}
