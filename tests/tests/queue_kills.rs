//! Whoever is killed or stopped, at whatever instruction: what others get from the queue is whole, in order, and there once, and
//! the queue goes on (G3).

mod queue_shared;
mod steps;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use mproc::{Child, Process, Queue, Receiver, RecvError, SendError, Sender, pipe};
use mproc_tests::{Dice, dose, eventually, state_of, watchdog};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_shared::Words;
use serde::{Deserialize, Serialize};
use steps::{COUNT, kill_at_each_step, stepped};

const LIMIT: Duration = Duration::from_secs(120);

/// What is woken needs some tens of microseconds. This is said of what nobody has woken, on a busy machine.
const PROMPTLY: Duration = Duration::from_secs(10);

fn send(id: u32, signal: Signal) {
    kill(Pid::from_raw(id as i32), signal).expect("the process is there");
}

/// As a daemon: should the test fail, this program ends nevertheless.
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

/// A message of which everything follows from two numbers.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    producer: u32,
    sequence: u32,
    length: u64,
    text: String,
}

impl Message {
    fn new(producer: u32, sequence: u32) -> Self {
        let length = length_of(producer, sequence);
        let text = text_of(producer, sequence, length);
        Self {
            producer,
            sequence,
            length: length as u64,
            text,
        }
    }

    fn check(&self) {
        let (producer, sequence) = (self.producer, self.sequence);
        let length = length_of(producer, sequence);
        assert_eq!(
            (self.length, self.text.len()),
            (length as u64, length),
            "{producer} {sequence}"
        );
        assert!(
            self.text == text_of(producer, sequence, length),
            "{producer} {sequence} is torn"
        );
    }

    fn to_word(&self) -> u64 {
        u64::from(self.producer) << 32 | u64::from(self.sequence)
    }
}

/// Mostly short, sometimes a few KiB, at times up to 1 MiB, now and then nothing.
fn length_of(producer: u32, sequence: u32) -> usize {
    let mixed = (u64::from(producer) << 32 | u64::from(sequence))
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (class, size) = (mixed >> 55, (mixed >> 20) as usize);
    match class {
        0 => size % (1 << 20),
        1..=8 => size % (64 << 10),
        9..=60 => size % 5000,
        61..=100 => 0,
        _ => size % 80,
    }
}

fn text_of(producer: u32, sequence: u32, length: usize) -> String {
    let pattern = format!("{producer}.{sequence};");
    let mut text = pattern.repeat(length / pattern.len() + 1);
    text.truncate(length);
    text
}

// --- producers and consumers that are killed all the time

/// How many words each victim has to itself: a number of records, and the records.
const SLOT: usize = 1 << 15;

/// For the words in front of the slots.
const STOP: usize = 0;
const SLOTS: usize = 8;

fn slot(words: &Words, number: usize) -> &[AtomicU64] {
    &words[SLOTS + number * SLOT..][..SLOT]
}

/// Puts one after the other, and records how many it has put. Holds back while much is unread, so that memory suffices.
#[mproc::entry]
fn produce(queue: &Queue<Message>, words: &Words, number: usize, producer: u32) {
    let progress = &slot(words, number)[0];
    for sequence in 0.. {
        while queue.len() > 500 {
            if words[STOP].load(Relaxed) != 0 {
                return;
            }
            thread::yield_now();
        }
        if words[STOP].load(Relaxed) != 0 {
            return;
        }
        queue.put(Message::new(producer, sequence)).unwrap();
        progress.store(u64::from(sequence) + 1, Release);
    }
}

/// Gets one after the other, and records which. Stays asleep when there is no more room for records.
#[mproc::entry]
fn consume(queue: &Queue<Message>, words: &Words, number: usize) {
    let records = slot(words, number);
    for count in 1..SLOT {
        let message = queue.get().unwrap();
        records[count].store(message.to_word(), Relaxed);
        records[0].store(count as u64, Release);
        message.check();
    }
    loop {
        thread::park();
    }
}

/// What is known of those who have ended.
#[derive(Default)]
struct Account {
    /// Of each producer: how many puts have returned, and whether it was killed.
    put: HashMap<u32, (u64, bool)>,
    /// Of each consumer: what it got.
    got: Vec<Vec<u64>>,
    killed_consumers: usize,
}

