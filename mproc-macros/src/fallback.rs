//! What is written after a refusal: the message, the item as it is, and a stand-in for what an entry would have added.
//!
//! One mistake is one message. Without the item every call of it would be an error too, and without the stand-in so
//! would be every `f::spawn(…)`.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Error, FnArg, ItemImpl};

use crate::args::Arguments;
use crate::borrowed::borrows_in;
use crate::expand::{added_type, behind, generated_at};
use crate::item::{Function, Item, Kind, without_groups};
use crate::validate::is_entry;

/// Writes out an item that cannot be an entry.
pub(crate) fn entry(item: &Item, arguments: &Arguments, error: &Error) -> TokenStream {
    let message = error.to_compile_error();
    let tokens = without_repeated_attribute(&item.tokens);
    let stand_in = match &item.kind {
        Kind::Function(function) => function_stand_in(function, arguments),
        Kind::Impl(implementation) => run_stand_in(implementation, arguments),
        Kind::Other(_) | Kind::Unreadable(_) => TokenStream::new(),
    };
    quote!(#message #tokens #stand_in)
}

/// Writes `refusals` before what was written all the same.
pub(crate) fn beside(refusals: Option<Error>, expanded: TokenStream) -> TokenStream {
    let messages = refusals.map(Error::into_compile_error);
    quote!(#messages #expanded)
}

/// Writes a `main` after a refused one, or the compiler would say that there is none.
pub(crate) fn main(error: &Error) -> TokenStream {
    let message = error.to_compile_error();
    quote!(fn main() { #message })
}

/// Takes out a second `#[mproc::entry]`, which would find fault with the same item once more.
fn without_repeated_attribute(tokens: &TokenStream) -> TokenStream {
    let tokens = tokens.clone().into_iter().collect::<Vec<_>>();
    let mut kept = TokenStream::new();
    let mut rest = &tokens[..];
    loop {
        rest = match rest {
            [
                TokenTree::Punct(pound),
                TokenTree::Group(attribute),
                rest @ ..,
            ] if pound.as_char() == '#' && is_entry_attribute(attribute) => rest,
            [token, rest @ ..] => {
                kept.extend([token.clone()]);
                rest
            }
            [] => return kept,
        };
    }
}

fn is_entry_attribute(attribute: &proc_macro2::Group) -> bool {
    syn::parse2::<syn::Meta>(attribute.stream()).is_ok_and(|meta| is_entry(meta.path()))
}

/// The added type with `spawn`, `process` and `bind` that take anything.
fn function_stand_in(function: &Function, arguments: &Arguments) -> TokenStream {
    let signature = &function.signature;
    // A function that stands in the wrong place cannot have a type beside it.
    if signature.receiver().is_some() || function.body.is_none() || signature.ident == "main" {
        return TokenStream::new();
    }
    let mut name = signature.ident.clone();
    let span = generated_at(name.span());
    name.set_span(span);
    let mproc = arguments.mproc(span);
    let visibility = &function.visibility;
    let result = nameable_result(function);
    let parameters = signature
        .inputs
        .iter()
        .filter(|input| matches!(input, FnArg::Typed(_)));
    let anything = parameters
        .map(|_| quote_spanned!(span=> _: impl ::core::marker::Sized))
        .collect::<Vec<_>>();
    let starters = quote_spanned! {span=>
        impl #name {
            #visibility fn spawn(#(#anything),*) -> #mproc::Result<#mproc::Child<#result>> { ::core::unreachable!() }
            #visibility fn process(#(#anything),*) -> #mproc::Process<#result> { ::core::unreachable!() }
            #visibility fn bind(#(#anything),*) -> #mproc::Call<#result> { ::core::unreachable!() }
        }
    };
    behind(&added_type(function), &starters, &mproc, span)
}

/// The result as written, if it can be written elsewhere.
fn nameable_result(function: &Function) -> TokenStream {
    let result = function.result();
    let nameable = function.signature.generics.params.is_empty()
        && borrows_in(&result).is_empty()
        && !matches!(without_groups(&result), syn::Type::Never(_));
    if nameable {
        result.to_token_stream()
    } else {
        quote!(())
    }
}

/// What an `impl Run` needs in order to compile, and nothing that works.
fn run_stand_in(implementation: &ItemImpl, arguments: &Arguments) -> TokenStream {
    let ItemImpl {
        generics, self_ty, ..
    } = implementation;
    let is_run = implementation
        .trait_
        .as_ref()
        .and_then(|(path, _)| path.segments.last())
        .is_some_and(|last| last.ident == "Run");
    if !is_run {
        return TokenStream::new();
    }
    let span = generated_at(syn::spanned::Spanned::span(self_ty));
    let mproc = arguments.mproc(span);
    let (parameters, _, conditions) = generics.split_for_impl();
    let predicates = conditions.map(|conditions| &conditions.predicates);
    quote_spanned! {span=>
        impl #parameters #mproc::__private::Registered for #self_ty where Self: 'static, #predicates {
            type Value = <Self as #mproc::Run>::Output;
            const NAME: &'static str = "";
            const EXPLICIT: bool = false;
            const POSITION: #mproc::__private::Position =
                #mproc::__private::Position { package: ::core::option::Option::None, file: "", line: 0, column: 0 };
            fn call(
                _: &mut #mproc::__private::Incoming,
            ) -> ::core::result::Result<Self::Value, #mproc::__private::Undecodable> {
                ::core::unreachable!()
            }
            fn value() -> #mproc::__private::Wire<Self::Value> { ::core::unreachable!() }
            fn exit_code(_: &Self::Value) -> i32 { ::core::unreachable!() }
        }
        impl #parameters #mproc::__private::RegisteredRun for #self_ty where Self: 'static, #predicates {
            fn into_arguments(self) -> #mproc::__private::Arguments { ::core::unreachable!() }
        }
    }
}
