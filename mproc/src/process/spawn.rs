//! The start method *spawn*: this program again, as a fresh process.
//!
//! All that the child needs is in its control socket before it exists, so nothing here waits for it, and whenever it dies it
//! is just a child that ended. What goes wrong before it exists is an error of the call.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, OnceLock, Weak};

use super::child::{self, AnyChild, Inner};
use super::record::{Parent, Person, Record, kind};
use super::stdio::Kind;
use super::unstarted::{Environment, Process};
use super::{exit, identity};
use crate::entry::{boot, registry};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, Source};
use crate::wire::Message;

pub(super) fn start<R>(process: &Process<R>) -> Result<AnyChild> {
    let dispatch = boot::dispatch_of_children()?;
    registry::check()?;
    identity::check_depth(&process.path)?;
    process.call.check()?;
    exit::prepare()?;
    child::collect_ended();

    let refused = |what: &'static str| move |error: io::Error| refusal(what, error);
    let person = Person {
        name: process.name.clone(),
        path: process.path.clone(),
        daemon: process.daemon,
        parent: Parent {
            name: identity::current_process().name().to_owned(),
            id: sys::process_id(),
        },
        logging: crate::logging::for_child(),
    };
    let record = Message::of(&Record {
        person: &person,
        call: &process.call,
    })
    .map_err(|error| Error::new(ErrorKind::Encode, "the call cannot be sent").caused_by(error))?;
    let (control, theirs) =
        sys::seqpacket_pair().map_err(refused("the control socket could not be made"))?;
    // Never waits: nobody reads yet, so a socket that is full stays full.
    record
        .send(control.as_fd(), kind::RECORD, false)
        .map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::new(
                ErrorKind::Start,
                "the call carries more descriptors than the control socket holds",
            ),
            _ => refusal("the call could not be handed over", error),
        })?;
    // The bytes are with the socket. What is unique in the call comes back with every error from here on, and the descriptors
    // in the socket are closed with it.
    let moved = record.into_moved();
    let (their_line, line) = sys::pipe().map_err(refused("the death line could not be made"))?;

    let streams =
        Streams::open(&process.stdio).map_err(refused("a standard stream could not be opened"))?;
    let mark = boot::Mark::new(dispatch, theirs.as_fd(), their_line.as_fd());
    let environment = environment(&process.environment, &mark)?;
    let current_dir = match &process.current_dir {
        Some(path) => Some(c_string(
            path.clone().into_os_string(),
            "the current directory",
        )?),
        None => None,
    };
    let plan = sys::Plan {
        arguments: arguments(),
        environment: &environment,
        current_dir: current_dir.as_deref(),
        stdio: streams.sources(&process.stdio),
        line: sys::Armed {
            read: their_line.as_fd(),
            write: line.as_fd(),
            kills: !process.detached,
        },
        control: theirs.as_fd(),
    };
    let (id, pidfd) = sys::launch(&plan).map_err(|error| {
        let text = format!("process `{}` could not be started: {error}", process.name);
        Error::new(ErrorKind::Start, text).caused_by(error.os)
    })?;
    // Registered BEFORE anything of the user's can run, such as a logger that panics: whoever is not registered is not collected.
    let child = child::register(Inner {
        parent: sys::process_id(),
        id,
        name: process.name.clone(),
        daemon: process.daemon,
        detached: process.detached,
        pidfd,
        _line: line,
        control,
        stdio: Mutex::new(streams.ours),
        collecting: Mutex::new(()),
        ended: OnceLock::new(),
        claim: Mutex::new(Weak::new()),
    });
    moved.commit();
    log::debug!(target: "mproc", "process {} (pid {id}) started for {}", process.name, process.call.name());
    Ok(child)
}

fn refusal(what: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Start, what).caused_by(error)
}

/// The pipes of standard streams: the child's ends and ours.
struct Streams {
    theirs: [Option<OwnedFd>; 3],
    ours: [Option<OwnedFd>; 3],
}

impl Streams {
    fn open(kinds: &[Kind; 3]) -> io::Result<Self> {
        let mut streams = Self {
            theirs: [None, None, None],
            ours: [None, None, None],
        };
        for (number, kind) in kinds.iter().enumerate() {
            match kind {
                Kind::Inherit | Kind::Null => {}
                Kind::Piped => {
                    let (read, write) = sys::pipe()?;
                    let (theirs, ours) = if number == 0 {
                        (read, write)
                    } else {
                        (write, read)
                    };
                    streams.theirs[number] = Some(theirs);
                    streams.ours[number] = Some(ours);
                }
                // A given descriptor may itself be 0, 1 or 2, and would be overwritten before its turn.
                Kind::Given(fd) => streams.theirs[number] = Some(sys::duplicate(fd.as_fd())?),
            }
        }
        Ok(streams)
    }

    fn sources(&self, kinds: &[Kind; 3]) -> [Source<'_>; 3] {
        std::array::from_fn(|number| match (&self.theirs[number], &kinds[number]) {
            (Some(fd), _) => Source::Descriptor(fd.as_fd()),
            (None, Kind::Inherit) => Source::Inherit,
            (None, _) => Source::Null,
        })
    }
}

/// What the child is called with: what we were. mproc's own business is not among it.
fn arguments() -> &'static [CString] {
    static ARGUMENTS: OnceLock<Vec<CString>> = OnceLock::new();
    ARGUMENTS.get_or_init(|| {
        let arguments = sys::program_arguments().into_iter();
        // OK because they came in as C strings.
        arguments
            .filter_map(|argument| CString::new(argument.into_vec()).ok())
            .collect()
    })
}

fn environment(changes: &Environment, mark: &boot::Mark) -> Result<Vec<CString>> {
    let mut variables = Vec::new();
    if !changes.clear {
        for (key, value) in std::env::vars_os() {
            if !changes.changes.contains_key(&key) && key != boot::MARK {
                variables.push(variable(key, value)?);
            }
        }
    }
    for (key, value) in &changes.changes {
        if let Some(value) = value
            && key != boot::MARK
        {
            variables.push(variable(key.clone(), value.clone())?);
        }
    }
    variables.push(variable(boot::MARK.into(), mark.to_string().into())?);
    Ok(variables)
}

fn variable(key: OsString, value: OsString) -> Result<CString> {
    let mut bytes = key.into_vec();
    if bytes.is_empty() || bytes[1..].contains(&b'=') {
        let text = format!(
            "`{}` cannot be the name of an environment variable",
            String::from_utf8_lossy(&bytes)
        );
        return Err(Error::new(ErrorKind::Start, text));
    }
    bytes.push(b'=');
    bytes.extend(value.into_vec());
    c_string(OsString::from_vec(bytes), "an environment variable")
}

fn c_string(text: OsString, what: &str) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|error| {
        Error::new(ErrorKind::Start, format!("{what} contains a zero byte")).caused_by(error)
    })
}
