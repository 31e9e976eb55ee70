//! Results on their way back: as written, of any size, and an error at `join` where there is none.

use std::collections::HashMap;
use std::time::Duration;

use mproc::{Child, ErrorKind, Failure, Run};
use mproc_tests::{descriptors, dose, watchdog};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LIMIT: Duration = Duration::from_secs(1200);

#[mproc::entry]
fn fill(length: usize) -> String {
    "x".repeat(length)
}

#[test]
fn a_result_of_any_size_does_not_wait_for_its_reader() {
    let _watchdog = watchdog("a_result_of_any_size_does_not_wait_for_its_reader", LIMIT);
    for length in [
        0,
        1,
        32 * 1024 - 9,
        32 * 1024 - 8,
        32 * 1024 - 7,
        1 << 20,
        64 << 20,
    ] {
        let child = fill::spawn(length).unwrap();
        // Python's `join` before `get` deadlocks here from 64 KiB on.
        assert!(child.wait().unwrap().success());
        assert_eq!(child.join().unwrap().len(), length);
    }
}

#[test]
fn results_are_given_as_written() {
    let _watchdog = watchdog("results_are_given_as_written", LIMIT);
    type Nested = Result<Option<Result<u8, String>>, Vec<()>>;
    #[mproc::entry]
    fn pick(which: u8) -> Nested {
        match which {
            0 => Ok(Some(Ok(1))),
            1 => Ok(Some(Err("no".into()))),
            2 => Ok(None),
            _ => Err(vec![(), ()]),
        }
    }
    for which in 0..4 {
        let mut child = pick::spawn(which).unwrap();
        let status = child.wait().unwrap();
        // Only the outermost result is a verdict on the function, and an alias hides nothing.
        assert_eq!(status.exit_code(), i32::from(which == 3));
        let value = child.join_timeout(Duration::MAX).unwrap();
        assert_eq!(value, Some(pick(which)));
        let again = child.join_timeout(Duration::ZERO).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyJoined);
        assert_eq!(again.exit_code(), Some(status.exit_code()));
    }
}

#[test]
fn the_exit_code_looks_through_every_alias() {
    let _watchdog = watchdog("the_exit_code_looks_through_every_alias", LIMIT);
    type Mine<T> = Result<T, Failure>;
    #[mproc::entry]
    fn aliased(fails: bool) -> Mine<u8> {
        if fails {
            Err(Failure::msg("no"))
        } else {
            Ok(7)
        }
    }
    #[mproc::entry]
    fn option() -> Option<Result<u8, u8>> {
        Some(Err(1))
    }
    #[derive(Serialize, Deserialize)]
    struct Runner(bool);
    #[mproc::entry]
    impl Run for Runner {
        type Output = Mine<u8>;
        fn run(self) -> Mine<u8> {
            aliased(self.0)
        }
    }
    fn code<R>(child: mproc::Result<Child<R>>) -> i32 {
        child.unwrap().wait().unwrap().exit_code()
    }
    assert_eq!(code(aliased::spawn(false)), 0);
    assert_eq!(code(aliased::spawn(true)), 1);
    assert_eq!(code(Runner(false).spawn()), 0);
    assert_eq!(code(Runner(true).spawn()), 1);
    assert_eq!(code(option::spawn()), 0);
}

#[test]
fn collections_and_recursive_types_come_back() {
    let _watchdog = watchdog("collections_and_recursive_types_come_back", LIMIT);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node {
            left: Box<Tree>,
            right: Box<Tree>,
            name: String,
        },
    }
    #[mproc::entry]
    fn grow(depth: u32) -> (Tree, HashMap<String, Vec<(u8, char)>>) {
        let mut tree = Tree::Leaf;
        for level in 0..depth {
            let left = Box::new(tree);
            let right = Box::new(Tree::Leaf);
            tree = Tree::Node {
                left,
                right,
                name: level.to_string(),
            };
        }
        (
            tree,
            HashMap::from([("key".into(), vec![(1, 'x'), (2, 'y')])]),
        )
    }
    assert_eq!(grow::spawn(20).unwrap().join().unwrap(), grow(20));
}

/// A value that fails to travel in the way that it says.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Awkward {
    Fine,
    NotWritten,
    WritePanics,
    NotRead,
    ReadPanics,
    /// Writes more than is read.
    Longer,
    /// Writes less than is read.
    Shorter,
}

const AWKWARD: [Awkward; 7] = [
    Awkward::Fine,
    Awkward::NotWritten,
    Awkward::WritePanics,
    Awkward::NotRead,
    Awkward::ReadPanics,
    Awkward::Longer,
    Awkward::Shorter,
];

impl Serialize for Awkward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::NotWritten => return Err(serde::ser::Error::custom("this is not written")),
            Self::WritePanics => panic!("while writing"),
            _ => {}
        }
        match *self as u8 {
            number if *self == Self::Longer => (number, 0_u64).serialize(serializer),
            number if *self == Self::Shorter => number.serialize(serializer),
            number => (number, 0_u32).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Awkward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, _) = <(u8, u32)>::deserialize(deserializer)?;
        match AWKWARD[usize::from(number)] {
            Self::NotRead => Err(serde::de::Error::custom("this is not read")),
            Self::ReadPanics => panic!("while reading"),
            other => Ok(other),
        }
    }
}

#[mproc::entry]
fn give(number: usize) -> Awkward {
    AWKWARD[number]
}

