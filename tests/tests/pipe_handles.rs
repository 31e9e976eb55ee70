//! Ends of pipes on their way: in arguments, results, messages and calls they move, and what fails hands them back (G16).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mproc::{
    Call, Child, Connection, ErrorKind, Failure, Fd, Receiver, RecvError, Run, SendError, Sender,
    duplex, pipe,
};
use mproc_tests::{ScratchFile, descriptors, dose, watchdog};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Serialize, Serializer};

const LIMIT: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(60);

fn is_over<T: serde::de::DeserializeOwned>(rx: &mut Receiver<T>) -> bool {
    matches!(rx.recv(), Err(RecvError::Disconnected))
}

fn text(number: u64, length: usize) -> String {
    let mut text = format!("{number:015};").repeat(length / 16 + 1);
    text.truncate(length);
    text
}

/// A file without a name that contains the number.
fn numbered(number: u64) -> Fd {
    let scratch = ScratchFile::new("pipe-handles");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(scratch.path())
        .unwrap();
    write!(file, "{number}").unwrap();
    file.rewind().unwrap();
    file.into()
}

fn number_of(fd: Fd) -> u64 {
    let mut text = String::new();
    fd.into_inner::<File>()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text.parse().unwrap()
}

/// A descriptor, and a reader that sees the end when the last copy of it is closed, wherever that is.
fn witness() -> (std::io::PipeReader, Fd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, OwnedFd::from(writer).into())
}

fn is_gone(mut witness: std::io::PipeReader) {
    assert_eq!(witness.read(&mut [0]).unwrap(), 0);
}

#[mproc::entry]
fn send_numbers(mut tx: Sender<u64>, from: u64, to: u64) {
    for number in from..to {
        tx.send(number).unwrap();
    }
}

#[mproc::entry]
fn take(mut rx: Receiver<u64>, count: usize) -> (Vec<u64>, Receiver<u64>) {
    let numbers = rx.iter().take(count).map(Result::unwrap).collect();
    (numbers, rx)
}

#[mproc::entry]
fn collect(rx: Receiver<u64>) -> Vec<u64> {
    rx.into_iter().map(Result::unwrap).collect()
}

#[test]
fn ends_inside_of_everything() {
    let _watchdog = watchdog("ends_inside_of_everything", LIMIT);
    #[derive(Serialize, Deserialize)]
    struct Deep {
        one: Sender<u64>,
        maybe: Option<Sender<u64>>,
        none: Option<Sender<u64>>,
        many: Vec<(u8, Sender<u64>)>,
        named: BTreeMap<String, Sender<u64>>,
        choice: Choice,
        file: Fd,
    }
    #[derive(Serialize, Deserialize)]
    enum Choice {
        New(Sender<u64>),
        Struct { after: u8, tx: Box<Sender<u64>> },
        Both(Box<Connection<u64, u64>>),
    }
    #[mproc::entry]
    fn send_each(before: u8, deep: Deep, choices: [Choice; 2], after: u8) {
        assert_eq!((before, after), (1, 2));
        assert!(deep.none.is_none());
        let mut senders = vec![deep.one, deep.maybe.unwrap()];
        senders.extend(deep.many.into_iter().map(|(_, tx)| tx));
        senders.extend(deep.named.into_values());
        for choice in [deep.choice].into_iter().chain(choices) {
            match choice {
                Choice::New(tx) => senders.push(tx),
                Choice::Struct { after: 3, tx } => senders.push(*tx),
                Choice::Both(both) => {
                    let (tx, mut rx) = both.split();
                    assert_eq!(rx.recv().unwrap(), 77);
                    senders.push(tx);
                }
                Choice::Struct { .. } => panic!("the bytes beside the ends have changed"),
            }
        }
        for (number, tx) in senders.iter_mut().enumerate() {
            tx.send(number as u64).unwrap();
        }
        assert_eq!(number_of(deep.file), 5);
    }
    let mut receivers = Vec::new();
    let mut tx = || {
        let (tx, rx) = pipe().unwrap();
        receivers.push(rx);
        tx
    };
    let (one, maybe, first, second) = (tx(), Some(tx()), tx(), tx());
    let (a, b) = (tx(), tx());
    let (new, boxed) = (tx(), tx());
    let (mut both, theirs) = duplex().unwrap();
    both.send(77).unwrap();
    let deep = Deep {
        one,
        maybe,
        none: None,
        many: vec![(0, first), (1, second)],
        named: BTreeMap::from([("b".into(), b), ("a".into(), a)]),
        choice: Choice::New(new),
        file: numbered(5),
    };
    let choices = [
        Choice::Struct {
            after: 3,
            tx: Box::new(boxed),
        },
        Choice::Both(Box::new(theirs)),
    ];
    let child = send_each::spawn(1, deep, choices, 2).unwrap();
    for (number, rx) in receivers.iter_mut().enumerate() {
        assert_eq!(rx.recv().unwrap(), number as u64);
        assert!(is_over(rx));
    }
    assert_eq!(both.recv().unwrap(), 8);
    child.join().unwrap();
}

