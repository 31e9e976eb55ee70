//! What a queue costs, gives back, and says where there is no more: memory, file size, descriptors.
//!
//! These are facts of whole processes, so each test has one of its own.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use mproc::{Fd, JoinableQueue, Queue, RecvError, SendError};
use mproc_tests::{descriptors, dose, eventually, watchdog};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const LIMIT: Duration = Duration::from_secs(120);

/// The memory of all memfds that this process has open, in bytes.
fn shared_memory() -> u64 {
    let blocks = descriptors().into_iter().filter_map(|number| {
        let path = format!("/proc/self/fd/{number}");
        let name = std::fs::read_link(&path).ok()?;
        let is_memory = name.to_str()?.starts_with("/memfd:");
        // `stat` follows the link to the open file itself.
        is_memory.then(|| std::fs::metadata(&path).map_or(0, |file| file.blocks()))
    });
    512 * blocks.sum::<u64>()
}

/// What of this process's memory is in use, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages = statm.split_whitespace().nth(1).unwrap();
    4096 * pages.parse::<u64>().unwrap()
}

fn lower(resource: Resource, to: u64) -> u64 {
    let (soft, hard) = getrlimit(resource).unwrap();
    setrlimit(resource, to.min(hard), hard).unwrap();
    soft
}

fn raise(resource: Resource, to: u64) {
    let (_, hard) = getrlimit(resource).unwrap();
    setrlimit(resource, to, hard).unwrap();
}

const MIB: u64 = 1 << 20;

#[mproc::entry]
fn cost_of_unused() {
    let before = shared_memory();
    let count = descriptors().len();
    let queue = Queue::<u64>::new().unwrap();
    let bounded = Queue::<u64>::bounded(1_000_000).unwrap();
    let joinable = JoinableQueue::<u64>::new().unwrap();
    let cost = shared_memory() - before;
    assert!(cost <= 3 * 10 * 4096, "{cost} B for three unused queues");
    // Used a little, not much more.
    for number in 0..100_000 {
        queue.put(number).unwrap();
        assert_eq!(queue.get().unwrap(), number);
    }
    let cost = shared_memory() - before;
    assert!(
        cost <= MIB / 2,
        "{cost} B for a queue that was always short"
    );
    let opened = descriptors().len() - count;
    assert!(opened <= 3 * 8, "{opened} descriptors for three queues");
    drop((queue, bounded, joinable));
    assert_eq!((shared_memory(), descriptors().len()), (before, count));
}

#[test]
fn an_unused_queue_costs_a_few_pages() {
    let _watchdog = watchdog("an_unused_queue_costs_a_few_pages", LIMIT);
    cost_of_unused::spawn().unwrap().join().unwrap();
}

#[mproc::entry]
fn fill_and_empty(count: u64, extra: usize) -> String {
    let queue = Queue::new().unwrap();
    let text = "x".repeat(extra);
    // Each way of using memory has been used once before it is looked at.
    for _ in 0..1000 {
        queue.put((0, text.clone())).unwrap();
    }
    for _ in 0..1000 {
        queue.get().unwrap();
    }
    let (file_before, resident_before) = (shared_memory(), resident());
    for number in 0..count {
        queue.put((number, text.clone())).unwrap();
    }
    assert_eq!(queue.len() as u64, count);
    let (file_full, resident_full) = (shared_memory(), resident());
    for number in 0..count / 2 {
        assert_eq!(queue.get().unwrap().0, number);
    }
    let file_half = shared_memory();
    for number in count / 2..count {
        assert_eq!(queue.get().unwrap().0, number);
    }
    assert_eq!(queue.len(), 0);
    // It was a real one.
    assert!(file_full >= count * (8 + extra as u64));
    let all = format!(
        "memory of {count}: {file_before} before, {file_full} full, {file_half} half, {} after; \
         resident: {resident_before} before, {resident_full} full, {} after",
        shared_memory(),
        resident()
    );
    // What was read is not kept until the end.
    assert!(file_half < file_full * 9 / 10, "{all}");
    assert!(shared_memory() <= file_before + 2 * MIB, "{all}");
    assert!(resident() <= resident_before + 16 * MIB, "{all}");
    // And it works as before.
    queue.put((7, text)).unwrap();
    assert_eq!(queue.get().unwrap().0, 7);
    all
}

