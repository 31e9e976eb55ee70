//! An error that travels: for entries that use `?`.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An error as text, with its chain of causes, that can be the result of an entry.
///
/// Most error types cannot be sent to another process. Every `std::error::Error` converts into a `Failure` by `?`, and what
/// arrives is what `Display` of it and of each of its causes said. Like `anyhow::Error` it is not itself an `Error`, or that
/// conversion could not exist; it converts into boxed errors.
///
/// # Examples
///
/// ```
/// use mproc::Failure;
///
/// #[mproc::entry]
/// fn count_lines(path: &str) -> Result<usize, Failure> {
///     Ok(std::fs::read_to_string(path)?.lines().count())
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let child = count_lines::spawn("/no/such/file")?;
/// let failure = child.join()?.unwrap_err();          // the process was fine; its function said no
/// assert_eq!(failure.to_string(), "No such file or directory (os error 2)");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    chain: Vec<String>,
}

impl Failure {
    /// A failure with this text and no cause.
    pub fn msg(message: impl fmt::Display) -> Self {
        Self {
            chain: vec![message.to_string()],
        }
    }

    /// Puts a sentence in front: what was being done when this happened.
    #[must_use]
    pub fn context(mut self, message: impl fmt::Display) -> Self {
        self.chain.insert(0, message.to_string());
        self
    }

    /// The error and its causes, the outermost first. Never empty.
    pub fn chain(&self) -> impl ExactSizeIterator<Item = &str> {
        self.chain.iter().map(String::as_str)
    }

    /// The innermost cause.
    pub fn root_cause(&self) -> &str {
        self.chain.last().map_or("", String::as_str)
    }
}

impl<E: StdError> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push(cause.to_string());
            source = cause.source();
        }
        Self { chain }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.chain.first().map_or("", String::as_str))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if self.chain.len() > 1 {
            f.write_str("\n\nCaused by:")?;
            for cause in &self.chain[1..] {
                write!(f, "\n    {cause}")?;
            }
        }
        Ok(())
    }
}

/// A failure as a link in a chain of real errors: what the conversions into boxed errors make.
struct Link {
    message: String,
    cause: Option<Box<Link>>,
}

impl From<Failure> for Link {
    fn from(failure: Failure) -> Self {
        let mut links = failure.chain.into_iter().rev();
        let first = Self {
            message: links.next().unwrap_or_default(),
            cause: None,
        };
        links.fold(first, |cause, message| Self {
            message,
            cause: Some(Box::new(cause)),
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Link {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl From<Failure> for Box<dyn StdError + Send + Sync> {
    fn from(failure: Failure) -> Self {
        Box::new(Link::from(failure))
    }
}

impl From<Failure> for Box<dyn StdError> {
    fn from(failure: Failure) -> Self {
        Box::new(Link::from(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_survives_both_conversions() {
        let inner = std::io::Error::other("disk on fire");
        let outer = std::io::Error::other(Link {
            message: "cannot save".into(),
            cause: Some(Box::new(Link::from(Failure::from(inner)))),
        });
        let failure = Failure::from(outer).context("at shutdown");
        assert_eq!(failure.root_cause(), "disk on fire");
        assert_eq!(failure.to_string(), "at shutdown");
        let boxed: Box<dyn StdError + Send + Sync> = failure.clone().into();
        assert_eq!(Failure::from(Link::from(failure.clone())), failure);
        assert_eq!(boxed.to_string(), "at shutdown");
        assert!(boxed.source().is_some());
    }
}
