//! Waiting for pipes among other things: `poll`, `wait`, and descriptors that `poll(2)`, epoll and mio can watch.
//!
//! A watched descriptor is readable exactly when something is there, or the end is.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use mproc::{Child, Connection, Queue, Receiver, RecvError, Sender, duplex, pipe, wait};
use mproc_tests::{Dice, dose, eventually, interruptions, storm, watchdog};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

const LIMIT: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(20);

fn is_readable(fd: impl AsFd) -> bool {
    let mut look = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut look, PollTimeout::ZERO).unwrap() == 1
}

fn wait_until_readable(fd: impl AsFd) {
    let mut look = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut look, PollTimeout::from(20_000_u16)).unwrap();
    assert_eq!(ready, 1, "nothing came in 20 seconds");
}

/// Sends as many numbers, in bursts with pauses of microseconds between them, in which its reader falls asleep or does not.
#[mproc::entry]
fn send_in_bursts(mut tx: Sender<(u64, String)>, count: u64) {
    let mut dice = Dice::new("send_in_bursts");
    let mut number = 0;
    while number < count {
        for _ in 0..dice.below(6) {
            if number < count {
                let length = match dice.below(200) {
                    0 => 1 << 20,
                    1..40 => 2000,
                    _ => 5,
                };
                tx.send((number, "x".repeat(length))).unwrap();
                number += 1;
            }
        }
        dice.pause(Duration::from_micros(1 << dice.clone().below(9)));
    }
}

