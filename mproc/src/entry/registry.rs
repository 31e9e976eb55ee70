//! Every entry of the program, found by key.
//!
//! Each `#[mproc::entry]` submits itself through `inventory`, so that a process of the same binary finds in its own list what
//! its parent named. The key is the type's full name, the crate's version, and the place in the source: `module_path!()` and
//! `type_name` alone do not tell two functions apart that stand in two blocks of one function. An explicit name replaces
//! all of it, and only such names can clash.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::Entry;
use super::arguments::{Arguments, Incoming, Plain, Short, Takes, Undecodable, Wire};
use super::batch::{Alike, Batch};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::codec::CodecError;
use crate::wire::{Message, Outgoing, WireError};

/// What the macro implements on each entry.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an entry",
    label = "not declared with `#[mproc::entry]`",
    note = "write `#[mproc::entry]` above the function or impl"
)]
pub trait Registered: 'static {
    /// What the function returns.
    type Value: 'static;
    /// Readable, or the explicit name.
    const NAME: &'static str;
    /// Whether the user chose the name.
    const EXPLICIT: bool;
    /// Where the attribute stands.
    const POSITION: Position;
    /// Decodes the arguments and calls the function.
    fn call(from: &mut impl Takes) -> Result<Self::Value, Undecodable>;
    /// How the result travels.
    fn value() -> Wire<Self::Value>;
    /// 1 if the value is an `Err`, else 0.
    fn exit_code(value: &Self::Value) -> i32;
}

/// What the macro implements beside [`Run`](super::Run).
#[diagnostic::on_unimplemented(
    message = "this `impl mproc::Run for {Self}` is not an entry",
    label = "another process would not find it",
    note = "write `#[mproc::entry]` above the `impl`"
)]
pub trait RegisteredRun: Registered {
    /// The value itself, as the one argument of its entry.
    fn into_arguments(self) -> Arguments;
}

/// Where an attribute stands.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// The version of the crate, if cargo built it.
    pub package: Option<&'static str>,
    /// As `file!()`.
    pub file: &'static str,
    /// As `line!()`.
    pub line: u32,
    /// As `column!()`.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One entry, without its types.
pub(crate) struct Registration {
    pub(crate) name: &'static str,
    explicit: bool,
    position: Position,
    type_name: fn() -> &'static str,
    signature: fn() -> u64,
    /// Calls the function and encodes what it returns: what a child does.
    pub(crate) serve: fn(Incoming) -> Result<Served, Undecodable>,
    /// As `serve` for one call after the other, until all have been served or one needs attention: what a worker of a pool does.
    pub(crate) work: fn(&mut Batch<'_>) -> Result<(), Unworked>,
    /// Calls the function and hands over what it returns: what [`Call::run`](super::Call::run) does.
    pub(crate) invoke: fn(Incoming) -> Result<Box<dyn Any>, Undecodable>,
}

/// What a function returned, ready to be sent.
pub(crate) struct Served {
    pub(crate) value: Result<Message, WireError>,
    pub(crate) exit_code: i32,
}

/// Why a worker has no value of the last call.
pub(crate) enum Unworked {
    Arguments(Undecodable),
    Value(CodecError),
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.position)
    }
}

/// Gives each entry a `&'static Registration` without a static, which a generic function could not hold.
struct Of<E>(PhantomData<E>);

impl<E: Entry> Of<E> {
    const REGISTRATION: &'static Registration = &Registration {
        name: <E as Registered>::NAME,
        explicit: E::EXPLICIT,
        position: E::POSITION,
        type_name: std::any::type_name::<E>,
        signature: signature::<E>,
        serve: serve::<E>,
        work: work::<E>,
        invoke: invoke::<E>,
    };
}

pub(crate) const fn registration<E: Entry>() -> &'static Registration {
    Of::<E>::REGISTRATION
}

fn serve<E: Registered>(mut incoming: Incoming) -> Result<Served, Undecodable> {
    let value = E::call(&mut incoming)?;
    let exit_code = E::exit_code(&value);
    let mut outgoing = Outgoing::default();
    let encoded = (E::value().encode)(&value, &mut outgoing);
    let value = encoded
        .map_err(WireError::from)
        .and_then(|()| Ok(outgoing.finish()?));
    Ok(Served { value, exit_code })
}

fn work<E: Registered>(batch: &mut Batch<'_>) -> Result<(), Unworked> {
    // Encoded twice, perhaps, so nothing that holds anything.
    if !std::mem::needs_drop::<E::Value>() {
        match work_alike::<E>(batch)? {
            Went::On => {}
            Went::Over => return Ok(()),
            Went::With(value) => {
                (E::value().encode)(&value, &mut batch.value).map_err(Unworked::Value)?;
                if !batch.place() {
                    return Ok(());
                }
            }
        }
    }
    while batch.next() {
        let value = E::call(&mut batch.arguments).map_err(Unworked::Arguments)?;
        (E::value().encode)(&value, &mut batch.value).map_err(Unworked::Value)?;
        // BEFORE it is said what came of the call: this may panic, too.
        drop(value);
        if !batch.place() {
            break;
        }
    }
    Ok(())
}

/// How calls that are alike went.
enum Went<V> {
    /// They are not.
    On,
    /// Nothing is left to do, or somebody has to look.
    Over,
    /// There is a value that is not.
    With(V),
}

