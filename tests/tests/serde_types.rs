//! Types that serde can describe and a compact format cannot carry: an error that says what to write instead, never a wrong
//! value.

use std::fmt::Debug;
use std::time::Duration;

use mproc::{Child, ErrorKind};
use mproc_tests::{dose, watchdog};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(1200);

#[track_caller]
fn says(error: &mproc::Error, kind: ErrorKind, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

fn refused<R>(child: mproc::Result<Child<R>>) -> mproc::Error {
    child.expect_err("the start is refused")
}

fn joined<R: DeserializeOwned>(child: mproc::Result<Child<R>>) -> mproc::Error {
    child
        .expect("it starts")
        .join()
        .err()
        .expect("the join is an error")
}

#[derive(Serialize, Deserialize, Default)]
struct Inner {
    x: i32,
}

#[derive(Serialize, Deserialize, Default)]
struct Flat {
    name: String,
    #[serde(flatten)]
    inner: Inner,
}

#[test]
fn flatten_is_refused_where_it_is_written() {
    let _watchdog = watchdog("flatten_is_refused_where_it_is_written", LIMIT);
    #[mproc::entry]
    fn take(flat: Flat) {
        let _ = (flat.name, flat.inner.x);
    }
    #[mproc::entry]
    fn give() -> Flat {
        Flat::default()
    }
    let parts = ["Flat", "flatten", "ordinary field"];
    says(
        &refused(take::spawn(Flat::default())),
        ErrorKind::Encode,
        &parts,
    );
    says(
        &refused(take::spawn(Flat::default())),
        ErrorKind::Encode,
        &["`flat`", "take"],
    );
    says(&joined(give::spawn()), ErrorKind::Encode, &parts);
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Internal {
    Unit,
    Point { x: i32 },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    Unit,
    Number(i64),
}

/// Written without trouble, but nothing in the bytes says what they are.
#[test]
fn self_describing_types_are_refused_where_they_are_read() {
    let _watchdog = watchdog(
        "self_describing_types_are_refused_where_they_are_read",
        LIMIT,
    );
    #[mproc::entry]
    fn untagged(value: Untagged) -> Untagged {
        value
    }
    #[mproc::entry]
    fn internal(value: Internal) -> Internal {
        value
    }
    #[mproc::entry]
    fn adjacent(value: Adjacent) -> Adjacent {
        value
    }
    #[mproc::entry]
    fn json(value: serde_json::Value) -> serde_json::Value {
        value
    }
    #[mproc::entry]
    fn gives_untagged() -> Untagged {
        Untagged::Text("x".into())
    }
    #[mproc::entry]
    fn gives_internal() -> Internal {
        Internal::Unit
    }
    #[mproc::entry]
    fn gives_json() -> Vec<serde_json::Value> {
        vec![true.into(), "text".into()]
    }
    let parts = |name: &'static str, entry: &'static str| {
        ["`value`", entry, name, "default representation"]
    };
    let decode = ErrorKind::Decode;
    for value in [Untagged::Number(1), Untagged::Text("x".into())] {
        says(
            &joined(untagged::spawn(value)),
            decode,
            &parts("Untagged", "untagged"),
        );
    }
    for value in [Internal::Unit, Internal::Point { x: 1 }] {
        says(
            &joined(internal::spawn(value)),
            decode,
            &parts("Internal", "internal"),
        );
    }
    for value in [
        serde_json::Value::Null,
        1.into(),
        "x".into(),
        vec![1].into(),
    ] {
        says(&joined(json::spawn(value)), decode, &parts("Value", "json"));
    }
    for value in [Adjacent::Unit, Adjacent::Number(1)] {
        let error = joined(adjacent::spawn(value));
        says(&error, decode, &parts("Adjacent", "adjacent"));
    }
    let instead = "default representation";
    says(
        &joined(gives_untagged::spawn()),
        decode,
        &["Untagged", instead],
    );
    says(
        &joined(gives_internal::spawn()),
        decode,
        &["Internal", instead],
    );
    says(&joined(gives_json::spawn()), decode, &["Value", instead]);
}

/// What the messages advise.
#[test]
fn what_the_errors_advise_works() {
    let _watchdog = watchdog("what_the_errors_advise_works", LIMIT);
    #[derive(Serialize, Deserialize)]
    enum Plain {
        Number(i64),
        Nested { inner: Inner, json: String },
    }
    #[mproc::entry]
    fn sum(values: Vec<Plain>) -> i64 {
        let number = |value| match value {
            Plain::Number(number) => number,
            Plain::Nested { inner, json } => {
                let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                i64::from(inner.x) + json["n"].as_i64().unwrap()
            }
        };
        values.into_iter().map(number).sum()
    }
    let json = serde_json::json!({ "n": 30 }).to_string();
    let values = vec![
        Plain::Number(1),
        Plain::Nested {
            inner: Inner { x: 2 },
            json,
        },
    ];
    assert_eq!(sum::spawn(values).unwrap().join().unwrap(), 33);
}

fn is_none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

/// A module for each way in which a field may be left out, so that the types have the same shape and other attributes.
macro_rules! skipping {
    ($module:ident, $($attribute:meta),*) => {
        mod $module {
            use super::*;

            #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
            pub(crate) struct First {
                #[serde($($attribute),*)]
                pub(crate) a: Option<u8>,
                pub(crate) b: Option<u8>,
                pub(crate) c: u8,
            }
            #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
            pub(crate) struct Middle {
                pub(crate) a: u8,
                #[serde($($attribute),*)]
                pub(crate) b: Option<u8>,
                pub(crate) c: Option<u8>,
            }
            #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
            pub(crate) struct Last {
                pub(crate) a: u8,
                pub(crate) b: Option<u8>,
                #[serde($($attribute),*)]
                pub(crate) c: Option<u8>,
            }
            #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
            pub(crate) enum Shape {
                First {
                    #[serde($($attribute),*)]
                    a: Option<u8>,
                    b: u8,
                },
                Last {
                    a: u8,
                    #[serde($($attribute),*)]
                    b: Option<u8>,
                },
            }
            #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
            pub(crate) struct All {
                pub(crate) first: First,
                pub(crate) middle: Middle,
                pub(crate) last: Last,
                pub(crate) shapes: Vec<Shape>,
                pub(crate) end: u64,
            }

            #[mproc::entry]
            pub(crate) fn echo(all: All, after: u8) -> (All, u8) {
                (all, after)
            }
            #[mproc::entry]
            pub(crate) fn make(bits: u8) -> All {
                all(bits)
            }

            /// Each bit is a field that is there.
            pub(crate) fn all(bits: u8) -> All {
                let field = |bit: u8| (bits & 1 << bit != 0).then_some(bit + 1);
                All {
                    first: First { a: field(0), b: Some(2), c: 3 },
                    middle: Middle { a: 1, b: field(1), c: Some(3) },
                    last: Last { a: 1, b: Some(2), c: field(2) },
                    shapes: vec![
                        Shape::First { a: field(3), b: 2 },
                        Shape::Last { a: 1, b: field(4) },
                    ],
                    end: 0x0101_0101_0101_0101,
                }
            }

            #[test]
            fn a_skipped_field_never_shifts_the_others() {
                let name = concat!(stringify!($module), "::a_skipped_field_never_shifts_the_others");
                let _watchdog = watchdog(name, LIMIT);
                for bits in 0..32 {
                    right_or_refused(&all(bits), bits, echo::spawn(all(bits), 7), make::spawn(bits));
                }
            }
        }
    };
}

/// With all fields there the value arrives; with one left out, both ways are an error that names the attribute.
#[track_caller]
fn right_or_refused<T: DeserializeOwned + Debug + PartialEq + Clone + Serialize>(
    all: &T,
    bits: u8,
    echoed: mproc::Result<Child<(T, u8)>>,
    made: mproc::Result<Child<T>>,
) {
    if bits == 31 {
        assert_eq!(echoed.unwrap().join().unwrap(), (all.clone(), 7));
        assert_eq!(made.unwrap().join().unwrap(), *all);
    } else {
        let parts = ["All", "was skipped", "skip_serializing_if"];
        says(&refused(echoed), ErrorKind::Encode, &parts);
        says(&joined(made), ErrorKind::Encode, &parts);
    }
}

skipping!(without_default, skip_serializing_if = "is_none");
skipping!(with_default, default, skip_serializing_if = "is_none");

/// serde gives fields without names another path: there the skipped one is only missing from the count.
mod tuple_structs {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    struct Pair(
        #[serde(skip_serializing_if = "is_none")] Option<u8>,
        #[serde(default, skip_serializing_if = "is_none")] Option<u8>,
    );

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    enum Choice {
        Pair(
            u8,
            #[serde(default, skip_serializing_if = "is_none")] Option<u8>,
        ),
        Front(#[serde(skip_serializing_if = "is_none")] Option<u8>, u8),
    }

    type Both = (Pair, Choice, Choice, u8);

    #[mproc::entry]
    fn echo(both: Both) -> Both {
        both
    }
    #[mproc::entry]
    fn make(bits: u8) -> Both {
        both(bits)
    }

    fn both(bits: u8) -> Both {
        let field = |bit: u8| (bits & 1 << bit != 0).then_some(1);
        let choices = [Choice::Pair(2, field(2)), Choice::Front(field(3), 1)];
        let [pair, front] = choices;
        (Pair(field(0), field(1)), pair, front, 9)
    }

    #[test]
    fn a_skipped_field_never_shifts_the_others() {
        let _watchdog = watchdog(
            "tuple_structs::a_skipped_field_never_shifts_the_others",
            LIMIT,
        );
        for bits in 0..16 {
            for child in [echo::spawn(both(bits)), make::spawn(bits)] {
                let result = child.and_then(Child::join);
                match result {
                    Ok(value) => assert_eq!((bits, value), (15, both(15))),
                    Err(error) => {
                        assert_ne!(bits, 15, "{error}");
                        assert!(error.to_string().contains("skip_serializing_if"), "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_field_skipped_on_both_sides_is_fine() {
    let _watchdog = watchdog("a_field_skipped_on_both_sides_is_fine", LIMIT);
    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    struct Cached {
        a: u8,
        #[serde(skip)]
        cache: Option<String>,
        #[serde(rename = "other")]
        b: u8,
        #[serde(default)]
        c: u8,
        #[serde(alias = "dee")]
        d: u8,
    }
    #[mproc::entry]
    fn same(value: Cached) -> Cached {
        value
    }
    let sent = Cached {
        a: 1,
        cache: Some("gone".into()),
        b: 2,
        c: 3,
        d: 4,
    };
    let got = same::spawn(sent.clone()).unwrap().join().unwrap();
    assert_eq!(
        got,
        Cached {
            cache: None,
            ..sent
        }
    );
}

#[test]
fn a_field_skipped_on_one_side_is_an_error() {
    let _watchdog = watchdog("a_field_skipped_on_one_side_is_an_error", LIMIT);
    #[derive(Serialize, Deserialize, Default)]
    struct NotWritten {
        #[serde(skip_serializing, default)]
        a: u8,
        b: u8,
    }
    #[derive(Serialize, Deserialize, Default)]
    struct NotRead {
        a: u8,
        #[serde(skip_deserializing)]
        b: u8,
    }
    #[mproc::entry]
    fn not_written(value: NotWritten) -> u8 {
        value.a + value.b
    }
    #[mproc::entry]
    fn not_read(value: NotRead) -> u8 {
        value.a + value.b
    }
    let error = not_written::spawn(NotWritten::default())
        .and_then(Child::join)
        .unwrap_err();
    assert!(error.to_string().contains("NotWritten"), "{error}");
    let error = joined(not_read::spawn(NotRead::default()));
    says(
        &error,
        ErrorKind::Decode,
        &["`value`", "not_read", "NotRead", "skip_deserializing"],
    );
}

#[derive(Serialize, Deserialize)]
struct List(Option<Box<List>>);

fn list(length: usize) -> List {
    (1..length).fold(List(None), |rest, _| List(Some(Box::new(rest))))
}

#[mproc::entry]
fn length(list: List) -> usize {
    let mut length = 1;
    let mut rest = &list;
    while let Some(next) = &rest.0 {
        (rest, length) = (next, length + 1);
    }
    length
}

#[mproc::entry]
fn make_list(length: usize) -> List {
    list(length)
}

/// Overflowing the stack would kill the process, of the sender or of the receiver.
#[test]
fn deep_recursion_is_an_error_on_both_ways() {
    let _watchdog = watchdog("deep_recursion_is_an_error_on_both_ways", LIMIT);
    assert_eq!(length::spawn(list(50)).unwrap().join().unwrap(), 50);
    let there_and_back = make_list::spawn(50).unwrap().join().unwrap();
    assert_eq!(length(there_and_back), 50);
    // Not so long that dropping it overflows the stack: that is Rust's own trap.
    for depth in [1_000, dose(5_000, 10_000)] {
        let error = refused(length::spawn(list(depth)));
        says(
            &error,
            ErrorKind::Encode,
            &["`list`", "length", "nested deeper", "`Vec` of nodes"],
        );
        let error = joined(make_list::spawn(depth));
        says(&error, ErrorKind::Encode, &["nested deeper"]);
    }
}

/// A start is called on threads with small stacks, too.
#[test]
fn deep_recursion_is_an_error_on_a_small_stack() {
    let _watchdog = watchdog("deep_recursion_is_an_error_on_a_small_stack", LIMIT);
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        let error = refused(length::spawn(list(3_000)));
        says(&error, ErrorKind::Encode, &["nested deeper"]);
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn a_billion_elements_without_bytes_are_an_error() {
    let _watchdog = watchdog("a_billion_elements_without_bytes_are_an_error", LIMIT);
    #[mproc::entry]
    fn count(units: Vec<()>) -> usize {
        units.len()
    }
    #[mproc::entry]
    fn make(count: usize) -> Vec<()> {
        vec![(); count]
    }
    assert_eq!(
        count::spawn(vec![(); 100_000]).unwrap().join().unwrap(),
        100_000
    );
    assert_eq!(make::spawn(100_000).unwrap().join().unwrap().len(), 100_000);
    let parts = ["take no bytes", "send their number"];
    let error = refused(count::spawn(vec![(); 1_000_000_000]));
    says(&error, ErrorKind::Encode, &parts);
    says(&error, ErrorKind::Encode, &["`units`", "count"]);
    says(
        &joined(make::spawn(1_000_000_000)),
        ErrorKind::Encode,
        &parts,
    );
}
