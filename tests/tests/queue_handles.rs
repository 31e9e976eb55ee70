//! Queues in arguments, results and messages, and what travels through queues: calls, pipe ends, descriptors, queues.

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mproc::{
    Call, Fd, JoinError, JoinableQueue, Queue, Receiver, RecvError, SendError, Sender, Stdio,
};
use mproc_tests::{descriptors, dose, eventually, kill_myself, runs, watchdog};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(120);

fn kernel_pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

fn fd(owner: impl Into<OwnedFd>) -> Fd {
    Fd::from(owner.into())
}

/// Whether the end of a pipe that nobody writes to has come.
fn has_ended(reader: &PipeReader) -> bool {
    let mut look = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    poll(&mut look, PollTimeout::ZERO).unwrap() == 1
}

#[mproc::entry]
fn put_one(queue: Queue<u64>, number: u64) {
    queue.put(number).unwrap();
}

#[mproc::entry]
fn put_one_lent(queue: &Queue<u64>, number: u64) {
    queue.put(number).unwrap();
}

#[test]
fn a_queue_is_given_or_lent_to_a_child() {
    let _watchdog = watchdog("a_queue_is_given_or_lent_to_a_child", LIMIT);
    let queue = Queue::new().unwrap();
    put_one::spawn(queue.clone(), 1).unwrap().join().unwrap();
    put_one_lent::spawn(&queue, 2).unwrap().join().unwrap();
    // A call that was bound with it may run more than once, here and there.
    let call = put_one::bind(queue.clone(), 3);
    call.clone().run().unwrap();
    call.clone().spawn().unwrap().join().unwrap();
    call.run().unwrap();
    let numbers: Vec<u64> = (0..5).map(|_| queue.get().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 3, 3]);
}

#[test]
fn a_queue_is_a_result() {
    let _watchdog = watchdog("a_queue_is_a_result", LIMIT);
    #[mproc::entry]
    fn make(count: u64) -> (Queue<u64>, JoinableQueue<String>) {
        let (queue, joinable) = (Queue::new().unwrap(), JoinableQueue::new().unwrap());
        for number in 0..count {
            queue.put(number).unwrap();
        }
        joinable.put("to do".into()).unwrap();
        (queue, joinable)
    }
    let (queue, joinable) = make::spawn(1000).unwrap().join().unwrap();
    let numbers: Vec<u64> = (0..1000).map(|_| queue.get().unwrap()).collect();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    assert!(matches!(queue.get(), Err(RecvError::Disconnected)));
    // Its maker is gone, so nobody else will do it.
    let error = joinable.join().unwrap_err();
    assert!(
        matches!(error, JoinError::Disconnected { count: 1, .. }),
        "{error:?}"
    );
    assert_eq!(joinable.get_job().unwrap().into_inner(), "to do");
    joinable.join().unwrap();
}

#[derive(Serialize, Deserialize)]
struct Office {
    inbox: Queue<u64>,
    rooms: Vec<Queue<String>>,
    by_name: BTreeMap<String, Queue<u64>>,
    tasks: Option<JoinableQueue<u64>>,
    none: Option<Queue<u64>>,
    choice: Choice,
}

#[derive(Serialize, Deserialize)]
enum Choice {
    Queue(Queue<u64>),
    Fd { fd: Fd },
}

