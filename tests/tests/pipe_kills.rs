//! Peers that are killed, at whatever instruction: the survivor gets whole messages in order, and then promptly the end (G3).

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mproc::{Child, Connection, Fd, Receiver, RecvError, SendError, Sender, duplex, pipe};
use mproc_tests::{Dice, dose, eventually, kill_myself, state_of, watchdog};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(120);

/// How long the end may take to be heard. Far more than it takes, and far less than for ever.
const PROMPT: Duration = Duration::from_secs(20);

/// What message `number` says. Two numbers never say the same, and no part of it is another message.
fn text(number: u64, length: usize) -> String {
    let mut text = format!("{number:015};").repeat(length / 16 + 1);
    text.truncate(length);
    text
}

/// How long messages are: a kill is to meet each kind in the middle.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Kind {
    Small,
    Mixed,
    Long,
}

const KINDS: [Kind; 3] = [Kind::Small, Kind::Mixed, Kind::Long];

impl Kind {
    fn length(self, number: u64) -> usize {
        let scattered = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24) as usize;
        match self {
            Self::Small => scattered % 60,
            Self::Mixed if number.is_multiple_of(8) => scattered % (300 << 10),
            Self::Mixed => scattered % 3000,
            Self::Long => (4 << 20) + scattered % (4 << 20),
        }
    }

    fn message(self, number: u64) -> (u64, String) {
        (number, text(number, self.length(number)))
    }

    /// How long it may take until the moment of the kill: several messages, at most.
    fn moment(self) -> Duration {
        match self {
            Self::Small => Duration::from_micros(400),
            Self::Mixed => Duration::from_millis(2),
            Self::Long => Duration::from_millis(12),
        }
    }
}

fn kill_now(child: &Child<impl Sized>) {
    child.kill().unwrap();
}

/// Every message so far, whole and in order, and then the end.
fn drain(rx: &mut Receiver<(u64, String)>, kind: Kind, mut next: u64) -> u64 {
    loop {
        match rx.recv_timeout(PROMPT) {
            Ok((number, said)) => {
                assert_eq!(number, next, "out of order");
                assert!(
                    said == text(number, kind.length(number)),
                    "message {number} is torn"
                );
                next += 1;
            }
            Err(RecvError::Disconnected) => break,
            Err(error) => panic!("after {next} messages: {error}"),
        }
    }
    // It stays so.
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    assert!(rx.poll(Duration::ZERO).unwrap());
    next
}

#[mproc::entry]
fn send_for_ever(mut tx: Sender<(u64, String)>, kind: Kind) {
    for number in 0.. {
        tx.send(kind.message(number)).unwrap();
    }
}

#[mproc::entry]
fn receive_for_ever(rx: Receiver<(u64, String)>, kind: Kind) {
    for (expected, message) in (0..).zip(rx) {
        let (number, said) = message.unwrap();
        assert_eq!(number, expected);
        assert!(said == text(number, kind.length(number)));
    }
}

/// While its reader reads, sleeps, or does nothing.
#[test]
fn killed_while_sending() {
    let _watchdog = watchdog("killed_while_sending", LIMIT);
    let mut dice = Dice::new("killed_while_sending");
    let mut got = 0;
    for round in 0..dose(60, 9000) {
        let kind = KINDS[round % 3];
        let (tx, mut rx) = pipe().unwrap();
        let child = send_for_ever::spawn(tx, kind).unwrap();
        // The first message says that it is at work.
        assert_eq!(rx.recv().unwrap(), kind.message(0));
        let mut next = 1;
        match dice.below(3) {
            // It fills the pipe, and sleeps perhaps.
            0 => {
                dice.pause(kind.moment());
                kill_now(&child);
            }
            // It is read from, and the kill comes in between.
            1 => {
                let moment = Instant::now() + kind.moment().mul_f64(dice.below(1000) as f64 / 1e3);
                while Instant::now() < moment {
                    assert_eq!(rx.recv().unwrap(), kind.message(next));
                    next += 1;
                }
                kill_now(&child);
            }
            // The kill comes from another thread while this one sleeps, or does not.
            _ => {
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        dice.pause(kind.moment());
                        kill_now(&child);
                    });
                    next = drain(&mut rx, kind, next);
                });
            }
        }
        got += drain(&mut rx, kind, next);
        child.wait().unwrap();
    }
    assert!(got > 0);
}