#[test]
fn millions_of_items_before_the_first_get_and_the_memory_comes_back() {
    let _watchdog = watchdog("millions_of_items_before_the_first_get", LIMIT);
    let count = dose(1_000_000, 10_000_000) as u64;
    let child = fill_and_empty::spawn(count, 0).unwrap();
    eprintln!("{}", child.join().unwrap());
    let child = fill_and_empty::spawn(count / 50, 3000).unwrap();
    eprintln!("{}", child.join().unwrap());
}

#[mproc::entry]
fn fill_then_send(count: u64) -> Queue<u64> {
    let queue = Queue::new().unwrap();
    for number in 0..count {
        queue.put(number).unwrap();
    }
    queue
}

/// Filled by a process that has ended, emptied by another one: the memory is that of whoever has it.
#[mproc::entry]
fn empty_for_another(count: u64) {
    let queue = fill_then_send::spawn(count).unwrap().join().unwrap();
    let full = shared_memory();
    assert!(full >= 8 * count);
    for number in 0..count {
        assert_eq!(queue.get().unwrap(), number);
    }
    let after = shared_memory();
    assert!(after <= 2 * MIB, "{full} B, then {after}");
    assert!(matches!(queue.get(), Err(RecvError::Disconnected)));
}

#[test]
fn memory_comes_back_in_another_process_too() {
    let _watchdog = watchdog("memory_comes_back_in_another_process_too", LIMIT);
    let count = dose(100_000, 10_000_000) as u64;
    empty_for_another::spawn(count).unwrap().join().unwrap();
}

/// In and out for long, never empty: the memory stays that of the few that are unread.
#[mproc::entry]
fn keep_a_hundred(count: u64) -> u64 {
    let queue = Queue::new().unwrap();
    for number in 0..count {
        queue
            .put((number, "x".repeat((number % 300) as usize)))
            .unwrap();
        if number >= 100 {
            assert_eq!(queue.get().unwrap().0, number - 100);
        }
    }
    shared_memory()
}

#[test]
fn a_queue_that_is_never_empty_does_not_grow() {
    let _watchdog = watchdog("a_queue_that_is_never_empty_does_not_grow", LIMIT);
    let child = keep_a_hundred::spawn(dose(60_000, 20_000_000) as u64).unwrap();
    let bytes = child.join().unwrap();
    assert!(bytes <= MIB, "{bytes} B");
}

// --- file size

#[mproc::entry]
fn fill_to_the_file_size() {
    let queue = Queue::<String>::new().unwrap();
    let before = lower(Resource::RLIMIT_FSIZE, MIB);
    let text = |number: usize| format!("{number} ").repeat(1000);
    let mut put = 0;
    // The kernel would answer a write beyond the limit with SIGXFSZ, which kills.
    let error = loop {
        match queue.put(text(put)) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
        assert!(put < 10_000, "the limit is not one");
    };
    match error {
        SendError::Io(message, error) => {
            assert!(message == text(put));
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::FileTooLarge | ErrorKind::StorageFull),
                "{error}"
            );
        }
        error => panic!("{error:?}"),
    }
    assert!(put > 50, "{put}");
    assert_eq!(queue.len(), put);
    // One that is larger than all there may be.
    let error = queue.put("y".repeat(3 << 20)).unwrap_err();
    assert!(matches!(error, SendError::Io(..)));
    assert_eq!(error.into_inner().len(), 3 << 20);
    assert!(queue.try_put(text(put)).is_err());
    // What has been put is there, and room that is given back is room.
    for number in 0..put {
        assert!(queue.get().unwrap() == text(number));
    }
    for round in 0..300 {
        queue.put(text(round)).unwrap();
        assert!(queue.get().unwrap() == text(round));
    }
    raise(Resource::RLIMIT_FSIZE, before);
    queue.put("y".repeat(3 << 20)).unwrap();
    assert_eq!(queue.get().unwrap().len(), 3 << 20);
}

