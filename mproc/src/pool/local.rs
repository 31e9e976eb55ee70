//! A worker that is a process on this machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::link::{Frame, Link, Outcome, Said, Trouble};
use crate::channel_error::{RecvError, SendError};
use crate::entry::Call;
use crate::entry::call::{Parcel, Resolved};
use crate::error::{Error, ErrorKind, Result};
use crate::pipe::{Connection, duplex};
use crate::process::record::Refusal;
use crate::process::{AnyChild, Child, panics};
use crate::wire::Message;

pub(super) struct Local {
    connection: Connection<Frame, Said>,
    child: Child<()>,
}

impl Local {
    pub(super) fn start(name: String, initializer: Option<Call<()>>) -> Result<Self> {
        let (connection, theirs) = duplex()?;
        let process = work::process(theirs, initializer).name(name).daemon(true);
        Ok(Self {
            connection,
            child: process.start()?,
        })
    }

    pub(super) fn child(&self) -> AnyChild {
        (*self.child).clone()
    }

    /// Lets the worker end by itself, and waits for that.
    pub(super) fn dismiss(self) {
        self.connection.close();
        // OK to ignore: it has nothing to say any more.
        let _ = self.child.wait();
    }
}

impl Link for Local {
    fn send(&mut self, frame: Frame) -> Result<(), Trouble> {
        self.connection.send(frame).map_err(|error| match error {
            SendError::Encode(..) | SendError::Io(..) => Trouble::Refused(Error::from(error)),
            _ => Trouble::Lost,
        })
    }

    fn receive(&mut self, limit: Option<Duration>) -> Result<Said, Trouble> {
        let said = match limit {
            None => self.connection.recv(),
            Some(limit) => self.connection.recv_timeout(limit),
        };
        said.map_err(|error| match error {
            RecvError::Timeout => Trouble::TimedOut,
            _ => Trouble::Lost,
        })
    }

    fn lost(self) -> Error {
        let Self { connection, child } = self;
        connection.close();
        // A worker that closed its lanes is ending, and its own status says more than ours would. One that only hung up is not.
        let ended = child.wait_timeout(GRACE);
        if !matches!(ended, Ok(Some(_))) {
            let _ = child.kill();
        }
        let (name, id) = (child.name().to_owned(), child.id());
        match child.join() {
            Err(error) => error,
            Ok(()) => Error::new(ErrorKind::Exited, "ended before its task did")
                .of_process(&name, id, None),
        }
    }
}

/// How long a worker that has hung up may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// What a worker does: frame by frame, until nobody sends any more.
#[crate::entry(crate = crate)]
fn work(mut to_parent: Connection<Said, Frame>, initializer: Option<Call<()>>) {
    crate::sys::pass_over_interrupts();
    if let Some(call) = initializer {
        let (outcome, failed) = execute(call);
        if failed {
            let _ = say(&mut to_parent, Said::Unfit, outcome);
            return;
        }
    }
    let mut going = to_parent.send(Said::Ready).is_ok();
    while going {
        match to_parent.recv() {
            Ok(Frame(bundles)) => {
                going = to_parent.send(Said::Begun).is_ok();
                let mut calls = bundles.into_iter().flat_map(|bundle| bundle.0);
                while going && let Some(call) = calls.next() {
                    let (outcome, _) = execute(call);
                    going = say(&mut to_parent, Said::Done, outcome);
                }
            }
            Err(RecvError::Decode(error)) => {
                going = to_parent.send(Said::Unreadable(error.to_string())).is_ok();
            }
            Err(_) => going = false,
        }
    }
}

/// What a call came to, before it is sent.
enum Executed {
    Value(Message),
    Other(Outcome),
}

/// Runs a call. Also tells whether it failed, which an `Err` of its own does.
fn execute(call: Call<()>) -> (Executed, bool) {
    let refused = |error: &Error| (Executed::Other(Outcome::Refusal(Refusal::new(error))), true);
    // OK to assert: nothing of what the call leaves behind is looked at but the panic.
    match catch_unwind(AssertUnwindSafe(|| Resolved::from(call).serve())) {
        Ok(Ok(served)) => match served.value {
            Ok(value) => (Executed::Value(value), served.exit_code != 0),
            Err(error) => {
                let text = "the result cannot be sent";
                refused(&Error::new(ErrorKind::Encode, text).caused_by(error))
            }
        },
        Ok(Err(error)) => refused(&error),
        Err(payload) => {
            let panic = panics::take(&*payload);
            // Dropping a payload may panic again, and there is nothing left to gain from it.
            std::mem::forget(payload);
            (Executed::Other(Outcome::Panic(panic)), true)
        }
    }
}

/// Says what a call came to, or why that cannot be said. False: nobody listens.
fn say(
    to_parent: &mut Connection<Said, Frame>,
    as_what: fn(Outcome) -> Said,
    executed: Executed,
) -> bool {
    let (outcome, value) = match executed {
        Executed::Value(value) => (Outcome::Value(Parcel::of(&value)), Some(value)),
        Executed::Other(outcome) => (outcome, None),
    };
    match to_parent.send(as_what(outcome)) {
        Ok(()) => {
            if let Some(value) = value {
                value.commit();
            }
            true
        }
        Err(error @ (SendError::Encode(..) | SendError::Io(..))) => {
            let error = Error::new(ErrorKind::Encode, "the result cannot be sent")
                .caused_by(Error::from(error));
            let refusal = Outcome::Refusal(Refusal::new(&error));
            to_parent.send(as_what(refusal)).is_ok()
        }
        Err(_) => false,
    }
}