impl Account {
    fn check(&self) {
        let mut seen = HashSet::new();
        for got in &self.got {
            let mut last = HashMap::new();
            for word in got {
                let (producer, sequence) = ((word >> 32) as u32, word & 0xffff_ffff);
                assert!(seen.insert(*word), "{producer} {sequence} was got twice");
                let before = last.insert(producer, sequence);
                assert!(
                    before < Some(sequence),
                    "{producer}: {sequence} after {before:?}"
                );
                let (put, killed) = self.put[&producer];
                // A killed producer may have put one more than it could say.
                assert!(
                    sequence < put + u64::from(killed),
                    "{producer} has not put {sequence}"
                );
            }
        }
        let mut lost = 0;
        for (producer, (put, _)) in &self.put {
            let words = (0..*put).map(|sequence| u64::from(*producer) << 32 | sequence);
            lost += words.filter(|word| !seen.contains(word)).count();
        }
        assert!(
            lost <= self.killed_consumers,
            "{lost} lost by {} killed consumers, of {} got",
            self.killed_consumers,
            seen.len()
        );
        eprintln!(
            "{} got, {lost} lost in the hands of {}",
            seen.len(),
            self.killed_consumers
        );
    }
}

enum Victim {
    Producer(Child<()>, u32),
    Consumer(Child<()>),
}

struct Scene<'a> {
    queue: &'a Queue<Message>,
    words: &'a Words,
    account: Account,
    producers: u32,
}

impl Scene<'_> {
    fn start(&mut self, number: usize) -> Victim {
        if number.is_multiple_of(2) {
            self.producers += 1;
            let producer = self.producers;
            let child = started(produce::process(self.queue, self.words, number, producer));
            return Victim::Producer(child, producer);
        }
        Victim::Consumer(started(consume::process(self.queue, self.words, number)))
    }

    /// Kills it and keeps what it has recorded.
    fn end(&mut self, victim: Victim, number: usize) {
        let records = slot(self.words, number);
        match victim {
            Victim::Producer(child, producer) => {
                kill_it(&child);
                let put = records[0].swap(0, Acquire);
                self.account.put.insert(producer, (put, true));
            }
            Victim::Consumer(child) => {
                kill_it(&child);
                let count = records[0].swap(0, Acquire) as usize;
                let got = records[1..=count].iter().map(|word| word.load(Relaxed));
                self.account.got.push(got.collect());
                self.account.killed_consumers += 1;
            }
        }
    }
}

fn kill_all_the_time(test: &str, queue: &Queue<Message>, kills: usize) {
    const VICTIMS: usize = 6;
    /// The producer that lives, in a thread here.
    const SURVIVOR: u32 = 0;
    let mut dice = Dice::new(test);
    let words = &Words::new(SLOTS + (VICTIMS + 1) * SLOT);
    let mut scene = Scene {
        queue,
        words,
        account: Account::default(),
        producers: SURVIVOR,
    };
    let got_here = &AtomicU64::new(0);
    let mut victims: Vec<Option<Victim>> = (0..VICTIMS)
        .map(|number| Some(scene.start(number)))
        .collect();
    let here = thread::scope(|scope| {
        let producer = scope.spawn(move || produce(queue, words, VICTIMS, SURVIVOR));
        let consumer = scope.spawn(move || {
            let mut got = Vec::new();
            for message in queue {
                let message = message.unwrap();
                message.check();
                got.push(message.to_word());
                got_here.fetch_add(1, Release);
            }
            got
        });
        for _ in 0..kills {
            let number = dice.below(VICTIMS as u64) as usize;
            let victim = victims[number].take().unwrap();
            let (Victim::Producer(child, _) | Victim::Consumer(child)) = &victim;
            if dice.below(4) > 0 {
                // Most are at work, and some are not there yet.
                eventually(|| slot(words, number)[0].load(Relaxed) > 0 || !child.is_alive());
            }
            let within = [30, 300, 2000][dice.below(3) as usize];
            dice.pause(Duration::from_micros(within));
            if dice.below(4) == 0 {
                // Dead only after a while, in which others wait for whatever it has.
                send(child.id(), Signal::SIGSTOP);
                dice.pause(Duration::from_millis(1));
            }
            scene.end(victim, number);
            victims[number] = Some(scene.start(number));
            let before = got_here.load(Acquire);
            eventually(|| got_here.load(Acquire) > before);
        }
        words[STOP].store(1, Relaxed);
        producer.join().unwrap();
        // Producers return when they are told to. The consumer here makes room for those that wait for it.
        for (number, victim) in victims.drain(..).enumerate() {
            let victim = victim.unwrap();
            if let Victim::Producer(child, producer) = &victim {
                let status = child.wait().unwrap();
                assert!(status.success(), "{status}");
                let put = slot(words, number)[0].swap(0, Acquire);
                scene.account.put.insert(*producer, (put, false));
            } else {
                scene.end(victim, number);
            }
        }
        queue.close();
        consumer.join().unwrap()
    });
    assert!(matches!(queue.get(), Err(RecvError::Closed)));
    assert_eq!(queue.len(), 0);
    let put = slot(words, VICTIMS)[0].load(Acquire);
    scene.account.put.insert(SURVIVOR, (put, false));
    scene.account.got.push(here);
    scene.account.check();
}

