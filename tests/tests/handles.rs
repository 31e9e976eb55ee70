//! Descriptors in arguments and results: they arrive, and they are gone where they are to be gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mproc::{Call, ErrorKind, Failure, Fd, Run};
use mproc_tests::{ScratchFile, descriptors, dose, watchdog};
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(1200);

fn pipe() -> (Fd, Fd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

/// A file without a name, with this text and the position at its beginning.
fn file_of(text: &str) -> File {
    let scratch = ScratchFile::new("handles");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(scratch.path())
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn text_of(fd: Fd) -> String {
    let mut text = String::new();
    fd.into_inner::<File>()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// Whether a read would not wait: there is something, or the end.
fn is_readable(fd: impl AsFd) -> bool {
    let mut look = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut look, PollTimeout::ZERO).unwrap() == 1
}

#[mproc::entry]
fn read_all(fd: Fd) -> String {
    text_of(fd)
}

#[test]
fn a_file_keeps_its_position() {
    let _watchdog = watchdog("a_file_keeps_its_position", LIMIT);
    let mut file = file_of("0123456789");
    file.seek(SeekFrom::Start(4)).unwrap();
    #[mproc::entry]
    fn read_two(fd: Fd) -> String {
        let mut two = [0; 2];
        fd.into_inner::<File>()
            .unwrap()
            .read_exact(&mut two)
            .unwrap();
        String::from_utf8(two.to_vec()).unwrap()
    }
    let lent = Fd::from(file.try_clone().unwrap());
    assert_eq!(read_two::spawn(lent).unwrap().join().unwrap(), "45");
    // The same open file, as after `fork`: what the child has read is behind us too.
    assert_eq!(file.stream_position().unwrap(), 6);
    assert_eq!(text_of(file.into()), "6789");
}

#[test]
fn handles_travel_inside_of_everything() {
    let _watchdog = watchdog("handles_travel_inside_of_everything", LIMIT);
    #[derive(Serialize, Deserialize)]
    struct Deep {
        one: Fd,
        maybe: Option<Fd>,
        none: Option<Fd>,
        many: Vec<(u8, Fd)>,
        named: BTreeMap<String, Fd>,
        choice: Choice,
    }
    #[derive(Serialize, Deserialize)]
    enum Choice {
        Unit,
        New(Fd),
        Tuple(u8, Fd),
        Struct { fd: Fd, after: u8 },
    }
    #[mproc::entry]
    fn read_deep(before: u8, deep: Deep, choices: [Choice; 3], after: Fd) -> Vec<String> {
        assert_eq!(before, 1);
        assert!(deep.none.is_none());
        let mut texts = vec![text_of(deep.one), text_of(deep.maybe.unwrap())];
        texts.extend(deep.many.into_iter().map(|(_, fd)| text_of(fd)));
        texts.extend(deep.named.into_values().map(text_of));
        for choice in [deep.choice].into_iter().chain(choices) {
            match choice {
                Choice::Unit => texts.push("unit".into()),
                Choice::New(fd) | Choice::Tuple(2, fd) | Choice::Struct { fd, after: 3 } => {
                    texts.push(text_of(fd));
                }
                _ => panic!("the bytes beside the handles have changed"),
            }
        }
        texts.push(text_of(after));
        texts
    }
    let fd = |text: &str| Fd::from(file_of(text));
    let deep = Deep {
        one: fd("one"),
        maybe: Some(fd("maybe")),
        none: None,
        many: vec![(0, fd("first")), (1, fd("second"))],
        named: BTreeMap::from([("b".into(), fd("b")), ("a".into(), fd("a"))]),
        choice: Choice::New(fd("new")),
    };
    let choices = [
        Choice::Tuple(2, fd("tuple")),
        Choice::Unit,
        Choice::Struct {
            fd: fd("struct"),
            after: 3,
        },
    ];
    let child = read_deep::spawn(1, deep, choices, fd("last")).unwrap();
    let expected = [
        "one", "maybe", "first", "second", "a", "b", "new", "tuple", "unit", "struct", "last",
    ];
    assert_eq!(child.join().unwrap(), expected);
}

/// 253 fit into one packet; those beyond go ahead in packets of their own.
#[test]
fn hundreds_of_handles_arrive_in_order() {
    let _watchdog = watchdog("hundreds_of_handles_arrive_in_order", LIMIT);
    #[mproc::entry]
    fn read_numbers(fds: Vec<Fd>) -> Vec<usize> {
        fds.into_iter()
            .map(|fd| text_of(fd).parse().unwrap())
            .collect()
    }
    for count in [1, 252, 253, 254, 300] {
        let fds = (0..count).map(|number: usize| {
            let (reader, writer) = pipe();
            writer
                .into_inner::<File>()
                .unwrap()
                .write_all(number.to_string().as_bytes())
                .unwrap();
            reader
        });
        let child = read_numbers::spawn(fds.collect()).unwrap();
        assert_eq!(child.join().unwrap(), (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn a_thousand_handles_travel_beside_a_large_argument() {
    let _watchdog = watchdog("a_thousand_handles_travel_beside_a_large_argument", LIMIT);
    #[mproc::entry]
    fn count(text: &str, fds: &[Fd]) -> (usize, usize) {
        let alike = fds.iter().filter(|fd| is_readable(fd));
        (text.len(), alike.count())
    }
    let (reader, writer) = pipe();
    writer
        .into_inner::<File>()
        .unwrap()
        .write_all(b"x")
        .unwrap();
    let large = "x".repeat(1 << 20);
    // Most systems let a process have 1024 open.
    for fds in [vec![reader.clone(); 506], vec![reader.clone(); 1000]] {
        let child = count::spawn(&large, &fds).unwrap();
        assert_eq!(child.join().unwrap(), (large.len(), fds.len()));
    }
}

#[test]
fn the_end_of_a_pipe_comes_when_the_child_ends() {
    let _watchdog = watchdog("the_end_of_a_pipe_comes_when_the_child_ends", LIMIT);
    #[mproc::entry]
    fn say(text: &str, to: Fd) {
        to.into_inner::<File>()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }
    let (reader, writer) = pipe();
    let child = say::spawn("hello", writer).unwrap();
    // Would wait for ever if a copy of the write end had stayed here.
    assert_eq!(text_of(reader), "hello");
    child.join().unwrap();
}

#[test]
fn the_end_of_a_pipe_comes_when_a_killed_child_held_it() {
    let _watchdog = watchdog("the_end_of_a_pipe_comes_when_a_killed_child_held_it", LIMIT);
    #[mproc::entry]
    fn hold(fd: Fd) {
        fd.into_inner::<File>().unwrap().write_all(b"x").unwrap();
        loop {
            std::thread::park();
        }
    }
    #[mproc::entry]
    fn hold_still(fd: Fd) {
        let _fd = fd;
        loop {
            std::thread::park();
        }
    }
    let (reader, writer) = pipe();
    let child = hold_still::spawn(writer).unwrap();
    child.kill().unwrap();
    assert_eq!(text_of(reader), "");
    let (reader, writer) = pipe();
    let child = hold::spawn(writer).unwrap();
    assert_eq!(text_of(reader), "x");
    child.kill().unwrap();
}

#[test]
fn the_end_of_a_pipe_comes_when_a_running_child_drops_it() {
    let _watchdog = watchdog(
        "the_end_of_a_pipe_comes_when_a_running_child_drops_it",
        LIMIT,
    );
    #[mproc::entry]
    fn drop_then_wait(drop_it: Fd, then_wait_for: Fd) -> String {
        drop(drop_it);
        text_of(then_wait_for)
    }
    let (reader, drop_it) = pipe();
    let (then_wait_for, mut go_on) = std::io::pipe().unwrap();
    let child = drop_then_wait::spawn(drop_it, OwnedFd::from(then_wait_for).into()).unwrap();
    assert_eq!(text_of(reader), "");
    assert!(child.is_alive());
    go_on.write_all(b"go").unwrap();
    drop(go_on);
    assert_eq!(child.join().unwrap(), "go");
}

/// Also where the function drops a value that it was only lent the parts of, and where a `Call` runs the function.
#[test]
fn the_end_of_a_pipe_comes_when_a_call_inside_a_child_drops_it() {
    let _watchdog = watchdog(
        "the_end_of_a_pipe_comes_when_a_call_inside_a_child_drops_it",
        LIMIT,
    );
    #[mproc::entry]
    fn drop_it(fd: Fd) {
        drop(fd);
    }
    #[mproc::entry]
    fn run_then_wait(call: Call<()>, then_wait_for: Fd) -> String {
        call.run().unwrap();
        text_of(then_wait_for)
    }
    let (reader, writer) = pipe();
    let (then_wait_for, mut go_on) = std::io::pipe().unwrap();
    let call = drop_it::bind(writer);
    let child = run_then_wait::spawn(call, OwnedFd::from(then_wait_for).into()).unwrap();
    assert_eq!(text_of(reader), "");
    go_on.write_all(b"go").unwrap();
    drop(go_on);
    assert_eq!(child.join().unwrap(), "go");
}

#[test]
fn a_failed_start_keeps_the_ends_of_pipes_usable() {
    let _watchdog = watchdog("a_failed_start_keeps_the_ends_of_pipes_usable", LIMIT);
    let (reader, writer) = pipe();
    writer
        .into_inner::<File>()
        .unwrap()
        .write_all(b"still")
        .unwrap();
    let error = read_all::process(reader)
        .current_dir("/no/such")
        .start()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start);
    let process = error.into_process::<String>().unwrap().current_dir("/");
    assert_eq!(process.start().unwrap().join().unwrap(), "still");
}

#[test]
fn an_error_drops_the_ends_of_pipes() {
    let _watchdog = watchdog("an_error_drops_the_ends_of_pipes", LIMIT);
    let (reader, writer) = pipe();
    let error = read_all::process(writer)
        .current_dir("/no/such")
        .start()
        .unwrap_err();
    assert!(!is_readable(&reader));
    drop(error);
    assert_eq!(text_of(reader), "");
}

#[test]
fn sockets_of_each_kind_work_on_the_other_side() {
    let _watchdog = watchdog("sockets_of_each_kind_work_on_the_other_side", LIMIT);
    #[mproc::entry]
    fn serve(listener: Fd) -> Result<String, Failure> {
        let listener: TcpListener = listener.into_inner()?;
        let (mut client, _) = listener.accept()?;
        let mut text = String::new();
        client.read_to_string(&mut text)?;
        client.write_all(b"served")?;
        Ok(text)
    }
    #[mproc::entry]
    fn shout(stream: Fd, datagrams: Fd) -> Result<(), Failure> {
        stream.into_inner::<UnixStream>()?.write_all(b"shouted")?;
        datagrams.into_inner::<UdpSocket>()?.send(b"packet")?;
        Ok(())
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve::spawn(listener.into()).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"request").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "served");
    assert_eq!(server.join().unwrap().unwrap(), "request");
    // Nobody listens any more: the listener went to the child and ended with it.
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), IoErrorKind::ConnectionRefused);

    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let child = shout::spawn(theirs.into(), sender.into()).unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "shouted");
    child.join().unwrap().unwrap();
    let mut packet = [0; 16];
    let length = receiver.recv(&mut packet).unwrap();
    assert_eq!(&packet[..length], b"packet");
}

#[test]
fn handles_come_back_as_results() {
    let _watchdog = watchdog("handles_come_back_as_results", LIMIT);
    #[mproc::entry]
    fn make(count: usize) -> Vec<(usize, Fd)> {
        let file = |number: usize| (number, Fd::from(file_of(&number.to_string())));
        (0..count).map(file).collect()
    }
    for count in [0, 1, 253, 300] {
        let made = make::spawn(count).unwrap().join().unwrap();
        assert_eq!(made.len(), count);
        for (number, fd) in made {
            assert_eq!(text_of(fd), number.to_string());
        }
    }
}

/// The value of a child lies in its socket until it is taken; so do the handles in it.
#[test]
fn a_handle_in_a_result_that_nobody_takes_is_closed() {
    let _watchdog = watchdog("a_handle_in_a_result_that_nobody_takes_is_closed", LIMIT);
    #[mproc::entry]
    fn give_back(fd: Fd) -> Fd {
        fd
    }
    let (reader, writer) = pipe();
    let child = give_back::spawn(writer).unwrap();
    child.wait().unwrap();
    assert!(!is_readable(&reader), "the value holds the write end");
    drop(child);
    assert_eq!(text_of(reader), "");

    let (reader, writer) = pipe();
    let returned = give_back::spawn(writer).unwrap().join().unwrap();
    returned
        .into_inner::<File>()
        .unwrap()
        .write_all(b"mine again")
        .unwrap();
    assert_eq!(text_of(reader), "mine again");
}

#[test]
fn clones_and_loans_are_the_same_open_file() {
    let _watchdog = watchdog("clones_and_loans_are_the_same_open_file", LIMIT);
    #[mproc::entry]
    fn position(fd: &Fd) -> u64 {
        fd.clone()
            .into_inner::<File>()
            .unwrap()
            .seek(SeekFrom::Current(1))
            .unwrap()
    }
    let fd = Fd::from(file_of("0123456789"));
    for expected in 1..4 {
        assert_eq!(position::spawn(&fd).unwrap().join().unwrap(), expected);
    }
    #[mproc::entry]
    fn both(one: Fd, other: Fd) -> (u64, u64) {
        let (mut one, mut other): (File, File) =
            (one.into_inner().unwrap(), other.into_inner().unwrap());
        (
            one.seek(SeekFrom::Current(1)).unwrap(),
            other.seek(SeekFrom::Current(1)).unwrap(),
        )
    }
    assert_eq!(
        both::spawn(fd.clone(), fd.clone()).unwrap().join().unwrap(),
        (4, 5)
    );
    assert_eq!(position(&fd), 6);
}

#[mproc::entry]
fn next_byte(fd: Fd) -> u8 {
    let mut byte = [0];
    fd.into_inner::<File>()
        .unwrap()
        .read_exact(&mut byte)
        .unwrap();
    byte[0]
}

#[test]
fn a_call_with_handles_can_be_run_again_and_again() {
    let _watchdog = watchdog("a_call_with_handles_can_be_run_again_and_again", LIMIT);
    let call = next_byte::bind(file_of("abcdef").into());
    assert_eq!(call.clone().run().unwrap(), b'a');
    assert_eq!(call.clone().spawn().unwrap().join().unwrap(), b'b');
    assert_eq!(call.clone().run().unwrap(), b'c');
    assert_eq!(call.spawn().unwrap().join().unwrap(), b'd');
}

#[test]
fn a_call_with_handles_travels_and_runs_there() {
    let _watchdog = watchdog("a_call_with_handles_travels_and_runs_there", LIMIT);
    #[mproc::entry]
    fn run_each(
        before: Fd,
        calls: Vec<Call<u8>>,
        deeper: Call<String>,
        after: Fd,
    ) -> (String, Vec<u8>, String, String) {
        let bytes = calls.into_iter().map(|call| call.run().unwrap()).collect();
        let deeper = deeper.spawn().unwrap().join().unwrap();
        (text_of(before), bytes, deeper, text_of(after))
    }
    let fd = |text: &str| Fd::from(file_of(text));
    let shared = fd("xyz");
    let calls = vec![
        next_byte::bind(shared.clone()),
        next_byte::bind(fd("1")),
        next_byte::bind(shared),
    ];
    let deeper = read_all::bind(fd("deep"));
    let child = run_each::spawn(fd("before"), calls, deeper, fd("after")).unwrap();
    let expected = (
        "before".into(),
        b"x1y".to_vec(),
        "deep".into(),
        "after".into(),
    );
    assert_eq!(child.join().unwrap(), expected);
}

#[test]
fn a_value_with_run_may_hold_handles() {
    let _watchdog = watchdog("a_value_with_run_may_hold_handles", LIMIT);
    #[derive(Serialize, Deserialize)]
    struct Reader {
        from: Fd,
    }
    #[mproc::entry]
    impl Run for Reader {
        type Output = String;
        fn run(self) -> String {
            text_of(self.from)
        }
    }
    let reader = Reader {
        from: file_of("held").into(),
    };
    assert_eq!(reader.spawn().unwrap().join().unwrap(), "held");
}

#[test]
fn a_handle_outside_of_messages_is_an_error_that_says_why() {
    let _watchdog = watchdog(
        "a_handle_outside_of_messages_is_an_error_that_says_why",
        LIMIT,
    );
    let fd = Fd::from(file_of("x"));
    for error in [
        serde_json::to_string(&fd).unwrap_err(),
        serde_json::to_value(vec![Some(fd.clone())]).unwrap_err(),
        serde_json::from_str::<Fd>("0").unwrap_err(),
        serde_json::to_string(&next_byte::bind(fd)).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("travels only in arguments, results and messages"),
            "{text}"
        );
    }
}