#[test]
fn killed_while_receiving() {
    let _watchdog = watchdog("killed_while_receiving", LIMIT);
    let mut dice = Dice::new("killed_while_receiving");
    for round in 0..dose(60, 6000) {
        let kind = KINDS[round % 3];
        let (mut tx, rx) = pipe().unwrap();
        let child = receive_for_ever::spawn(rx, kind).unwrap();
        tx.send(kind.message(0)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                dice.pause(kind.moment() + Duration::from_millis(3));
                kill_now(&child);
            });
            for number in 1.. {
                let message = kind.message(number);
                let sent = match round % 2 {
                    0 => tx.send(message),
                    _ => tx.send_timeout(message, PROMPT),
                };
                match sent {
                    Ok(()) => {}
                    Err(SendError::Disconnected(message)) => {
                        assert!(message == kind.message(number), "it is handed back");
                        break;
                    }
                    Err(error) => panic!("after {number} messages: {error}"),
                }
            }
        });
        // It stays so, without a wait.
        let error = tx.try_send(kind.message(5)).unwrap_err();
        assert!(matches!(error, SendError::Disconnected(_)));
        assert!(matches!(
            tx.send_bytes(&[1; 9]),
            Err(SendError::Disconnected(()))
        ));
        child.wait().unwrap();
    }
}

/// The sender is asleep for room, in a short message or in a long one, when its reader goes.
#[test]
fn a_sender_that_sleeps_for_room_is_woken() {
    let _watchdog = watchdog("a_sender_that_sleeps_for_room_is_woken", LIMIT);
    let mut dice = Dice::new("a_sender_that_sleeps_for_room_is_woken");
    #[mproc::entry]
    fn hold(rx: Receiver<(u64, String)>, mut ready: Sender<u32>) {
        ready.send(std::process::id()).unwrap();
        // Nothing is sent on the way back, so this ends with the process.
        let (_tx, mut never) = pipe::<()>().unwrap();
        never.recv().unwrap();
        drop(rx);
    }
    for round in 0..dose(30, 4000) {
        let kind = [Kind::Mixed, Kind::Long][round % 2];
        let (mut tx, rx) = pipe().unwrap();
        let (ready, mut is_ready) = pipe().unwrap();
        let child = hold::spawn(rx, ready).unwrap();
        is_ready.recv().unwrap();
        let sender = std::thread::spawn(move || {
            for number in 0.. {
                if let Err(error) = tx.send(kind.message(number)) {
                    assert!(matches!(error, SendError::Disconnected(_)), "{error}");
                    assert!(error.into_inner() == kind.message(number));
                    return number;
                }
            }
            unreachable!()
        });
        dice.pause(Duration::from_millis(1));
        kill_now(&child);
        sender.join().unwrap();
        child.wait().unwrap();
    }
}

/// What a dead one had sent is there, also when it died long before anybody asked.
#[test]
fn what_was_sent_outlives_its_sender() {
    let _watchdog = watchdog("what_was_sent_outlives_its_sender", LIMIT);
    #[mproc::entry]
    fn send_and_die(mut tx: Sender<(u64, String)>, count: u64, last: u64) {
        for number in 0..count {
            tx.send(Kind::Small.message(number)).unwrap();
        }
        if last > 0 {
            // This one is not whole when the process dies, whatever became of it.
            let error =
                tx.send_timeout((count, text(count, 64 << 20)), Duration::from_millis(last));
            assert!(matches!(error, Err(SendError::Timeout(_))));
        }
        kill_myself();
    }
    for count in [0, 1, 10, 100] {
        for last in [0, 3] {
            let (tx, mut rx) = pipe().unwrap();
            let child = send_and_die::spawn(tx, count, last).unwrap();
            child.wait().unwrap();
            assert_eq!(drain(&mut rx, Kind::Small, 0), count);
            assert_eq!(child.join().unwrap_err().exit_code(), Some(-9));
        }
    }
}

/// In the middle of a message that does not fit, with the reader having seen a part of it or nothing.
#[test]
fn the_dead_leave_no_half_messages() {
    let _watchdog = watchdog("the_dead_leave_no_half_messages", LIMIT);
    let mut dice = Dice::new("the_dead_leave_no_half_messages");
    #[mproc::entry]
    fn send_long_bytes(mut tx: Sender<u64>) {
        let bytes = vec![7; 100 << 20];
        tx.send(1).unwrap();
        tx.send_bytes(&bytes).unwrap();
        tx.send_bytes(&bytes).unwrap();
    }
    let mut buffer = vec![0_u8; 100 << 20];
    let mut whole = 0;
    for _ in 0..dose(6, 500) {
        let (tx, mut rx) = pipe::<u64>().unwrap();
        let child = send_long_bytes::spawn(tx).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                dice.pause(Duration::from_millis(30));
                kill_now(&child);
            });
            loop {
                match rx.recv_bytes_into_timeout(&mut buffer, PROMPT) {
                    Ok(length) => assert_eq!(length, 100 << 20),
                    Err(RecvError::Disconnected) => break,
                    Err(error) => panic!("{error}"),
                }
                whole += 1;
            }
        });
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
        child.wait().unwrap();
    }
    eprintln!("{whole} messages were whole");
}