/// The end comes without a thought: nobody here closed anything.
#[test]
fn an_end_that_was_sent_is_gone_here() {
    let _watchdog = watchdog("an_end_that_was_sent_is_gone_here", LIMIT);
    for _ in 0..dose(20, 1000) {
        let (tx, mut rx) = pipe().unwrap();
        let child = send_numbers::spawn(tx, 0, 3).unwrap();
        assert!(rx.iter().map(Result::unwrap).eq(0..3));
        child.join().unwrap();
        // And the other one: whoever sends is told.
        let (mut tx, rx) = pipe().unwrap();
        tx.send(5).unwrap();
        let (numbers, returned) = take::spawn(rx, 1).unwrap().join().unwrap();
        assert_eq!(numbers, [5]);
        drop(returned);
        assert!(matches!(tx.send(6), Err(SendError::Disconnected(6))));
    }
}

#[test]
fn ends_come_back_as_results() {
    let _watchdog = watchdog("ends_come_back_as_results", LIMIT);
    #[mproc::entry]
    fn make(count: u64) -> Vec<(u64, Receiver<u64>, Sender<String>)> {
        let ends = (0..count).map(|number| {
            let (mut tx, rx) = pipe().unwrap();
            let (back, _gone) = pipe().unwrap();
            tx.send(number).unwrap();
            (number, rx, back)
        });
        ends.collect()
    }
    for count in [0, 1, 40] {
        let made = make::spawn(count).unwrap().join().unwrap();
        assert_eq!(made.len() as u64, count);
        for (number, mut rx, mut back) in made {
            assert_eq!(rx.recv().unwrap(), number);
            assert!(is_over(&mut rx), "its sender has ended");
            let error = back.send("late".into()).unwrap_err();
            assert!(matches!(error, SendError::Disconnected(_)));
        }
    }
    // A result that nobody takes closes what is in it.
    #[mproc::entry]
    fn give_back(tx: Sender<u64>) -> Sender<u64> {
        tx
    }
    let (tx, mut rx) = pipe().unwrap();
    let child = give_back::spawn(tx).unwrap();
    child.wait().unwrap();
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    drop(child);
    assert!(is_over(&mut rx));
    let (tx, mut rx) = pipe().unwrap();
    let mut tx = give_back::spawn(tx).unwrap().join().unwrap();
    tx.send(1).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
}

/// What is unread, and what was half looked at, moves with the end.
#[test]
fn unread_messages_move_with_their_end() {
    let _watchdog = watchdog("unread_messages_move_with_their_end", LIMIT);
    let (mut tx, mut rx) = pipe().unwrap();
    for number in 0..10 {
        tx.send(number).unwrap();
    }
    assert_eq!(rx.recv().unwrap(), 0);
    let (numbers, mut rx) = take::spawn(rx, 3).unwrap().join().unwrap();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(rx.recv().unwrap(), 4);
    let child = send_numbers::spawn(tx, 10, 20).unwrap();
    let (numbers, rx) = take::spawn(rx, 8).unwrap().join().unwrap();
    assert!(numbers.into_iter().eq(5..13));
    child.join().unwrap();
    assert!(rx.into_iter().map(Result::unwrap).eq(13..20));

    // Messages that stay because they were asked for in the wrong way stay on the other side, too.
    #[mproc::entry]
    fn take_bytes(mut rx: Receiver<u64>) -> Vec<u8> {
        assert!(matches!(rx.recv(), Err(RecvError::WrongKind)));
        let bytes = rx.recv_bytes(100).unwrap();
        assert_eq!(rx.recv().unwrap(), 3);
        assert!(is_over(&mut rx));
        bytes
    }
    let (mut tx, mut rx) = pipe().unwrap();
    tx.send_bytes(b"stays").unwrap();
    tx.send(3).unwrap();
    assert!(matches!(rx.recv(), Err(RecvError::WrongKind)));
    assert!(matches!(
        rx.recv_bytes(2),
        Err(RecvError::TooLong { length: 5, .. })
    ));
    assert!(rx.poll(LONG).unwrap());
    tx.close();
    let child = take_bytes::spawn(rx).unwrap();
    assert_eq!(child.join().unwrap(), b"stays");
}