#[mproc::entry]
fn take(number: u32, value: Awkward) -> u32 {
    let _ = value;
    number
}

#[track_caller]
fn says(error: &mproc::Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

fn joined<R: DeserializeOwned>(child: mproc::Result<Child<R>>) -> mproc::Error {
    child.unwrap().join().err().expect("there is no value")
}

#[test]
fn a_result_that_cannot_travel_is_an_error_of_the_join() {
    let _watchdog = watchdog("a_result_that_cannot_travel_is_an_error_of_the_join", LIMIT);
    let given = |awkward: Awkward| {
        let number = AWKWARD.iter().position(|other| *other == awkward).unwrap();
        give::spawn(number)
    };
    assert_eq!(given(Awkward::Fine).unwrap().join().unwrap(), Awkward::Fine);

    let error = joined(given(Awkward::NotWritten));
    assert_eq!(
        (error.kind(), error.exit_code()),
        (ErrorKind::Encode, Some(1))
    );
    says(&error, &["Process-", "Awkward", "this is not written"]);

    let error = joined(given(Awkward::WritePanics));
    assert_eq!(
        (error.kind(), error.exit_code()),
        (ErrorKind::Panicked, Some(101))
    );
    says(&error, &["while writing"]);

    // The child has done its part; it is here that the value means nothing.
    for (awkward, part) in [
        (Awkward::NotRead, "this is not read"),
        (Awkward::Longer, "left over"),
        (Awkward::Shorter, "end too early"),
    ] {
        let error = joined(given(awkward));
        assert_eq!(
            (error.kind(), error.exit_code()),
            (ErrorKind::Decode, Some(0))
        );
        says(&error, &["Process-", "Awkward", part]);
    }
    let child = given(Awkward::ReadPanics).unwrap();
    let panic =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child.join())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"while reading"));
}

#[test]
fn an_argument_that_cannot_be_read_is_an_error_of_the_join() {
    let _watchdog = watchdog(
        "an_argument_that_cannot_be_read_is_an_error_of_the_join",
        LIMIT,
    );
    assert_eq!(take::spawn(7, Awkward::Fine).unwrap().join().unwrap(), 7);

    let error = take::spawn(7, Awkward::NotWritten).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    says(
        &error,
        &["`value`", "take", "Awkward", "this is not written"],
    );

    let error = joined(take::spawn(7, Awkward::NotRead));
    assert_eq!(
        (error.kind(), error.exit_code()),
        (ErrorKind::Decode, Some(1))
    );
    says(&error, &["`value`", "take", "Awkward", "this is not read"]);

    let error = joined(take::spawn(7, Awkward::Shorter));
    assert_eq!(
        (error.kind(), error.exit_code()),
        (ErrorKind::Decode, Some(1))
    );
    says(&error, &["`value`", "take", "Awkward", "end too early"]);

    // Found behind the last argument: which one it was cannot be said.
    let error = joined(take::spawn(7, Awkward::Longer));
    assert_eq!(
        (error.kind(), error.exit_code()),
        (ErrorKind::Decode, Some(1))
    );
    says(&error, &["take", "4 bytes are left over"]);

    let error = joined(take::spawn(7, Awkward::ReadPanics));
    assert_eq!(
        (error.kind(), error.exit_code()),
        (ErrorKind::Panicked, Some(101))
    );
    says(&error, &["while reading"]);
    assert!(
        error
            .panic()
            .unwrap()
            .location()
            .unwrap()
            .contains("results.rs")
    );
}

#[test]
fn a_call_with_arguments_that_cannot_be_read_is_an_error_of_its_run() {
    let _watchdog = watchdog(
        "a_call_with_arguments_that_cannot_be_read_is_an_error_of_its_run",
        LIMIT,
    );
    let error = take::bind(7, Awkward::NotRead).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    says(&error, &["`value`", "take", "Awkward", "this is not read"]);
    let error = take::bind(7, Awkward::Longer).run().unwrap_err();
    says(&error, &["take", "left over"]);
}

#[test]
fn a_panic_while_an_argument_is_written_leaves_the_thread_usable() {
    let _watchdog = watchdog(
        "a_panic_while_an_argument_is_written_leaves_the_thread_usable",
        LIMIT,
    );
    let panic = std::panic::catch_unwind(|| take::spawn(7, Awkward::WritePanics)).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"while writing"));
    assert_eq!(take::spawn(7, Awkward::Fine).unwrap().join().unwrap(), 7);
}

#[mproc::entry]
fn results_and_count() -> Vec<i32> {
    let all = || {
        for number in 0..AWKWARD.len() {
            let child = give::spawn(number).unwrap();
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child.join()));
        }
        fill::spawn(100_000).unwrap().join().unwrap();
        drop(fill::spawn(100_000).unwrap().into_any().wait());
        let child = fill::spawn(100_000).unwrap();
        child.wait().unwrap();
    };
    std::panic::set_hook(Box::new(|_| {}));
    all();
    let before = descriptors();
    for _ in 0..dose(10, 500) {
        all();
    }
    let mut after = descriptors();
    after.retain(|number| !before.contains(number));
    after
}

#[test]
fn results_taken_refused_and_forgotten_leave_nothing_open() {
    let _watchdog = watchdog(
        "results_taken_refused_and_forgotten_leave_nothing_open",
        LIMIT,
    );
    let process = results_and_count::process().stderr(mproc::Stdio::null());
    assert_eq!(process.start().unwrap().join().unwrap(), [0_i32; 0]);
}