#[test]
fn killed_in_its_sleep_or_stopped() {
    let _watchdog = watchdog("killed_in_its_sleep_or_stopped", LIMIT);
    let mut dice = Dice::new("killed_in_its_sleep_or_stopped");
    for round in 0..dose(20, 3000) {
        // One that waits for a message, and one that waits for room.
        let (mut tx, rx) = pipe().unwrap();
        let reader = receive_for_ever::spawn(rx, Kind::Mixed).unwrap();
        let (their_tx, mut rx) = pipe().unwrap();
        let writer = send_for_ever::spawn(their_tx, Kind::Mixed).unwrap();
        tx.send(Kind::Mixed.message(0)).unwrap();
        assert_eq!(rx.recv().unwrap(), Kind::Mixed.message(0));
        for child in [&reader, &writer] {
            if round % 2 == 0 {
                eventually(|| state_of(child.id()) == Some('S'));
            } else {
                dice.pause(Duration::from_micros(300));
                kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).unwrap();
                eventually(|| state_of(child.id()) == Some('T'));
            }
            kill_now(child);
        }
        drain(&mut rx, Kind::Mixed, 1);
        let error = tx.send_timeout(Kind::Long.message(1), PROMPT).unwrap_err();
        assert!(matches!(error, SendError::Disconnected(_)), "{error}");
        reader.wait().unwrap();
        writer.wait().unwrap();
    }
}

/// Its arguments lie unread in its socket, or are half unpacked.
#[test]
fn killed_before_it_has_its_end() {
    let _watchdog = watchdog("killed_before_it_has_its_end", LIMIT);
    let mut dice = Dice::new("killed_before_it_has_its_end");
    for round in 0..dose(60, 10_000) {
        let (ours, theirs) = duplex::<(u64, String), (u64, String)>().unwrap();
        let (their_tx, their_rx) = theirs.split();
        let (mut tx, mut rx) = ours.split();
        let kind = Kind::Small;
        let writer = send_for_ever::spawn(their_tx, kind).unwrap();
        let reader = receive_for_ever::spawn(their_rx, kind).unwrap();
        dice.pause(Duration::from_micros(if round % 2 == 0 {
            200
        } else {
            4000
        }));
        kill_now(&writer);
        kill_now(&reader);
        drain(&mut rx, kind, 0);
        let error = tx.send_timeout(Kind::Long.message(0), PROMPT).unwrap_err();
        assert!(matches!(error, SendError::Disconnected(_)), "{error}");
        writer.wait().unwrap();
        reader.wait().unwrap();
    }
}

/// A file that says its number. It never has a name, which would stay when its maker is killed.
fn numbered(number: u64) -> Fd {
    let mut file = File::from(memfd_create("numbered", MFdFlags::MFD_CLOEXEC).unwrap());
    write!(file, "{number}").unwrap();
    file.into()
}

fn number_of(fd: Fd) -> u64 {
    let mut file: File = fd.into_inner().unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text.parse().unwrap()
}

/// A message with a descriptor of its own, one that is the same in all, and something that takes time.
type Loaded = (u64, Fd, Fd, String);