/// A receive that gave up in the middle of a long message goes on with it in another process.
#[test]
fn half_a_message_moves_with_its_end() {
    let _watchdog = watchdog("half_a_message_moves_with_its_end", LIMIT);
    #[mproc::entry]
    fn take_text(mut rx: Receiver<String>, count: usize) -> (Vec<String>, Receiver<String>) {
        let texts = rx.iter().take(count).map(Result::unwrap).collect();
        (texts, rx)
    }
    for impatience in 0..dose(6, 300) as u64 {
        let (mut tx, mut rx) = pipe::<String>().unwrap();
        let long = text(impatience, 12 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                tx.send(long.clone()).unwrap();
                tx.send("next".into()).unwrap();
                tx.send(long.clone()).unwrap();
            });
            for _ in 0..impatience {
                match rx.recv_timeout(Duration::from_micros(100)) {
                    Err(RecvError::Timeout) => {}
                    // It was quick, which proves nothing here and is no error.
                    Ok(whole) => {
                        assert!(whole == long);
                        assert_eq!(rx.recv().unwrap(), "next");
                        assert!(rx.recv().unwrap() == long);
                        return;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            let (texts, mut rx) = take_text::spawn(rx, 2).unwrap().join().unwrap();
            assert!(texts[0] == long);
            assert_eq!(texts[1], "next");
            assert!(rx.recv().unwrap() == long);
        });
    }
}

/// Three generations and back, with a word said at each station.
#[test]
fn ends_pass_from_parent_to_grandchild() {
    let _watchdog = watchdog("ends_pass_from_parent_to_grandchild", LIMIT);
    #[mproc::entry]
    fn pass_on(depth: u64, mut tx: Sender<u64>, rx: Receiver<u64>) -> (Sender<u64>, Receiver<u64>) {
        tx.send(depth).unwrap();
        let (mut tx, mut rx) = match depth {
            0 => (tx, rx),
            _ => pass_on::spawn(depth - 1, tx, rx).unwrap().join().unwrap(),
        };
        assert_eq!(rx.recv().unwrap(), 100 + depth);
        tx.send(200 + depth).unwrap();
        (tx, rx)
    }
    let (tx, rx) = pipe().unwrap();
    let (mut to_them, theirs) = pipe().unwrap();
    for depth in 0..5 {
        to_them.send(100 + depth).unwrap();
    }
    let (tx, theirs) = pass_on::spawn(4, tx, theirs).unwrap().join().unwrap();
    drop((tx, theirs));
    let expected = (0..5).rev().chain(200..205);
    assert!(rx.into_iter().map(Result::unwrap).eq(expected));
    assert!(matches!(to_them.send(0), Err(SendError::Disconnected(0))));
}

/// A reader and a writer that have never met, and the one between them gone.
#[test]
fn who_made_a_pipe_may_end_before_it() {
    let _watchdog = watchdog("who_made_a_pipe_may_end_before_it", LIMIT);
    #[mproc::entry]
    fn introduce(to: Connection<Sender<u64>, ()>, mut other: Connection<Receiver<u64>, ()>) {
        let mut to = to;
        let (tx, rx) = pipe().unwrap();
        to.send(tx).unwrap();
        other.send(rx).unwrap();
    }
    #[mproc::entry]
    fn write(from: Receiver<Sender<u64>>, go: Receiver<()>) {
        let mut from = from;
        let tx = from.recv().unwrap();
        assert!(matches!({ go }.recv(), Err(RecvError::Disconnected)));
        send_numbers(tx, 0, 1000);
    }
    let (one, mut ours_one) = duplex().unwrap();
    let (other, mut ours_other) = duplex().unwrap();
    introduce::spawn(one, other).unwrap().join().unwrap();
    let (mut to_writer, from) = pipe().unwrap();
    let (go, wait_for_go) = pipe().unwrap();
    let writer = write::spawn(from, wait_for_go).unwrap();
    to_writer.send(ours_one.recv().unwrap()).unwrap();
    let reader = collect::spawn(ours_other.recv().unwrap()).unwrap();
    go.close();
    assert!(reader.join().unwrap().into_iter().eq(0..1000));
    writer.join().unwrap();
}