/// What `into_inner` takes a descriptor for is the caller's word.
#[test]
fn the_wrong_kind_of_descriptor_is_an_error_when_it_is_used() {
    let _watchdog = watchdog(
        "the_wrong_kind_of_descriptor_is_an_error_when_it_is_used",
        LIMIT,
    );
    let listener: TcpListener = Fd::from(file_of("x")).into_inner().unwrap();
    listener.accept().unwrap_err();
}

#[mproc::entry]
fn count_descriptors(fds: Vec<Fd>) -> (usize, Vec<Fd>) {
    (descriptors().len(), fds)
}

/// As many descriptors, no two of which are the same. Their numbers are high, so that one who lowers the limit to 100
/// afterwards still has numbers to work with.
fn distinct(count: usize) -> Vec<Fd> {
    let file = file_of("x");
    let copies = (0..count).map(|_| {
        let number = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(200)).unwrap();
        // SAFETY: it was made by the line above, for us alone.
        Fd::from(unsafe { OwnedFd::from_raw_fd(number) })
    });
    copies.collect()
}

/// Three streams, the control socket, the death line, and what was sent.
#[test]
fn a_child_has_nothing_but_what_it_was_sent() {
    let _watchdog = watchdog("a_child_has_nothing_but_what_it_was_sent", LIMIT);
    for count in [0, 1, 7, 260] {
        let child = count_descriptors::spawn(distinct(count)).unwrap();
        assert_eq!(child.join().unwrap().0, 5 + count);
    }
}

