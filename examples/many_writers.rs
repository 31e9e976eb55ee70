//! One reader that waits for several pipes at once.
//!
//! ```text
//! cargo run --example many_writers
//! ```
//!
//! prints `(0, "Process-1")` to `(9, "Process-4")`: ten messages from each of four processes, those of one process in their
//! order.
//!
//! A pipe that is at its end is ready, too: its `recv` says so, and it is dropped. Python's program closes the writing end in
//! the parent, or that end would never come; here the end is gone when it is sent.
//!
//! In Python: <https://docs.python.org/3/library/multiprocessing.html#multiprocessing.connection.wait>

use std::os::fd::AsFd;

use mproc::{Failure, Receiver, RecvError, Sender};

type Message = (u32, String);

#[mproc::entry]
fn count(mut writer: Sender<Message>) -> Result<(), Failure> {
    let name = mproc::current_process().name();
    for number in 0..10 {
        writer.send((number, name.into()))?;
    }
    Ok(())
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        let mut readers: Vec<Receiver<Message>> = Vec::new();
        for _ in 0..4 {
            let (writer, reader) = mproc::pipe()?;
            count::spawn(writer)?;
            readers.push(reader);
        }

        while !readers.is_empty() {
            let all: Vec<&dyn AsFd> = readers.iter().map(|reader| reader as _).collect();
            let ready = mproc::wait(&all, None)?;
            // From the back, where taking one out moves no other that is still to be read.
            for index in ready.into_iter().rev() {
                match readers[index].recv() {
                    Ok(message) => println!("{message:?}"),
                    Err(RecvError::Disconnected) => drop(readers.remove(index)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