#[test]
fn ends_travel_in_calls() {
    let _watchdog = watchdog("ends_travel_in_calls", LIMIT);
    // Run here.
    let (tx, rx) = pipe().unwrap();
    send_numbers::bind(tx, 0, 3).run().unwrap();
    assert!(rx.into_iter().map(Result::unwrap).eq(0..3));
    // Started.
    let (tx, rx) = pipe().unwrap();
    let child = send_numbers::bind(tx, 0, 3).spawn().unwrap();
    assert!(rx.into_iter().map(Result::unwrap).eq(0..3));
    child.join().unwrap();
    // Sent, and run there.
    #[mproc::entry]
    fn run_each(mut calls: Receiver<(Call<()>, Sender<String>)>) -> usize {
        let mut count = 0;
        for message in &mut calls {
            let (call, mut done) = message.unwrap();
            match count % 2 {
                0 => call.run().unwrap(),
                _ => call.spawn().unwrap().join().unwrap(),
            }
            done.send(format!("done {count}")).unwrap();
            count += 1;
        }
        count
    }
    let (mut calls, theirs) = pipe().unwrap();
    let child = run_each::spawn(theirs).unwrap();
    for round in 0..dose(10, 500) {
        let (tx, rx) = pipe().unwrap();
        let (done, mut is_done) = pipe().unwrap();
        calls.send((send_numbers::bind(tx, 5, 9), done)).unwrap();
        assert!(rx.into_iter().map(Result::unwrap).eq(5..9));
        assert_eq!(is_done.recv().unwrap(), format!("done {round}"));
        assert!(is_over(&mut is_done));
    }
    drop(calls);
    assert_eq!(child.join().unwrap(), dose(10, 500));
    // Not run at all.
    let (tx, mut rx) = pipe().unwrap();
    let call = send_numbers::bind(tx, 0, 3);
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    drop(call);
    assert!(is_over(&mut rx));
}

#[test]
fn a_value_with_run_holds_ends() {
    let _watchdog = watchdog("a_value_with_run_holds_ends", LIMIT);
    #[derive(Serialize, Deserialize)]
    struct Doubler {
        from: Receiver<u64>,
        to: Sender<u64>,
    }
    #[mproc::entry]
    impl Run for Doubler {
        type Output = u64;
        fn run(mut self) -> u64 {
            let mut count = 0;
            for number in &mut self.from {
                self.to.send(number.unwrap() * 2).unwrap();
                count += 1;
            }
            count
        }
    }
    let (mut tx, from) = pipe().unwrap();
    let (to, mut rx) = pipe().unwrap();
    let child = Doubler { from, to }.spawn().unwrap();
    for number in 0..10 {
        tx.send(number).unwrap();
        assert_eq!(rx.recv().unwrap(), number * 2);
    }
    drop(tx);
    assert!(is_over(&mut rx));
    assert_eq!(child.join().unwrap(), 10);
}

#[test]
fn a_start_that_failed_hands_back_working_ends() {
    let _watchdog = watchdog("a_start_that_failed_hands_back_working_ends", LIMIT);
    let (tx, mut rx) = pipe().unwrap();
    let mut process = send_numbers::process(tx, 0, 4);
    for _ in 0..3 {
        let error = process.current_dir("/no/such").start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start);
        assert!(
            matches!(rx.try_recv(), Err(RecvError::Empty)),
            "it is not closed"
        );
        process = error.into_process::<()>().unwrap();
    }
    let child = process.current_dir("/").start().unwrap();
    assert!(rx.iter().map(Result::unwrap).eq(0..4));
    child.join().unwrap();
    // Whoever does not want it back, drops it with the error.
    let (tx, mut rx) = pipe().unwrap();
    let error = send_numbers::process(tx, 0, 4)
        .current_dir("/no/such")
        .start()
        .unwrap_err();
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    drop(error);
    assert!(is_over(&mut rx));
}

/// Serializes what is before it, and then fails.
#[derive(Debug)]
struct Unserializable;

impl Serialize for Unserializable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("it is not to be"))
    }
}