#[test]
fn an_unbounded_queue_survives_any_kill() {
    let _watchdog = watchdog("an_unbounded_queue_survives_any_kill", LIMIT);
    let queue = Queue::new().unwrap();
    kill_all_the_time("unbounded", &queue, dose(150, 6_000));
}

#[test]
fn a_bounded_queue_survives_any_kill() {
    let _watchdog = watchdog("a_bounded_queue_survives_any_kill", LIMIT);
    for (capacity, kills) in [(1, dose(60, 3_000)), (16, dose(60, 3_000))] {
        let queue = Queue::bounded(capacity).unwrap();
        kill_all_the_time("bounded", &queue, kills);
    }
}

// --- small messages, so that the instants of a put and a get are most of the time

/// Puts numbers as fast as can be, and records how far it has come.
#[mproc::entry]
fn put_numbers(queue: &Queue<u64>, words: &Words, number: usize) {
    let progress = &words[number];
    for next in 0.. {
        while queue.len() > 10_000 {
            std::hint::spin_loop();
        }
        queue.put((number as u64) << 48 | next).unwrap();
        progress.store(next + 1, Release);
    }
}

/// Gets numbers as fast as can be, and records how many.
#[mproc::entry]
fn get_numbers(queue: &Queue<u64>, words: &Words, number: usize) {
    let progress = &words[number];
    for count in 1.. {
        queue.get().unwrap();
        progress.store(count, Release);
    }
}

/// One producer, then one consumer, killed in the middle of nothing but puts or gets; the account is by numbers.
#[test]
fn killed_in_the_middle_of_a_put_or_get() {
    let _watchdog = watchdog("killed_in_the_middle_of_a_put_or_get", LIMIT);
    let mut dice = Dice::new("killed_in_the_middle_of_a_put_or_get");
    let words = Words::new(2);
    for queue in [Queue::new().unwrap(), Queue::bounded(20_000).unwrap()] {
        for round in 0..dose(50, 3_000) {
            let (put, got) = (&words[0], &words[1]);
            put.store(0, Relaxed);
            got.store(0, Relaxed);
            let producer = started(put_numbers::process(&queue, &words, 0));
            eventually(|| put.load(Acquire) > 0);
            dice.pause(Duration::from_micros(500));
            if round % 2 == 0 {
                // Somebody else is in the middle of it, too.
                let consumer = started(get_numbers::process(&queue, &words, 1));
                eventually(|| got.load(Acquire) > 0);
                dice.pause(Duration::from_micros(500));
                kill_it(&consumer);
            }
            kill_it(&producer);
            let (put, got) = (put.load(Acquire), got.load(Acquire));
            let left = queue.len() as u64;
            // The one may have put, and the other got, one more than it could say.
            let in_hand = u64::from(round % 2 == 0);
            let numbers: Vec<u64> = (0..left).map(|_| queue.try_get().unwrap()).collect();
            assert!(matches!(
                queue.try_get(),
                Err(RecvError::Empty | RecvError::Disconnected)
            ));
            let (first, behind) = match (numbers.first(), numbers.last()) {
                (Some(first), Some(last)) => (*first, last + 1),
                _ => (got.max(put), got.max(put)),
            };
            assert!(numbers.iter().copied().eq(first..behind), "{numbers:?}");
            assert!(
                (got..=got + in_hand).contains(&first),
                "{got} got, then {first}"
            );
            assert!(
                (put..=put + 1).contains(&behind),
                "{put} put, then {behind}"
            );
        }
    }
}

// --- wake-ups taken by the dead

/// Says that it is about to get, gets one, says so.
#[mproc::entry]
fn get_one(queue: &Queue<u64>, words: &Words, number: usize) {
    words[number].store(1, Release);
    queue.get().unwrap();
    words[number].store(2, Release);
    loop {
        thread::park();
    }
}