#[test]
fn queues_are_anywhere_in_a_message() {
    let _watchdog = watchdog("queues_are_anywhere_in_a_message", LIMIT);
    #[mproc::entry]
    fn fill(offices: &Queue<Office>) {
        for office in offices {
            let office = office.unwrap();
            assert!(office.none.is_none());
            office.inbox.put(1).unwrap();
            for (number, room) in office.rooms.iter().enumerate() {
                room.put(number.to_string()).unwrap();
            }
            for (name, queue) in office.by_name {
                queue.put(name.len() as u64).unwrap();
            }
            assert_eq!(*office.tasks.unwrap().get_job().unwrap(), 7);
            match office.choice {
                Choice::Queue(queue) => queue.put(4).unwrap(),
                Choice::Fd { fd } => fd
                    .into_inner::<PipeWriter>()
                    .unwrap()
                    .write_all(b"x")
                    .unwrap(),
            }
        }
    }
    let offices = Queue::new().unwrap();
    let child = fill::spawn(&offices).unwrap();
    for round in 0..dose(20, 2_000) {
        let inbox = Queue::new().unwrap();
        let rooms: Vec<_> = (0..3).map(|_| Queue::bounded(1).unwrap()).collect();
        let tasks = JoinableQueue::new().unwrap();
        tasks.put(7).unwrap();
        let (mut reader, writer) = kernel_pipe();
        let choice = match round % 2 {
            0 => Choice::Queue(inbox.clone()),
            _ => Choice::Fd { fd: fd(writer) },
        };
        let office = Office {
            inbox: inbox.clone(),
            rooms: rooms.clone(),
            by_name: BTreeMap::from([("ab".into(), inbox.clone()), ("abc".into(), inbox.clone())]),
            tasks: Some(tasks.clone()),
            none: None,
            choice,
        };
        offices.put(office).unwrap();
        let mut numbers: Vec<u64> = (0..3).map(|_| inbox.get().unwrap()).collect();
        if round % 2 == 0 {
            numbers.push(inbox.get().unwrap());
            assert_eq!(numbers, [1, 2, 3, 4]);
        } else {
            reader.read_exact(&mut [0]).unwrap();
            assert_eq!(numbers, [1, 2, 3]);
        }
        for (number, room) in rooms.iter().enumerate() {
            assert_eq!(room.get().unwrap(), number.to_string());
        }
        tasks.join().unwrap();
    }
    offices.close();
    child.join().unwrap();
}

#[test]
fn calls_go_through_a_queue_and_run() {
    let _watchdog = watchdog("calls_go_through_a_queue_and_run", LIMIT);
    #[mproc::entry]
    fn add(a: u64, b: u64, to: &Queue<u64>) -> u64 {
        to.put(a + b).unwrap();
        a + b
    }
    #[mproc::entry]
    fn run_all(calls: &Queue<Call<u64>>) -> u64 {
        calls.iter().map(|call| call.unwrap().run().unwrap()).sum()
    }
    let (calls, sums) = (Queue::bounded(4).unwrap(), Queue::new().unwrap());
    let runners = [(); 2].map(|()| run_all::spawn(&calls).unwrap());
    let count = dose(100, 10_000) as u64;
    for number in 0..count {
        calls.put(add::bind(number, 1, &sums)).unwrap();
    }
    calls.close();
    let there: u64 = runners.map(|child| child.join().unwrap()).iter().sum();
    let expected = (1..=count).sum::<u64>();
    assert_eq!(there, expected);
    let here: u64 = (0..count).map(|_| sums.get().unwrap()).sum();
    assert_eq!(here, expected);
    assert!(sums.is_empty());
}

#[test]
fn pipe_ends_go_through_a_queue() {
    let _watchdog = watchdog("pipe_ends_go_through_a_queue", LIMIT);
    #[mproc::entry]
    fn answer(questions: &Queue<(Sender<String>, u32)>) {
        for question in questions {
            let (mut answers, number) = question.unwrap();
            answers.send(format!("{number}!")).unwrap();
        }
    }
    let questions = Queue::bounded(5).unwrap();
    let children = [(); 2].map(|()| answer::spawn(&questions).unwrap());
    for number in 0..dose(50, 5_000) as u32 {
        let (sender, mut receiver): (_, Receiver<String>) = mproc::pipe().unwrap();
        questions.put((sender, number)).unwrap();
        assert_eq!(receiver.recv().unwrap(), format!("{number}!"));
        // Nothing of the sender has stayed here.
        assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)));
    }
    questions.close();
    for child in children {
        child.join().unwrap();
    }
}

