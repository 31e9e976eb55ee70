//! Parameters that are shared references: the caller lends, the bytes travel, the child owns and lends.
//!
//! A unique handle is not lent, because sending it takes it away from its lender. That `&Sender<T>` is refused is seen by type
//! and not by token, so that an alias is refused as well. Handles inside of what is lent are not seen: there they move, and the
//! lender finds that out when it uses them.

use std::borrow::Borrow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::{Connection, Receiver, Sender};

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

/// A handle that moves when it is sent.
pub trait UniqueHandle {}

impl<T> UniqueHandle for Sender<T> {}
impl<T> UniqueHandle for Receiver<T> {}
impl<S, R> UniqueHandle for Connection<S, R> {}

/// Tells by type how `U` may be given. A unique handle has `HOW` of its own, and the compiler prefers it; everything else has
/// the one of [`LendingOfAny`].
pub struct Lending<U: ?Sized>(PhantomData<U>);

impl<U: ?Sized> fmt::Debug for Lending<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<Self>())
    }
}

impl<U: UniqueHandle + ?Sized> Lending<U> {
    /// It moves.
    pub const HOW: ByValueOnly = ByValueOnly;
}

/// For anything that is no unique handle.
pub trait LendingOfAny {
    /// It may be lent.
    const HOW: ByReference = ByReference;
}

impl<U: ?Sized> LendingOfAny for Lending<U> {}

/// `U` may stand behind an `&`.
#[diagnostic::on_unimplemented(
    message = "`&{U}` cannot be a parameter of an entry: a unique handle moves to the other process",
    label = "take it by value, without the `&`",
    note = "whoever calls the entry gives the handle away; a `Queue` is a handle that can be lent and shared"
)]
pub trait MayBeLent<U: ?Sized> {}

/// Of a type that may be lent.
#[derive(Debug)]
pub struct ByReference;

impl<U: ?Sized> MayBeLent<U> for ByReference {}

/// Of a type that may not be lent.
#[derive(Debug)]
pub struct ByValueOnly;
