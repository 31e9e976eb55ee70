//! Every kind of parameter: values, what can be lent, patterns, `mut`.
#![deny(warnings)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::path::Path;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Default)]
struct Config {
    depth: u8,
}

type Table = HashMap<String, Vec<(u8, Option<String>)>>;

#[mproc::entry]
fn nothing() {}

#[mproc::entry]
fn values(mut list: Vec<u8>, table: Table, config: Config, text: Cow<'static, str>) -> usize {
    list.push(config.depth);
    list.len() + table.len() + text.len()
}

#[mproc::entry]
fn lent(
    text: &str,
    bytes: &[u8],
    path: &Path,
    name: &OsStr,
    c: &CStr,
    config: &Config,
    all: &[String],
) -> usize {
    text.len()
        + bytes.len()
        + path.as_os_str().len()
        + name.len()
        + c.count_bytes()
        + usize::from(config.depth)
        + all.len()
}

#[mproc::entry]
fn patterns(
    (a, b): (u8, u8),
    Config { depth }: Config,
    [first, ..]: [u8; 3],
    _: u8,
    whole @ (_, _): (u8, u8),
    &n: &u8,
) -> u8 {
    a + b + depth + first + whole.0 + n
}

#[mproc::entry]
#[allow(unused_parens)]
fn parenthesised(text: (&str), (number): u8) -> usize {
    text.len() + usize::from(number)
}

fn main() {
    nothing();
    assert_eq!(
        values(vec![1], Table::new(), Config::default(), "ab".into()),
        4
    );
    assert_eq!(
        lent(
            "a",
            b"b",
            Path::new("c"),
            OsStr::new("d"),
            c"e",
            &Config::default(),
            &[]
        ),
        5
    );
    assert_eq!(
        patterns((1, 2), Config { depth: 3 }, [4, 0, 0], 9, (5, 6), &7),
        22
    );
    assert_eq!(parenthesised("ab", 1), 3);

    // What is lent is the caller's afterwards, and what is given is moved.
    let (text, all) = (String::from("x"), vec![String::new()]);
    let _ = lent::bind(
        &text,
        &[],
        Path::new(""),
        OsStr::new(""),
        c"",
        &Config { depth: 1 },
        &all,
    );
    let _ = values::bind(vec![], Table::new(), Config { depth: 1 }, text.into());
    let _ = patterns::bind((1, 2), Config { depth: 3 }, [4, 0, 0], 9, (5, 6), &7);
    let _ = nothing::process();
    drop(all);
}