/// One item, several sleepers; all but one are killed at about the time when one of them is woken.
#[test]
fn a_consumer_killed_with_the_wake_up_it_took() {
    let _watchdog = watchdog("a_consumer_killed_with_the_wake_up_it_took", LIMIT);
    let mut dice = Dice::new("a_consumer_killed_with_the_wake_up_it_took");
    const SLEEPERS: usize = 4;
    let words = Words::new(SLEEPERS);
    let (mut by_survivor, mut by_dead, mut in_hand) = (0, 0, 0);
    for round in 0..dose(60, 4_000) as u64 {
        let queue = Queue::new().unwrap();
        let mut sleepers: Vec<_> = (0..SLEEPERS)
            .map(|number| {
                words[number].store(0, Relaxed);
                Some(started(get_one::process(&queue, &words, number)))
            })
            .collect();
        for (number, sleeper) in sleepers.iter().flatten().enumerate() {
            eventually(|| words[number].load(Acquire) == 1);
            until_asleep(sleeper.id());
        }
        let survivor = dice.below(SLEEPERS as u64) as usize;
        let last = sleepers[survivor].take().unwrap();
        let mut order: Vec<usize> = (0..SLEEPERS).filter(|n| *n != survivor).collect();
        order.rotate_left(dice.below(SLEEPERS as u64 - 1) as usize);
        queue.put(round).unwrap();
        dice.pause(Duration::from_micros(120));
        for number in &order {
            sleepers[*number].as_ref().unwrap().kill().unwrap();
        }
        for number in order {
            kill_it(sleepers[number].as_ref().unwrap());
        }
        let killed = Instant::now();
        // Nothing else is put, and yet it is got, unless one of the dead had it.
        eventually(|| queue.is_empty());
        let took = killed.elapsed();
        assert!(took < PROMPTLY, "{took:?} until somebody else got it");
        let dead = (0..SLEEPERS).filter(|n| *n != survivor && words[*n].load(Acquire) == 2);
        match dead.count() {
            0 => {}
            1 => {
                by_dead += 1;
                assert_eq!(words[survivor].load(Acquire), 1);
            }
            more => panic!("{more} got one item"),
        }
        // The survivor works in any case.
        queue.put(round).unwrap();
        eventually(|| words[survivor].load(Acquire) == 2);
        match queue.try_get() {
            Ok(number) => {
                assert_eq!(number, round);
                by_survivor += 1;
            }
            Err(RecvError::Empty | RecvError::Disconnected) => in_hand += 1,
            Err(error) => panic!("{error:?}"),
        }
        kill_it(&last);
    }
    // What was in a dead hand without being recorded is counted with `in_hand`, as is what the dead recorded.
    eprintln!("{by_survivor} got by the survivor, {by_dead} by the dead, {in_hand} second ones");
    assert!(
        by_survivor > 0,
        "no kill came early enough to test anything"
    );
}

#[mproc::entry]
fn put_one(queue: &Queue<u64>, words: &Words) {
    words[0].store(1, Release);
    queue.put(1000).unwrap();
    words[0].store(2, Release);
    loop {
        thread::park();
    }
}

/// Of two who wait for room, one is killed at about the time when it is told of it.
#[test]
fn a_producer_killed_with_the_room_it_was_told_of() {
    let _watchdog = watchdog("a_producer_killed_with_the_room_it_was_told_of", LIMIT);
    let mut dice = Dice::new("a_producer_killed_with_the_room_it_was_told_of");
    let words = Words::new(1);
    let mut dead_had_put = 0;
    for round in 0..dose(120, 8_000) as u64 {
        let queue = Queue::bounded(1).unwrap();
        queue.put(round).unwrap();
        words[0].store(0, Relaxed);
        let victim = started(put_one::process(&queue, &words));
        eventually(|| words[0].load(Acquire) == 1);
        until_asleep(victim.id());
        thread::scope(|scope| {
            // Whoever gets here knows by the clone that somebody else here may put.
            let clone = queue.clone();
            let survivor = scope.spawn(move || clone.put(2000));
            dice.pause(Duration::from_micros(200));
            assert_eq!(queue.get().unwrap(), round);
            dice.pause(Duration::from_micros(120));
            kill_it(&victim);
            let killed = Instant::now();
            let mut numbers = vec![queue.get().unwrap()];
            if numbers == [1000] {
                dead_had_put += 1;
                numbers.push(queue.get().unwrap());
            }
            assert_eq!(numbers.last(), Some(&2000));
            assert!(killed.elapsed() < PROMPTLY, "{:?}", killed.elapsed());
            survivor.join().unwrap().unwrap();
        });
        assert!(queue.is_empty());
    }
    eprintln!("{dead_had_put} of the dead had put their item");
}

/// Whether a process sleeps and nobody has woken it, also a moment later.
fn sleeps_soundly(id: u32, dice: &mut Dice) -> bool {
    (0..4).all(|_| {
        dice.pause(Duration::from_micros(200));
        state_of(id) == Some('S')
    })
}

/// Tries to put, without an end and without waiting.
#[mproc::entry]
fn try_to_put(queue: &Queue<u64>, words: &Words, number: usize) {
    loop {
        let _ = queue.try_put(0);
        words[number].fetch_add(1, Release);
    }
}

/// Tries to get, without an end and without waiting.
#[mproc::entry]
fn try_to_get(queue: &Queue<u64>, words: &Words, number: usize) {
    loop {
        let _ = queue.try_get();
        words[number].fetch_add(1, Release);
    }
}

