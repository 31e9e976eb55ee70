//! Errors of functions: they are values, and `mproc::Failure` keeps the chain of those that cannot travel (G17).

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::num::ParseIntError;
use std::time::Duration;

use mproc::{ErrorKind, Failure};
use mproc_tests::{program, watchdog};

const LIMIT: Duration = Duration::from_secs(120);

/// An error with a cause, as libraries have them.
#[derive(Debug)]
struct ConfigError {
    line: u32,
    cause: ParseIntError,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is no setting", self.line)
    }
}

impl StdError for ConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

fn parse(text: &str) -> Result<i32, ConfigError> {
    let parse = |(line, text): (u32, &str)| {
        text.parse::<i32>()
            .map_err(|cause| ConfigError { line, cause })
    };
    (1..).zip(text.lines()).map(parse).sum()
}

#[mproc::entry]
fn add_lines(text: &str) -> Result<i32, Failure> {
    Ok(parse(text)?)
}

#[test]
fn a_failure_keeps_the_chain_of_causes() {
    let _watchdog = watchdog("a_failure_keeps_the_chain_of_causes", LIMIT);
    assert_eq!(
        add_lines::spawn("1\n2").unwrap().join().unwrap().unwrap(),
        3
    );
    let child = add_lines::spawn("1\ntwo").unwrap();
    assert_eq!(child.wait().unwrap().exit_code(), 1);
    let failure = child.join().unwrap().unwrap_err();
    let chain = ["line 2 is no setting", "invalid digit found in string"];
    assert!(failure.chain().eq(chain), "{failure:?}");
    assert_eq!(failure.to_string(), chain[0]);
    assert_eq!(failure.root_cause(), chain[1]);
    assert_eq!(
        format!("{failure:?}"),
        "line 2 is no setting\n\nCaused by:\n    invalid digit found in string"
    );
}

#[test]
fn context_is_put_in_front_on_each_side() {
    let _watchdog = watchdog("context_is_put_in_front_on_each_side", LIMIT);
    #[mproc::entry]
    fn load(text: &str) -> Result<i32, Failure> {
        parse(text).map_err(|error| Failure::from(error).context("cannot load"))
    }
    let failure = load::spawn("x").unwrap().join().unwrap().unwrap_err();
    let failure = failure.context("in a child");
    let chain = [
        "in a child",
        "cannot load",
        "line 1 is no setting",
        "invalid digit found in string",
    ];
    assert!(failure.chain().eq(chain), "{failure:?}");
}

#[test]
fn errors_of_every_kind_convert() {
    let _watchdog = watchdog("errors_of_every_kind_convert", LIMIT);
    #[mproc::entry]
    fn fail(which: u8) -> Result<(), Failure> {
        match which {
            0 => drop(std::fs::File::open("/no/such/file")?),
            1 => drop(String::from_utf8(vec![0xff])?),
            2 => Err(io::Error::other(ConfigError {
                line: 7,
                cause: "x".parse::<u8>().unwrap_err(),
            }))?,
            3 => return Err(Failure::msg(format_args!("number {which}"))),
            4 => drop(add_lines::process("1").current_dir("/no/such").start()?),
            _ => return Ok(()),
        }
        Ok(())
    }
    let expected: [&[&str]; 4] = [
        &["No such file or directory (os error 2)"],
        &["invalid utf-8 sequence of 1 bytes from index 0"],
        &["line 7 is no setting", "invalid digit found in string"],
        &["number 3"],
    ];
    for (which, chain) in (0..).zip(expected) {
        let failure = fail::spawn(which).unwrap().join().unwrap().unwrap_err();
        assert!(failure.chain().eq(chain.iter().copied()), "{failure:?}");
    }
    let failure = fail::spawn(4).unwrap().join().unwrap().unwrap_err();
    assert!(
        failure.to_string().contains("could not be started"),
        "{failure}"
    );
    assert_eq!(
        failure.root_cause(),
        "No such file or directory (os error 2)"
    );
    assert_eq!(fail::spawn(5).unwrap().join().unwrap(), Ok(()));
}

#[test]
fn a_failure_becomes_a_boxed_error_with_its_sources() {
    let _watchdog = watchdog("a_failure_becomes_a_boxed_error_with_its_sources", LIMIT);
    fn ask() -> Result<i32, Box<dyn StdError + Send + Sync>> {
        Ok(add_lines::spawn("x")?.join()??)
    }
    let error = ask().unwrap_err();
    assert_eq!(error.to_string(), "line 1 is no setting");
    let cause = error.source().unwrap();
    assert_eq!(cause.to_string(), "invalid digit found in string");
    assert!(cause.source().is_none());
}

#[test]
fn an_error_type_of_ones_own_arrives_as_it_is() {
    let _watchdog = watchdog("an_error_type_of_ones_own_arrives_as_it_is", LIMIT);
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Refusal {
        TooLarge { by: u64 },
    }
    #[mproc::entry]
    fn check(size: u64) -> Result<u64, Refusal> {
        if size > 10 {
            Err(Refusal::TooLarge { by: size - 10 })
        } else {
            Ok(size)
        }
    }
    assert_eq!(check::spawn(3).unwrap().join().unwrap(), Ok(3));
    assert_eq!(
        check::spawn(12).unwrap().join().unwrap(),
        Err(Refusal::TooLarge { by: 2 })
    );
}

#[test]
fn a_failure_through_several_processes_stays_whole() {
    let _watchdog = watchdog("a_failure_through_several_processes_stays_whole", LIMIT);
    #[mproc::entry]
    fn pass_on(levels: u32) -> Result<i32, Failure> {
        match levels {
            0 => add_lines("x"),
            _ => {
                let inner = pass_on::spawn(levels - 1)?.join()?;
                inner.map_err(|failure| failure.context(format_args!("level {levels}")))
            }
        }
    }
    let failure = pass_on::spawn(3).unwrap().join().unwrap().unwrap_err();
    let chain = [
        "level 3",
        "level 2",
        "level 1",
        "line 1 is no setting",
        "invalid digit found in string",
    ];
    assert!(failure.chain().eq(chain), "{failure:?}");
}

/// An `Error` of mproc is an error like others: what it says is in its line, with the causes.
#[test]
fn an_error_of_mproc_says_its_causes_in_one_line() {
    let _watchdog = watchdog("an_error_of_mproc_says_its_causes_in_one_line", LIMIT);
    let error = add_lines::process("")
        .name("lost")
        .current_dir("/no/such")
        .start()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start);
    let os = error.io_error().unwrap();
    assert_eq!(os.raw_os_error(), Some(2));
    let text = error.to_string();
    for part in ["`lost`", "current directory", "No such file or directory"] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
}

#[test]
fn a_program_that_fails_prints_the_chain_and_exits_with_1() {
    let _watchdog = watchdog(
        "a_program_that_fails_prints_the_chain_and_exits_with_1",
        LIMIT,
    );
    let output = program(env!("CARGO_BIN_EXE_fails")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "Error: cannot start\n\nCaused by:\n    disk on fire\n"
    );
}