/// What most calls of a large map are: with short arguments and values, all as long, and places for these. What has to be known of them stays in registers.
#[inline(always)]
fn work_alike<E: Registered>(batch: &mut Batch<'_>) -> Result<Went<E::Value>, Unworked> {
    let Some(mut alike) = batch.alike() else {
        return Ok(Went::On);
    };
    let mut room = [0; Alike::LONGEST];
    let room = &mut room[..alike.each()];
    while let Some(arguments) = alike.next() {
        let mut from = Plain::new(arguments);
        let value = E::call(&mut from).map_err(Unworked::Arguments)?;
        let mut short = Short::over(room);
        if !(short.put(E::value(), &value) && short.is_full() && alike.put(room)) {
            return Ok(Went::With(value));
        }
        if alike.is_awaited() {
            break;
        }
    }
    Ok(Went::Over)
}

fn invoke<E: Registered>(mut incoming: Incoming) -> Result<Box<dyn Any>, Undecodable> {
    Ok(Box::new(E::call(&mut incoming)?))
}

/// Tells a call that was made for other types. Aliases are resolved here, which tokens would not show; what a struct has
/// inside is not part of it.
fn signature<E: Entry>() -> u64 {
    // FNV-1a, 64 bits: the same in every build, unlike std's hashers.
    let text = std::any::type_name::<fn(E::Args) -> E::Value>();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One line of the program's list of entries.
pub struct Listed(&'static Registration);

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Listed {
    /// The line of `E`.
    pub const fn new<E: Entry>() -> Self {
        Self(registration::<E>())
    }
}

inventory::collect!(Listed);

fn all() -> impl Iterator<Item = &'static Registration> {
    inventory::iter::<Listed>.into_iter().map(|listed| listed.0)
}

/// An entry's key on its way to another process.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    name: Cow<'a, str>,
    /// Version and place; absent for explicit names.
    place: Option<(Cow<'a, str>, Cow<'a, str>, u32, u32)>,
}

impl Registration {
    pub(crate) fn key(&self) -> Key<'static> {
        if self.explicit {
            return Key {
                name: self.name.into(),
                place: None,
            };
        }
        let Position {
            package,
            file,
            line,
            column,
        } = self.position;
        Key {
            name: (self.type_name)().into(),
            place: Some((
                package.unwrap_or_default().into(),
                file.into(),
                line,
                column,
            )),
        }
    }

    pub(crate) fn signature(&self) -> u64 {
        (self.signature)()
    }
}

/// Finds the entry that another process means.
pub(crate) fn find(key: &Key<'_>, signature: u64) -> Result<&'static Registration> {
    let mut found = all().filter(|registration| registration.key() == *key);
    let Some(registration) = found.next() else {
        return Err(unknown(&key.name));
    };
    if found.next().is_some() {
        return Err(check().expect_err("two entries with one key are what `check` looks for"));
    }
    if registration.signature() != signature {
        let text = format!(
            "the entry `{}` has other parameters or another result here than where the call was made: \
             the two programs were built from different sources",
            registration.name
        );
        return Err(Error::new(ErrorKind::SignatureMismatch, text));
    }
    Ok(registration)
}

fn unknown(name: &str) -> Error {
    let mut known: Vec<&str> = all().map(|registration| registration.name).collect();
    known.sort_unstable();
    let count = known.len();
    // Enough to see a misspelling or a missing crate, and still one paragraph.
    known.truncate(20);
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let text = format!(
        "no entry `{name}` in this program, which has {count} ({known}{}); a crate that the program never names in code is \
         dropped by the linker, with its entries: write `use the_crate as _;` in the program",
        if count > 20 { ", …" } else { "" }
    );
    Error::new(ErrorKind::UnknownEntry, text)
}

/// Looks for two entries with one key. Found once per program, told each time.
pub(crate) fn check() -> Result<()> {
    static CLASH: OnceLock<Option<String>> = OnceLock::new();
    let clash = CLASH.get_or_init(|| {
        let mut entries: Vec<_> = all()
            .map(|registration| (registration.key(), registration))
            .collect();
        entries.sort_by(|(a, _), (b, _)| (&a.name, &a.place).cmp(&(&b.name, &b.place)));
        let pair = entries.windows(2).find(|pair| pair[0].0 == pair[1].0)?;
        let (one, other) = (pair[0].1, pair[1].1);
        Some(format!(
            "two entries are named `{}`, at {} and at {}: give one of them another name",
            one.name, one.position, other.position
        ))
    });
    match clash {
        None => Ok(()),
        Some(text) => Err(Error::new(ErrorKind::DuplicateEntry, text.clone())),
    }
}

/// Looks inside a result by its type and not by its tokens, so that aliases of `Result` count.
///
/// Method lookup tries `Probe<Result<..>>` by value before it borrows, so the trait that asks for less is the fallback.
#[derive(Debug)]
pub struct Probe<'a, T>(pub &'a T);

/// For results.
pub trait ExitCodeOfResult {
    /// 1 for `Err`.
    fn mproc_exit_code(&self) -> i32;
}

impl<T, E> ExitCodeOfResult for Probe<'_, Result<T, E>> {
    fn mproc_exit_code(&self) -> i32 {
        i32::from(self.0.is_err())
    }
}

/// For anything else.
pub trait ExitCodeOfAny {
    /// 0.
    fn mproc_exit_code(&self) -> i32;
}

impl<T> ExitCodeOfAny for &Probe<'_, T> {
    fn mproc_exit_code(&self) -> i32 {
        0
    }
}
