//! No parameter name collides with what is generated.
#![deny(warnings)]

#[mproc::entry]
fn locals(arguments: u8, from: u8, argument0: u8, worker: u8, value: u8) -> u8 {
    arguments + from + argument0 + worker + value
}

#[mproc::entry]
fn like_itself(like_itself: u8) -> u8 {
    like_itself
}

#[mproc::entry]
fn numbered(arg1: u8, (a, b): (u8, u8), arg1_: u8) -> u8 {
    arg1 + a + b + arg1_
}

#[mproc::entry]
fn starters(spawn: u8, process: u8, bind: u8) -> u8 {
    spawn + process + bind
}

#[mproc::entry]
fn spawn(bind: &str) -> usize {
    bind.len()
}

#[mproc::entry]
fn bind(process: &str) -> usize {
    process.len()
}

#[mproc::entry]
fn process(spawn: &str) -> usize {
    spawn.len()
}

#[mproc::entry]
fn r#type(r#in: u8, r#fn: &str) -> usize {
    usize::from(r#in) + r#fn.len()
}

fn main() {
    assert_eq!(locals(1, 2, 3, 4, 5), 15);
    let _ = locals::bind(1, 2, 3, 4, 5);
    let _ = like_itself::bind(like_itself(1));
    let _ = numbered::bind(numbered(1, (2, 3), 4), (1, 2), 3);
    let _ = starters::bind(starters(1, 2, 3), 2, 3);
    let _ = (spawn::bind("x"), bind::bind("x"), process::bind("x"));
    assert_eq!(spawn("a") + bind("b") + process("c"), 3);
    assert_eq!(r#type(1, "ab"), 3);
    let _ = r#type::process(1, "ab");
    assert!(<r#type as mproc::Entry>::NAME.ends_with("::type"));
}
