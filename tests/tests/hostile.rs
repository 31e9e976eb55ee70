//! What nobody should do, and somebody does: children that lie to their parent, functions that fork, loggers that hang or
//! panic, streams that nobody takes, and the variable that is mproc's own.
//!
//! The lies are told over the control socket of a real child, in packets that are made here by hand. Among them are two that
//! are true: they fail when the protocol has changed, and then the lies prove nothing any more.

use std::cell::RefCell;
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record, info};
use mproc::{Child, ErrorKind, Fd, Stdio};
use mproc_tests::{ScratchFile, descriptors, eventually, no_core_dump, watchdog};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getppid};

const LIMIT: Duration = Duration::from_secs(60);

// What `mproc/src/wire/message.rs` and `mproc/src/process/record.rs` say, said once more.
const VALUE: u8 = 2;
const PANIC: u8 = 3;
const REFUSAL: u8 = 4;
const MORE: u8 = 1;
const BLOB: u8 = 2;

const MOST_HANDLES: usize = 64 * 253;

/// A packet: its header, and what follows.
fn packet(kind: u8, flags: u8, claimed: usize, bytes: &[u8]) -> Vec<u8> {
    let header = [b'm', b'p', kind, flags];
    [&header[..], &(claimed as u64).to_le_bytes(), bytes].concat()
}

