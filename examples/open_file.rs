//! Open files and sockets as arguments and results.
//!
//! ```text
//! cargo run --example open_file
//! ```
//!
//! prints, on a Linux of that version,
//!
//! ```text
//! a child read our file: Linux version 6.1.0
//! a child accepted our visitor, who says: hello
//! ```
//!
//! A child inherits no descriptors. What it is to have, it is given: `mproc::Fd` carries whatever is a descriptor, into a
//! process as an argument and out of it in the result. So one process can open what another may only use.

use std::fs::File;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};

use mproc::{Failure, Fd};

#[mproc::entry]
fn first_words(file: Fd) -> Result<String, Failure> {
    let text = io::read_to_string(file.into_inner::<File>()?)?;
    let words: Vec<&str> = text.split_whitespace().take(3).collect();
    Ok(words.join(" "))
}

#[mproc::entry]
fn accept(listener: Fd) -> Result<Fd, Failure> {
    let (visitor, _) = listener.into_inner::<TcpListener>()?.accept()?;
    Ok(visitor.into())
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let file = File::open("/proc/version")?;
        let reader = first_words::spawn(file.into())?;
        println!("a child read our file: {}", reader.join()??);

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let doorkeeper = accept::spawn(listener.into())?;
        TcpStream::connect(address)?.write_all(b"hello")?;
        let visitor: TcpStream = doorkeeper.join()??.into_inner()?;
        println!("a child accepted our visitor, who says: {}", io::read_to_string(visitor)?);
        Ok(())
    }
}
