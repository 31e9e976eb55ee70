//! `Entry` and `Unary` say what arrives and what comes back.
#![deny(warnings)]

use std::any::TypeId;

use mproc::{Entry, Unary};

#[mproc::entry]
fn two(_: &str, _: (u8, u8)) -> usize {
    0
}

#[mproc::entry]
fn one(_: &[u8]) {}

#[mproc::entry]
fn none() -> String {
    String::new()
}

fn map<E: Unary<Arg = A>, A>(_: impl IntoIterator<Item = A>) -> Vec<E::Output> {
    Vec::new()
}

fn same<A: 'static, B: 'static>() -> bool {
    TypeId::of::<A>() == TypeId::of::<B>()
}

fn main() {
    assert!(same::<<two as Entry>::Args, (String, (u8, u8))>());
    assert!(same::<<one as Entry>::Args, (Vec<u8>,)>());
    assert!(same::<<one as Unary>::Arg, Vec<u8>>());
    assert!(same::<<none as Entry>::Args, ()>());
    assert!(same::<<none as Entry>::Output, String>());
    let _ = map::<one, _>([vec![1], vec![2]]);
    let _ = (two("", (1, 2)), none());
    one(&[]);
}