/// A put that fails hands back an end that works.
#[test]
fn a_failed_put_hands_back_ends_that_work() {
    let _watchdog = watchdog("a_failed_put_hands_back_ends_that_work", LIMIT);
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    impl<'de> Deserialize<'de> for Refuses {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }
    let queue = Queue::<(Sender<u64>, Option<Refuses>)>::bounded(1).unwrap();
    let (other, _receiver) = mproc::pipe().unwrap();
    let (sender, mut receiver) = mproc::pipe().unwrap();
    let error = queue.put((sender, Some(Refuses))).err().unwrap();
    assert!(matches!(error, SendError::Encode(..)));
    let (mut sender, _) = error.into_inner();
    sender.send(1).unwrap();
    queue.put((other, None)).unwrap();
    let error = queue.try_put((sender, None)).err().unwrap();
    assert!(matches!(error, SendError::Full(_)));
    let (mut sender, _) = error.into_inner();
    sender.send(2).unwrap();
    let error = queue
        .put_timeout((sender, None), Duration::ZERO)
        .err()
        .unwrap();
    assert!(matches!(error, SendError::Timeout(_)));
    let (mut sender, _) = error.into_inner();
    sender.send(3).unwrap();
    queue.close();
    let error = queue.put((sender, None)).err().unwrap();
    assert!(matches!(error, SendError::Closed(_)));
    let (mut sender, _) = error.into_inner();
    sender.send(4).unwrap();
    drop(sender);
    let numbers: Vec<u64> = receiver.iter().map(Result::unwrap).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[mproc::entry]
fn unread_descriptors(count: usize) {
    let queue = Queue::<(usize, Fd)>::new().unwrap();
    let (reader, writer) = kernel_pipe();
    let writer = fd(writer);
    let before = descriptors();
    for number in 0..count {
        queue.put((number, writer.clone())).unwrap();
    }
    drop(writer);
    assert_eq!(queue.len(), count);
    // They are not open here while they are unread.
    assert!(descriptors().len() <= before.len() + 8);
    assert!(!has_ended(&reader));
    for expected in 0..count {
        let (number, writer) = queue.get().unwrap();
        assert_eq!(number, expected);
        if number % 1000 == 0 {
            let mut byte = [0];
            writer
                .into_inner::<PipeWriter>()
                .unwrap()
                .write_all(b"x")
                .unwrap();
            (&reader).read_exact(&mut byte).unwrap();
        }
    }
    // The last one was the last.
    eventually(|| has_ended(&reader));
}

#[test]
fn ten_thousand_unread_messages_with_a_descriptor_each() {
    let _watchdog = watchdog("ten_thousand_unread_messages_with_a_descriptor_each", LIMIT);
    let count = dose(10_000, 30_000);
    unread_descriptors::spawn(count).unwrap().join().unwrap();
}

/// Those of unread messages are closed with the queue, those of messages that nobody could decode at once.
#[test]
fn descriptors_that_nobody_reads_are_closed() {
    let _watchdog = watchdog("descriptors_that_nobody_reads_are_closed", LIMIT);
    #[derive(Serialize)]
    struct Undecodable(Fd);
    impl<'de> Deserialize<'de> for Undecodable {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("no"))
        }
    }
    let queue = Queue::new().unwrap();
    let (reader, writer) = kernel_pipe();
    queue.put(Undecodable(fd(writer))).unwrap();
    assert!(!has_ended(&reader));
    assert!(matches!(queue.get(), Err(RecvError::Decode(_))));
    eventually(|| has_ended(&reader));
    let (reader, writer) = kernel_pipe();
    queue.put(Undecodable(fd(writer))).unwrap();
    assert!(!has_ended(&reader));
    drop(queue);
    eventually(|| has_ended(&reader));
}

#[test]
fn hundreds_of_descriptors_in_one_message() {
    let _watchdog = watchdog("hundreds_of_descriptors_in_one_message", LIMIT);
    #[mproc::entry]
    fn write_numbers(queue: &Queue<(u64, Vec<Fd>)>) {
        for message in queue {
            for (number, fd) in message.unwrap().1.into_iter().enumerate() {
                let mut writer = fd.into_inner::<PipeWriter>().unwrap();
                writer.write_all(&(number as u32).to_le_bytes()).unwrap();
            }
        }
    }
    let queue = Queue::new().unwrap();
    let child = write_numbers::spawn(&queue).unwrap();
    for count in [0, 1, 252, 253, 254, 300] {
        let (mut readers, writers): (Vec<_>, Vec<_>) = (0..count).map(|_| kernel_pipe()).unzip();
        let writers = writers.into_iter().map(fd).collect();
        queue.put((count, writers)).unwrap();
        for (number, reader) in readers.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            // Ends, because nobody else has a write end.
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, (number as u32).to_le_bytes());
        }
    }
    queue.close();
    child.join().unwrap();
}

// --- cycles

/// A message that may carry the queue in which it is.
#[derive(Serialize, Deserialize)]
struct Parcel {
    queues: Vec<Queue<Parcel>>,
    canary: Option<Fd>,
}