/// However many clones of a handle travel, they are one descriptor on the other side.
#[test]
fn clones_cost_one_descriptor() {
    let _watchdog = watchdog("clones_cost_one_descriptor", LIMIT);
    let fd = Fd::from(file_of("x"));
    let child = count_descriptors::spawn(vec![fd; 20_000]).unwrap();
    let (count, fds) = child.join().unwrap();
    assert_eq!((count, fds.len()), (6, 20_000));
}

#[mproc::entry]
fn many_round_trips(times: usize) -> Vec<i32> {
    let mut before = None;
    for turn in 0..times {
        let fds = distinct(turn % 3);
        let call = count_descriptors::bind(fds);
        let (_, back) = match turn % 4 {
            0 => call.run().unwrap(),
            _ => call.spawn().unwrap().join().unwrap(),
        };
        drop(back);
        if turn == 8 {
            before = Some(descriptors());
        }
    }
    let mut after = descriptors();
    let before = before.expect("more than eight");
    after.retain(|number| !before.contains(number));
    after
}

#[test]
fn round_trips_leave_nothing_open() {
    let _watchdog = watchdog("round_trips_leave_nothing_open", LIMIT);
    let child = many_round_trips::spawn(dose(300, 10_000)).unwrap();
    assert_eq!(child.join().unwrap(), [0_i32; 0]);
}