/// How a string travels that claims to have this length.
fn string(claimed: usize, text: &str) -> Vec<u8> {
    [&(claimed as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A packet that says `hello`, and nothing that is not so.
fn hello() -> Vec<u8> {
    let value = string(5, "hello");
    packet(VALUE, 0, value.len(), &value)
}

/// The socket on which our parent waits for a value: beside the standard streams, a child has no other one.
fn control() -> RawFd {
    let is_socket = |number: &RawFd| {
        let target = Path::new(&format!("/proc/self/fd/{number}")).read_link();
        target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let mut sockets = descriptors().into_iter().filter(|number| *number > 2);
    let control = sockets.find(is_socket).expect("a child has one");
    assert_eq!(sockets.find(is_socket), None);
    control
}

fn send(
    socket: RawFd,
    packet: &[u8],
    descriptors: &[RawFd],
    flags: MsgFlags,
) -> Result<usize, Errno> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = &rights[..usize::from(!descriptors.is_empty())];
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket, &[IoSlice::new(packet)], rights, flags, None)
}

/// Memory that begins with these bytes and goes on, as one hole, to this length.
fn memory(bytes: &[u8], length: u64, seals: SealFlag) -> OwnedFd {
    let memory = memfd_create(c"hostile", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    let mut file = File::from(memory);
    file.write_all(bytes).unwrap();
    file.set_len(length).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.into()
}

/// Says something to the parent in place of what the function would return, and ends.
#[mproc::entry]
fn say(what: &str) -> String {
    let control = control();
    let say = |packet: &[u8], descriptors: &[RawFd]| {
        send(control, packet, descriptors, MsgFlags::empty()).unwrap();
    };
    let sealed = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK;
    let say_memory = |bytes: &[u8], length: usize, seals: SealFlag, claimed: usize| {
        let memory = memory(bytes, length as u64, seals);
        say(&packet(VALUE, BLOB, claimed, &[]), &[memory.as_raw_fd()]);
    };
    let say_until_full = |packet: &[u8], descriptors: &[RawFd]| {
        while send(control, packet, descriptors, MsgFlags::MSG_DONTWAIT).is_ok() {}
    };
    let null = File::open("/dev/null").unwrap();
    let null = null.as_raw_fd();
    match what {
        "the truth" => say(&hello(), &[]),
        "the truth, in memory" => say_memory(&string(5, "hello"), 13, sealed, 13),
        "the truth, and descriptors" => say(&hello(), &[null; 7]),
        "the truth, and its own socket" => say(&hello(), &[control; 3]),
        "the truth, until nobody listens" => say_until_full(&hello(), &[]),
        "nothing" => {}
        "a packet of nothing" => say(b"", &[]),
        "garbage" => say(b"garbage", &[]),
        "much garbage" => say(&[7; 100_000], &[]),
        "a header that is cut off" => say(&hello()[..11], &[]),
        "an unknown kind" => say(&packet(77, 0, 0, &[]), &[]),
        "what its parent said" => say(&packet(1, 0, 0, &[]), &[]),
        "a panic that is none" => say(&packet(PANIC, 0, 1, b"x"), &[]),
        "a refusal that is none" => say(&packet(REFUSAL, 0, 1, b"x"), &[]),
        "more than it claims" => say(&packet(VALUE, 0, 12, &string(5, "hello")), &[]),
        "less than it claims" => say(&packet(VALUE, 0, usize::MAX, &string(5, "hello")), &[]),
        "a shorter string" => say(&packet(VALUE, 0, 13, &string(4, "hello")), &[]),
        "a longer string" => say(&packet(VALUE, 0, 13, &string(usize::MAX, "hello")), &[]),
        "no memory" => say(&packet(VALUE, BLOB, 13, &[]), &[]),
        "memory that is none" => say(&packet(VALUE, BLOB, 13, &[]), &[null]),
        "memory that can change" => {
            say_memory(&string(5, "hello"), 13, SealFlag::F_SEAL_SHRINK, 13);
        }
        "memory that can shrink" => {
            say_memory(&string(5, "hello"), 13, SealFlag::F_SEAL_WRITE, 13);
        }
        "memory that is too short" => say_memory(&string(5, "hello"), 13, sealed, 1 << 40),
        "memory that is too long" => say_memory(&string(5, "hello"), 13, sealed, 12),
        "a mebibyte of nothing" => {
            say_memory(&string((1 << 20) - 8, ""), 1 << 20, sealed, 1 << 20);
        }
        "four tebibytes of nothing" => {
            say_memory(&string((1 << 42) - 8, ""), 1 << 42, sealed, 1 << 42);
        }
        "that there is more" => say(&packet(VALUE, MORE, 0, &[]), &[]),
        "that there is more, and ends" => say(&packet(VALUE, MORE, 0, &[]), &[null; 7]),
        "descriptors, until nobody listens" => {
            say_until_full(&packet(VALUE, MORE, 0, &[]), &[null; 253]);
        }
        _ => unreachable!("no such thing: {what}"),
    }
    std::process::exit(0)
}

/// Listens to children that lie, in a process that has little memory to lose and no other descriptors to open.
#[mproc::entry]
fn listen() {
    setrlimit(Resource::RLIMIT_AS, 1 << 30, 1 << 30).unwrap();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(100_000), most).unwrap();

    for what in [
        "the truth",
        "the truth, in memory",
        "the truth, and descriptors",
        "the truth, and its own socket",
        "the truth, until nobody listens",
    ] {
        let before = descriptors();
        assert_eq!(say::spawn(what).unwrap().join().unwrap(), "hello", "{what}");
        assert_eq!(descriptors(), before, "{what}");
    }

    use ErrorKind::{Decode, Exited};
    let lies = [
        ("nothing", Exited, "before its function returned"),
        (
            "a packet of nothing",
            Exited,
            "before its function returned",
        ),
        ("garbage", Decode, "not mproc's"),
        ("much garbage", Decode, "os error 90"), // EMSGSIZE
        ("a header that is cut off", Decode, "not mproc's"),
        ("an unknown kind", Decode, "something else than a result"),
        (
            "what its parent said",
            Decode,
            "something else than a result",
        ),
        ("a panic that is none", Decode, "could not be received"),
        ("a refusal that is none", Decode, "could not be received"),
        ("more than it claims", Decode, "another length"),
        ("less than it claims", Decode, "another length"),
        ("a shorter string", Decode, "1 bytes are left over"),
        ("a longer string", Decode, "could not be decoded"),
        ("no memory", Decode, "lacks the memory"),
        ("memory that is none", Decode, "could not be decoded"),
        ("memory that can change", Decode, "not sealed"),
        ("memory that can shrink", Decode, "not sealed"),
        ("memory that is too short", Decode, "another length"),
        ("memory that is too long", Decode, "another length"),
        ("a mebibyte of nothing", Decode, "holes"),
        ("four tebibytes of nothing", Decode, "holes"),
        ("that there is more", Decode, "brings nothing"),
        (
            "that there is more, and ends",
            Exited,
            "before its function returned",
        ),
    ];
    for (what, kind, text) in lies {
        let before = descriptors();
        let error = say::spawn(what).unwrap().join().unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains(text), "{what}: {error}");
        drop(error);
        assert_eq!(descriptors(), before, "{what}");
    }

    let before = descriptors();
    let child = say::spawn("descriptors, until nobody listens").unwrap();
    let error = child.join().unwrap_err();
    // Otherwise the system's limits are met first: for those that are open, or for those that are under way.
    if most > MOST_HANDLES as u64 + 500 && nix::unistd::geteuid().is_root() {
        assert!(
            error.to_string().contains("too many descriptors"),
            "{error}"
        );
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn whatever_a_child_says_its_parent_has_a_value_or_an_error() {
    let _watchdog = watchdog(
        "whatever_a_child_says_its_parent_has_a_value_or_an_error",
        LIMIT,
    );
    listen::spawn().unwrap().join().unwrap();
}

/// More than the socket holds, even at 253 in a packet: a child that waited for room would wait for a parent that waits for
/// its end.
const MANY: usize = 100_000;

#[mproc::entry]
fn open_many(count: usize) -> Vec<Fd> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let null = File::open("/dev/null").unwrap();
    let open = |_| null.try_clone().unwrap().into();
    (0..count).map(open).collect()
}

#[test]
fn more_handles_than_a_message_holds_are_an_error() {
    let _watchdog = watchdog("more_handles_than_a_message_holds_are_an_error", LIMIT);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let count = MANY.min(hard.saturating_sub(100) as usize);
    if count <= MOST_HANDLES {
        eprintln!("skipped: the system does not let us open more than {hard}");
        return;
    }
    let error = open_many::spawn(count).unwrap().join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
    let text = format!("{count} descriptors in one message");
    assert!(error.to_string().contains(&text), "{error}");
}

#[mproc::entry]
fn clone_many(count: usize) -> Vec<Fd> {
    vec![File::open("/dev/null").unwrap().into(); count]
}

#[test]
fn any_number_of_clones_is_one_handle() {
    let _watchdog = watchdog("any_number_of_clones_is_one_handle", LIMIT);
    let fds = clone_many::spawn(MANY).unwrap().join().unwrap();
    assert_eq!(fds.len(), MANY);
    let number = |fd: &Fd| fd.as_fd().as_raw_fd();
    assert!(fds.iter().all(|fd| number(fd) == number(&fds[0])));
}

/// `None` in the copy.
fn copy_this_process() -> Option<nix::unistd::Pid> {
    // SAFETY: a child of a test has one thread, so no lock is held that the copy would wait for.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    }
}

extern "C" fn panic_where_nothing_unwinds() {
    panic!("in the copy");
}

/// The copy comes back from this function like the original does, before it or after it.
#[mproc::entry]
fn come_back_twice(how: &str, when: &str) -> String {
    let original = std::process::id();
    if let Some(copy) = copy_this_process() {
        if when != "after" {
            waitpid(copy, None).unwrap();
        }
        if when == "instead" {
            std::process::exit(3);
        }
        return "from the child".into();
    }
    no_core_dump();
    if when == "after" {
        eventually(|| getppid().as_raw() != original as i32);
    }
    match how {
        "returns" => {}
        "panics" => panic!("in the copy"),
        "aborts" => panic_where_nothing_unwinds(),
        _ => unreachable!("no such thing: {how}"),
    }
    "from the copy".into()
}

#[test]
fn what_becomes_of_a_forked_copy_is_not_the_childs_result() {
    let _watchdog = watchdog(
        "what_becomes_of_a_forked_copy_is_not_the_childs_result",
        LIMIT,
    );
    for how in ["returns", "panics", "aborts"] {
        for when in ["before", "after", "instead"] {
            let process = come_back_twice::process(how, when).stderr(Stdio::piped());
            let child = process.start().unwrap();
            // The end comes when the copy is gone, too.
            let mut stderr = child.take_stderr().unwrap();
            stderr.read_to_end(&mut Vec::new()).unwrap();
            match (when, child.join()) {
                ("instead", Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::Exited, "{how} {when}: {error}");
                    assert_eq!(error.exit_code(), Some(3), "{how} {when}: {error}");
                }
                (_, result) => {
                    assert_eq!(result.unwrap(), "from the child", "{how} {when}");
                }
            }
        }
    }
}

/// Leaves a crowd behind that says the same for ever, which is until nobody is there to hear it.
#[mproc::entry]
fn leave_copies(packet: &[u8], descriptors: usize) -> String {
    let control = control();
    let null = File::open("/dev/null").unwrap();
    let descriptors = vec![null.as_raw_fd(); descriptors];
    for _ in 0..12 {
        if copy_this_process().is_none() {
            while send(control, packet, &descriptors, MsgFlags::empty()).is_ok() {}
            std::process::exit(0);
        }
    }
    eventually(|| send(control, packet, &[], MsgFlags::MSG_DONTWAIT) == Err(Errno::EAGAIN));
    std::process::exit(0)
}

#[test]
fn copies_that_go_on_talking_do_not_hold_up_join() {
    let _watchdog = watchdog("copies_that_go_on_talking_do_not_hold_up_join", LIMIT);
    // Descriptors cost us more than them, so they are always ahead. Only root may have that many under way.
    let descriptors = if nix::unistd::geteuid().is_root() {
        40
    } else {
        3
    };
    let child = leave_copies::spawn(&hello(), descriptors).unwrap();
    assert_eq!(child.join().unwrap(), "hello");
    let child = leave_copies::spawn(&packet(VALUE, MORE, 0, &[]), 0).unwrap();
    assert_eq!(child.join().unwrap_err().kind(), ErrorKind::Decode);
}

/// A logger that is no more than what it does. Each is installed in a process of its own.
struct Logger(fn(&Record<'_>));

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0(record);
    }

    fn flush(&self) {}
}

fn install(logger: &'static Logger, level: LevelFilter) {
    log::set_logger(logger).expect("no other logger is here");
    log::set_max_level(level);
}

static GATE: Mutex<()> = Mutex::new(());
static WAITS_AT_THE_GATE: Logger = Logger(|_| drop(GATE.lock()));

#[mproc::entry]
fn log_records(count: usize) -> usize {
    for number in 0..count {
        info!("record {number}");
    }
    count
}

/// What is done here takes no longer than a moment; without its deadline, ten seconds or for ever.
fn in_time<T>(act: impl FnOnce(Duration) -> T) -> T {
    let start = Instant::now();
    let result = act(Duration::from_millis(20));
    assert!(start.elapsed() < Duration::from_secs(5));
    result
}

#[mproc::entry]
fn wait_while_the_logger_hangs() {
    install(&WAITS_AT_THE_GATE, LevelFilter::Info);
    mproc::forward_logs().unwrap();
    let closed = GATE.lock().unwrap();
    // The records of this one are under way.
    let mut few: Child<usize> = log_records::spawn(1).unwrap();
    eventually(|| !few.is_alive());
    assert!(in_time(|limit| few.wait_timeout(limit)).unwrap().is_some());
    assert_eq!(in_time(|limit| few.join_timeout(limit)).unwrap(), Some(1));
    // This one is in the middle of them, because there is no more room.
    let many = log_records::spawn(usize::MAX).unwrap();
    assert_eq!(in_time(|limit| many.wait_timeout(limit)).unwrap(), None);
    in_time(|limit| many.shutdown(limit)).unwrap_or_else(|error| panic!("{error}"));
    assert!(in_time(|limit| many.wait_timeout(limit)).unwrap().is_some());
    drop(closed);
    many.wait().unwrap();
}

#[test]
fn a_logger_that_hangs_does_not_hold_up_waits_with_a_deadline() {
    let _watchdog = watchdog(
        "a_logger_that_hangs_does_not_hold_up_waits_with_a_deadline",
        LIMIT,
    );
    wait_while_the_logger_hangs::spawn()
        .unwrap()
        .join()
        .unwrap();
}

thread_local! {
    /// A `String` has a destructor, so this is gone when exit handlers run.
    static LAST_RECORD: RefCell<String> = const { RefCell::new(String::new()) };
}

static USES_A_THREAD_LOCAL: Logger =
    Logger(|record| LAST_RECORD.set(format!("{}: {}", record.target(), record.args())));

/// Notes in the file that it came to its end, which is when its stdin does.
#[mproc::entry]
fn read_stdin(note: &Path) {
    info!("reads");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    ScratchFile::append_to(note, "read to the end");
}

/// Ends while a child of it runs, and reads.
#[mproc::entry]
fn leave_a_reader(note: &Path, forgotten: bool, logging: bool, forwarding: bool) {
    if logging {
        install(&USES_A_THREAD_LOCAL, LevelFilter::Trace);
        info!("makes the thread-local");
    }
    if forwarding {
        mproc::forward_logs().unwrap();
    }
    let child = read_stdin::process(note).stdin(Stdio::piped());
    let child = child.start().unwrap();
    if forgotten {
        std::mem::forget(child);
    }
}

fn assert_a_reader_ends(forgotten: bool, logging: bool, forwarding: bool) {
    let note = ScratchFile::new("reader");
    let child = leave_a_reader::spawn(note.path(), forgotten, logging, forwarding).unwrap();
    // More than its value, which has been on its way before the exit handlers ran.
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}, {forgotten} {forwarding}");
    child.join().unwrap();
    assert_eq!(note.read(), "read to the end\n");
}

