//! The macros of mproc. Use them through `mproc`, where each is documented beside the types it works with.
//!
//! This file receives the tokens and calls; the modules do the work, in the order in which a macro call passes through them.
//!
//! ```text
//! args.rs        what stands in #[entry(…)]
//! item.rs        the function or impl below it, as we understand it
//! validate.rs    what may not be an entry: each refusal one message, on one token
//! borrowed.rs    the borrows inside a type, and what to write in their place
//! expand.rs      what is written beside the item
//! fallback.rs    what is written instead after a refusal, so that one mistake is one message
//! main_macro.rs  main!
//! ```

use proc_macro::TokenStream;

mod args;
mod borrowed;
mod expand;
mod fallback;
mod item;
mod main_macro;
mod validate;

/// Makes a function, or a value with a `run` method, something that a process of its own can run.
///
/// # On a function
///
/// ```ignore
/// #[mproc::entry]
/// fn hello(name: &str) -> usize {
///     println!("hello {name}");
///     name.len()
/// }
///
/// hello("here");                        // still an ordinary function
/// let child = hello::spawn("bob")?;     // the same call in a process of its own
/// let length: usize = child.join()?;
/// let process = hello::process("ann").name("greeter");    // described, not yet started
/// let call: mproc::Call<usize> = hello::bind("eve");      // a value that can itself be sent
/// ```
///
/// The function stays exactly as written. Beside it stands a type of the same name (functions and types have separate
/// namespaces) with the functions `spawn`, `process` and `bind`, which take the function's own parameters and implement
/// `mproc::Entry`. A module or type of that name beside the function is therefore a name clash.
///
/// Parameters may be values of any type that is `Serialize + DeserializeOwned`, or shared references: the caller of
/// `spawn` lends, the bytes travel, the child owns them and lends them to the function. Patterns and `mut` work. The result
/// is any type that is `Serialize + DeserializeOwned`.
///
/// Refused, each with a message that says what to write: `async`, `unsafe` and `extern` functions, generics, `self`, `impl
/// Trait`, `&mut`, lifetimes, raw pointers, and references inside other types or in the result.
///
/// # On an impl of `Run`
///
/// ```ignore
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Worker { id: u32 }
///
/// #[mproc::entry]
/// impl mproc::Run for Worker {
///     type Output = u32;
///     fn run(self) -> u32 { self.id }
/// }
///
/// let child = Worker { id: 7 }.spawn()?;
/// ```
///
/// `spawn`, `process` and `bind` are then methods of the value. An `impl mproc::Run` without the attribute does not compile.
///
/// # Arguments
///
/// - `name = "…"` registers the entry under a name of your own instead of one made from its path and position, so that it can move
///   in the source and still be found. Two entries of one name are an error when the program boots.
/// - `crate = path` says where mproc is, if it is not at `::mproc`.
#[proc_macro_attribute]
pub fn entry(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(behind) = expand::items_behind(&arguments.clone().into()) {
        return [item, behind.into()].into_iter().collect();
    }
    let (arguments, refusals) = args::parse(arguments.into());
    let item = item::Item::parse(item.into());
    let expanded = match validate::check(&item) {
        Ok(entry) => expand::entry(&entry, &arguments),
        Err(error) => fallback::entry(&item, &arguments, &error),
    };
    fallback::beside(refusals, expanded).into()
}

/// The program's `main`, which first lets a child process find its entry.
///
/// ```ignore
/// mproc::main! {
///     fn main() -> mproc::Result<()> {
///         hello::spawn("bob")?.join()?;
///         Ok(())
///     }
/// }
/// ```
///
/// or, with the function elsewhere,
///
/// ```ignore
/// mproc::main!(run);
/// ```
///
/// A process that mproc started runs its entry here and exits; the program itself goes on into the function given. Attributes
/// stay on that function, so `#[tokio::main] async fn main` works, and a child is done before the runtime would start. The
/// result is whatever `main` may return. To write `main` by hand, begin it with `mproc::freeze_support()`.
#[proc_macro]
pub fn main(input: TokenStream) -> TokenStream {
    main_macro::expand(input.into())
        .unwrap_or_else(|error| fallback::main(&error))
        .into()
}