/// A worker is stopped until it happens to be just behind its put or get, and has not yet woken who waits for that. Then it is killed,
/// while somebody else is in and out of the same side of the queue and finds nothing to do there.
fn killed_while_it_owes_a_wake_up(test: &str, is_producer: bool) {
    let mut dice = Dice::new(test);
    let words = Words::new(3);
    let (mut hits, mut samples) = (0, 0);
    while samples < dose(1_500, 150_000) {
        let queue = Queue::bounded(1).unwrap();
        words[..].iter().for_each(|word| word.store(0, Relaxed));
        let producer = started(put_numbers::process(&queue, &words, 0));
        let consumer = started(get_numbers::process(&queue, &words, 1));
        let (worker, waiter, progress) = match is_producer {
            true => (&producer, &consumer, &words[1]),
            false => (&consumer, &producer, &words[0]),
        };
        eventually(|| progress.load(Acquire) > 0);
        let owes = loop {
            samples += 1;
            dice.pause(Duration::from_micros(30));
            send(worker.id(), Signal::SIGSTOP);
            while state_of(worker.id()) != Some('T') {
                thread::yield_now();
            }
            if queue.is_empty() != is_producer
                && sleeps_soundly(waiter.id(), &mut dice)
                && queue.is_empty() != is_producer
            {
                break true;
            }
            if samples.is_multiple_of(500) {
                break false;
            }
            send(worker.id(), Signal::SIGCONT);
        };
        if owes {
            hits += 1;
            let before = progress.load(Acquire);
            let other = match is_producer {
                true => started(try_to_put::process(&queue, &words, 2)),
                false => started(try_to_get::process(&queue, &words, 2)),
            };
            eventually(|| words[2].load(Acquire) > 1);
            dice.pause(Duration::from_micros(50));
            kill_it(worker);
            let killed = Instant::now();
            eventually(|| progress.load(Acquire) > before || killed.elapsed() > PROMPTLY);
            assert!(
                progress.load(Acquire) > before,
                "nobody wakes who waits, with {} in a queue of 1 (hit {hits})",
                queue.len()
            );
            kill_it(&other);
        } else {
            kill_it(worker);
        }
        kill_it(waiter);
    }
    eprintln!("{test}: {hits} hits in {samples}");
}

#[test]
fn a_producer_killed_before_it_woke_the_consumer() {
    let test = "a_producer_killed_before_it_woke_the_consumer";
    let _watchdog = watchdog(test, LIMIT);
    killed_while_it_owes_a_wake_up(test, true);
}

#[test]
fn a_consumer_killed_before_it_woke_the_producer() {
    let test = "a_consumer_killed_before_it_woke_the_producer";
    let _watchdog = watchdog(test, LIMIT);
    killed_while_it_owes_a_wake_up(test, false);
}

/// Some are stopped in the middle of a turn. While others wait for it, they are killed there.
#[test]
fn killed_in_its_turn_while_others_wait_for_it() {
    let _watchdog = watchdog("killed_in_its_turn_while_others_wait_for_it", LIMIT);
    let mut dice = Dice::new("killed_in_its_turn_while_others_wait_for_it");
    let words = Words::new(2);
    let queue = Queue::new().unwrap();
    let mut hits = [0, 0];
    for round in 0..dose(100, 5_000) {
        let side = round % 2;
        words[side].store(0, Relaxed);
        if side == 1 {
            for _ in 0..5_000 {
                queue.put(1).unwrap();
            }
        }
        let victim = match side {
            0 => started(put_numbers::process(&queue, &words, 0)),
            _ => started(get_numbers::process(&queue, &words, 1)),
        };
        eventually(|| words[side].load(Acquire) > 0);
        dice.pause(Duration::from_micros(100));
        send(victim.id(), Signal::SIGSTOP);
        eventually(|| state_of(victim.id()) == Some('T'));
        if side == 1 {
            // It may have taken all; these are for the others.
            for _ in 0..4 {
                queue.put(1).unwrap();
            }
        }
        let moment = Duration::from_millis(2);
        thread::scope(|scope| {
            let has_the_turn = match side {
                0 => queue.put_timeout(1, moment).is_err(),
                _ => matches!(queue.get_timeout(moment), Err(RecvError::Timeout)),
            };
            let others = [(); 3].map(|()| {
                scope.spawn(|| match side {
                    0 => queue.put(1).unwrap(),
                    _ => assert!(queue.get().is_ok()),
                })
            });
            if has_the_turn {
                hits[side] += 1;
                dice.pause(Duration::from_micros(500));
            }
            kill_it(&victim);
            let killed = Instant::now();
            for other in others {
                other.join().unwrap();
            }
            assert!(killed.elapsed() < PROMPTLY, "{:?}", killed.elapsed());
        });
        while queue.try_get().is_ok() {}
    }
    eprintln!("{hits:?} were killed in their turn");
}

