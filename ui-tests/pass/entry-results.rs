//! Results are typed as written, aliases and all.
#![deny(warnings)]

use std::collections::BTreeMap;

use mproc::{Call, Child, Process};

type Outcome<T> = Result<T, String>;

#[mproc::entry]
fn outcome(x: u8) -> Outcome<u8> {
    Ok(x)
}

#[mproc::entry]
fn table() -> BTreeMap<String, [u8; 4]> {
    BTreeMap::new()
}

#[mproc::entry]
fn unit() {}

#[mproc::entry]
#[allow(clippy::unused_unit)]
fn written_unit() -> () {}

#[mproc::entry]
fn calls(calls: Vec<Call<u8>>) -> Call<Outcome<u8>> {
    outcome::bind(calls.len() as u8)
}

fn main() {
    assert_eq!(outcome(1), Ok(1));
    let _: Call<Outcome<u8>> = outcome::bind(1);
    let _: Process<BTreeMap<String, [u8; 4]>> = table::process();
    let _: fn() -> mproc::Result<Child<()>> = unit::spawn;
    let _: Call<()> = written_unit::bind();
    let _: Call<Call<Outcome<u8>>> = calls::bind(vec![]);
    let _ = [unit::bind(), written_unit::bind()];
    let _ = (table(), unit(), written_unit(), calls(vec![]));
}
