//! Connections: two pipes in one, which talk, close by halves, and part (G3, G14, G16).

use std::time::{Duration, Instant};

use mproc::{Connection, Receiver, RecvError, SendError, Sender, duplex, pipe};
use mproc_tests::{Dice, dose, watchdog};
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
enum Request {
    Add(i64, i64),
    Repeat(String, usize),
    Stop,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
enum Reply {
    Sum(i64),
    Text(String),
}

#[mproc::entry]
fn serve(mut client: Connection<Reply, Request>) -> usize {
    let mut served = 0;
    loop {
        let reply = match client.recv() {
            Ok(Request::Add(a, b)) => Reply::Sum(a + b),
            Ok(Request::Repeat(text, times)) => Reply::Text(text.repeat(times)),
            Ok(Request::Stop) | Err(RecvError::Disconnected) => return served,
            Err(error) => panic!("{error}"),
        };
        client.send(reply).unwrap();
        served += 1;
    }
}

#[test]
fn requests_are_answered() {
    let _watchdog = watchdog("requests_are_answered", LIMIT);
    let (mut server, theirs) = duplex::<Request, Reply>().unwrap();
    let child = serve::spawn(theirs).unwrap();
    let count = dose(20_000, 1_000_000);
    for number in 0..count as i64 {
        server.send(Request::Add(number, -1)).unwrap();
        assert_eq!(server.recv().unwrap(), Reply::Sum(number - 1));
    }
    for times in [0, 1, 1000, 1 << 20] {
        server.send(Request::Repeat("four".into(), times)).unwrap();
        assert!(server.recv().unwrap() == Reply::Text("four".repeat(times)));
    }
    server.send(Request::Stop).unwrap();
    assert_eq!(child.join().unwrap(), count + 4);
    assert!(matches!(server.recv(), Err(RecvError::Disconnected)));
    let error = server.send(Request::Stop).unwrap_err();
    assert!(matches!(error, SendError::Disconnected(Request::Stop)));
}

/// In Python the parent has to close its copy of the child's end, and may do so as soon as the child has started.
#[test]
fn the_childs_end_is_gone_here_once_it_has_started() {
    let _watchdog = watchdog("the_childs_end_is_gone_here", LIMIT);
    for _ in 0..dose(20, 1000) {
        let (mut server, theirs) = duplex::<Request, Reply>().unwrap();
        let child = serve::spawn(theirs).unwrap();
        server.send(Request::Add(1, 2)).unwrap();
        assert_eq!(server.recv().unwrap(), Reply::Sum(3));
        // No word of farewell: that the only other end has gone is enough, on both sides.
        drop(server);
        assert_eq!(child.join().unwrap(), 1);

        let (mut server, theirs) = duplex::<Request, Reply>().unwrap();
        let child = serve::spawn(theirs).unwrap();
        server.send(Request::Stop).unwrap();
        assert!(matches!(server.recv(), Err(RecvError::Disconnected)));
        child.join().unwrap();
    }
}

#[test]
fn both_directions_are_apart() {
    let _watchdog = watchdog("both_directions_are_apart", LIMIT);
    let (mut a, mut b) = duplex::<u64, String>().unwrap();
    assert!(!a.poll(Duration::ZERO).unwrap());
    for number in 0..50 {
        a.send(number).unwrap();
        b.send(number.to_string()).unwrap();
    }
    a.send_bytes(b"bytes").unwrap();
    b.send_bytes(b"").unwrap();
    for number in 0..50 {
        assert_eq!(b.recv().unwrap(), number);
    }
    assert!(matches!(b.recv(), Err(RecvError::WrongKind)));
    assert_eq!(b.recv_bytes(5).unwrap(), b"bytes");
    assert!(matches!(b.try_recv(), Err(RecvError::Empty)));
    assert!(!b.poll(Duration::ZERO).unwrap());
    assert!(a.poll(Duration::ZERO).unwrap());
    for number in 0..50 {
        assert_eq!(a.recv_timeout(LONG).unwrap(), number.to_string());
    }
    assert_eq!(a.recv_bytes_into(&mut [0_u8; 1]).unwrap(), 0);
    let begin = Instant::now();
    let timeout = Duration::from_millis(20);
    assert!(matches!(a.recv_timeout(timeout), Err(RecvError::Timeout)));
    assert!(begin.elapsed() >= timeout, "returned early");
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    let _watchdog = watchdog("what_was_sent_before_the_end_arrives", LIMIT);
    #[mproc::entry]
    fn send_and_leave(mut peer: Connection<String, ()>, count: usize) {
        for number in 0..count {
            peer.send("x".repeat(number * 50)).unwrap();
        }
    }
    let count = 60;
    for _ in 0..dose(20, 1000) {
        let (mut ours, theirs) = duplex::<(), String>().unwrap();
        let child = send_and_leave::spawn(theirs, count).unwrap();
        let texts: Vec<String> = ours.iter().map(Result::unwrap).collect();
        assert_eq!(texts.len(), count);
        assert!((0..count).all(|number| texts[number] == "x".repeat(number * 50)));
        // A connection that was dropped is gone as a whole once one of its directions is.
        assert!(matches!(ours.send(()), Err(SendError::Disconnected(()))));
        child.join().unwrap();
    }
}

#[test]
fn halves_work_and_close_apart() {
    let _watchdog = watchdog("halves_work_and_close_apart", LIMIT);
    let (a, mut b) = duplex::<u64, String>().unwrap();
    let (mut tx, mut rx) = a.split();
    tx.send(1).unwrap();
    b.send("one".into()).unwrap();
    assert_eq!(b.recv().unwrap(), 1);
    assert_eq!(rx.recv().unwrap(), "one");
    // The end of one direction is not that of the other.
    tx.send(2).unwrap();
    drop(tx);
    assert_eq!(b.recv().unwrap(), 2);
    assert!(matches!(b.recv(), Err(RecvError::Disconnected)));
    b.send("two".into()).unwrap();
    assert_eq!(rx.recv().unwrap(), "two");
    drop(rx);
    let error = b.send("three".into()).unwrap_err();
    assert!(matches!(error, SendError::Disconnected(_)));
    assert_eq!(error.into_inner(), "three");

    // The other half first, and both sides split.
    let (a, b) = duplex::<u64, String>().unwrap();
    let ((mut a_tx, a_rx), (mut b_tx, mut b_rx)) = (a.split(), b.split());
    drop(a_rx);
    assert!(matches!(
        b_tx.send("x".into()),
        Err(SendError::Disconnected(_))
    ));
    a_tx.send(1).unwrap();
    drop(b_tx);
    a_tx.send(2).unwrap();
    drop(a_tx);
    assert_eq!(b_rx.iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
}

/// Also in the middle of things: what lies unread goes with the half that reads.
#[test]
fn splitting_loses_nothing() {
    let _watchdog = watchdog("splitting_loses_nothing", LIMIT);
    let (mut a, mut b) = duplex::<u64, u64>().unwrap();
    for number in 0..20 {
        a.send(number).unwrap();
        b.send(number).unwrap();
    }
    for number in 0..10 {
        assert_eq!(a.recv().unwrap(), number);
    }
    let ((mut a_tx, a_rx), (b_tx, b_rx)) = (a.split(), b.split());
    a_tx.send(20).unwrap();
    drop((a_tx, b_tx));
    assert!(a_rx.into_iter().map(Result::unwrap).eq(10..20));
    assert!(b_rx.into_iter().map(Result::unwrap).eq(0..21));
}

#[mproc::entry]
fn produce(mut tx: Sender<u64>, count: u64) {
    for number in 0..count {
        tx.send(number).unwrap();
    }
}

#[mproc::entry]
fn sum(rx: Receiver<u64>) -> u64 {
    let mut expected = 0..;
    rx.into_iter()
        .map(|number| {
            let number = number.unwrap();
            assert_eq!(Some(number), expected.next());
            number
        })
        .sum()
}

#[mproc::entry]
fn echo_numbers(mut peer: Connection<u64, u64>) -> u64 {
    let mut count = 0;
    while let Ok(number) = peer.recv() {
        peer.send(number).unwrap();
        count += 1;
    }
    count
}

/// One process writes into the connection and another one reads from it.
#[test]
fn halves_in_two_processes() {
    let _watchdog = watchdog("halves_in_two_processes", LIMIT);
    let count = dose(30_000, 3_000_000) as u64;
    let (ours, theirs) = duplex::<u64, u64>().unwrap();
    let echo = echo_numbers::spawn(theirs).unwrap();
    let (tx, rx) = ours.split();
    let consumer = sum::spawn(rx).unwrap();
    let producer = produce::spawn(tx, count).unwrap();
    producer.join().unwrap();
    assert_eq!(echo.join().unwrap(), count);
    assert_eq!(consumer.join().unwrap(), (0..count).sum::<u64>());
}

#[test]
fn halves_in_two_threads() {
    let _watchdog = watchdog("halves_in_two_threads", LIMIT);
    let count = dose(30_000, 3_000_000) as u64;
    let (ours, theirs) = duplex::<u64, u64>().unwrap();
    let echo = echo_numbers::spawn(theirs).unwrap();
    let (tx, rx) = ours.split();
    let producer = std::thread::spawn(move || produce(tx, count));
    assert_eq!(sum(rx), (0..count).sum::<u64>());
    producer.join().unwrap();
    assert_eq!(echo.join().unwrap(), count);
}

/// Two who both send more than fits before they read would wait for each other for ever; with a deadline they do not, and
/// what was not sent is not received.
#[test]
fn two_who_flood_each_other_part_in_time() {
    let _watchdog = watchdog("two_who_flood_each_other_part_in_time", LIMIT);
    fn flood(mut peer: Connection<String, String>) -> (usize, usize) {
        let (mut sent, mut got) = (0, 0);
        let message = "x".repeat(1 << 20);
        // The other side may begin to read while this one still writes, and then there is always room.
        while sent < 30
            && let Ok(()) = peer.send_timeout(message.clone(), Duration::from_millis(30))
        {
            sent += 1;
        }
        // The last word needs room, and room comes with reading, by turns here.
        let mut over = Some("over".to_owned());
        loop {
            if let Some(text) = over.take() {
                match peer.send_timeout(text, Duration::from_millis(1)) {
                    Ok(()) => {}
                    Err(SendError::Timeout(text)) => over = Some(text),
                    Err(error) => panic!("{error}"),
                }
            }
            match peer.recv_timeout(Duration::from_millis(1)) {
                Ok(text) if text == "over" => break,
                Ok(text) => {
                    assert!(text == message);
                    got += 1;
                }
                Err(RecvError::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if let Some(text) = over {
            peer.send(text).unwrap();
        }
        (sent, got)
    }
    #[mproc::entry]
    fn flood_too(peer: Connection<String, String>) -> (usize, usize) {
        flood(peer)
    }
    let (ours, theirs) = duplex::<String, String>().unwrap();
    let child = flood_too::spawn(theirs).unwrap();
    let (sent_here, got_here) = flood(ours);
    let (sent_there, got_there) = child.join().unwrap();
    assert_eq!((sent_here, sent_there), (got_there, got_here));
}

#[test]
fn full_duplex_floods_flow() {
    let _watchdog = watchdog("full_duplex_floods_flow", LIMIT);
    fn flood(peer: Connection<(u64, String), (u64, String)>, count: u64) {
        let (mut tx, rx) = peer.split();
        let writer = std::thread::spawn(move || {
            let mut dice = Dice::new("full_duplex_floods_flow");
            for number in 0..count {
                let length = match number % 50 {
                    0 => dice.below(2 << 20),
                    _ => dice.below(2000),
                };
                let text = char::from(b'a' + (number % 26) as u8)
                    .to_string()
                    .repeat(length as usize);
                tx.send((number, text)).unwrap();
            }
        });
        let mut expected = 0;
        for message in rx {
            let (number, text) = message.unwrap();
            assert_eq!(number, expected);
            let letter = b'a' + (number % 26) as u8;
            assert!(text.bytes().take(5000).all(|byte| byte == letter));
            expected += 1;
        }
        assert_eq!(expected, count);
        writer.join().unwrap();
    }
    #[mproc::entry]
    fn flood_too(peer: Connection<(u64, String), (u64, String)>, count: u64) {
        flood(peer, count);
    }
    let count = dose(1000, 100_000) as u64;
    let (ours, theirs) = duplex().unwrap();
    let child = flood_too::spawn(theirs, count).unwrap();
    flood(ours, count);
    child.join().unwrap();
}

/// Python's `pickling`: connections through connections, with the rights of each end kept, which are its type here.
#[test]
fn connections_travel_through_connections() {
    let _watchdog = watchdog("connections_travel_through_connections", LIMIT);
    #[derive(Serialize, Deserialize, Debug)]
    enum Line {
        Both(Connection<String, String>),
        Writer(Sender<String>),
        Reader(Receiver<String>),
        Deeper(Connection<Line, Line>),
    }
    #[mproc::entry]
    fn shout_back(mut lines: Connection<Line, Line>) {
        for line in &mut lines {
            match line.unwrap() {
                Line::Both(mut both) => {
                    let text = both.recv().unwrap();
                    both.send(text.to_uppercase()).unwrap();
                }
                Line::Writer(mut tx) => tx.send("WRITTEN".into()).unwrap(),
                Line::Reader(mut rx) => assert_eq!(rx.recv().unwrap(), "to be read"),
                Line::Deeper(lines) => shout_back(lines),
            }
        }
    }
    let (lines, theirs) = duplex::<Line, Line>().unwrap();
    let child = shout_back::spawn(theirs).unwrap();
    let mut above = lines;
    // Each time one connection deeper, in one and the same child.
    for _ in 0..5 {
        let (mut ours, theirs) = duplex::<String, String>().unwrap();
        above.send(Line::Both(theirs)).unwrap();
        ours.send("loud".into()).unwrap();
        assert_eq!(ours.recv().unwrap(), "LOUD");
        assert!(matches!(ours.recv(), Err(RecvError::Disconnected)));
        let (tx, mut rx) = pipe().unwrap();
        above.send(Line::Writer(tx)).unwrap();
        assert_eq!(rx.recv().unwrap(), "WRITTEN");
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
        let (mut tx, rx) = pipe::<String>().unwrap();
        above.send(Line::Reader(rx)).unwrap();
        tx.send("to be read".into()).unwrap();
        let (below, theirs) = duplex::<Line, Line>().unwrap();
        above.send(Line::Deeper(theirs)).unwrap();
        above = below;
    }
    drop(above);
    child.join().unwrap();
}

#[test]
fn a_connection_closes_by_word_and_iterates() {
    let _watchdog = watchdog("a_connection_closes_by_word_and_iterates", LIMIT);
    let (mut a, mut b) = duplex::<u64, u64>().unwrap();
    for number in 0..6 {
        a.send(number).unwrap();
    }
    let mut got: Vec<u64> = b.iter().take(2).map(Result::unwrap).collect();
    for number in &mut b {
        got.push(number.unwrap());
        if got.len() == 4 {
            break;
        }
    }
    b.send(9).unwrap();
    assert_eq!(a.recv().unwrap(), 9);
    a.close();
    assert!(matches!(b.send(1), Err(SendError::Disconnected(1))));
    got.extend(b.into_iter().map(Result::unwrap));
    assert_eq!(got, [0, 1, 2, 3, 4, 5]);
}

/// A process talks to itself as to any other.
#[test]
fn both_ends_in_one_thread() {
    let _watchdog = watchdog("both_ends_in_one_thread", LIMIT);
    let (mut a, mut b) = duplex::<String, String>().unwrap();
    for length in [0, 1, 100, 10_000] {
        for _ in 0..dose(200, 20_000) {
            a.send("x".repeat(length)).unwrap();
            let text = b.recv().unwrap();
            b.send(text).unwrap();
            assert_eq!(a.recv().unwrap().len(), length);
        }
    }
}

/// From all sides at once: nobody gets what is another's.
#[test]
fn many_connections_of_one_process() {
    let _watchdog = watchdog("many_connections_of_one_process", LIMIT);
    let count = dose(12, 64);
    let children: Vec<_> = (0..count)
        .map(|_| {
            let (ours, theirs) = duplex::<u64, u64>().unwrap();
            (ours, echo_numbers::spawn(theirs).unwrap())
        })
        .collect();
    std::thread::scope(|scope| {
        for (which, (mut peer, child)) in children.into_iter().enumerate() {
            scope.spawn(move || {
                let numbers = (0..200).map(|number| number * 1000 + which as u64);
                for number in numbers {
                    peer.send(number).unwrap();
                    assert_eq!(peer.recv().unwrap(), number);
                }
                drop(peer);
                assert_eq!(child.join().unwrap(), 200);
            });
        }
    });
}
