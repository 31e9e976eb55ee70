//! Why a message could not be made or read.

use std::error::Error;
use std::fmt;
use std::io;

use super::codec::CodecError;

/// Why a message could not be made or read.
#[derive(Debug)]
pub(crate) enum WireError {
    /// A value in it.
    Codec(CodecError),
    /// The memory or the socket that carries it.
    Io(io::Error),
    /// It is not what its reader took it for.
    Unexpected(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Unexpected(text) => f.write_str(text),
        }
    }
}

impl Error for WireError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Codec(error) => error.source(),
            Self::Io(error) => error.source(),
            Self::Unexpected(_) => None,
        }
    }
}

impl From<CodecError> for WireError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