#[test]
fn a_send_that_failed_hands_back_working_ends() {
    let _watchdog = watchdog("a_send_that_failed_hands_back_working_ends", LIMIT);
    type Ends = (Sender<u64>, Connection<u64, u64>, String);
    fn ends(length: usize) -> (Ends, Receiver<u64>, Connection<u64, u64>) {
        let (tx, rx) = pipe().unwrap();
        let (theirs, ours) = duplex().unwrap();
        ((tx, theirs, "x".repeat(length)), rx, ours)
    }
    fn still_work(
        (mut tx, mut theirs, _): Ends,
        mut rx: Receiver<u64>,
        mut ours: Connection<u64, u64>,
    ) {
        tx.send(1).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        ours.send(2).unwrap();
        assert_eq!(theirs.recv().unwrap(), 2);
        theirs.send(3).unwrap();
        assert_eq!(ours.recv().unwrap(), 3);
        drop((tx, theirs));
        assert!(is_over(&mut rx));
        assert!(matches!(ours.recv(), Err(RecvError::Disconnected)));
    }
    // Nobody is there to take them.
    for length in [0, 8 << 20] {
        let (mut to, gone) = pipe::<Ends>().unwrap();
        drop(gone);
        let (sent, rx, ours) = ends(length);
        let error = to.send(sent).unwrap_err();
        assert!(matches!(error, SendError::Disconnected(_)));
        still_work(error.into_inner(), rx, ours);
    }
    // There is no room, or none in time.
    let (mut to, mut from) = pipe::<Ends>().unwrap();
    while to.try_send_bytes(&[0; 100]).is_ok() {}
    while to.try_send_bytes(&[]).is_ok() {}
    for length in [0, 100, 8 << 20] {
        let (sent, rx, ours) = ends(length);
        let error = to.try_send(sent).unwrap_err();
        assert!(matches!(error, SendError::Full(_)));
        still_work(error.into_inner(), rx, ours);
        let (sent, rx, ours) = ends(length);
        let error = to.send_timeout(sent, Duration::from_millis(5)).unwrap_err();
        assert!(matches!(error, SendError::Timeout(_)));
        still_work(error.into_inner(), rx, ours);
    }
    // None of those that were not sent is here.
    loop {
        match from.recv_bytes_timeout(100, Duration::ZERO) {
            Ok(_) => {}
            Err(RecvError::Timeout) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let (sent, rx, ours) = ends(10);
    to.send(sent).unwrap();
    still_work(from.recv().unwrap(), rx, ours);
    // What follows them cannot be encoded.
    let (mut to, _from) = pipe::<(Ends, Unserializable)>().unwrap();
    for _ in 0..3 {
        let (sent, rx, ours) = ends(10);
        let error = to.send((sent, Unserializable)).unwrap_err();
        assert!(matches!(error, SendError::Encode(..)), "{error:?}");
        still_work(error.into_inner().0, rx, ours);
    }
}

/// The same value again and again, until it is sent.
#[test]
fn what_was_handed_back_can_be_sent() {
    let _watchdog = watchdog("what_was_handed_back_can_be_sent", LIMIT);
    let (mut to, mut from) = pipe::<(Sender<u64>, Vec<u8>)>().unwrap();
    let mut filled = 0;
    while to.try_send_bytes(&[]).is_ok() {
        filled += 1;
    }
    let (tx, mut rx) = pipe().unwrap();
    let mut message = (tx, vec![1, 2, 3]);
    for _ in 0..dose(100, 10_000) {
        message.0.send(1).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        message = match to.try_send(message) {
            Err(SendError::Full(message)) => message,
            other => panic!("{other:?}"),
        };
    }
    for _ in 0..filled {
        from.recv_bytes(0).unwrap();
    }
    to.try_send(message).unwrap();
    let (mut tx, rest) = from.recv().unwrap();
    assert_eq!(rest, [1, 2, 3]);
    tx.send(2).unwrap();
    assert_eq!(rx.recv().unwrap(), 2);
    drop(tx);
    assert!(is_over(&mut rx));
}

/// One end twice in one message.
struct Twice<T>(T);

impl<T: Serialize> Serialize for Twice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.0)?;
        tuple.serialize_element(&self.0)?;
        tuple.end()
    }
}

impl<T> std::fmt::Debug for Twice<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Twice")
    }
}

fn says_that_it_was_sent(error: impl std::error::Error) {
    let text = error.to_string();
    assert!(text.contains("sent") || text.contains("used"), "{text}");
}

#[test]
fn a_second_encoding_is_an_error() {
    let _watchdog = watchdog("a_second_encoding_is_an_error", LIMIT);
    // Within one message: nothing is sent, and the end stays.
    let (tx, mut rx) = pipe::<u64>().unwrap();
    let (mut to, mut from) = pipe::<Twice<Sender<u64>>>().unwrap();
    let error = to.send(Twice(tx)).unwrap_err();
    assert!(
        matches!(error, SendError::Encode(..) | SendError::Moved(_)),
        "{error:?}"
    );
    assert!(!error.to_string().is_empty());
    let Twice(mut tx) = error.into_inner();
    tx.send(4).unwrap();
    assert_eq!(rx.recv().unwrap(), 4);
    assert!(!from.poll(Duration::ZERO).unwrap());

    // Lent to two messages: the second one is not sent, and who lent it has a handle of nothing.
    let (mut tx, mut rx) = pipe::<u64>().unwrap();
    {
        let (mut to, from) = pipe::<&Sender<u64>>().unwrap();
        to.send(&tx).unwrap();
        let error = to.send(&tx).unwrap_err();
        assert!(
            matches!(error, SendError::Encode(..) | SendError::Moved(_)),
            "{error:?}"
        );
        says_that_it_was_sent(error);
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        drop((to, from));
    }
    assert!(is_over(&mut rx), "the message with it is gone");
    let error = tx.send(1).unwrap_err();
    assert!(matches!(error, SendError::Moved(1)), "{error:?}");
    says_that_it_was_sent(error);
    assert!(matches!(tx.try_send(2), Err(SendError::Moved(2))));
    assert!(matches!(tx.send_bytes(&[]), Err(SendError::Moved(()))));

    let (_tx, mut rx) = pipe::<u64>().unwrap();
    {
        let (mut to, _from) = pipe::<&Receiver<u64>>().unwrap();
        to.send(&rx).unwrap();
        assert!(to.send(&rx).is_err());
    }
    for error in [
        rx.recv().unwrap_err(),
        rx.try_recv().unwrap_err(),
        rx.recv_timeout(LONG).unwrap_err(),
        rx.recv_bytes(1).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, RecvError::Moved), "{error:?}");
        says_that_it_was_sent(error);
    }
    rx.poll(Duration::ZERO).unwrap_err();
}

