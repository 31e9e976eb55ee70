//! Arguments on their way to a child: of any size, lent or owned, and refused at the call that gave them (G9).

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use mproc::{Call, ErrorKind, Run};
use mproc_tests::{descriptors, dose, watchdog};
use serde::{Deserialize, Serialize, Serializer};

const LIMIT: Duration = Duration::from_secs(1200);

#[mproc::entry]
fn echo(text: String) -> String {
    text
}

/// 89 different characters: no power of two, so that a displaced page or chunk shows.
fn text(length: usize) -> String {
    let pattern: String = (b' '..b' ' + 89).map(char::from).collect();
    let mut text = pattern.repeat(length / pattern.len() + 1);
    text.truncate(length);
    text
}

/// The length, if it is what [`text`] makes; looked at in pieces, to be quick in a debug build and small in memory.
fn length_of_text(received: &str) -> Option<usize> {
    const PIECE: usize = 89 * 1000;
    let expected = text(PIECE);
    let mut pieces = received.as_bytes().chunks(PIECE);
    let alike = pieces.all(|piece| *piece == expected.as_bytes()[..piece.len()]);
    alike.then_some(received.len())
}

#[mproc::entry]
fn measure(text: &str) -> Option<usize> {
    length_of_text(text)
}

#[track_caller]
fn comes_back(length: usize) {
    let sent = text(length);
    let received = echo::spawn(sent.clone()).unwrap().join().unwrap();
    assert!(received == sent, "a text of {length} bytes has changed");
}

/// What travels in the packet and what in memory beside it must look the same; the limit is 32 KiB for the arguments, and
/// again for the record around them, and for the result.
#[test]
fn every_size_around_the_inline_limit_comes_back() {
    let _watchdog = watchdog("every_size_around_the_inline_limit_comes_back", LIMIT);
    const INLINE: usize = 32 * 1024;
    for length in [0, 1, 7, 8, 4095, 4096, 4097, INLINE / 2, 2 * INLINE] {
        comes_back(length);
    }
    let step = dose(13, 1);
    for length in (INLINE - 500..INLINE + 20).step_by(step) {
        comes_back(length);
    }
    // 8: the length in front of the text.
    for limit in [INLINE, INLINE - 8] {
        for length in limit - 1..=limit + 1 {
            comes_back(length);
        }
    }
}

/// A message is written on in pieces of 1 MiB.
#[test]
fn every_size_around_a_chunk_comes_back() {
    let _watchdog = watchdog("every_size_around_a_chunk_comes_back", LIMIT);
    const CHUNK: usize = 1024 * 1024;
    for limit in [CHUNK, CHUNK - 8, 2 * CHUNK] {
        for length in limit - 1..=limit + 1 {
            comes_back(length);
        }
    }
}

#[test]
fn several_large_arguments_stay_apart() {
    let _watchdog = watchdog("several_large_arguments_stay_apart", LIMIT);
    #[mproc::entry]
    fn lengths(a: &str, b: u8, c: &str, d: Vec<u8>, e: &[u64]) -> [usize; 5] {
        [a.len(), b.into(), c.len(), d.len(), e.len()]
    }
    for sizes in [
        [30_000, 5_000],
        [1 << 20, 3],
        [3, 1 << 20],
        [1 << 20, 1 << 20],
    ] {
        let (a, c) = (text(sizes[0]), text(sizes[1]));
        let child = lengths::spawn(&a, 7, &c, vec![1; sizes[1]], &[9; 10]).unwrap();
        assert_eq!(child.join().unwrap(), [sizes[0], 7, sizes[1], sizes[1], 10]);
    }
}

/// Python's messages fail above 2 GiB on some systems, and above 32 MiB on others.
#[test]
fn a_gigabyte_goes_there_and_back() {
    let _watchdog = watchdog("a_gigabyte_goes_there_and_back", LIMIT);
    let length = dose(64 << 20, 1 << 30);
    let sent = text(length);
    assert_eq!(measure::spawn(&sent).unwrap().join().unwrap(), Some(length));
    let received = echo::spawn(sent).unwrap().join().unwrap();
    assert_eq!(length_of_text(&received), Some(length));
}