#[test]
fn a_stdin_that_nobody_took_does_not_hold_up_the_end_of_the_program() {
    let _watchdog = watchdog(
        "a_stdin_that_nobody_took_does_not_hold_up_the_end_of_the_program",
        LIMIT,
    );
    for forgotten in [false, true] {
        assert_a_reader_ends(forgotten, false, false);
    }
}

#[test]
fn a_child_does_not_wait_for_more_of_a_stdin_that_nobody_took() {
    let _watchdog = watchdog(
        "a_child_does_not_wait_for_more_of_a_stdin_that_nobody_took",
        LIMIT,
    );
    let note = ScratchFile::new("reader");
    let start = || {
        let process = read_stdin::process(note.path()).stdin(Stdio::piped());
        process.start().unwrap()
    };
    start().join().unwrap();
    assert!(start().wait().unwrap().success());
    drop(start());
    eventually(|| note.read().lines().count() == 3);
    // A wait that may end before the child does leaves it to be taken.
    let child = start();
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
    assert!(child.take_stdin().is_some());
    child.join().unwrap();
    assert_eq!(note.read(), "read to the end\n".repeat(4));
}

#[test]
fn a_logger_with_thread_locals_survives_the_end_of_the_program() {
    let _watchdog = watchdog(
        "a_logger_with_thread_locals_survives_the_end_of_the_program",
        LIMIT,
    );
    for forgotten in [false, true] {
        for forwarding in [false, true] {
            assert_a_reader_ends(forgotten, true, forwarding);
        }
    }
}