/// Killed while they wait for what others hold, so that the wait itself has to leave nothing behind.
#[test]
fn sleepers_that_die_cost_nothing() {
    let _watchdog = watchdog("sleepers_that_die_cost_nothing", LIMIT);
    let words = Words::new(64);
    let empty = Queue::new().unwrap();
    let full = Queue::bounded(1).unwrap();
    full.put(7).unwrap();
    for _ in 0..dose(3, 100) {
        words[0].store(0, Relaxed);
        let mut children = Vec::new();
        for number in 1..dose(8, 64) {
            words[number].store(0, Relaxed);
            children.push(started(get_one::process(&empty, &words, number)));
        }
        children.push(started(put_one::process(&full, &words)));
        for (number, child) in children.iter().enumerate() {
            let number = (number + 1) % children.len();
            eventually(|| words[number].load(Acquire) == 1);
            until_asleep(child.id());
        }
        for child in &children {
            kill_it(child);
        }
        assert_eq!((empty.len(), full.len()), (0, 1));
        empty.put(1).unwrap();
        assert_eq!(empty.get().unwrap(), 1);
        assert_eq!(full.get().unwrap(), 7);
        full.try_put(7).unwrap();
    }
}

// --- who is stopped

/// A stopped consumer that slept may have been the one to be woken. The item is for the others then.
#[test]
fn a_stopped_sleeper_does_not_keep_the_item_from_others() {
    let _watchdog = watchdog(
        "a_stopped_sleeper_does_not_keep_the_item_from_others",
        LIMIT,
    );
    let words = Words::new(2);
    for victims_first in [true, false] {
        for round in 0..dose(10, 500) as u64 {
            let queue = Queue::new().unwrap();
            let start = |number: usize| {
                words[number].store(0, Relaxed);
                let child = started(get_one::process(&queue, &words, number));
                eventually(|| words[number].load(Acquire) == 1);
                until_asleep(child.id());
                child
            };
            let (victim, other) = if victims_first {
                let victim = start(0);
                (victim, start(1))
            } else {
                let other = start(1);
                (start(0), other)
            };
            send(victim.id(), Signal::SIGSTOP);
            eventually(|| state_of(victim.id()) == Some('T'));
            queue.put(round).unwrap();
            let put = Instant::now();
            eventually(|| words[1].load(Acquire) == 2 || put.elapsed() > PROMPTLY);
            assert_eq!(
                words[1].load(Acquire),
                2,
                "the item waits for a stopped process, with another one asleep (round {round}, {victims_first})"
            );
            // It is itself again when it is continued.
            send(victim.id(), Signal::SIGCONT);
            queue.put(round).unwrap();
            eventually(|| words[0].load(Acquire) == 2);
            kill_it(&victim);
            kill_it(&other);
        }
    }
}

/// A stopped producer that waited for room.
#[test]
fn a_stopped_producer_does_not_keep_the_room_from_others() {
    let _watchdog = watchdog(
        "a_stopped_producer_does_not_keep_the_room_from_others",
        LIMIT,
    );
    let words = Words::new(1);
    for _ in 0..dose(10, 500) {
        let queue = Queue::bounded(1).unwrap();
        queue.put(1).unwrap();
        words[0].store(0, Relaxed);
        let victim = started(put_one::process(&queue, &words));
        eventually(|| words[0].load(Acquire) == 1);
        until_asleep(victim.id());
        send(victim.id(), Signal::SIGSTOP);
        eventually(|| state_of(victim.id()) == Some('T'));
        thread::scope(|scope| {
            let other = scope.spawn(|| queue.put_timeout(2000, PROMPTLY));
            assert_eq!(queue.get().unwrap(), 1);
            let put = other.join().unwrap();
            assert!(put.is_ok(), "room is kept for a stopped process: {put:?}");
        });
        assert_eq!(queue.get().unwrap(), 2000);
        send(victim.id(), Signal::SIGCONT);
        assert_eq!(queue.get().unwrap(), 1000);
        kill_it(&victim);
    }
}