#[test]
fn borrowed_parameters_of_each_kind_are_lent() {
    let _watchdog = watchdog("borrowed_parameters_of_each_kind_are_lent", LIMIT);
    #[mproc::entry]
    #[expect(clippy::too_many_arguments, reason = "there are that many kinds")]
    fn describe(
        text: &str,
        words: &[String],
        path: &Path,
        os: &OsStr,
        c: &CStr,
        number: &u64,
        list: &Vec<u8>,
        option: &Option<String>,
    ) -> String {
        format!("{text} {words:?} {path:?} {os:?} {c:?} {number} {list:?} {option:?}")
    }
    let words = ["a".to_owned(), String::new()];
    let os = OsStr::from_bytes(b"\xff\xfe");
    let arguments = (
        "text",
        &words,
        Path::new("/some/path"),
        os,
        c"zero ends it",
        &7,
        &vec![1, 2],
        &Some("thing".to_owned()),
    );
    let (a, b, c, d, e, f, g, h) = arguments;
    let here = describe(a, b, c, d, e, f, g, h);
    let there = describe::spawn(a, b, c, d, e, f, g, h).unwrap();
    assert_eq!(there.join().unwrap(), here);
}

#[test]
fn patterns_and_mutable_parameters_work() {
    let _watchdog = watchdog("patterns_and_mutable_parameters_work", LIMIT);
    #[derive(Serialize, Deserialize)]
    struct Point {
        x: i32,
        y: i32,
    }
    #[mproc::entry]
    fn sum(
        (a, b): (i32, i32),
        Point { x, y }: Point,
        mut list: Vec<i32>,
        _: u8,
        _unused: (),
    ) -> i32 {
        list.push(a + b + x + y);
        list.iter().sum()
    }
    let child = sum::spawn((1, 2), Point { x: 3, y: 4 }, vec![5], 6, ()).unwrap();
    assert_eq!(child.join().unwrap(), 15);
}

#[test]
fn no_arguments_and_no_result_are_a_call_too() {
    let _watchdog = watchdog("no_arguments_and_no_result_are_a_call_too", LIMIT);
    #[mproc::entry]
    fn nothing() {}
    nothing::spawn().unwrap().join().unwrap();
    nothing::bind().spawn().unwrap().join().unwrap();
    nothing::bind().run().unwrap();
}

/// Text of many kinds, empty and with zeros, and floats to the bit.
#[test]
fn values_arrive_to_the_bit() {
    let _watchdog = watchdog("values_arrive_to_the_bit", LIMIT);
    type All = (
        Vec<String>,
        Vec<f64>,
        Option<Option<()>>,
        [u128; 2],
        char,
        i64,
    );
    #[mproc::entry]
    fn same(all: All) -> All {
        all
    }
    let texts = ["", "\0", "grüße\n", "🦀", "a\r\nb\t"]
        .map(String::from)
        .to_vec();
    let floats = vec![
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        f64::from_bits(0x7ff8_0000_dead_beef),
    ];
    let sent: All = (
        texts,
        floats,
        Some(None),
        [0, u128::MAX],
        '\u{10ffff}',
        i64::MIN,
    );
    let got = same::spawn(sent.clone()).unwrap().join().unwrap();
    let bits = |all: &All| {
        all.1
            .iter()
            .map(|float| float.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(&got), bits(&sent));
    assert_eq!(
        (got.0, got.2, got.3, got.4, got.5),
        (sent.0, sent.2, sent.3, sent.4, sent.5)
    );
}

/// A value that cannot be encoded.
#[derive(Debug, Deserialize)]
struct Unsendable;

impl Serialize for Unsendable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("this stays here"))
    }
}

#[mproc::entry]
fn takes(first: u8, second: Unsendable, third: &str) -> usize {
    let _ = (first, second);
    third.len()
}