/// Between sending a descriptor and committing its frame. Those that come have their own descriptors; those that do not
/// come have left none open.
#[test]
fn killed_while_sending_descriptors() {
    let _watchdog = watchdog("killed_while_sending_descriptors", LIMIT);
    let mut dice = Dice::new("killed_while_sending_descriptors");
    #[mproc::entry]
    fn send_loaded(mut tx: Sender<Loaded>, witness: Fd) {
        for number in 0.. {
            let filler = "x".repeat(Kind::Mixed.length(number));
            let message = (number, numbered(number), witness.clone(), filler);
            tx.send(message).unwrap();
        }
    }
    for _ in 0..dose(60, 6000) {
        let (tx, mut rx) = pipe().unwrap();
        let (mut seen, held) = std::io::pipe().unwrap();
        let child = send_loaded::spawn(tx, Fd::from(OwnedFd::from(held))).unwrap();
        let (first, own, _, _) = rx.recv().unwrap();
        assert_eq!((first, number_of(own)), (0, 0));
        let mut next = 1;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                dice.pause(Duration::from_millis(3));
                kill_now(&child);
            });
            loop {
                match rx.recv_timeout(PROMPT) {
                    Ok((number, own, _, filler)) => {
                        assert_eq!(number, next);
                        assert_eq!(number_of(own), number, "another's descriptor");
                        assert_eq!(filler.len(), Kind::Mixed.length(number));
                        next += 1;
                    }
                    Err(RecvError::Disconnected) => break,
                    Err(error) => panic!("after {next} messages: {error}"),
                }
            }
        });
        child.wait().unwrap();
        // The dead one's stray is not kept for somebody who never comes.
        drop(rx);
        assert_eq!(seen.read(&mut [0]).unwrap(), 0);
    }
}

/// Between receiving a descriptor and reading its frame: with the reader goes what it has and what lies before it.
#[test]
fn killed_while_receiving_descriptors() {
    let _watchdog = watchdog("killed_while_receiving_descriptors", LIMIT);
    let mut dice = Dice::new("killed_while_receiving_descriptors");
    #[mproc::entry]
    fn receive_loaded(rx: Receiver<Loaded>) {
        for (expected, message) in (0..).zip(rx) {
            let (number, own, _, filler) = message.unwrap();
            assert_eq!((number, number_of(own)), (expected, expected));
            assert_eq!(filler.len(), Kind::Mixed.length(number));
        }
    }
    for _ in 0..dose(60, 6000) {
        let (mut tx, rx) = pipe().unwrap();
        let (mut seen, held) = std::io::pipe().unwrap();
        let held = Fd::from(OwnedFd::from(held));
        let child = receive_loaded::spawn(rx).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                dice.pause(Duration::from_millis(6));
                kill_now(&child);
            });
            for number in 0.. {
                let filler = "x".repeat(Kind::Mixed.length(number));
                let message = (number, numbered(number), held.clone(), filler);
                match tx.send_timeout(message, PROMPT) {
                    Ok(()) => {}
                    Err(SendError::Disconnected((handed_back, own, _, _))) => {
                        assert_eq!((handed_back, number_of(own)), (number, number));
                        break;
                    }
                    Err(error) => panic!("after {number} messages: {error}"),
                }
            }
        });
        child.wait().unwrap();
        drop((tx, held));
        assert_eq!(seen.read(&mut [0]).unwrap(), 0);
    }
}