/// Stopped at any moment of its work, it may hold what the others need. Deadlines hold nevertheless, and when it goes on, so
/// do all.
#[test]
fn deadlines_hold_while_somebody_is_stopped() {
    let _watchdog = watchdog("deadlines_hold_while_somebody_is_stopped", LIMIT);
    let mut dice = Dice::new("deadlines_hold_while_somebody_is_stopped");
    let timeout = Duration::from_millis(3);
    let (mut late, mut in_time) = (0, 0);
    for queue in [Queue::new().unwrap(), Queue::bounded(5_000).unwrap()] {
        let words = Words::new(2);
        let victims = [
            started(put_numbers::process(&queue, &words, 0)),
            started(get_numbers::process(&queue, &words, 1)),
        ];
        eventually(|| words[0].load(Acquire) > 0 && words[1].load(Acquire) > 0);
        for round in 0..dose(150, 5_000) {
            let victim = &victims[round % 2];
            dice.pause(Duration::from_micros(200));
            send(victim.id(), Signal::SIGSTOP);
            eventually(|| state_of(victim.id()) == Some('T'));
            let start = Instant::now();
            let got = queue.get_timeout(timeout);
            match got {
                Ok(_) => in_time += 1,
                Err(RecvError::Timeout) => late += 1,
                Err(error) => panic!("{error:?}"),
            }
            let middle = Instant::now();
            match queue.put_timeout(u64::MAX, timeout) {
                Ok(()) => in_time += 1,
                Err(SendError::Timeout(_)) => {
                    late += 1;
                    assert!(middle.elapsed() >= timeout);
                }
                Err(error) => panic!("{error:?}"),
            }
            assert!(start.elapsed() < PROMPTLY, "{:?}", start.elapsed());
            let before = words[round % 2].load(Acquire);
            send(victim.id(), Signal::SIGCONT);
            eventually(|| {
                // Room, or items, so that it has something to do.
                match round % 2 {
                    0 => drop(queue.try_get()),
                    _ => drop(queue.try_put(0)),
                }
                words[round % 2].load(Acquire) > before
            });
        }
        for victim in &victims {
            kill_it(victim);
        }
        while queue.try_get().is_ok() {}
        assert!(queue.is_empty());
    }
    eprintln!("{in_time} in time, {late} late");
}

// --- nobody else is left

#[mproc::entry]
fn hold_until_told(queue: Queue<u64>, about_to: &Words, how: &str) {
    about_to[0].store(1, Release);
    match how {
        "ends" => {}
        "drops" => {
            drop(queue);
            loop {
                thread::park();
            }
        }
        "is killed" => loop {
            thread::park();
        },
        "puts and ends" => queue.put(1).unwrap(),
        _ => panic!("no such end: {how}"),
    }
}

/// The last holder of an empty queue hears of it, also if it is asleep by then.
#[test]
fn a_getter_that_is_left_alone_hears_of_it() {
    let _watchdog = watchdog("a_getter_that_is_left_alone_hears_of_it", LIMIT);
    let mut dice = Dice::new("a_getter_that_is_left_alone_hears_of_it");
    let words = Words::new(1);
    for round in 0..dose(12, 1_000) {
        for how in ["ends", "drops", "is killed", "puts and ends"] {
            let queue = match round % 2 {
                0 => Queue::<u64>::new().unwrap(),
                _ => Queue::bounded(1).unwrap(),
            };
            words[0].store(0, Relaxed);
            let child = started(hold_until_told::process(queue.clone(), &words, how));
            thread::scope(|scope| {
                let killer = scope.spawn(|| {
                    if how == "is killed" {
                        if round % 4 < 2 {
                            // Those who wait are asleep, then.
                            eventually(|| words[0].load(Acquire) == 1);
                        }
                        dice.pause(Duration::from_micros(500));
                        kill_it(&child);
                    }
                });
                if how == "puts and ends" {
                    assert_eq!(queue.get().unwrap(), 1);
                }
                let error = queue.get().unwrap_err();
                assert!(matches!(error, RecvError::Disconnected), "{how}: {error:?}");
                killer.join().unwrap();
            });
            let error = queue.get_timeout(Duration::MAX).unwrap_err();
            assert!(matches!(error, RecvError::Disconnected), "{how}: {error:?}");
            // Who is alone can still use it, and give it to somebody else.
            queue.put(5).unwrap();
            assert_eq!(queue.get().unwrap(), 5);
            if how == "drops" {
                kill_it(&child);
            }
            if round == 0 {
                let next = started(hold_until_told::process(
                    queue.clone(),
                    &words,
                    "puts and ends",
                ));
                assert_eq!(queue.get().unwrap(), 1);
                next.join().unwrap();
            }
        }
    }
}

/// A queue that only threads of this process use has holders enough.
#[test]
fn threads_wait_for_one_another() {
    let _watchdog = watchdog("threads_wait_for_one_another", LIMIT);
    let queue = Queue::<u64>::new().unwrap();
    let go = AtomicBool::new(false);
    thread::scope(|scope| {
        let getter = scope.spawn(|| {
            go.store(true, Release);
            queue.get()
        });
        eventually(|| go.load(Acquire));
        let late = queue.get_timeout(Duration::from_millis(50));
        assert!(matches!(late, Err(RecvError::Timeout)), "{late:?}");
        queue.put(3).unwrap();
        assert_eq!(getter.join().unwrap().unwrap(), 3);
    });
}

type Ends = Queue<(u64, Sender<u64>)>;