/// The kernel looks for sockets that hold only one another when sockets are closed.
fn until_collected(reader: &PipeReader) {
    eventually(|| {
        let (one, other) = UnixStream::pair().unwrap();
        drop((one, other));
        has_ended(reader)
    });
}

#[mproc::entry]
fn cycles(rounds: usize) {
    let before = descriptors();
    for round in 0..rounds {
        // Sent through itself, and read or left.
        let queue = Queue::new().unwrap();
        let (reader, writer) = kernel_pipe();
        queue
            .put(Parcel {
                queues: vec![queue.clone(), queue.clone()],
                canary: Some(fd(writer)),
            })
            .unwrap();
        if round % 2 == 0 {
            let same = queue.get().unwrap().queues.remove(0);
            same.put(Parcel {
                queues: Vec::new(),
                canary: None,
            })
            .unwrap();
            assert_eq!(queue.len(), 1);
            queue.get().unwrap();
        }
        assert_eq!(has_ended(&reader), round % 2 == 0);
        drop(queue);
        until_collected(&reader);
        // Two in one another, with something behind.
        let (one, other) = (Queue::new().unwrap(), Queue::new().unwrap());
        let (reader, writer) = kernel_pipe();
        for (into, what) in [(&one, &other), (&other, &one)] {
            into.put(Parcel {
                queues: vec![what.clone()],
                canary: None,
            })
            .unwrap();
        }
        one.put(Parcel {
            queues: Vec::new(),
            canary: Some(fd(writer)),
        })
        .unwrap();
        drop(one);
        assert!(!has_ended(&reader));
        drop(other);
        until_collected(&reader);
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn a_queue_sent_through_itself_still_closes() {
    let _watchdog = watchdog("a_queue_sent_through_itself_still_closes", LIMIT);
    // In a process of its own, where nobody else opens descriptors.
    cycles::spawn(dose(20, 2_000)).unwrap().join().unwrap();
}

/// An end of a pipe that is in a queue which is in that pipe.
#[test]
fn a_cycle_with_a_pipe_closes_too() {
    let _watchdog = watchdog("a_cycle_with_a_pipe_closes_too", LIMIT);
    #[derive(Serialize, Deserialize)]
    enum Either {
        Queue(Queue<Either>),
        Receiver(Receiver<Either>),
        Fd(Fd),
    }
    for _ in 0..dose(10, 1_000) {
        let queue = Queue::new().unwrap();
        let (mut sender, receiver) = mproc::pipe().unwrap();
        let (reader, writer) = kernel_pipe();
        sender.send(Either::Queue(queue.clone())).unwrap();
        sender.send(Either::Fd(fd(writer))).unwrap();
        queue.put(Either::Receiver(receiver)).unwrap();
        assert!(!has_ended(&reader));
        drop((queue, sender));
        until_collected(&reader);
    }
}

#[mproc::entry]
fn round_trips(rounds: usize) {
    #[mproc::entry]
    fn bounce(queue: &Queue<Parcel>, back: &Queue<Parcel>) {
        for parcel in queue {
            back.put(parcel.unwrap()).unwrap();
        }
    }
    let (there, back) = (Queue::new().unwrap(), Queue::new().unwrap());
    let child = bounce::spawn(&there, &back).unwrap();
    let mut before = None;
    for _ in 0..rounds {
        let made = Queue::new().unwrap();
        let (reader, writer) = kernel_pipe();
        let parcel = Parcel {
            queues: vec![made.clone(), there.clone()],
            canary: Some(fd(writer)),
        };
        there.put(parcel).unwrap();
        let parcel = back.get().unwrap();
        parcel.queues[0]
            .put(Parcel {
                queues: Vec::new(),
                canary: None,
            })
            .unwrap();
        assert_eq!(made.len(), 1);
        drop(parcel);
        eventually(|| has_ended(&reader));
        drop((made, reader));
        // Of the same number, and not the same: crates come and go.
        let now = descriptors().len();
        assert_eq!(*before.get_or_insert(now), now);
    }
    there.close();
    child.join().unwrap();
}

#[test]
fn round_trips_of_queues_leak_nothing() {
    let _watchdog = watchdog("round_trips_of_queues_leak_nothing", LIMIT);
    round_trips::spawn(dose(200, 10_000))
        .unwrap()
        .join()
        .unwrap();
}

// --- those who live longer than others

#[mproc::entry]
fn produce_then_consume(queue: &Queue<u64>, start: Fd, said: Fd) {
    // Until the creator is gone.
    let mut start = start.into_inner::<PipeReader>().unwrap();
    start.read_to_end(&mut Vec::new()).unwrap();
    let mut sum = 0;
    for number in 0..1000 {
        queue.put(number).unwrap();
        sum += queue.get().unwrap();
    }
    let mut said = said.into_inner::<PipeWriter>().unwrap();
    // In one piece, since the other one writes, too.
    said.write_all(format!("{sum}\n").as_bytes()).unwrap();
}

/// Makes a queue, gives it to two that outlive this process, and ends in some way.
#[mproc::entry]
fn create_and_end(start: &Fd, said: &Fd, started: &Queue<u32>, how: &str) {
    let queue = Queue::new().unwrap();
    for _ in 0..2 {
        let child = produce_then_consume::process(&queue, start.clone(), said.clone())
            .detached()
            .start()
            .unwrap();
        started.put(child.id()).unwrap();
    }
    match how {
        "returns" => {}
        "exits" => std::process::exit(5),
        "panics" => panic!("a panic that is part of a test"),
        _ => kill_myself(),
    }
}

#[test]
fn a_queue_outlives_its_creator() {
    let _watchdog = watchdog("a_queue_outlives_its_creator", LIMIT);
    for how in ["returns", "exits", "panics", "is killed"] {
        let (start, hold) = kernel_pipe();
        let (mut said, theirs) = kernel_pipe();
        let (start, theirs) = (fd(start), fd(theirs));
        let started = Queue::new().unwrap();
        let creator = create_and_end::process(&start, &theirs, &started, how)
            .detached()
            .stderr(Stdio::null())
            .start()
            .unwrap();
        creator.wait().unwrap();
        assert!(!runs(creator.id()));
        let ids = [started.get().unwrap(), started.get().unwrap()];
        assert!(ids.iter().all(|id| runs(*id)));
        drop((hold, start, theirs));
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        // The numbers that two put are got by the two, in some order.
        let sums: u64 = text.lines().map(|line| line.parse::<u64>().unwrap()).sum();
        assert_eq!(sums, 2 * (0..1000).sum::<u64>(), "{how}");
        eventually(|| !ids.iter().any(|id| runs(*id)));
    }
}

/// What a process had put before it was killed is there, long after it, for those who did not exist then.
#[test]
fn what_the_dead_have_put_is_there() {
    let _watchdog = watchdog("what_the_dead_have_put_is_there", LIMIT);
    #[mproc::entry]
    fn put_and_die(queue: Queue<(u64, Fd)>, writer: Fd) {
        for number in 0..500 {
            queue.put((number, writer.clone())).unwrap();
        }
        kill_myself();
    }
    #[mproc::entry]
    fn count(queue: Queue<(u64, Fd)>) -> u64 {
        let mut next = 0;
        while let Ok((number, _)) = queue.get_timeout(Duration::ZERO) {
            assert_eq!(number, next);
            next += 1;
        }
        next
    }
    let queue = Queue::new().unwrap();
    let (reader, writer) = kernel_pipe();
    let killed = put_and_die::spawn(queue.clone(), fd(writer)).unwrap();
    assert!(killed.join().is_err());
    assert!(!has_ended(&reader));
    assert_eq!(count::spawn(queue.clone()).unwrap().join().unwrap(), 500);
    eventually(|| has_ended(&reader));
    assert!(matches!(queue.get(), Err(RecvError::Disconnected)));
}

/// A queue on its way has a holder to be.
#[test]
fn a_queue_inside_a_message_is_held() {
    let _watchdog = watchdog("a_queue_inside_a_message_is_held", LIMIT);
    let outer = Queue::new().unwrap();
    let inner = Queue::<u64>::new().unwrap();
    outer.put(inner.clone()).unwrap();
    let late = inner.get_timeout(Duration::from_millis(30));
    assert!(matches!(late, Err(RecvError::Timeout)), "{late:?}");
    let arrived = outer.get().unwrap();
    arrived.put(1).unwrap();
    assert_eq!(inner.get().unwrap(), 1);
}

/// To any other format, a queue is an error that says why.
#[test]
fn a_queue_is_no_text() {
    let error = serde_json::to_string(&Queue::<u64>::new().unwrap()).unwrap_err();
    assert!(error.to_string().contains("mproc"), "{error}");
}