/// Takes what is there now. `true` is the end.
fn take_all(rx: &mut Receiver<(u64, String)>, next: &mut u64) -> bool {
    loop {
        match rx.try_recv() {
            Ok((number, _)) => {
                assert_eq!(number, *next);
                *next += 1;
            }
            Err(RecvError::Empty) => return false,
            Err(RecvError::Disconnected) => return true,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn readable_is_a_level() {
    let _watchdog = watchdog("readable_is_a_level", LIMIT);
    let (mut tx, mut rx) = pipe::<u64>().unwrap();
    assert!(!is_readable(&rx));
    for round in 0..dose(300, 30_000) as u64 {
        tx.send(round).unwrap();
        assert!(is_readable(&rx) && is_readable(&rx));
        tx.send_bytes(b"more").unwrap();
        assert!(is_readable(&rx));
        assert_eq!(rx.recv().unwrap(), round);
        assert!(is_readable(&rx), "one is left");
        // Asking in the wrong way takes nothing.
        assert!(matches!(rx.recv(), Err(RecvError::WrongKind)));
        assert!(matches!(rx.recv_bytes(1), Err(RecvError::TooLong { .. })));
        assert!(is_readable(&rx));
        rx.recv_bytes(4).unwrap();
        assert!(!is_readable(&rx), "round {round}");
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        assert!(!is_readable(&rx));
    }
    drop(tx);
    assert!(is_readable(&rx), "the end is something");
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    assert!(is_readable(&rx), "and stays");
}

/// Whatever lay there before anybody watched.
#[test]
fn watching_may_begin_late() {
    let _watchdog = watchdog("watching_may_begin_late", LIMIT);
    let (mut tx, mut rx) = pipe::<u64>().unwrap();
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    assert!(is_readable(&rx));
    rx.recv().unwrap();
    assert!(is_readable(&rx));
    rx.recv().unwrap();
    assert!(!is_readable(&rx));
    let (tx, mut rx) = pipe::<u64>().unwrap();
    drop(tx);
    assert!(is_readable(&rx));
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    let (mut tx, rx) = pipe::<u64>().unwrap();
    tx.send(3).unwrap();
    drop(tx);
    assert!(is_readable(&rx));
    // From the middle of a stream on.
    for _ in 0..dose(10, 500) {
        let count = 500;
        let (tx, mut rx) = pipe().unwrap();
        let child = send_in_bursts::spawn(tx, count).unwrap();
        let mut dice = Dice::new("watching_may_begin_late");
        let unwatched = dice.below(count);
        for expected in 0..unwatched {
            assert_eq!(rx.recv().unwrap().0, expected);
        }
        let mut next = unwatched;
        while !take_all(&mut rx, &mut next) {
            wait_until_readable(&rx);
        }
        assert_eq!(next, count);
        child.join().unwrap();
    }
}

/// A descriptor that is registered somewhere must not change.
#[test]
fn the_descriptor_stays_the_same() {
    let _watchdog = watchdog("the_descriptor_stays_the_same", LIMIT);
    let (mut a, mut b) = duplex::<u64, u64>().unwrap();
    let numbers = [a.as_fd().as_raw_fd(), b.as_fd().as_raw_fd()];
    for number in 0..1000 {
        a.send(number).unwrap();
        assert_eq!(b.recv().unwrap(), number);
        b.send(number).unwrap();
        assert_eq!(a.recv_timeout(LONG).unwrap(), number);
    }
    assert!(!a.poll(Duration::from_micros(10)).unwrap());
    assert_eq!([a.as_fd().as_raw_fd(), b.as_fd().as_raw_fd()], numbers);
    drop(b);
    assert!(matches!(a.recv(), Err(RecvError::Disconnected)));
    assert_eq!(a.as_fd().as_raw_fd(), numbers[0]);
}

/// Sends as many numbers, with pauses of microseconds after some, in which its reader finds nothing.
#[mproc::entry]
fn send_small(mut tx: Sender<u64>, count: u64) {
    let mut dice = Dice::new("send_small");
    for number in 0..count {
        tx.send(number).unwrap();
        if dice.below(3) == 0 {
            dice.pause(Duration::from_micros(100));
        }
    }
}

/// Small messages are whole when they are announced: there is no waking for nothing.
#[test]
fn what_is_announced_is_there() {
    let _watchdog = watchdog("what_is_announced_is_there", LIMIT);
    let count = dose(5000, 500_000) as u64;
    let (tx, mut rx) = pipe().unwrap();
    let child = send_small::spawn(tx, count).unwrap();
    for expected in 0..count {
        wait_until_readable(&rx);
        assert_eq!(rx.try_recv().unwrap(), expected);
    }
    wait_until_readable(&rx);
    assert!(matches!(rx.try_recv(), Err(RecvError::Disconnected)));
    child.join().unwrap();
}

/// Nor is there if the writer is stopped between a message and its announcement, however long, and the reader looks meanwhile.
#[test]
fn what_a_stopped_writer_announced_is_there() {
    let _watchdog = watchdog("what_a_stopped_writer_announced_is_there", LIMIT);
    let count = dose(5000, 500_000) as u64;
    let (tx, mut rx) = pipe().unwrap();
    let child = send_small::spawn(tx, count).unwrap();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let child = &child;
        scope.spawn(move || {
            let mut dice = Dice::new("what_a_stopped_writer_announced_is_there");
            let send = |signal| {
                // OK to ignore: who has ended is not stopped.
                let _ = kill(Pid::from_raw(child.id() as i32), signal);
            };
            while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                dice.pause(Duration::from_micros(500));
                send(Signal::SIGSTOP);
                dice.pause(Duration::from_millis(3));
                send(Signal::SIGCONT);
            }
        });
        // Dropped also by a panic, so that the scope ends.
        let _done = done;
        let mut next = 0;
        loop {
            let announced = is_readable(&rx);
            match rx.try_recv() {
                Ok(number) => {
                    assert_eq!(number, next);
                    next += 1;
                }
                Err(RecvError::Empty) => assert!(!announced, "it was readable, and nothing there"),
                Err(error) => {
                    assert!(matches!(error, RecvError::Disconnected), "{error}");
                    break;
                }
            }
        }
        assert_eq!(next, count);
    });
    child.join().unwrap();
}

