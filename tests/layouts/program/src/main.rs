//! Starts one child for each entry that it knows, and prints how many there were.

use layout_library::{Adder, tree};
use mproc::{Call, ErrorKind, Run, Stdio};

mod parts {
    //! A module of the program.

    #[mproc::entry]
    pub(crate) fn in_a_module(text: &str, times: usize) -> String {
        text.repeat(times)
    }
}

#[mproc::entry]
fn in_main(list: Vec<u64>) -> u64 {
    list.into_iter().sum()
}

#[mproc::entry]
fn run_there(calls: Vec<Call<String>>) -> Vec<String> {
    calls.into_iter().map(|call| call.run().unwrap()).collect()
}

#[mproc::entry]
fn nested(levels: u32) -> u32 {
    match levels {
        0 => 0,
        _ => 1 + nested::spawn(levels - 1).unwrap().join().unwrap(),
    }
}

#[mproc::entry]
fn panics() -> u8 {
    panic!("with a message")
}

#[mproc::entry]
fn panics_in_a_thread() -> bool {
    std::thread::spawn(|| panic!("in a thread")).join().is_err()
}

/// Every check, for `main` and for the unit tests.
fn check() -> mproc::Result<usize> {
    let mut checks = 0;
    let mut is = |alike: bool, what: &str| {
        assert!(alike, "{what}");
        checks += 1;
    };
    is(
        in_main::spawn(vec![1, 2, 3])?.join()? == 6,
        "an entry beside main",
    );
    is(
        parts::in_a_module::spawn("ab", 2)?.join()? == "abab",
        "an entry in a module",
    );
    is(
        layout_library::double::spawn(4)?.join()? == 8,
        "an entry of a library",
    );
    is(Adder { to: 6 }.spawn()?.join()? == 7, "a value with run");
    is(
        layout_library::call_of_a_private_entry().spawn()?.join()? == 7,
        "a private entry",
    );
    let [second, third] = layout_library::both_inner();
    let calls = vec![
        tree::trunk::bind(),
        tree::branch::trunk::bind(),
        tree::branch::leaf::deep::bind(),
        layout_library::first_inner(),
        second,
        third,
        layout_library::chosen::bind(),
        layout_library::by_condition::bind(),
        layout_library::one_of_macro::bind(),
        layout_library::other_of_macro::bind(),
        layout_library::explicit::bind("explicit"),
    ];
    let expected = [
        "trunk",
        "trunk of a branch",
        "deep",
        "first",
        "second",
        "third",
        "unix",
        "by condition",
        "one_of_macro",
        "other_of_macro",
        "EXPLICIT",
    ];
    for (call, expected) in calls.iter().zip(expected) {
        is(call.clone().spawn()?.join()? == expected, expected);
    }
    is(
        run_there::spawn(calls)?.join()? == expected,
        "calls that are run by a child",
    );
    is(nested::spawn(3)?.join()? == 3, "children of children");

    let large = "x".repeat(1 << 20);
    is(
        parts::in_a_module::spawn(&large, 2)?.join()?.len() == 2 << 20,
        "a large value",
    );

    let aborts = cfg!(panic = "abort");
    let error = panics::process()
        .stderr(Stdio::null())
        .start()?
        .join()
        .unwrap_err();
    is(error.kind() == ErrorKind::Panicked, "a panic");
    is(
        error.exit_code() == Some(if aborts { -6 } else { 101 }),
        "how a panic ends the process",
    );
    let panic = error.panic().unwrap();
    is(
        panic.message() == "with a message",
        "the message of a panic",
    );
    is(
        panic
            .location()
            .is_some_and(|place| place.contains("main.rs:")),
        "the place of a panic",
    );
    is(panic.thread() == "main", "the thread of a panic");
    let result = panics_in_a_thread::process()
        .stderr(Stdio::null())
        .start()?
        .join();
    if aborts {
        let error = result.unwrap_err();
        is(
            error
                .panic()
                .is_some_and(|panic| panic.message() == "in a thread"),
            "a panic of a thread",
        );
    } else {
        is(result?, "a panic of a thread");
    }
    Ok(checks)
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        println!("{} checks passed", check()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Here `main` is the harness's, and the one above is not called.

    #[mproc::entry]
    fn only_in_tests() -> u8 {
        3
    }

    #[test]
    fn a_bin_target_can_test_itself() {
        assert!(super::check().unwrap() > 20);
    }

    #[test]
    fn an_entry_of_the_tests_is_found() {
        assert_eq!(only_in_tests::spawn().unwrap().join().unwrap(), 3);
    }
}
