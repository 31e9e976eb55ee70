//! A value with a `run` method, with and without imports and type parameters.
#![deny(warnings)]

use mproc::Run;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone)]
struct Worker {
    id: u32,
}

#[mproc::entry]
impl mproc::Run for Worker {
    type Output = u32;
    fn run(self) -> u32 {
        self.id
    }
}

#[derive(Serialize, Deserialize)]
struct Of<T>(T);

#[mproc::entry]
impl Run for Of<String> {
    type Output = Self;
    fn run(mut self) -> Self {
        self.0.push('!');
        self
    }
}

#[mproc::entry(name = "numbers")]
impl Run for Of<u8> {
    type Output = ();
    fn run(self) {}
}

#[mproc::entry]
#[cfg(not(unix))]
impl Run for DoesNotExist {
    type Output = ();
    fn run(self) {}
}

mod inner {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(crate) enum Job {
        Rest,
    }

    #[mproc::entry]
    impl super::Run for Job {
        type Output = Result<(), String>;
        fn run(self) -> Self::Output {
            match self {
                Job::Rest => Ok(()),
            }
        }
    }
}

fn main() {
    let worker = Worker { id: 7 };
    assert_eq!(worker.clone().run(), 7);
    let _: mproc::Call<u32> = worker.clone().bind();
    let _: mproc::Process<u32> = worker.process();
    let _: mproc::Call<Of<String>> = Of("a".to_owned()).bind();
    Of(1u8).run();
    assert_eq!(inner::Job::Rest.run(), Ok(()));
    assert_eq!(<Of<u8> as mproc::Entry>::NAME, "numbers");
    assert!(<Of<String> as mproc::Entry>::NAME.ends_with("::Of<String>"));
}
