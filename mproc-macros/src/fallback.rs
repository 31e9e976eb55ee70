//! What is written after a refusal: the message, the item as it is, and a stand-in for what an entry would have added.
//!
//! One mistake is one message. Without the item every use of it would be an error too, and without the stand-in so would be
//! every `f::spawn(…)`.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ImplItem, ItemImpl};

use crate::args::Arguments;
use crate::borrowed::borrows_in;
use crate::expand::{added_type, behind, generated_at};
use crate::item::{Function, Item, Kind, Parameter, run_output, without_groups};
use crate::validate::{is_entry, is_misplaced, is_run};

/// Writes out an item that cannot be an entry.
pub(crate) fn entry(item: &Item, arguments: &Arguments, error: &Error) -> TokenStream {
    let message = error.to_compile_error();
    let tokens = without_repeated_attribute(&item.tokens);
    match &item.kind {
        Kind::Function(function) => {
            let stand_in = function_stand_in(function, arguments);
            quote!(#message #tokens #stand_in)
        }
        Kind::Impl(implementation) if is_run(implementation) => {
            let stand_in = impl_stand_in(implementation, arguments);
            quote!(#message #stand_in)
        }
        _ => quote!(#message #tokens),
    }
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

/// The added type with `spawn`, `process` and `bind`, which a function with these generics and parameters may have, too.
fn function_stand_in(function: &Function, arguments: &Arguments) -> TokenStream {
    let signature = &function.signature;
    if is_misplaced(function) || signature.ident == "main" {
        return TokenStream::new();
    }
    let mut name = signature.ident.clone();
    let span = generated_at(name.span());
    name.set_span(span);
    let mproc = arguments.mproc(span);
    let visibility = &function.visibility;
    let result = result_that_can_be_written(function);
    let parameters = function.parameters();
    let parameters = parameters
        .iter()
        .map(|Parameter { name, written, .. }| quote!(#name: #written));
    let parameters = quote!(#(#parameters),*);
    let (generics, conditions) = (&signature.generics, &signature.generics.where_clause);
    let starters = quote_spanned! {span=>
        #[allow(unused_variables, dead_code)]
        impl #name {
            #visibility fn spawn #generics(#parameters) -> #mproc::Result<#mproc::Child<#result>> #conditions { ::core::unreachable!() }
            #visibility fn process #generics(#parameters) -> #mproc::Process<#result> #conditions { ::core::unreachable!() }
            #visibility fn bind #generics(#parameters) -> #mproc::Call<#result> #conditions { ::core::unreachable!() }
        }
    };
    behind(&added_type(function), &starters, &mproc, span)
}

fn result_that_can_be_written(function: &Function) -> TokenStream {
    let result = function.result();
    let refused =
        !borrows_in(&result).is_empty() || matches!(without_groups(&result), syn::Type::Never(_));
    if refused {
        quote!(())
    } else {
        result.to_token_stream()
    }
}

/// The impl, of a trait of its own that asks for nothing more than is there, and what the value would have got from `Run`.
fn impl_stand_in(implementation: &ItemImpl, arguments: &Arguments) -> TokenStream {
    let ItemImpl {
        generics, self_ty, ..
    } = implementation;
    let span = generated_at(self_ty.span());
    let mproc = arguments.mproc(span);
    let stand_in = Ident::new("StandInForRun", span);
    let mut kept = implementation.clone();
    kept.attrs.retain(|attribute| !is_entry(attribute.path()));
    kept.trait_ = kept
        .trait_
        .map(|(_, for_token)| (stand_in.clone().into(), for_token));
    let declared = implementation.items.iter().map(|item| match item {
        ImplItem::Type(chosen) => {
            let name = &chosen.ident;
            quote_spanned!(span=> type #name;)
        }
        ImplItem::Fn(method) => {
            let mut signature = method.sig.clone();
            if let Some(FnArg::Receiver(receiver)) = signature.inputs.first_mut() {
                receiver.mutability = None;
            }
            quote_spanned!(span=> #signature;)
        }
        _ => TokenStream::new(),
    });
    let output = run_output(implementation).filter(|output| borrows_in(output).is_empty());
    let output = output.map_or_else(|| quote!(()), ToTokens::to_token_stream);
    let (parameters, _, conditions) = generics.split_for_impl();
    quote_spanned! {span=>
        #[allow(dead_code, async_fn_in_trait)]
        const _: () = {
            trait #stand_in { #(#declared)* }
            #kept
            impl #parameters #self_ty #conditions {
                fn run(self) -> #output { ::core::unreachable!() }
                fn spawn(self) -> #mproc::Result<#mproc::Child<#output>> { ::core::unreachable!() }
                fn process(self) -> #mproc::Process<#output> { ::core::unreachable!() }
                fn bind(self) -> #mproc::Call<#output> { ::core::unreachable!() }
            }
        };
    }
}
