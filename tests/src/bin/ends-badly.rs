//! Starts children that end badly, one for each way, and prints what `join` says.

use std::panic::resume_unwind;

use mproc::{Failure, Stdio};

#[mproc::entry]
fn end(how: &str) {
    let empty: [u8; 0] = [];
    match how {
        "panic" => {
            let _ = empty[std::hint::black_box(7)];
        }
        "panic in a thread that is handed on" => {
            let thread = std::thread::spawn(|| panic!("handed on"));
            resume_unwind(thread.join().unwrap_err());
        }
        "panic while panicking" => {
            struct Second;
            impl Drop for Second {
                fn drop(&mut self) {
                    panic!("the second");
                }
            }
            mproc_tests::no_core_dump();
            let _second = Second;
            panic!("the first");
        }
        how => mproc_tests::end_badly(how),
    }
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        for how in [
            "panic",
            "panic in a thread that is handed on",
            "panic while panicking",
            "exit 0",
            "exit 7",
            "exit 7 in a thread",
            "abort",
            "segmentation fault",
            "stack overflow",
            "illegal instruction",
            "sigterm",
        ] {
            let child = end::process(how).stderr(Stdio::null()).start()?;
            let error = child.join().unwrap_err();
            print!("{how}: {:?} {:?}", error.kind(), error.exit_code());
            match error.panic() {
                // A second one is told behind the first.
                Some(panic) => println!(" {}", panic.message().split(", then").next().unwrap_or("")),
                None => println!(),
            }
        }
        Ok(())
    }
}