/// A call with an end in it is good for one use, whichever; a retry is told.
#[test]
fn a_call_with_an_end_works_once() {
    let _watchdog = watchdog("a_call_with_an_end_works_once", LIMIT);
    type Use = fn(&Call<()>) -> Option<mproc::Error>;
    let run: Use = |call| call.clone().run().err();
    let spawn: Use = |call| call.clone().spawn().and_then(Child::join).err();
    let send: Use = |call| {
        let (mut to, mut from) = pipe().unwrap();
        match to.send(call.clone()) {
            Ok(()) => from.recv().unwrap().run().err(),
            Err(error) => {
                assert!(
                    matches!(error, SendError::Encode(..) | SendError::Moved(_)),
                    "{error:?}"
                );
                Some(error.into())
            }
        }
    };
    for first in [run, spawn, send] {
        for second in [run, spawn, send] {
            let (tx, rx) = pipe().unwrap();
            let call = send_numbers::bind(tx, 0, 2);
            assert!(first(&call).is_none());
            let error = second(&call).expect("it is used up");
            assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
            says_that_it_was_sent(error);
            assert!(rx.into_iter().map(Result::unwrap).eq(0..2));
        }
    }
    // A start that failed is no use.
    let (tx, rx) = pipe().unwrap();
    let call = send_numbers::bind(tx, 0, 2);
    let failed = call.clone().process().current_dir("/no/such").start();
    drop(failed.unwrap_err());
    call.run().unwrap();
    assert!(rx.into_iter().map(Result::unwrap).eq(0..2));
}

#[test]
fn hundreds_of_descriptors_in_one_message() {
    let _watchdog = watchdog("hundreds_of_descriptors_in_one_message", LIMIT);
    #[mproc::entry]
    fn numbers_of(mut rx: Receiver<(Vec<Fd>, String)>, mut tx: Sender<Vec<u64>>) {
        for message in &mut rx {
            let (files, filler) = message.unwrap();
            assert!(filler.bytes().all(|byte| byte == b'x'));
            tx.send(files.into_iter().map(number_of).collect()).unwrap();
        }
    }
    let (mut tx, theirs) = pipe().unwrap();
    let (ours, mut rx) = pipe().unwrap();
    let child = numbers_of::spawn(theirs, ours).unwrap();
    for count in [300, 0, 1, 252, 253, 254, 300] {
        for length in [0, 2 << 20] {
            let files: Vec<Fd> = (0..count).map(numbered).collect();
            tx.send((files, "x".repeat(length))).unwrap();
            assert!(rx.recv().unwrap().into_iter().eq(0..count));
        }
    }
    drop(tx);
    child.join().unwrap();
}

#[test]
fn a_hundred_ends_in_one_message() {
    let _watchdog = watchdog("a_hundred_ends_in_one_message", LIMIT);
    #[mproc::entry]
    fn send_own_number(mut rx: Receiver<Vec<Sender<u64>>>) {
        for senders in &mut rx {
            for (number, mut tx) in senders.unwrap().into_iter().enumerate() {
                tx.send(number as u64).unwrap();
            }
        }
    }
    let (mut tx, theirs) = pipe().unwrap();
    let child = send_own_number::spawn(theirs).unwrap();
    for _ in 0..dose(2, 100) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..100).map(|_| pipe().unwrap()).unzip();
        tx.send(senders).unwrap();
        for (number, mut rx) in receivers.into_iter().enumerate() {
            assert_eq!(rx.recv().unwrap(), number as u64);
            assert!(is_over(&mut rx));
        }
    }
    drop(tx);
    child.join().unwrap();
}

/// Every message finds its own descriptors, whatever lies between them, and none waits for its reader.
#[test]
fn unread_messages_with_a_descriptor_each() {
    let _watchdog = watchdog("unread_messages_with_a_descriptor_each", LIMIT);
    #[mproc::entry]
    fn check_numbers(mut rx: Receiver<(u64, Vec<Fd>)>) -> u64 {
        let mut expected = 0;
        for message in &mut rx {
            let (number, files) = message.unwrap();
            assert_eq!(number, expected);
            assert_eq!(files.len() as u64, number % 3);
            for file in files {
                assert_eq!(number_of(file), number);
            }
            expected += 1;
        }
        expected
    }
    let count = dose(1000, 10_000) as u64;
    let (mut tx, rx) = pipe().unwrap();
    for number in 0..count {
        let files = (0..number % 3).map(|_| numbered(number)).collect();
        tx.send_timeout((number, files), Duration::from_secs(5))
            .unwrap_or_else(|error| panic!("message {number}: {error}"));
    }
    let child = check_numbers::spawn(rx).unwrap();
    drop(tx);
    assert_eq!(child.join().unwrap(), count);
}

