//! Facts of a process that nothing has to die for.

use std::time::Duration;

use mproc::{AnyChild, Call, Child, Error, Failure, Fd, Process, Run};
use mproc_tests::watchdog;
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, String>;
type Renamed = Outcome<u8>;

#[mproc::entry]
fn through_aliases(fail: bool) -> Renamed {
    if fail { Err("no".into()) } else { Ok(1) }
}

#[mproc::entry]
fn nothing_to_do_with_results(some: bool) -> Option<Renamed> {
    some.then(|| Err("inside".into()))
}

/// Only the outermost value decides, and it is the type that says whether it is a result.
#[test]
fn an_err_is_exit_code_1_also_behind_aliases() {
    let _watchdog = watchdog(
        "an_err_is_exit_code_1_also_behind_aliases",
        Duration::from_secs(60),
    );
    for (fail, code) in [(true, 1), (false, 0)] {
        let child = through_aliases::spawn(fail).unwrap();
        assert_eq!(child.wait().unwrap().exit_code(), code);
        assert_eq!(child.join().unwrap().is_err(), fail);
    }
    let child = nothing_to_do_with_results::spawn(true).unwrap();
    assert_eq!(child.wait().unwrap().exit_code(), 0);
    assert_eq!(child.join().unwrap(), Some(Err("inside".into())));
}

#[mproc::entry]
fn private_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(kib)
        .sum()
}

/// Private memory is what one more child costs; the rest is the program's file, shared by all.
#[test]
fn a_child_at_rest_needs_less_than_two_mib() {
    let _watchdog = watchdog(
        "a_child_at_rest_needs_less_than_two_mib",
        Duration::from_secs(60),
    );
    let kib = private_kib::spawn().unwrap().join().unwrap();
    assert!(kib < 2048, "{kib} KiB");
}

#[derive(Serialize, Deserialize)]
struct Countdown {
    from: u32,
}

#[mproc::entry]
impl Run for Countdown {
    type Output = Vec<u32>;

    fn run(self) -> Self::Output {
        (0..self.from).rev().collect()
    }
}

#[test]
fn a_value_with_a_run_is_started_bound_and_described() {
    let _watchdog = watchdog(
        "a_value_with_a_run_is_started_bound_and_described",
        Duration::from_secs(60),
    );
    assert_eq!(
        Countdown { from: 3 }.spawn().unwrap().join().unwrap(),
        [2, 1, 0]
    );
    let call: Call<Vec<u32>> = Countdown { from: 2 }.bind();
    assert_eq!(call.clone().run().unwrap(), [1, 0]);
    assert_eq!(
        call.process()
            .name("countdown")
            .start()
            .unwrap()
            .join()
            .unwrap(),
        [1, 0]
    );
}

#[test]
fn handles_are_used_from_any_thread() {
    fn any_thread<T: Send + Sync>() {}
    // Not what a call returns, which stays in its process until it is sent, makes a handle usable from a thread or not.
    any_thread::<Child<std::rc::Rc<()>>>();
    any_thread::<Process<std::rc::Rc<()>>>();
    any_thread::<Call<std::rc::Rc<()>>>();
    any_thread::<AnyChild>();
    any_thread::<Error>();
    any_thread::<Failure>();
    any_thread::<Fd>();
}

#[test]
fn processors_that_may_be_used_are_counted() {
    let count = mproc::cpu_count();
    assert!(count >= 1);
    assert_eq!(count, std::thread::available_parallelism().unwrap().get());
}
