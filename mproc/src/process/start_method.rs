//! How a process comes into being.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// How a process is started: [`Process::start_method`](crate::Process::start_method),
/// [`PoolBuilder::start_method`](crate::PoolBuilder::start_method).
///
/// Also from Python's words, as a configuration may have them.
///
/// # Examples
///
/// ```
/// use mproc::StartMethod;
///
/// assert_eq!("spawn".parse::<StartMethod>()?, StartMethod::Spawn);
/// assert_eq!(StartMethod::default().to_string(), "spawn");
/// let error = "thread".parse::<StartMethod>().unwrap_err();
/// assert_eq!(error.to_string(), "there is no start method `thread`; there is `spawn`");
/// # Ok::<(), mproc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StartMethod {
    /// The program is executed again: a fresh process that has nothing but what it is given. Threads do not matter to it.
    #[default]
    Spawn,
}

/// As Python calls it.
impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spawn => "spawn",
        })
    }
}

impl FromStr for StartMethod {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "spawn" => Ok(Self::Spawn),
            other => Err(Error::new(
                ErrorKind::Start,
                format!("there is no start method `{other}`; there is `spawn`"),
            )),
        }
    }
}