static PANICS_AT_STARTS: Logger = Logger(|record| {
    let text = record.args().to_string();
    assert!(!text.contains("started for"), "part of a test");
});

#[mproc::entry]
fn read_all(pipe: Fd) {
    let mut pipe: File = pipe.into_inner().unwrap();
    pipe.read_to_end(&mut Vec::new()).unwrap();
}

#[mproc::entry]
fn start_with_a_logger_that_panics() {
    install(&PANICS_AT_STARTS, LevelFilter::Trace);
    let (reader, writer) = std::io::pipe().unwrap();
    let process = read_all::process(OwnedFd::from(reader).into()).name("reader");
    let start = AssertUnwindSafe(|| process.start());
    catch_unwind(start).expect_err("the panic is the caller's");
    let [child] = mproc::active_children().try_into().expect("it runs");
    assert_eq!(child.name(), "reader");
    drop(writer);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_child_is_not_lost_to_a_logger_that_panics() {
    let _watchdog = watchdog("a_child_is_not_lost_to_a_logger_that_panics", LIMIT);
    let process = start_with_a_logger_that_panics::process().stderr(Stdio::null());
    process.start().unwrap().join().unwrap();
}

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
static PANICS_AT_EVEN_RECORDS: Logger = Logger(|record| {
    let text = record.args().to_string();
    assert!(!text.ends_with(['0', '2', '4']), "part of a test");
    if record.target() != "mproc" {
        let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(text);
    }
});

#[mproc::entry]
fn forward_to_a_logger_that_panics() -> Vec<String> {
    install(&PANICS_AT_EVEN_RECORDS, LevelFilter::Info);
    mproc::forward_logs().unwrap();
    for name in ["ann", "bob"] {
        let child = log_records::process(5).name(name).start().unwrap();
        assert_eq!(child.join().unwrap(), 5);
    }
    // So that the record of this process's own end is let pass.
    log::set_max_level(LevelFilter::Off);
    HEARD.lock().unwrap().clone()
}

#[test]
fn a_logger_that_panics_loses_that_record_alone() {
    let _watchdog = watchdog("a_logger_that_panics_loses_that_record_alone", LIMIT);
    let process = forward_to_a_logger_that_panics::process().stderr(Stdio::null());
    let heard = process.start().unwrap().join().unwrap();
    let expected = [
        "ann: record 1",
        "ann: record 3",
        "bob: record 1",
        "bob: record 3",
    ];
    assert_eq!(heard, expected);
}

#[mproc::entry]
fn names_of_variables() -> Vec<String> {
    std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_variable_that_makes_a_child_cannot_be_set_for_it() {
    let _watchdog = watchdog(
        "the_variable_that_makes_a_child_cannot_be_set_for_it",
        LIMIT,
    );
    const MARK: &str = "__MPROC_CHILD";
    let describe = || names_of_variables::process().env("BESIDE_IT", "1");
    for process in [
        describe().env(MARK, "main:3:4"),
        describe().env(MARK, "harness:4:3"),
        describe().env(MARK, "nonsense"),
        describe().env(MARK, ""),
        describe().env_remove(MARK),
        names_of_variables::process()
            .env_clear()
            .env(MARK, "harness:3:4")
            .env("BESIDE_IT", "1"),
    ] {
        let names = process.start().unwrap().join().unwrap();
        assert!(names.iter().any(|name| name == "BESIDE_IT"), "{names:?}");
        assert!(!names.iter().any(|name| name == MARK), "{names:?}");
    }
}

const _: () = assert!(
    size_of::<usize>() == size_of::<u64>() && size_of::<libc::off_t>() == size_of::<u64>(),
    "these tests claim lengths of 64 bits"
);
