//! A process before its start.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use super::child::Child;
use super::start_method::StartMethod;
use super::stdio::{Kind, Stdio};
use super::{identity, spawn};
use crate::entry::Call;
use crate::error::Result;

/// A process that has not been started: a call, and how it is to be run.
///
/// Made by `process` of an entry or of a [`Call`]. Each method changes one setting and gives the description back;
/// [`start`](Self::start) uses it up.
///
/// # Examples
///
/// ```
/// #[mproc::entry]
/// fn greet() -> String { std::env::var("GREETING").unwrap() }
///
/// # fn main() -> mproc::Result<()> {
/// let child = greet::process().name("greeter").env("GREETING", "hello").start()?;
/// assert_eq!(child.name(), "greeter");
/// assert_eq!(child.join()?, "hello");
/// # Ok(())
/// # }
/// ```
pub struct Process<R> {
    pub(super) call: Call<R>,
    pub(super) path: Vec<u32>,
    pub(super) name: String,
    pub(super) daemon: bool,
    pub(super) detached: bool,
    start_method: StartMethod,
    pub(super) environment: Environment,
    pub(super) current_dir: Option<PathBuf>,
    pub(super) stdio: [Kind; 3],
}

/// Changes to the environment that a child inherits.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) clear: bool,
    /// `None`: removed.
    pub(super) changes: BTreeMap<OsString, Option<OsString>>,
}

impl<R> Process<R> {
    pub(crate) fn new(call: Call<R>) -> Self {
        let (path, name) = identity::next_child();
        Self {
            call,
            path,
            name,
            daemon: identity::current_process().daemon(),
            detached: false,
            start_method: StartMethod::default(),
            environment: Environment::default(),
            current_dir: None,
            stdio: [Kind::Null, Kind::Inherit, Kind::Inherit],
        }
    }

    /// Names the process, for logs, errors and [`current_process`](crate::current_process). Names need not be unique.
    ///
    /// The default is `Process-1` for the first that this process describes, `Process-1:2` for the second child of that.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Whether this program, when it ends, terminates the process instead of waiting for it. The default is what the
    /// starting process is itself; in the main process, no.
    ///
    /// A daemon may have children; they are daemons too, unless told otherwise.
    #[must_use]
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Lets the process outlive this one: it is neither killed when this process dies nor waited for when it ends.
    ///
    /// It stays a child: this process can wait for it, and collects it.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// How the process is started.
    #[must_use]
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.start_method = method;
        self
    }

    /// Sets a variable in the environment that the process inherits.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .changes
            .insert(key.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Removes a variable from the environment that the process inherits.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.environment
            .changes
            .insert(key.as_ref().to_owned(), None);
        self
    }

    /// Inherits nothing, and forgets what was set before this call.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.environment = Environment {
            clear: true,
            changes: BTreeMap::new(),
        };
        self
    }

    /// The directory in which the process starts.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(directory.into());
        self
    }

    /// Standard input. The default is `/dev/null`, as in Python: children that read what the user types for the parent are
    /// a trap.
    #[must_use]
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Self {
        self.stdio[0] = stdio.into().0;
        self
    }

    /// Standard output. The default is the parent's.
    #[must_use]
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.stdio[1] = stdio.into().0;
        self
    }

    /// Standard error. The default is the parent's.
    #[must_use]
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.stdio[2] = stdio.into().0;
        self
    }

    /// The name that the process will have.
    pub fn get_name(&self) -> &str {
        &self.name
    }

    /// False: it has not been started.
    pub fn is_alive(&self) -> bool {
        false
    }
}

impl<R: 'static> Process<R> {
    /// Starts the process. Does not wait for it: arguments of any size are handed over without the child's help.
    ///
    /// # If a peer dies
    ///
    /// A child that dies before, while or after it reads its arguments has been started all the same:
    /// [`join`](Child::join) tells how it ended.
    ///
    /// # Errors
    ///
    /// Nothing was started, and [`Error::into_process`](crate::Error::into_process) gives this description back:
    ///
    /// - [`NotBooted`](crate::ErrorKind::NotBooted): neither [`main!`](crate::main) nor
    ///   [`freeze_support`](crate::freeze_support) has run, so the child would run this program from its beginning.
    /// - [`Encode`](crate::ErrorKind::Encode): an argument could not be encoded; the error names it.
    /// - [`Start`](crate::ErrorKind::Start): the system refused: limits of processes (`EAGAIN`) or descriptors (`EMFILE`), no
    ///   memory, no such directory, an environment too large.
    /// - [`TooDeep`](crate::ErrorKind::TooDeep), [`Exiting`](crate::ErrorKind::Exiting),
    ///   [`DuplicateEntry`](crate::ErrorKind::DuplicateEntry).
    pub fn start(self) -> Result<Child<R>> {
        let started = match self.start_method {
            StartMethod::Spawn => spawn::start(&self),
        };
        match started {
            Ok(child) => Ok(Child::new(child)),
            Err(error) => Err(error.handing_back(self)),
        }
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<Process({}, initial{})>",
            self.name,
            if self.daemon { ", daemon" } else { "" }
        )
    }
}