#[test]
fn beyond_the_file_size_put_hands_the_message_back() {
    let _watchdog = watchdog("beyond_the_file_size_put_hands_the_message_back", LIMIT);
    fill_to_the_file_size::spawn().unwrap().join().unwrap();
}

#[mproc::entry]
fn make_without_file_size() {
    let before = lower(Resource::RLIMIT_FSIZE, 0);
    let count = descriptors();
    let error = Queue::<u64>::new().unwrap_err();
    assert!(!error.to_string().is_empty());
    assert_eq!(descriptors(), count);
    raise(Resource::RLIMIT_FSIZE, before);
    Queue::new().unwrap().put(1).unwrap();
}

#[test]
fn a_queue_that_may_have_no_memory_is_an_error() {
    let _watchdog = watchdog("a_queue_that_may_have_no_memory_is_an_error", LIMIT);
    make_without_file_size::spawn().unwrap().join().unwrap();
}

// --- descriptors

/// Opens as many files as there are free numbers below the highest that is open, so that a limit just above it leaves none.
fn fill_gaps() -> Vec<File> {
    let count = *descriptors().last().unwrap() + 1 - descriptors().len() as i32;
    let files = (0..count).map(|_| File::open("/dev/null").unwrap());
    files.collect()
}

#[mproc::entry]
fn make_without_descriptors() {
    let _gaps = fill_gaps();
    // Whatever is opened once for the process is open.
    drop((
        Queue::<u64>::new().unwrap(),
        JoinableQueue::<u64>::new().unwrap(),
    ));
    let _more = fill_gaps();
    let before = descriptors();
    let highest = *before.last().unwrap() as u64;
    let (mut made, mut refused) = (0, 0);
    for left in 0..12 {
        let old = lower(Resource::RLIMIT_NOFILE, highest + 1 + left);
        let result = Queue::<u64>::new();
        let joinable = JoinableQueue::<u64>::bounded(3).is_ok();
        raise(Resource::RLIMIT_NOFILE, old);
        match result {
            Ok(queue) => {
                made += 1;
                queue.put(left).unwrap();
                assert_eq!(queue.get().unwrap(), left);
            }
            Err(error) => {
                refused += 1;
                assert_eq!(made, 0, "refused with more than was enough");
                assert!(!joinable || left > 0);
                let error = error.io_error().and_then(std::io::Error::raw_os_error);
                assert_eq!(error, Some(Errno::EMFILE as i32));
            }
        }
        assert_eq!(descriptors(), before, "{left} left");
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
}

#[test]
fn without_descriptors_a_queue_is_an_error_and_leaks_nothing() {
    let _watchdog = watchdog("without_descriptors_a_queue_is_an_error", LIMIT);
    make_without_descriptors::spawn().unwrap().join().unwrap();
}

fn kernel_pipe() -> (PipeReader, Fd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, Fd::from(OwnedFd::from(writer)))
}

fn has_ended(reader: &PipeReader) -> bool {
    let mut look = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    poll(&mut look, PollTimeout::ZERO).unwrap() == 1
}

