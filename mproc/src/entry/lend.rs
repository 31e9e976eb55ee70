//! Parameters that are shared references: the caller lends, the bytes travel, the child owns and lends.

use std::borrow::Borrow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::path::{Path, PathBuf};

/// What may stand behind the `&` of an entry's parameter, and what owns it on the other side.
#[diagnostic::on_unimplemented(
    message = "`&{Self}` cannot be a parameter of an entry",
    note = "a borrowed parameter is `&str`, `&[T]`, `&Path`, `&OsStr`, `&CStr`, or `&T` where `T` is serializable"
)]
pub trait Lend {
    /// The owned form, which decodes from the bytes of the borrowed one.
    type Owned: Borrow<Self>;
}

impl<T> Lend for T {
    type Owned = T;
}

impl Lend for str {
    type Owned = String;
}

impl<T> Lend for [T] {
    type Owned = Vec<T>;
}

impl Lend for Path {
    type Owned = PathBuf;
}

impl Lend for OsStr {
    type Owned = OsString;
}

impl Lend for CStr {
    type Owned = CString;
}
