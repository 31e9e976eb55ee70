//! The macros of mproc. Use them through `mproc`: they are documented there, beside the types they work with, where their
//! examples can run.
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

#[expect(missing_docs, reason = "documented at the re-export")]
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

#[expect(missing_docs, reason = "documented at the re-export")]
#[proc_macro]
pub fn main(input: TokenStream) -> TokenStream {
    main_macro::expand(input.into())
        .unwrap_or_else(|error| fallback::main(&error))
        .into()
}