/// However the reader looks, from one call to the next, it misses nothing and is never left asleep.
#[test]
fn ways_of_waiting_may_be_mixed() {
    let _watchdog = watchdog("ways_of_waiting_may_be_mixed", LIMIT);
    let mut dice = Dice::new("ways_of_waiting_may_be_mixed");
    let count = dose(8000, 800_000) as u64;
    let (tx, mut rx) = pipe().unwrap();
    let child = send_in_bursts::spawn(tx, count).unwrap();
    let mut next = 0;
    let end = loop {
        match dice.below(6) {
            0 => wait_until_readable(&rx),
            1 => assert!(rx.poll(LONG).unwrap()),
            2 => assert_eq!(wait(&[&rx], Some(LONG)).unwrap(), [0]),
            _ => {}
        }
        let got = match dice.below(3) {
            0 => rx.recv(),
            1 => rx.recv_timeout(LONG),
            _ => rx.try_recv(),
        };
        match got {
            Ok((number, _)) => {
                assert_eq!(number, next);
                next += 1;
            }
            Err(RecvError::Empty) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end, RecvError::Disconnected), "{end}");
    assert_eq!(next, count);
    child.join().unwrap();
}

fn watch_by_epoll(flags: EpollFlags) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let count = dose(3000, 300_000) as u64;
    let mut streams: Vec<_> = (0..3)
        .map(|which| {
            let (tx, rx) = pipe().unwrap();
            epoll.add(&rx, EpollEvent::new(flags, which)).unwrap();
            (send_in_bursts::spawn(tx, count).unwrap(), rx, 0_u64)
        })
        .collect();
    let mut open = streams.len();
    while open > 0 {
        let mut events = [EpollEvent::empty(); 2];
        let ready = epoll.wait(&mut events, EpollTimeout::from(20_000_u16));
        let ready = ready.unwrap();
        assert_ne!(ready, 0, "nothing came in 20 seconds");
        for event in &events[..ready] {
            let (_, rx, next) = &mut streams[event.data() as usize];
            if take_all(rx, next) {
                epoll.delete(&*rx).unwrap();
                assert_eq!(*next, count);
                open -= 1;
            }
        }
    }
    for (child, _, _) in streams {
        child.join().unwrap();
    }
}

#[test]
fn epoll_watches_the_level() {
    let _watchdog = watchdog("epoll_watches_the_level", LIMIT);
    watch_by_epoll(EpollFlags::EPOLLIN);
}

/// Who takes all that is there after an edge is told of the next one.
#[test]
fn epoll_watches_the_edge() {
    let _watchdog = watchdog("epoll_watches_the_edge", LIMIT);
    watch_by_epoll(EpollFlags::EPOLLIN | EpollFlags::EPOLLET);
}