#[track_caller]
fn names_it_all(error: &mproc::Error) {
    assert_eq!(error.kind(), ErrorKind::Encode);
    assert_eq!((error.process_id(), error.exit_code()), (None, None));
    let text = error.to_string();
    for part in ["`second`", "takes", "Unsendable", "this stays here"] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

#[test]
fn an_argument_that_cannot_be_encoded_is_an_error_of_the_start() {
    let _watchdog = watchdog(
        "an_argument_that_cannot_be_encoded_is_an_error_of_the_start",
        LIMIT,
    );
    names_it_all(&takes::spawn(1, Unsendable, "x").unwrap_err());
    let process = takes::process(1, Unsendable, "x")
        .name("named")
        .daemon(true);
    names_it_all(&process.start().unwrap_err());
    let call = takes::bind(1, Unsendable, "x");
    names_it_all(&call.clone().spawn().unwrap_err());
    names_it_all(&call.clone().run().unwrap_err());
    assert!(format!("{call:?}").contains("this stays here"), "{call:?}");
}

#[test]
fn a_call_that_failed_to_encode_cannot_be_sent_inside_another() {
    let _watchdog = watchdog(
        "a_call_that_failed_to_encode_cannot_be_sent_inside_another",
        LIMIT,
    );
    #[mproc::entry]
    fn run_it(call: Call<usize>) -> usize {
        call.run().unwrap()
    }
    let error = run_it::spawn(takes::bind(1, Unsendable, "x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    let text = error.to_string();
    for part in ["`call`", "run_it", "`second`", "takes", "this stays here"] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

#[test]
fn a_value_with_run_that_cannot_be_encoded_is_an_error_of_the_start() {
    let _watchdog = watchdog(
        "a_value_with_run_that_cannot_be_encoded_is_an_error_of_the_start",
        LIMIT,
    );
    #[derive(Serialize, Deserialize)]
    struct Holder(Unsendable);
    #[mproc::entry]
    impl Run for Holder {
        type Output = ();
        fn run(self) {}
    }
    let error = Holder(Unsendable).spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    assert!(error.to_string().contains("Holder"), "{error}");
}

/// serde writes paths as text.
#[test]
fn a_path_that_is_no_text_is_an_error_of_the_start() {
    let _watchdog = watchdog("a_path_that_is_no_text_is_an_error_of_the_start", LIMIT);
    #[mproc::entry]
    fn open(path: &Path) -> bool {
        path.exists()
    }
    let error = open::spawn(Path::new(OsStr::from_bytes(b"/\xff"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    let text = error.to_string();
    assert!(text.contains("`path`") && text.contains("UTF-8"), "{text}");
}

/// The descriptors that this process has open, after `action` was done `times` times and once before.
fn gained(times: usize, mut action: impl FnMut()) -> Vec<i32> {
    action();
    let before = descriptors();
    for _ in 0..times {
        action();
    }
    let mut after = descriptors();
    after.retain(|number| !before.contains(number));
    after
}

/// Runs in a child, because other tests open descriptors beside this one.
#[mproc::entry]
fn refuse_and_count() -> Vec<i32> {
    let large = text(100_000);
    gained(dose(50, 2000), || {
        takes::spawn(1, Unsendable, &large).unwrap_err();
        takes::bind(1, Unsendable, "x").run().unwrap_err();
        // What was encoded before the error had already left the heap.
        #[mproc::entry]
        fn large_first(text: &str, then: Unsendable) {
            let _ = (text, then);
        }
        large_first::spawn(&text(3 << 20), Unsendable).unwrap_err();
    })
}

#[test]
fn refused_arguments_leave_nothing_open() {
    let _watchdog = watchdog("refused_arguments_leave_nothing_open", LIMIT);
    assert_eq!(
        refuse_and_count::spawn().unwrap().join().unwrap(),
        [0_i32; 0]
    );
}

#[mproc::entry]
fn echo_and_count() -> Vec<i32> {
    gained(dose(20, 500), || {
        for length in [10, 100_000, 2 << 20] {
            comes_back(length);
            // Started and not joined for its value; bound and never started.
            echo::spawn(text(length)).unwrap().wait().unwrap();
            drop(echo::bind(text(length)));
            drop(echo::process(text(length)));
        }
    })
}

#[test]
fn calls_of_all_sizes_leave_nothing_open() {
    let _watchdog = watchdog("calls_of_all_sizes_leave_nothing_open", LIMIT);
    assert_eq!(echo_and_count::spawn().unwrap().join().unwrap(), [0_i32; 0]);
}

#[test]
fn a_failed_start_gives_the_process_back() {
    let _watchdog = watchdog("a_failed_start_gives_the_process_back", LIMIT);
    let process = echo::process("still here".into()).current_dir("/no/such/directory");
    let error = process.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start);
    let process = error.into_process::<String>().unwrap().current_dir("/");
    assert_eq!(process.start().unwrap().join().unwrap(), "still here");
}
