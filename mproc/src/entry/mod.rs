//! Functions that another process can find: declared, registered by name, bound to arguments.

pub(crate) mod arguments;
pub(crate) mod batch;
pub(crate) mod boot;
pub(crate) mod call;
#[cfg(feature = "test")]
mod harness;
pub(crate) mod lend;
pub(crate) mod registry;

pub use boot::freeze_support;
pub use call::Call;

use crate::process::{Child, Process};

/// A function (or value with a [`run`](Run::run)) that can be called in another process. Implemented by
/// [`#[mproc::entry]`](macro@crate::entry) on the type that it adds beside the function, and by nothing else.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an entry",
    label = "not declared with `#[mproc::entry]`",
    note = "write `#[mproc::entry]` above the function `{Self}`"
)]
pub trait Entry: registry::Registered<Value = <Self as Entry>::Output> {
    /// The parameters as a tuple of what arrives: `String` for a `&str`.
    type Args;
    /// What the function returns, as written.
    type Output: 'static;
    /// The readable name: module path and function.
    const NAME: &'static str;
    /// Encodes all arguments, for who has them as a tuple.
    #[doc(hidden)]
    fn put(arguments: Self::Args, to: &mut arguments::Arguments);
    /// Encodes all arguments if they are short. False: they are not, or cannot be encoded so.
    #[doc(hidden)]
    fn put_short(arguments: &Self::Args, to: &mut arguments::Short<'_>) -> bool;
}

/// An entry with one parameter: what `map` and `imap` call for each item.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an entry with one parameter",
    note = "entries of several parameters are called with tuples, by the methods whose names begin with `star`"
)]
pub trait Unary: Entry {
    /// The parameter, as it arrives.
    type Arg;
    /// The tuple of this one argument.
    #[doc(hidden)]
    fn alone(argument: Self::Arg) -> Self::Args;
}

/// An object with behaviour: a value that is sent to a process of its own and run there. Python's subclass of `Process`.
///
/// Write [`#[mproc::entry]`](macro@crate::entry) above the `impl`; without it, the impl does not compile. The value travels,
/// so its type is serializable. Bring the trait into scope to call [`spawn`](Self::spawn) and its siblings on the value.
///
/// # Examples
///
/// ```
/// use mproc::Run;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Greeter { whom: String }
///
/// #[mproc::entry]
/// impl Run for Greeter {
///     type Output = String;
///     fn run(self) -> String { format!("hello {}", self.whom) }
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let child = Greeter { whom: "bob".into() }.spawn()?;
/// assert_eq!(child.join()?, "hello bob");
/// # Ok(())
/// # }
/// ```
pub trait Run: registry::RegisteredRun<Value = <Self as Run>::Output> + Sized {
    /// What [`run`](Self::run) returns.
    type Output: 'static;

    /// What the process does.
    fn run(self) -> Self::Output;

    /// The call of [`run`](Self::run) on this value, as a value itself.
    fn bind(self) -> Call<Self::Output> {
        self.into_arguments().into_call()
    }

    /// A process that will run this value, to be configured and started.
    fn process(self) -> Process<Self::Output> {
        self.bind().process()
    }

    /// Runs this value in a process of its own.
    ///
    /// # Errors
    ///
    /// See [`Process::start`].
    fn spawn(self) -> crate::Result<Child<Self::Output>> {
        self.process().start()
    }
}

/// For the macros' output.
#[doc(hidden)]
#[expect(unreachable_pub, reason = "`__private` exports all of it")]
pub mod macros {
    pub use super::arguments::{
        Arguments, Carrier, Incoming, Short, Takes, Undecodable, Wire, lend, lent, wire,
    };
    pub use super::lend::{
        ByReference, ByValueOnly, Lend, Lending, LendingOfAny, MayBeLent, UniqueHandle,
    };
    pub use super::registry::{
        ExitCodeOfAny, ExitCodeOfResult, Listed, Position, Probe, Registered, RegisteredRun,
    };
}