/// With a reader that has always just taken the last one: a message that comes while it finds nothing, and before it
/// sleeps, is an edge as well.
#[test]
fn epoll_misses_no_edge_of_a_busy_writer() {
    let _watchdog = watchdog("epoll_misses_no_edge_of_a_busy_writer", LIMIT);
    #[mproc::entry]
    fn send_all_the_time(mut tx: Sender<(u64, String)>, count: u64) {
        let mut dice = Dice::new("send_all_the_time");
        for number in 0..count {
            let length = if dice.below(8) == 0 { 1 << 20 } else { 5 };
            tx.send((number, "x".repeat(length))).unwrap();
            dice.pause(Duration::from_nanos(1 << (8 + number / 512 % 6)));
        }
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let count = dose(8000, 160_000) as u64;
    let (tx, mut rx) = pipe().unwrap();
    let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    epoll.add(&rx, EpollEvent::new(edge, 0)).unwrap();
    let child = send_all_the_time::spawn(tx, count).unwrap();
    let mut next = 0;
    while !take_all(&mut rx, &mut next) {
        let mut events = [EpollEvent::empty(); 2];
        let ready = epoll.wait(&mut events, EpollTimeout::from(20_000_u16));
        assert_ne!(ready.unwrap(), 0, "nothing came in 20 seconds");
    }
    assert_eq!(next, count);
    child.join().unwrap();
}

/// With a level, one message for each event is enough; the rest is announced again.
#[test]
fn epoll_announces_what_was_left() {
    let _watchdog = watchdog("epoll_announces_what_was_left", LIMIT);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let count = dose(3000, 300_000) as u64;
    let (tx, mut rx) = pipe().unwrap();
    epoll
        .add(&rx, EpollEvent::new(EpollFlags::EPOLLIN, 7))
        .unwrap();
    let child = send_in_bursts::spawn(tx, count).unwrap();
    let mut next = 0;
    loop {
        let mut events = [EpollEvent::empty(); 4];
        let ready = epoll.wait(&mut events, EpollTimeout::from(20_000_u16));
        assert_eq!(ready.unwrap(), 1, "nothing came in 20 seconds");
        assert_eq!(events[0].data(), 7);
        match rx.try_recv() {
            Ok((number, _)) => {
                assert_eq!(number, next);
                next += 1;
            }
            // A long message may be announced by its beginning.
            Err(RecvError::Empty) => {}
            Err(error) => {
                assert!(matches!(error, RecvError::Disconnected), "{error}");
                break;
            }
        }
    }
    assert_eq!(next, count);
    child.join().unwrap();
}

#[test]
fn mio_watches_pipes_and_connections() {
    let _watchdog = watchdog("mio_watches_pipes_and_connections", LIMIT);
    #[mproc::entry]
    fn answer(mut peer: Connection<u64, u64>) {
        while let Ok(number) = peer.recv() {
            peer.send(number + 1).unwrap();
        }
    }
    let mut poll = mio::Poll::new().unwrap();
    let mut events = Events::with_capacity(4);
    let count = dose(2000, 200_000) as u64;
    let register = |fd: i32, token| {
        poll.registry()
            .register(&mut SourceFd(&fd), Token(token), Interest::READABLE)
            .unwrap();
    };
    let mut streams: Vec<_> = (0..2)
        .map(|which| {
            let (tx, rx) = pipe().unwrap();
            register(rx.as_fd().as_raw_fd(), which);
            (send_in_bursts::spawn(tx, count).unwrap(), rx, 0)
        })
        .collect();
    let (mut peer, theirs) = duplex().unwrap();
    register(peer.as_fd().as_raw_fd(), 2);
    let child = answer::spawn(theirs).unwrap();
    peer.send(0).unwrap();
    let mut open = 3;
    let mut connection = Some(peer);
    while open > 0 {
        poll.poll(&mut events, Some(LONG)).unwrap();
        assert!(!events.is_empty(), "nothing came in 20 seconds");
        for event in &events {
            if let Some((_, rx, next)) = streams.get_mut(event.token().0) {
                if *next <= count && take_all(rx, next) {
                    assert_eq!(*next, count);
                    // So that a later event of the same end does not count again.
                    *next += 1;
                    open -= 1;
                }
                continue;
            }
            while let Some(peer) = &mut connection {
                match peer.try_recv() {
                    Ok(number) if number == count => {
                        connection = None;
                        open -= 1;
                    }
                    Ok(number) => peer.send(number).unwrap(),
                    Err(RecvError::Empty) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    child.join().unwrap();
    for (child, _, _) in streams {
        child.join().unwrap();
    }
}

/// Half of a watched pair goes to a process of its own, watches there, and comes back.
#[test]
fn a_watched_end_moves() {
    let _watchdog = watchdog("a_watched_end_moves", LIMIT);
    #[mproc::entry]
    fn watch(mut rx: Receiver<u64>, from: u64, to: u64) -> Receiver<u64> {
        for expected in from..to {
            wait_until_readable(&rx);
            assert_eq!(rx.try_recv().unwrap(), expected);
        }
        rx
    }
    let (mut tx, mut rx) = pipe().unwrap();
    assert!(!is_readable(&rx));
    tx.send(0).unwrap();
    assert!(is_readable(&rx));
    let child = watch::spawn(rx, 0, 10).unwrap();
    for number in 1..20 {
        tx.send(number).unwrap();
    }
    rx = child.join().unwrap();
    for expected in 10..20 {
        // Whether it is still watched is its own affair: it is asked to be, here.
        assert!(is_readable(&rx));
        assert_eq!(rx.recv().unwrap(), expected);
    }
    assert!(!is_readable(&rx));
    let child = watch::spawn(rx, 20, 22).unwrap();
    tx.send(20).unwrap();
    tx.send(21).unwrap();
    let mut rx = child.join().unwrap();
    drop(tx);
    assert!(is_readable(&rx));
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
}

#[test]
fn poll_takes_nothing_and_is_never_early() {
    let _watchdog = watchdog("poll_takes_nothing_and_is_never_early", LIMIT);
    fn check<T: DeserializeOwned + PartialEq + std::fmt::Debug>(
        mut send: impl FnMut(T) -> bool,
        mut rx: Receiver<T>,
        value: fn() -> T,
    ) {
        for timeout in [0, 1, 1000, 30_000_000] {
            let timeout = Duration::from_nanos(timeout);
            let begin = Instant::now();
            assert!(!rx.poll(timeout).unwrap());
            assert!(begin.elapsed() >= timeout, "returned early");
        }
        assert!(send(value()));
        for timeout in [
            Duration::ZERO,
            Duration::from_millis(1),
            LONG,
            Duration::MAX,
        ] {
            assert!(rx.poll(timeout).unwrap());
        }
        assert_eq!(rx.try_recv().unwrap(), value());
        assert!(!rx.poll(Duration::ZERO).unwrap());
        drop(send);
        for timeout in [Duration::ZERO, LONG, Duration::MAX] {
            assert!(rx.poll(timeout).unwrap(), "the end is something");
        }
    }
    let (mut tx, rx) = pipe().unwrap();
    check(move |value| tx.send(value).is_ok(), rx, || 5_u64);
    // Once more with an end that is watched.
    let (mut tx, rx) = pipe().unwrap();
    assert!(!is_readable(&rx));
    check(
        move |value| tx.send(value).is_ok(),
        rx,
        || "text".to_owned(),
    );
    let (mut a, b) = duplex::<(), ()>().unwrap();
    let (_b_tx, b_rx) = b.split();
    check(move |value| a.send(value).is_ok(), b_rx, || ());
}

/// Python's `wait`: several writers that each send ten messages at random moments, and leave.
#[test]
fn wait_hears_each_of_several_writers() {
    let _watchdog = watchdog("wait_hears_each_of_several_writers", LIMIT);
    #[mproc::entry]
    fn write_ten(mut tx: Sender<(u64, u32)>) {
        let mut dice = Dice::new("write_ten");
        for number in 0..10 {
            dice.pause(Duration::from_millis(3));
            tx.send((number, std::process::id())).unwrap();
        }
    }
    for _ in 0..dose(5, 500) {
        let mut children = Vec::new();
        let mut readers = Vec::new();
        for _ in 0..4 {
            let (tx, rx) = pipe().unwrap();
            children.push(write_ten::spawn(tx).unwrap());
            readers.push(rx);
        }
        let ids: Vec<u32> = children.iter().map(|child| child.id()).collect();
        let mut got = Vec::new();
        while !readers.is_empty() {
            let items: Vec<&dyn AsFd> = readers.iter().map(|rx| rx as &dyn AsFd).collect();
            let ready = wait(&items, Some(LONG)).unwrap();
            assert!(!ready.is_empty(), "nothing came in 20 seconds");
            assert!(ready.is_sorted() && ready.iter().all(|&which| which < readers.len()));
            for which in ready.into_iter().rev() {
                match readers[which].try_recv() {
                    Ok(message) => got.push(message),
                    Err(RecvError::Disconnected) => drop(readers.swap_remove(which)),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        for id in &ids {
            let own = got.iter().filter(|(_, from)| from == id);
            assert!(
                own.map(|(number, _)| *number).eq(0..10),
                "each once, in order"
            );
        }
        assert_eq!(got.len(), 40);
        for child in children {
            child.join().unwrap();
        }
    }
}

/// Python's `wait_socket`: the same with what is not ours.
#[test]
fn wait_takes_whatever_has_a_descriptor() {
    let _watchdog = watchdog("wait_takes_whatever_has_a_descriptor", LIMIT);
    let (mut tx, mut rx) = pipe::<u64>().unwrap();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let (mut a, mut b) = duplex::<u64, u64>().unwrap();
    let queue = Queue::<u64>::new().unwrap();
    let look = |rx: &Receiver<u64>, far: &UnixStream, b: &Connection<u64, u64>| {
        wait(&[rx, far, b, &queue], Some(Duration::ZERO)).unwrap()
    };
    assert_eq!(look(&rx, &far, &b), [0_usize; 0]);
    near.write_all(b"x").unwrap();
    assert_eq!(look(&rx, &far, &b), [1]);
    tx.send(1).unwrap();
    assert_eq!(look(&rx, &far, &b), [0, 1]);
    queue.put(1).unwrap();
    a.send(1).unwrap();
    assert_eq!(look(&rx, &far, &b), [0, 1, 2, 3]);
    assert_eq!(wait(&[&b, &rx, &b], None).unwrap(), [0, 1, 2]);
    far.read_exact(&mut [0]).unwrap();
    rx.recv().unwrap();
    assert_eq!(look(&rx, &far, &b), [2, 3]);
    assert_eq!(queue.get().unwrap(), 1);
    b.recv().unwrap();
    assert_eq!(look(&rx, &far, &b), [0_usize; 0]);
    drop((tx, near, a));
    // A child that is just being started elsewhere has a copy of `near` for a moment.
    eventually(|| look(&rx, &far, &b) == [0, 1, 2]);
}

/// Python's `wait_timeout`, `neg_timeout` and `wait_empty`.
#[test]
fn wait_is_never_early_and_never_late_for_what_is_there() {
    let _watchdog = watchdog("wait_is_never_early", LIMIT);
    let (mut tx, rx) = pipe::<u64>().unwrap();
    for timeout in [0, 1, 1000, 40_000_000] {
        let timeout = Duration::from_nanos(timeout);
        for items in [&[&rx as &dyn AsFd][..], &[]] {
            let begin = Instant::now();
            assert_eq!(wait(items, Some(timeout)).unwrap(), [0_usize; 0]);
            assert!(begin.elapsed() >= timeout, "returned early");
        }
    }
    tx.send(1).unwrap();
    for timeout in [
        Some(Duration::ZERO),
        Some(LONG),
        Some(Duration::from_secs(i64::MAX as u64)),
        Some(Duration::MAX),
        None,
    ] {
        assert_eq!(wait(&[&rx], timeout).unwrap(), [0]);
    }
}

/// Whoever sleeps is woken, by a message, by the end, and by a death.
#[test]
fn wait_wakes_from_its_sleep() {
    let _watchdog = watchdog("wait_wakes_from_its_sleep", LIMIT);
    let mut dice = Dice::new("wait_wakes_from_its_sleep");
    #[mproc::entry]
    fn hold(rx: Receiver<()>) {
        rx.into_iter().for_each(drop);
    }
    let (hold_tx, hold_rx) = pipe().unwrap();
    let child = hold::spawn(hold_rx).unwrap();
    let timeout = [None, Some(LONG), Some(Duration::MAX)];
    for round in 0..dose(200, 20_000) {
        let (mut tx, rx) = pipe::<u64>().unwrap();
        let (other_tx, other_rx) = pipe::<u64>().unwrap();
        std::thread::scope(|scope| {
            let (rx, other_rx, child) = (&rx, &other_rx, &child);
            // The ends are not `Sync`: they are looked at where they are, and moved to by those who ring.
            let ringer = scope.spawn({
                let mut dice = dice.clone();
                dice.below(7);
                move || {
                    dice.pause(Duration::from_micros(300));
                    if round % 2 == 0 {
                        tx.send(1).unwrap();
                        Some(tx)
                    } else {
                        drop(tx);
                        None
                    }
                }
            });
            let ready = wait(&[child, other_rx, rx], timeout[round % 3]).unwrap();
            assert_eq!(ready, [2]);
            drop(ringer.join().unwrap());
        });
        drop(other_tx);
        dice.below(2);
    }
    drop(hold_tx);
    assert_eq!(wait(&[&child], None).unwrap(), [0]);
    child.join().unwrap();
}

/// Python's `wait_integer`: children and pipes side by side; each is ready when it is.
#[test]
fn wait_mixes_children_and_pipes() {
    let _watchdog = watchdog("wait_mixes_children_and_pipes", LIMIT);
    #[mproc::entry]
    fn send_when_told(mut told: Receiver<u64>, mut tx: Sender<u64>) -> u64 {
        let number = told.recv().unwrap();
        tx.send(number).unwrap();
        // Lives on until it is told that, too.
        assert!(matches!(told.recv(), Err(RecvError::Disconnected)));
        drop(tx);
        number
    }
    let (mut tell, told) = pipe().unwrap();
    let (tx, mut rx) = pipe().unwrap();
    let child = send_when_told::spawn(told, tx).unwrap();
    let look =
        |child: &Child<u64>, rx: &Receiver<u64>, timeout| wait(&[child, rx], timeout).unwrap();
    let now = Some(Duration::ZERO);
    assert_eq!(look(&child, &rx, now), [0_usize; 0]);
    tell.send(7).unwrap();
    assert_eq!(look(&child, &rx, None), [1]);
    assert_eq!(rx.recv().unwrap(), 7);
    assert_eq!(look(&child, &rx, now), [0_usize; 0]);
    drop(tell);
    assert_eq!(wait(&[&child], None).unwrap(), [0]);
    assert_eq!(look(&child, &rx, now), [0, 1], "both are over");
    child.join().unwrap();
    assert_eq!(wait(&[&rx], None).unwrap(), [0]);
}

/// A killed peer is something to hear, whichever way one listens.
#[test]
fn a_killed_peer_is_heard_by_all_who_wait() {
    let _watchdog = watchdog("a_killed_peer_is_heard_by_all_who_wait", LIMIT);
    let mut dice = Dice::new("a_killed_peer_is_heard_by_all_who_wait");
    #[mproc::entry]
    fn hold(mut tx: Sender<u64>, mut rx: Receiver<()>) {
        tx.send(0).unwrap();
        while rx.recv().is_ok() {}
    }
    for round in 0..dose(40, 4000) {
        let (tx, mut rx) = pipe().unwrap();
        let (_never, held) = pipe().unwrap();
        let child = hold::spawn(tx, held).unwrap();
        assert_eq!(rx.recv().unwrap(), 0);
        // Watched before the death and after it.
        if round % 3 == 0 {
            assert!(!is_readable(&rx));
        }
        let killer = {
            let child = child.into_any();
            let mut dice = dice.clone();
            std::thread::spawn(move || {
                dice.pause(Duration::from_micros(400));
                child.kill().unwrap();
                child.wait().unwrap();
            })
        };
        match round % 4 {
            0 => wait_until_readable(&rx),
            1 => assert!(rx.poll(LONG).unwrap()),
            2 => assert_eq!(wait(&[&rx], None).unwrap(), [0]),
            _ => {}
        }
        assert!(matches!(
            rx.recv_timeout(LONG),
            Err(RecvError::Disconnected)
        ));
        killer.join().unwrap();
        dice.below(2);
    }
}

/// Hundreds at once, of which one rings.
#[test]
fn wait_for_hundreds() {
    let _watchdog = watchdog("wait_for_hundreds", LIMIT);
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) =
        (0..100).map(|_| pipe::<usize>().unwrap()).unzip();
    let mut dice = Dice::new("wait_for_hundreds");
    for _ in 0..dose(100, 10_000) {
        let one = dice.below(100) as usize;
        let other = dice.below(100) as usize;
        senders[one].send(one).unwrap();
        senders[other].send(other).unwrap();
        let items: Vec<&dyn AsFd> = receivers.iter().map(|rx| rx as &dyn AsFd).collect();
        let mut expected = vec![one, other];
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(wait(&items, None).unwrap(), expected);
        assert_eq!(receivers[one].recv().unwrap(), one);
        assert_eq!(receivers[other].recv().unwrap(), other);
    }
}

/// In a process of its own.
#[mproc::entry]
fn wait_in_a_storm(mut rx: Receiver<(u64, String)>, mut quiet: Receiver<()>) -> (u64, u64) {
    storm();
    let timeout = Duration::from_millis(20);
    let begin = Instant::now();
    assert!(!quiet.poll(timeout).unwrap());
    assert!(begin.elapsed() >= timeout, "returned early");
    let begin = Instant::now();
    assert!(wait(&[&quiet], Some(timeout)).unwrap().is_empty());
    assert!(begin.elapsed() >= timeout, "returned early");
    let mut next = 0;
    loop {
        assert_eq!(wait(&[&quiet, &rx], Some(LONG)).unwrap(), [1]);
        assert!(rx.poll(LONG).unwrap());
        if take_all(&mut rx, &mut next) {
            return (next, interruptions());
        }
    }
}

#[test]
fn a_storm_of_signals_does_not_wake_who_waits() {
    let _watchdog = watchdog("a_storm_of_signals_does_not_wake_who_waits", LIMIT);
    let count = dose(2000, 200_000) as u64;
    let (tx, rx) = pipe().unwrap();
    let (_tx, quiet) = pipe().unwrap();
    let waiter = wait_in_a_storm::spawn(rx, quiet).unwrap();
    let sender = send_in_bursts::spawn(tx, count).unwrap();
    let (got, signals) = waiter.join().unwrap();
    assert_eq!(got, count);
    assert!(signals > 0, "no signal came");
    sender.join().unwrap();
}

/// A writer that is stopped in the middle of things: what is announced is there, and the rest comes later.
#[test]
fn a_stopped_writer_is_not_announced() {
    let _watchdog = watchdog("a_stopped_writer_is_not_announced", LIMIT);
    let mut dice = Dice::new("a_stopped_writer_is_not_announced");
    let count = dose(4000, 400_000) as u64;
    let (tx, mut rx) = pipe().unwrap();
    let child = send_in_bursts::spawn(tx, count).unwrap();
    let send = |signal| {
        // OK to ignore: who has ended is not stopped.
        let _ = kill(Pid::from_raw(child.id() as i32), signal);
    };
    let mut next = 0;
    for _ in 0..dose(30, 3000) {
        dice.pause(Duration::from_micros(500));
        send(Signal::SIGSTOP);
        let mut over = take_all(&mut rx, &mut next);
        for _ in 0..5 {
            if over {
                break;
            }
            let ready = wait(&[&rx], Some(Duration::from_micros(dice.below(2000)))).unwrap();
            over = take_all(&mut rx, &mut next);
            assert!(ready.len() <= 1);
        }
        send(Signal::SIGCONT);
        if over {
            break;
        }
    }
    while !take_all(&mut rx, &mut next) {
        wait_until_readable(&rx);
    }
    assert_eq!(next, count);
    child.join().unwrap();
}