/// A child inherits the limit of 100, and is sent 200.
#[mproc::entry]
fn send_too_many(count: usize) -> (ErrorKindName, String, Vec<i32>) {
    let fds = distinct(count);
    setrlimit(Resource::RLIMIT_NOFILE, 100, 100).unwrap();
    let send = |count: usize| {
        let child = count_descriptors::spawn(fds[..count].to_vec());
        child.unwrap().join()
    };
    send(10).unwrap();
    let before = descriptors();
    let error = send(count).unwrap_err();
    // A message that did not fit leaves nothing behind, on either side, and the next one fits.
    assert_eq!(send(10).unwrap().0, 15);
    let mut after = descriptors();
    after.retain(|number| !before.contains(number));
    (format!("{:?}", error.kind()), error.to_string(), after)
}

type ErrorKindName = String;

#[test]
fn more_handles_than_the_child_may_open_are_a_clean_error() {
    let _watchdog = watchdog(
        "more_handles_than_the_child_may_open_are_a_clean_error",
        LIMIT,
    );
    for count in [96, 200, 600] {
        let child = send_too_many::spawn(count).unwrap();
        let (kind, text, left) = child.join().unwrap();
        assert_eq!(kind, "Decode", "{text}");
        assert!(text.contains("os error 24"), "{text}");
        assert_eq!(left, [0_i32; 0]);
    }
}