/// Messages that cannot be decoded, or that are never read, take their descriptors with them and no others.
#[test]
fn descriptors_of_messages_that_fail_are_closed() {
    let _watchdog = watchdog("descriptors_of_messages_that_fail_are_closed", LIMIT);
    #[derive(Serialize, Debug)]
    struct Picky(u64, Fd, Fd);
    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(Deserialize)]
            struct Picky(u64, Fd, Fd);
            let Picky(number, one, other) = Picky::deserialize(deserializer)?;
            match number % 2 {
                0 => Ok(Self(number, one, other)),
                _ => Err(serde::de::Error::custom("odd")),
            }
        }
    }
    #[mproc::entry]
    fn pick(mut tx: Sender<Picky>, mut rx: Receiver<Picky>) {
        let count = dose(300, 30_000) as u64;
        let (seen, held) = witness();
        // One to begin with, so that whatever the first descriptor needs is there.
        tx.send(Picky(0, numbered(0), held.clone())).unwrap();
        drop(rx.recv().unwrap());
        let open = descriptors().len();
        for number in 0..count {
            tx.send(Picky(number, numbered(number), held.clone()))
                .unwrap();
            if number % 7 == 0 {
                tx.send_bytes(b"between").unwrap();
            }
            match rx.recv() {
                Ok(Picky(got, file, _)) => {
                    assert_eq!((got, number_of(file)), (number, number));
                }
                Err(RecvError::Decode(_)) => assert_eq!(number % 2, 1),
                Err(error) => panic!("{error}"),
            }
            if number % 7 == 0 {
                assert!(matches!(rx.recv(), Err(RecvError::WrongKind)));
                rx.recv_bytes(7).unwrap();
            }
        }
        // How many, not which: now and then descriptors travel in another socket.
        assert_eq!(descriptors().len(), open);
        for number in 0..50 {
            tx.send(Picky(number, numbered(number), held.clone()))
                .unwrap();
        }
        drop((rx, held));
        drop(tx);
        is_gone(seen);
    }
    let (tx, rx) = pipe().unwrap();
    pick::spawn(tx, rx).unwrap().join().unwrap();
}

/// In a process that may open as many as it has, and these: the message is lost or stays, and the next one comes.
#[mproc::entry]
fn receive_in_need(mut tx: Sender<Vec<Fd>>, mut rx: Receiver<Vec<Fd>>) -> (u64, u64) {
    let send = |tx: &mut Sender<Vec<Fd>>, number, count| {
        let files = (0..count).map(|_| numbered(number)).collect();
        tx.send(files).unwrap();
    };
    send(&mut tx, 0, 1);
    drop(rx.recv().unwrap());
    let open = descriptors().len();
    let (mut came, mut failed) = (0, 0);
    let most = 24;
    for free in 0..most {
        let (seen, held) = witness();
        tx.send(vec![held.clone(); 1]).unwrap();
        drop(held);
        send(&mut tx, free, 12);
        send(&mut tx, free, 0);
        let highest = descriptors().last().copied().unwrap() as u64 + 1;
        let mut fillers = Vec::new();
        setrlimit(Resource::RLIMIT_NOFILE, highest, 4096).unwrap();
        while let Ok(file) = File::open("/dev/null") {
            fillers.push(file);
        }
        setrlimit(Resource::RLIMIT_NOFILE, highest + free, 4096).unwrap();
        let mut received = 0;
        loop {
            match rx.recv_timeout(LONG) {
                Ok(files) if files.is_empty() => break,
                Ok(files) => {
                    came += 1;
                    received += 1;
                    if files.len() > 1 {
                        for file in files {
                            assert_eq!(number_of(file), free);
                        }
                    }
                }
                Err(error) => {
                    failed += 1;
                    received += 1;
                    let mut text = error.to_string();
                    let mut source = std::error::Error::source(&error);
                    while let Some(error) = source {
                        text = format!("{text}: {error}");
                        source = error.source();
                    }
                    assert!(text.contains("os error 24"), "{text}");
                    // It may have stayed. Then there has to be room for it, some time.
                    if received > 10 {
                        setrlimit(Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
                    }
                }
            }
        }
        setrlimit(Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
        drop(fillers);
        is_gone(seen);
        assert_eq!(descriptors().len(), open, "with {free} free ones");
    }
    (came, failed)
}

#[test]
fn more_descriptors_than_may_be_opened_are_a_clean_error() {
    let _watchdog = watchdog("more_descriptors_than_may_be_opened", LIMIT);
    let (tx, rx) = pipe().unwrap();
    let child = receive_in_need::spawn(tx, rx).unwrap();
    let (came, failed) = child.join().unwrap();
    assert!(came > 0 && failed > 0, "{came} {failed}");
}

/// Only for the privileged is there no limit to descriptors that are on their way.
#[test]
fn more_descriptors_than_may_be_under_way_come_back() {
    let _watchdog = watchdog("more_descriptors_than_may_be_under_way", LIMIT);
    #[mproc::entry]
    fn send_too_many_as_nobody(mut tx: Sender<Vec<Fd>>, mut rx: Receiver<Vec<Fd>>) -> u64 {
        let files: Vec<Fd> = (0..200).map(numbered).collect();
        nix::unistd::setuid(65534.into()).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 300, 300).unwrap();
        let mut sent = 0;
        let handed_back = loop {
            match tx.send_timeout(files.clone(), LONG) {
                Ok(()) => sent += 1,
                Err(SendError::Io(files, error)) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ETOOMANYREFS));
                    break files;
                }
                Err(error) => panic!("{error:?}"),
            }
            assert!(sent < 10_000, "there is a limit");
        };
        assert_eq!(handed_back.len(), 200);
        drop(handed_back);
        // What is needed to receive 200 beside 200.
        drop(files);
        for _ in 0..sent {
            let files = rx.recv().unwrap();
            assert!(files.into_iter().map(number_of_again).eq(0..200));
        }
        tx.send(vec![numbered(1)]).unwrap();
        assert_eq!(number_of(rx.recv().unwrap().remove(0)), 1);
        sent
    }
    /// Each copy of the file shares its position with all others.
    fn number_of_again(fd: Fd) -> u64 {
        let mut file: File = fd.into_inner().unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text.parse().unwrap()
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become nobody");
        return;
    }
    let (tx, rx) = pipe().unwrap();
    let sent = send_too_many_as_nobody::spawn(tx, rx)
        .unwrap()
        .join()
        .unwrap();
    assert!(sent > 0);
}

