//! Where a child's standard streams go.

use std::os::fd::OwnedFd;

/// Where a standard stream of a child goes; see [`Process::stdin`](super::Process::stdin) and its siblings.
///
/// As std's `Stdio`, whose descriptor cannot be got out of it; [`From`] takes whatever is one: a file, a socket, a pipe end.
#[derive(Debug)]
pub struct Stdio(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Inherit,
    Null,
    Piped,
    Given(OwnedFd),
}

impl Stdio {
    /// The stream of the parent. The default of stdout and stderr.
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// `/dev/null`. The default of stdin.
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// A pipe whose other end is taken from the child by [`AnyChild::take_stdout`](super::AnyChild::take_stdout) and siblings.
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(owner: T) -> Self {
        Self(Kind::Given(owner.into()))
    }
}