/// A child may open many, and sends back more than its parent may open.
#[mproc::entry]
fn receive_too_many(count: usize) -> (ErrorKindName, String, Vec<i32>) {
    #[mproc::entry]
    fn make_many(count: usize) -> Vec<Fd> {
        setrlimit(Resource::RLIMIT_NOFILE, 1000, 1000).unwrap();
        distinct(count)
    }
    setrlimit(Resource::RLIMIT_NOFILE, 100, 1000).unwrap();
    assert_eq!(make_many::spawn(10).unwrap().join().unwrap().len(), 10);
    let before = descriptors();
    let error = make_many::spawn(count).unwrap().join().unwrap_err();
    let mut after = descriptors();
    after.retain(|number| !before.contains(number));
    (format!("{:?}", error.kind()), error.to_string(), after)
}

#[test]
fn more_handles_than_the_parent_may_open_are_a_clean_error() {
    let _watchdog = watchdog(
        "more_handles_than_the_parent_may_open_are_a_clean_error",
        LIMIT,
    );
    for count in [100, 200, 600] {
        let (kind, text, left) = receive_too_many::spawn(count).unwrap().join().unwrap();
        assert_eq!(kind, "Decode", "{text}");
        assert!(text.contains("os error 24"), "{text}");
        assert_eq!(left, [0_i32; 0]);
    }
}

