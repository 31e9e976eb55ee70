//! A program that leaves a trace when its `main` runs, and whose children tell what they see of themselves.
//!
//!     boot <what> <file> [more arguments]
//!
//! appends a line to the file, then does what is said. The tests are in `tests/boot.rs`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use mproc_tests::ScratchFile;
use serde::{Deserialize, Serialize};

/// What one process sees of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Sight {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    environment_of_its_program: String,
}

fn look() -> Sight {
    let output = Command::new("/usr/bin/env").output().expect("env runs");
    Sight {
        arguments: std::env::args_os().collect(),
        environment: std::env::vars_os().collect(),
        environment_of_its_program: String::from_utf8_lossy(&output.stdout).into_owned(),
    }
}

/// Looks, and lets a child, its child and so on look too.
#[mproc::entry]
fn look_in_each_generation(left: u32, clear: bool) -> Vec<Sight> {
    let mut sights = vec![look()];
    if left > 0 {
        let mut process = look_in_each_generation::process(left - 1, clear);
        if clear {
            process = process.env_clear();
        }
        sights.extend(process.start().expect("starts").join().expect("joins"));
    }
    sights
}

#[mproc::entry]
fn name() -> String {
    mproc::current_process().name().to_owned()
}

#[mproc::entry]
fn names_of_two_children() -> [String; 2] {
    [0, 1].map(|_| name::spawn().expect("starts").join().expect("joins"))
}

#[mproc::entry]
fn chain(depth: u32) -> (u32, String) {
    match chain::spawn(depth + 1) {
        Ok(child) => child.join().expect("the next one returns"),
        Err(error) => (depth, format!("{:?}", error.kind())),
    }
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let file = PathBuf::from(arguments.get(2).expect("a file to leave a trace in"));
        ScratchFile::append_to(&file, "main ran");
        match arguments[1].to_str().expect("a word") {
            "nothing" => {}
            "generations" => {
                for clear in [false, true] {
                    let child = look_in_each_generation::process(2, clear);
                    let child = if clear { child.env_clear() } else { child };
                    let sights = child.start()?.join()?;
                    assert_eq!(sights.len(), 3);
                    for sight in sights {
                        assert_eq!(sight.arguments, arguments);
                        assert!(!format!("{:?}", sight.environment).contains("MPROC"), "{sight:?}");
                        assert!(!sight.environment_of_its_program.contains("MPROC"), "{sight:?}");
                        if clear {
                            assert!(sight.environment.is_empty(), "{sight:?}");
                        } else {
                            assert!(sight.environment.iter().any(|(key, _)| key == "PATH"), "{sight:?}");
                        }
                    }
                }
            }
            "boot-again" => {
                mproc::freeze_support();
                assert_eq!(name::spawn()?.join()?, "Process-1");
                mproc::freeze_support();
                assert_eq!(name::spawn()?.join()?, "Process-2");
            }
            "names" => {
                assert_eq!(name::spawn()?.join()?, "Process-1");
                assert_eq!(name::process().name("by hand").start()?.join()?, "by hand");
                assert_eq!(name::spawn()?.join()?, "Process-3");
                assert_eq!(names_of_two_children::spawn()?.join()?, ["Process-4:1", "Process-4:2"]);
                assert_eq!(mproc::current_process().name(), "MainProcess");
                assert!(mproc::parent_process().is_none());
            }
            "chain" => {
                let (depth, kind) = chain::spawn(1)?.join()?;
                assert_eq!((depth, kind.as_str()), (64, "TooDeep"));
            }
            other => panic!("no such thing: {other}"),
        }
        Ok(())
    }
}
