//! Pipes: typed messages, in order, from one process to another.
//!
//! A pipe is a [lane](crate::shm::lane) with one end each way. Beside the shared memory it has a *bell*, a kernel pipe on which the
//! reader sleeps, and a *line*, a packet socket that carries descriptors, and rings for room. Each hangs up when the other side is gone: the
//! kernel does that for a process that is killed, so the survivor always hears of it.

mod connection;
#[cfg(all(test, not(mproc_model)))]
mod fuzz;
mod inlet;
#[cfg(all(test, mproc_model))]
mod model;
mod outlet;
mod receiver;
mod sender;
mod travel;
mod words;

use std::sync::Arc;

pub use connection::Connection;
pub use receiver::{IntoIter, Iter, Receiver};
pub use sender::Sender;

use crate::error::{Error, Result};
use crate::shm::lane;
use crate::sys;
use inlet::Inlet;
use outlet::Outlet;

/// Makes a pipe: what is sent at one end is received at the other, by whatever processes hold them.
///
/// The ends are *unique* handles: they move. One that is sent to another process, in an argument, a result or a message, is gone here, so
/// the end of the stream is seen without closing anything by hand.
///
/// A pipe holds two megabytes, and up to four until its reader has come to the larger part of it. A sender that finds it full waits until one is free, or twice what it
/// sends. Longer messages go through in parts, of any length. The sending end costs four descriptors, the receiving end three, and the pipe 20 KiB of memory until
/// it is used for more.
///
/// # Errors
///
/// If there is no memory or no room for a descriptor.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn count_up(mut numbers: mproc::Sender<u64>) -> Result<(), mproc::Failure> {
///     for number in 0..3 {
///         numbers.send(number)?;
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (tx, rx) = mproc::pipe::<u64>()?;
/// let child = count_up::spawn(tx)?;                   // the sending end is gone from here
/// let numbers = rx.into_iter().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(numbers, [0, 1, 2]);                     // so the stream ends when the child ends
/// # child.join()??;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Pipe")]
#[doc(alias = "channel")]
pub fn pipe<T>() -> Result<(Sender<T>, Receiver<T>)> {
    let (outlet, inlet) = ends().map_err(|error| Error::io("a pipe could not be made", error))?;
    Ok((Sender::new(outlet), Receiver::new(inlet)))
}

/// Makes two connected ends, each of which sends to the other.
///
/// The first sends `S` and receives `R`, the second the other way round. See [`pipe`] for what ends are, and
/// [`Connection::split`] to use the directions apart.
///
/// # Errors
///
/// If there is no memory or no room for a descriptor.
///
/// # Examples
///
/// ```
/// use mproc::Connection;
///
/// #[mproc::entry]
/// fn measure(mut texts: Connection<usize, String>) -> Result<(), mproc::Failure> {
///     while let Ok(text) = texts.recv() {
///         texts.send(text.len())?;
///     }
///     Ok(())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut ours, theirs) = mproc::duplex::<String, usize>()?;
/// let child = measure::spawn(theirs)?;
/// ours.send("hello".to_string())?;
/// assert_eq!(ours.recv()?, 5);
/// ours.close();
/// child.join()??;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "Pipe")]
pub fn duplex<S, R>() -> Result<(Connection<S, R>, Connection<R, S>)> {
    let (our_sender, their_receiver) = pipe()?;
    let (their_sender, our_receiver) = pipe()?;
    Ok((
        Connection::new(our_sender, our_receiver),
        Connection::new(their_sender, their_receiver),
    ))
}

fn ends() -> std::io::Result<(Outlet, Inlet)> {
    let outgoing = lane::create::<words::PipeWords>(words::GROWTH)?;
    let incoming = crate::shm::memory::Memory::open(Arc::clone(outgoing.file()))?;
    let (heard, bell) = sys::sleigh_bell()?;
    let heard = Arc::new(heard);
    let (ours, theirs) = sys::seqpacket_pair()?;
    let outlet = Outlet::new(outgoing, Arc::new(bell), Arc::clone(&heard), Arc::new(ours));
    let inlet = Inlet::new(incoming, heard, Arc::new(theirs));
    Ok((outlet, inlet))
}
