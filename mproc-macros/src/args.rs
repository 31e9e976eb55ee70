//! What stands in `#[mproc::entry(…)]`: `name = "…"` and `crate = path`.
//!
//! A mistake here says nothing about the item below, so parsing always yields arguments to go on with, and the errors beside them.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, LitStr, Path, Token};

const WHAT_EXISTS: &str = "an entry takes `name = \"…\"` and `crate = path`";

/// The arguments of one `#[mproc::entry]`.
#[derive(Default)]
pub(crate) struct Arguments {
    /// The name under which the entry is registered, if the user chose one.
    pub(crate) name: Option<LitStr>,
    mproc: Option<Path>,
}

impl Arguments {
    /// The path at which the generated code finds mproc.
    pub(crate) fn mproc(&self, span: Span) -> TokenStream {
        match &self.mproc {
            Some(path) => quote::quote!(#path),
            None => quote::quote_spanned!(span=> ::mproc),
        }
    }
}

/// Reads the arguments, and says what was wrong with those that are left out.
pub(crate) fn parse(tokens: TokenStream) -> (Arguments, Option<Error>) {
    let mut arguments = Arguments::default();
    let mut refusals: Option<Error> = None;
    let parser = |input: ParseStream<'_>| {
        while !input.is_empty() {
            if let Err(error) = one_argument(input, &mut arguments) {
                match &mut refusals {
                    Some(earlier) => earlier.combine(error),
                    None => refusals = Some(error),
                }
                skip_to_comma(input)?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    };
    if let Err(error) = parser.parse2(tokens) {
        refusals.get_or_insert(error);
    }
    (arguments, refusals)
}

fn one_argument(input: ParseStream<'_>, arguments: &mut Arguments) -> syn::Result<()> {
    if input.peek(LitStr) {
        let name: LitStr = input.parse()?;
        let message = format!("write `name = {}`; {WHAT_EXISTS}", quote::quote!(#name));
        return Err(Error::new_spanned(name, message));
    }
    let key = input.call(Ident::parse_any).map_err(|error| {
        Error::new(error.span(), format!("expected an argument; {WHAT_EXISTS}"))
    })?;
    if key == "name" {
        let name = value_of(&key, input, "a string literal: `name = \"…\"`")?;
        refuse_repetition(&key, arguments.name.is_some())?;
        if LitStr::value(&name).is_empty() {
            return Err(Error::new_spanned(
                name,
                "an entry's name cannot be empty; leave `name` out, or write one",
            ));
        }
        arguments.name = Some(name);
    } else if key == "crate" {
        let path = value_of(&key, input, "a path without quotes: `crate = path`")?;
        refuse_repetition(&key, arguments.mproc.is_some())?;
        arguments.mproc = Some(path);
    } else {
        let message = format!("unknown argument `{key}`; {WHAT_EXISTS}");
        return Err(Error::new_spanned(key, message));
    }
    if !input.is_empty() && !input.peek(Token![,]) {
        return Err(input.error("expected `,` between the arguments"));
    }
    Ok(())
}

fn value_of<T: syn::parse::Parse>(
    key: &Ident,
    input: ParseStream<'_>,
    expected: &str,
) -> syn::Result<T> {
    if !input.peek(Token![=]) {
        return Err(Error::new_spanned(key, format!("`{key}` takes {expected}")));
    }
    input.parse::<Token![=]>()?;
    if input.is_empty() {
        return Err(Error::new_spanned(key, format!("`{key}` takes {expected}")));
    }
    input
        .parse()
        .map_err(|error| Error::new(error.span(), format!("`{key}` takes {expected}")))
}

fn refuse_repetition(key: &Ident, repeated: bool) -> syn::Result<()> {
    if repeated {
        return Err(Error::new_spanned(
            key,
            format!("`{key}` is given twice; leave one"),
        ));
    }
    Ok(())
}

fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<proc_macro2::TokenTree>()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn refused(tokens: TokenStream) -> Vec<String> {
        let (_, refusals) = parse(tokens);
        refusals
            .into_iter()
            .flatten()
            .map(|error| error.to_string())
            .collect()
    }

    #[test]
    fn both_arguments_in_either_order() {
        let (arguments, refusals) = parse(quote!(crate = self::inner, name = "greet",));
        assert!(refusals.is_none());
        assert_eq!(arguments.name.unwrap().value(), "greet");
        let (arguments, refusals) = parse(quote!(name = "greet", crate = ::other));
        assert!(refusals.is_none());
        assert_eq!(arguments.mproc(Span::call_site()).to_string(), ":: other");
    }

    #[test]
    fn each_mistake_is_one_message_and_the_rest_still_counts() {
        assert_eq!(refused(quote!(colour = 3, nmae = "x")).len(), 2);
        let (arguments, refusals) = parse(quote!(colour, name = "kept"));
        assert_eq!(refusals.into_iter().flatten().count(), 1);
        assert_eq!(arguments.name.unwrap().value(), "kept");
    }

    #[test]
    fn a_name_is_one_string_that_is_not_empty() {
        for tokens in [
            quote!(name),
            quote!(name =),
            quote!(name = 3),
            quote!(name = ""),
            quote!("x"),
            quote!(name = "a", name = "b"),
        ] {
            assert_eq!(refused(tokens.clone()).len(), 1, "{tokens}");
        }
    }
}