/// Gets messages with descriptors for which there is no room.
#[mproc::entry]
fn get_without_room() {
    let queue = Queue::<(u64, Vec<Fd>)>::new().unwrap();
    let (reader, writer) = kernel_pipe();
    let three = || {
        vec![
            writer.clone(),
            writer.clone(),
            Fd::from(File::open("/dev/null").unwrap()),
        ]
    };
    // Once, so that whatever is opened late is open.
    queue.put((0, three())).unwrap();
    queue.get().unwrap();
    for number in 1..=6 {
        queue.put((number, three())).unwrap();
    }
    let _gaps = fill_gaps();
    let before = descriptors();
    let highest = *before.last().unwrap() as u64;
    let mut seen = Vec::new();
    for left in [0, 1, 0] {
        let old = lower(Resource::RLIMIT_NOFILE, highest + 1 + left);
        let error = queue.get().unwrap_err();
        raise(Resource::RLIMIT_NOFILE, old);
        assert!(matches!(error, RecvError::Io(_)), "{error:?}");
        assert_eq!(descriptors(), before);
    }
    // They have stayed, with all that is in them.
    while let Ok((number, fds)) = queue.try_get() {
        assert_eq!(fds.len(), 3);
        seen.push(number);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    assert!(!has_ended(&reader));
    drop(writer);
    eventually(|| has_ended(&reader));
}

/// Gets a message that comes in several packets, in the middle of which there is no more room.
#[mproc::entry]
fn get_many_without_room() {
    let queue = Queue::<Vec<Fd>>::new().unwrap();
    let null = |_| Fd::from(File::open("/dev/null").unwrap());
    let distinct = || -> Vec<Fd> { (0..400).map(null).collect() };
    queue.put(distinct()).unwrap();
    queue.get().unwrap();
    queue.put(distinct()).unwrap();
    let _gaps = fill_gaps();
    let highest = *descriptors().last().unwrap() as u64;
    for left in [0, 1, 5, 200, 255, 260, 399] {
        let old = lower(Resource::RLIMIT_NOFILE, highest + 1 + left);
        let error = queue.get().unwrap_err();
        raise(Resource::RLIMIT_NOFILE, old);
        assert!(matches!(error, RecvError::Io(_)), "{left}: {error:?}");
    }
    assert_eq!(queue.get().unwrap().len(), 400, "it has stayed whole");
}

#[test]
fn a_message_of_many_packets_stays_whole_when_there_is_no_room_for_all() {
    let _watchdog = watchdog("a_message_of_many_packets_stays_whole", LIMIT);
    get_many_without_room::spawn().unwrap().join().unwrap();
}

#[test]
fn without_room_for_its_descriptors_a_get_errs_and_the_next_one_works() {
    let _watchdog = watchdog("without_room_for_its_descriptors_a_get_errs", LIMIT);
    get_without_room::spawn().unwrap().join().unwrap();
}

/// As a user with no privileges, the kernel lets as many descriptors be on their way as may be open.
#[mproc::entry]
fn put_more_than_may_be_on_their_way() -> bool {
    if nix::unistd::geteuid().is_root() {
        // Nobody else runs under this number.
        nix::unistd::setgid(nix::unistd::Gid::from_raw(54_321)).unwrap();
        nix::unistd::setuid(nix::unistd::Uid::from_raw(54_321)).unwrap();
    }
    let queue = Queue::<(u64, Fd)>::new().unwrap();
    let (mut reader, writer) = kernel_pipe();
    lower(Resource::RLIMIT_NOFILE, 64);
    let mut put = 0;
    let error = loop {
        match queue.put((put, writer.clone())) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
        if put > 2000 {
            // Not a limit of this kernel, or more is allowed to us than we think.
            return false;
        }
    };
    assert!(matches!(error, SendError::Io(..)), "{error:?}");
    assert_eq!(error.into_inner().0, put);
    assert_eq!(queue.len() as u64, put);
    assert!(put >= 10, "{put}");
    let mut put_again = put;
    for round in 0..5 {
        for number in 0..put_again {
            assert_eq!(queue.get().unwrap().0, number, "round {round}");
        }
        assert!(queue.is_empty());
        // As much as was taken out can be put in again, but for what the queue itself may have on its way.
        put_again = put - 5;
        for number in 0..put_again {
            queue.put((number, writer.clone())).unwrap();
        }
    }
    drop((queue, writer));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    true
}

#[test]
fn past_the_limit_of_descriptors_on_their_way_put_hands_back() {
    let _watchdog = watchdog("past_the_limit_of_descriptors_on_their_way", LIMIT);
    let child = put_more_than_may_be_on_their_way::spawn().unwrap();
    if !child.join().unwrap() {
        eprintln!("skipped: 2000 descriptors were on their way, with a limit of 64");
    }
}