/// Only for the privileged is there no limit to descriptors that are on their way.
#[mproc::entry]
fn send_too_many_as_nobody() -> [(ErrorKindName, String); 2] {
    #[mproc::entry]
    fn make_many(count: usize) -> Vec<Fd> {
        let fds = distinct(count);
        setrlimit(Resource::RLIMIT_NOFILE, 100, 100).unwrap();
        fds
    }
    nix::unistd::setuid(65534.into()).unwrap();
    let kind = |error: &mproc::Error| format!("{:?}", error.kind());
    let fds = distinct(600);
    setrlimit(Resource::RLIMIT_NOFILE, 100, 1000).unwrap();
    let start = count_descriptors::spawn(fds).unwrap_err();
    // What comes back of a message that broke off has to fit.
    setrlimit(Resource::RLIMIT_NOFILE, 1000, 1000).unwrap();
    let join = make_many::spawn(600).unwrap().join().unwrap_err();
    // What was under way of a message that broke off is gone, and later ones arrive.
    assert_eq!(make_many::spawn(5).unwrap().join().unwrap().len(), 5);
    [&start, &join].map(|error| (kind(error), error.to_string()))
}

#[test]
fn more_handles_than_may_be_under_way_are_a_clean_error() {
    let _watchdog = watchdog(
        "more_handles_than_may_be_under_way_are_a_clean_error",
        LIMIT,
    );
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become nobody");
        return;
    }
    let [start, join] = send_too_many_as_nobody::spawn().unwrap().join().unwrap();
    assert_eq!(
        (start.0.as_str(), join.0.as_str()),
        ("Start", "Encode"),
        "{start:?} {join:?}"
    );
    // ETOOMANYREFS
    assert!(start.1.contains("os error 109"), "{start:?}");
    assert!(join.1.contains("os error 109"), "{join:?}");
}