/// Whoever is killed while it gives an end away: the end has arrived and works, or is over.
#[test]
fn killed_while_it_gives_an_end_away() {
    let _watchdog = watchdog("killed_while_it_gives_an_end_away", LIMIT);
    let mut dice = Dice::new("killed_while_it_gives_an_end_away");
    #[mproc::entry]
    fn give_away(mut peer: Connection<Sender<u64>, Sender<u64>>) {
        peer.send_bytes(b"ready").unwrap();
        while let Ok(tx) = peer.recv() {
            peer.send(tx).unwrap();
        }
    }
    let (mut arrived, mut lost) = (0, 0);
    for _ in 0..dose(60, 6000) {
        let (mut peer, theirs) = duplex().unwrap();
        let child = give_away::spawn(theirs).unwrap();
        peer.recv_bytes(5).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                dice.pause(Duration::from_millis(1));
                kill_now(&child);
            });
            loop {
                let (tx, mut rx) = pipe::<u64>().unwrap();
                match peer.send(tx) {
                    Ok(()) => {}
                    Err(error) => {
                        assert!(matches!(error, SendError::Disconnected(_)), "{error}");
                        error.into_inner().send(3).unwrap();
                        assert_eq!(rx.recv().unwrap(), 3);
                        break;
                    }
                }
                match peer.recv_timeout(PROMPT) {
                    Ok(mut tx) => {
                        arrived += 1;
                        tx.send(4).unwrap();
                        assert_eq!(rx.recv().unwrap(), 4);
                    }
                    Err(RecvError::Disconnected) => {
                        lost += 1;
                        // It died with it, or it lies unread before one who does not come.
                        drop(peer);
                        assert!(matches!(
                            rx.recv_timeout(PROMPT),
                            Err(RecvError::Disconnected)
                        ));
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        child.wait().unwrap();
    }
    eprintln!("{arrived} arrived, {lost} were lost");
    assert!(arrived > 0, "no kill came late enough to test anything");
}

/// A long message with an end in it did not get through in time. The end is back at its sender, and with it is gone, though
/// nobody has read what there was of the message.
#[test]
fn killed_after_it_took_an_end_back() {
    let _watchdog = watchdog("killed_after_it_took_an_end_back", LIMIT);
    #[mproc::entry]
    fn take_back_and_die(mut to: Sender<(Sender<u64>, String)>, tx: Sender<u64>) {
        let message = (tx, "x".repeat(32 << 20));
        let error = to.send_timeout(message, Duration::from_millis(1));
        let (mut tx, _) = error.unwrap_err().into_inner();
        tx.send(5).unwrap();
        kill_myself();
    }
    for _ in 0..dose(5, 500) {
        let (to, mut from) = pipe().unwrap();
        let (tx, mut rx) = pipe().unwrap();
        let child = take_back_and_die::spawn(to, tx).unwrap();
        assert_eq!(rx.recv().unwrap(), 5);
        let end = rx.recv_timeout(PROMPT).unwrap_err();
        assert!(matches!(end, RecvError::Disconnected), "{end}");
        let end = from.recv_timeout(PROMPT).map(drop).unwrap_err();
        assert!(matches!(end, RecvError::Disconnected), "{end}");
        child.wait().unwrap();
    }
}

/// In a chain of three, the one in the middle goes: both others are told, and lose nothing else.
#[test]
fn a_relay_is_killed() {
    let _watchdog = watchdog("a_relay_is_killed", LIMIT);
    let mut dice = Dice::new("a_relay_is_killed");
    #[mproc::entry]
    fn send_while_there_is_a_reader(mut tx: Sender<(u64, String)>, kind: Kind) -> u64 {
        for number in 0.. {
            match tx.send(kind.message(number)) {
                Ok(()) => {}
                Err(SendError::Disconnected(_)) => return number,
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!()
    }
    #[mproc::entry]
    fn relay(rx: Receiver<(u64, String)>, mut tx: Sender<(u64, String)>) {
        for message in rx {
            tx.send(message.unwrap()).unwrap();
        }
    }
    for round in 0..dose(30, 3000) {
        let kind = KINDS[round % 2];
        let (tx, to_relay) = pipe().unwrap();
        let (from_relay, mut rx) = pipe().unwrap();
        let relay = relay::spawn(to_relay, from_relay).unwrap();
        let source = send_while_there_is_a_reader::spawn(tx, kind).unwrap();
        assert_eq!(rx.recv().unwrap(), kind.message(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                dice.pause(kind.moment());
                kill_now(&relay);
            });
            let got = drain(&mut rx, kind, 1);
            assert!(source.join().unwrap() >= got);
        });
        relay.wait().unwrap();
    }
}

/// Many at once, in one process with many pipes; the dead disturb none but their own.
#[test]
fn the_dead_disturb_nobody_else() {
    let _watchdog = watchdog("the_dead_disturb_nobody_else", LIMIT);
    let mut dice = Dice::new("the_dead_disturb_nobody_else");
    #[mproc::entry]
    fn send_some(mut tx: Sender<(u64, String)>, kind: Kind, count: u64) {
        for number in 0..count {
            tx.send(kind.message(number)).unwrap();
        }
    }
    let count = 300;
    for _ in 0..dose(3, 300) {
        let dying: Vec<_> = (0..3)
            .map(|_| {
                let (tx, rx) = pipe().unwrap();
                (send_for_ever::spawn(tx, Kind::Mixed).unwrap(), rx)
            })
            .collect();
        let (tx, mut rx) = pipe().unwrap();
        let living = send_some::spawn(tx, Kind::Mixed, count).unwrap();
        std::thread::scope(|scope| {
            for (child, mut rx) in dying {
                let mut dice = dice.clone();
                dice.below(1 + u64::from(child.id()));
                scope.spawn(move || {
                    let moment = Duration::from_millis(5 + dice.below(30));
                    let end = Instant::now() + moment;
                    let mut next = 0;
                    while Instant::now() < end {
                        assert_eq!(rx.recv().unwrap(), Kind::Mixed.message(next));
                        next += 1;
                    }
                    kill_now(&child);
                    drain(&mut rx, Kind::Mixed, next);
                    child.wait().unwrap();
                });
            }
            assert_eq!(drain(&mut rx, Kind::Mixed, 0), count);
        });
        dice.below(2);
        living.join().unwrap();
    }
}