/// Python's `fd_transfer` and `large_fd`: the child writes through what it was sent, also when its number is large.
#[test]
fn a_child_writes_through_what_it_was_sent() {
    let _watchdog = watchdog("a_child_writes_through_what_it_was_sent", LIMIT);
    #[mproc::entry]
    fn write_through(mut rx: Receiver<Fd>, fillers: usize) -> Result<(), Failure> {
        let mut files: Vec<Fd> = Vec::new();
        for _ in 0..fillers {
            files.push(File::open("/dev/null")?.into());
        }
        let mut file: File = rx.recv()?.into_inner()?;
        file.write_all(b"written there")?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&file) as usize;
        assert!(number >= fillers);
        Ok(())
    }
    for fillers in [0, 300] {
        let (mut tx, rx) = pipe().unwrap();
        let child = write_through::spawn(rx, fillers).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        tx.send(Fd::from(OwnedFd::from(writer))).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "written there");
        child.join().unwrap().unwrap();
    }
}

/// In a process of its own, which counts: nothing of the ends that came and went stays open.
#[test]
fn round_trips_leave_nothing_open() {
    let _watchdog = watchdog("round_trips_leave_nothing_open", LIMIT);
    #[mproc::entry]
    fn make_round_trips(times: u64) -> Vec<i32> {
        let mut open = Vec::new();
        for round in 0..times {
            let (mut outer_tx, mut outer_rx) = pipe::<(Sender<u64>, Receiver<u64>)>().unwrap();
            let (tx, rx) = pipe().unwrap();
            outer_tx.send((tx, rx)).unwrap();
            match round % 4 {
                0 => drop((outer_rx, outer_tx)),
                1 => drop((outer_tx, outer_rx)),
                2 => {
                    let (mut tx, rx) = outer_rx.recv().unwrap();
                    tx.send(round).unwrap();
                    let (mut a, b) = duplex::<Receiver<u64>, ()>().unwrap();
                    a.send(rx).unwrap();
                    let (_, mut b_rx) = b.split();
                    assert_eq!(b_rx.recv().unwrap().recv().unwrap(), round);
                }
                _ => {
                    let (tx, rx) = outer_rx.recv().unwrap();
                    if round % 64 == 3 {
                        send_numbers::spawn(tx, 0, 5).unwrap().join().unwrap();
                    } else {
                        send_numbers::bind(tx, 0, 5).run().unwrap();
                    }
                    assert_eq!(rx.into_iter().count(), 5);
                }
            }
            if round == 99 {
                open = descriptors();
            }
        }
        let mut left = descriptors();
        left.retain(|number| !open.contains(number));
        left
    }
    let child = make_round_trips::spawn(dose(500, 50_000) as u64).unwrap();
    assert_eq!(child.join().unwrap(), [0_i32; 0]);
}