#[mproc::entry]
fn steps_through_a_get(words: &Words, ends: &Ends) {
    drop(stepped(words, || ends.get().unwrap()));
}

#[mproc::entry]
fn steps_through_a_put(words: &Words, ends: &Ends, end: Sender<u64>) {
    stepped(words, || ends.put((0, end)).unwrap());
}

/// Takes all that is left, until it has found nothing.
fn empty(ends: &Ends) {
    loop {
        match ends.try_get() {
            Ok((0, end)) => drop(end),
            Err(RecvError::Empty | RecvError::Disconnected) => return,
            // It was packed by the dead, and thrown away with another.
            other => panic!("{other:?}"),
        }
    }
}

fn ends(mut receiver: Receiver<u64>) {
    match receiver.recv_timeout(LIMIT) {
        Err(RecvError::Disconnected) => {}
        other => panic!("its other end is kept alive: {other:?}"),
    }
}

#[test]
fn what_the_dead_were_taking_is_kept_alive_by_nobody() {
    let _watchdog = watchdog("what_the_dead_were_taking", 2 * LIMIT);
    let (words, queue) = (Words::new(COUNT), Ends::new().unwrap());
    let receiver = RefCell::new(None);
    kill_at_each_step(
        "taking",
        &words,
        || {
            let (end, other) = pipe().unwrap();
            receiver.replace(Some(other));
            queue.put((0, end)).unwrap();
            steps_through_a_get::process(&words, &queue)
        },
        |_| {
            empty(&queue);
            ends(receiver.take().unwrap());
        },
    );
}

#[test]
fn what_the_dead_were_putting_is_kept_alive_by_nobody() {
    let _watchdog = watchdog("what_the_dead_were_putting", 2 * LIMIT);
    let (words, queue) = (Words::new(COUNT), Ends::new().unwrap());
    let receiver = RefCell::new(None);
    kill_at_each_step(
        "putting",
        &words,
        || {
            let (end, other) = pipe().unwrap();
            receiver.replace(Some(other));
            steps_through_a_put::process(&words, &queue, end)
        },
        |_| {
            empty(&queue);
            ends(receiver.take().unwrap());
        },
    );
}

// --- watched by others

fn is_readable(queue: &Queue<u64>) -> bool {
    let mut look = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
    poll(&mut look, PollTimeout::ZERO).unwrap() == 1
}

#[mproc::entry]
fn steps_through_a_watched_put(words: &Words, queue: &Queue<u64>) {
    queue.put(1).unwrap();
    queue.get().unwrap();
    stepped(words, || queue.put(2).unwrap());
}

#[mproc::entry]
fn steps_through_a_watched_get(words: &Words, queue: &Queue<u64>) {
    queue.put(1).unwrap();
    queue.get().unwrap();
    queue.put(2).unwrap();
    stepped(words, || queue.get().unwrap());
}

/// Somebody died in the middle of an operation: what is there has been announced, what was announced and is not there is found out by
/// the first who looks, and the queue goes on. Says whether the item was there.
fn is_heard_of(queue: &Queue<u64>) -> bool {
    let announced = is_readable(queue);
    let there = match queue.try_get() {
        Ok(item) => {
            assert_eq!(item, 2);
            assert!(announced, "an item that nobody hears of");
            true
        }
        Err(RecvError::Empty | RecvError::Disconnected) => false,
        Err(error) => panic!("{error}"),
    };
    assert!(queue.try_get().is_err(), "one more than was put");
    assert!(!is_readable(queue), "announced, and nothing is there");
    queue.put(3).unwrap();
    assert!(is_readable(queue));
    assert_eq!(queue.try_get().unwrap(), 3);
    assert!(queue.try_get().is_err() && !is_readable(queue));
    there
}

/// Has processes die at each instruction of what they do with a watched queue; each time, what is there is heard of.
fn die_watched(test: &'static str, process: impl Fn(&Words, &Queue<u64>) -> Process<()>) {
    let _watchdog = watchdog(test, 2 * LIMIT);
    let (words, queue) = (Words::new(COUNT), Queue::new().unwrap());
    assert!(!is_readable(&queue));
    let (mut there, mut deaths) = (0, 0);
    kill_at_each_step(
        test,
        &words,
        || process(&words, &queue),
        |_| {
            there += usize::from(is_heard_of(&queue));
            deaths += 1;
        },
    );
    assert!(
        0 < there && there < deaths,
        "{there} of {deaths} were there"
    );
}

#[test]
fn what_a_dead_producer_announced_is_there_or_found_out() {
    die_watched("announcing", |words, queue| {
        steps_through_a_watched_put::process(words, queue)
    });
}

#[test]
fn what_a_dead_consumer_left_is_announced() {
    die_watched("silencing", |words, queue| {
        steps_through_a_watched_get::process(words, queue)
    });
}
