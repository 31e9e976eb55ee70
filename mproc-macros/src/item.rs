//! The item below `#[mproc::entry]`, as we understand it.
//!
//! The tokens are kept as they came and written back untouched: only the head of a function is parsed, never its body, so that
//! an entry may use syntax that this crate's parser has not heard of yet.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, FnArg, ImplItem, ItemImpl, Meta, Pat, Signature, Token, Type, Visibility};

/// An item that `#[mproc::entry]` was written on, right or wrong.
pub(crate) struct Item {
    /// The item as the user wrote it.
    pub(crate) tokens: TokenStream,
    pub(crate) kind: Kind,
}

/// What the item is.
pub(crate) enum Kind {
    Function(Box<Function>),
    Impl(Box<ItemImpl>),
    /// Neither a function nor an impl: a struct, a module, a macro call. Holds the token that says so.
    Other(TokenTree),
    /// Tokens that this crate cannot read.
    Unreadable(syn::Error),
}

/// The head of a function, and its body unread.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    /// Absent for a function that a trait or an extern block only declares.
    pub(crate) body: Option<TokenStream>,
}

/// One parameter of an entry, as the generated code needs it.
pub(crate) struct Parameter {
    /// Its name in `spawn`, `process` and `bind`: the user's, or `arg1` for a pattern in second place.
    pub(crate) name: Ident,
    /// Its type as written.
    pub(crate) written: Type,
    pub(crate) passing: Passing,
}

/// How an argument reaches the function in the other process.
pub(crate) enum Passing {
    /// The value itself travels.
    Value,
    /// The parameter is `&U`: an owned form of this `U` travels and is lent to the function.
    Lent(Box<Type>),
}

impl Item {
    pub(crate) fn parse(tokens: TokenStream) -> Item {
        let kind = Parser::parse2(parse_kind, tokens.clone()).unwrap_or_else(Kind::Unreadable);
        Item { tokens, kind }
    }
}

fn parse_kind(input: ParseStream<'_>) -> syn::Result<Kind> {
    let start = input.fork();
    let attributes = input.call(Attribute::parse_outer)?;
    let visibility = input.parse()?;
    // `safe fn` stands in an extern block, where the want of a body is what there is to say.
    if input.peek(Token![safe]) && input.peek2(Token![fn]) {
        input.parse::<Token![safe]>()?;
    }
    if stands_before_fn(input) {
        let signature = input.parse()?;
        let body = if input.peek(syn::token::Brace) {
            let body;
            syn::braced!(body in input);
            Some(body.parse()?)
        } else {
            input.parse::<Token![;]>()?;
            None
        };
        let function = Function {
            attributes,
            visibility,
            signature,
            body,
        };
        return Ok(Kind::Function(Box::new(function)));
    }
    if input.peek(Token![impl]) || (input.peek(Token![unsafe]) && input.peek2(Token![impl])) {
        let item = start.parse()?;
        input.parse::<TokenStream>()?;
        return Ok(Kind::Impl(Box::new(item)));
    }
    let first = input.parse()?;
    input.parse::<TokenStream>()?;
    Ok(Kind::Other(first))
}

/// True if what follows is a function's signature: any qualifiers, then `fn`.
fn stands_before_fn(input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    loop {
        if ahead.peek(Token![fn]) {
            return true;
        }
        let qualifier = ahead.peek(Token![const])
            || ahead.peek(Token![async])
            || ahead.peek(Token![unsafe])
            || ahead.peek(Token![extern])
            || ahead.peek(syn::LitStr);
        if !qualifier || ahead.parse::<TokenTree>().is_err() {
            return false;
        }
    }
}

impl Function {
    /// The parameters, `self` left out.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let typed = self.typed_inputs();
        let taken: Vec<&Ident> = typed
            .iter()
            .filter_map(|(_, pattern, _)| simple_name(pattern))
            .collect();
        let parameters = typed.iter().map(|(index, pattern, written)| Parameter {
            name: match simple_name(pattern) {
                // The name moves out of the pattern and keeps its place, so that editors and messages lead to it.
                Some(name) => name.clone(),
                None => free_name(*index, &taken),
            },
            written: (*written).clone(),
            passing: match without_groups(written) {
                Type::Reference(reference) => Passing::Lent(reference.elem.clone()),
                _ => Passing::Value,
            },
        });
        parameters.collect()
    }

    fn typed_inputs(&self) -> Vec<(usize, &Pat, &Type)> {
        let inputs = self
            .signature
            .inputs
            .iter()
            .filter_map(|input| match input {
                FnArg::Typed(typed) => Some(typed),
                FnArg::Receiver(_) => None,
            });
        let numbered = inputs.enumerate();
        numbered
            .map(|(index, typed)| (index, &*typed.pat, &*typed.ty))
            .collect()
    }

    /// The type that the function returns, as written.
    pub(crate) fn result(&self) -> Type {
        match &self.signature.output {
            syn::ReturnType::Type(_, written) => (**written).clone(),
            syn::ReturnType::Default => syn::parse_quote_spanned!(self.signature.ident.span()=> ()),
        }
    }
}

/// The name a pattern binds, when it binds the whole argument.
fn simple_name(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(bound) => Some(&bound.ident),
        Pat::Paren(inner) => simple_name(&inner.pat),
        _ => None,
    }
}

fn free_name(index: usize, taken: &[&Ident]) -> Ident {
    let mut name = format!("arg{index}");
    while taken.iter().any(|other| *other == &name) {
        name.push('_');
    }
    Ident::new(&name, Span::call_site())
}

/// The type itself, out of parentheses and of the invisible groups that `macro_rules!` puts around `$t:ty`.
pub(crate) fn without_groups(written: &Type) -> &Type {
    match written {
        Type::Group(group) => without_groups(&group.elem),
        Type::Paren(paren) => without_groups(&paren.elem),
        other => other,
    }
}

/// The name as a user says it: `type` for `r#type`.
pub(crate) fn spoken(name: &Ident) -> String {
    name.unraw().to_string()
}

/// The type `Output = …` that an impl of `Run` chooses.
pub(crate) fn run_output(item: &ItemImpl) -> Option<&Type> {
    item.items.iter().find_map(|item| match item {
        ImplItem::Type(chosen) if chosen.ident == "Output" => Some(&chosen.ty),
        _ => None,
    })
}

/// The attributes that the added type takes over from the function: when it exists, and who is to use it.
pub(crate) const TO_TYPE: &[&str] = &["cfg", "allow", "expect", "deprecated", "doc"];

/// The attributes that generated code takes over from the item: when it exists, and which lints the user switched off.
pub(crate) const TO_CODE: &[&str] = &["cfg", "allow", "expect"];

/// Those of the attributes that are among `wanted`, for what is written beside the item.
///
/// Of `doc` only `hidden` is taken. An `expect` becomes an `allow`: the expectation is the item's, and the generated code
/// need not meet it a second time.
pub(crate) fn carried(attributes: &[Attribute], wanted: &[&str]) -> TokenStream {
    let metas = attributes
        .iter()
        .filter_map(|attribute| carried_meta(&attribute.meta, wanted));
    let metas = metas.collect::<Vec<_>>();
    quote!(#(#[#metas])*)
}

fn carried_meta(meta: &Meta, wanted: &[&str]) -> Option<TokenStream> {
    let path = meta.path();
    if path.is_ident("cfg_attr") {
        let parts = meta.require_list().ok()?;
        let parts = parts
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .ok()?;
        let mut parts = parts.iter();
        let condition = parts.next()?;
        let carried = parts
            .filter_map(|meta| carried_meta(meta, wanted))
            .collect::<Vec<_>>();
        return (!carried.is_empty()).then(|| quote!(cfg_attr(#condition, #(#carried),*)));
    }
    if !wanted.iter().any(|name| path.is_ident(name)) {
        return None;
    }
    match meta {
        Meta::List(list) if path.is_ident("expect") => {
            let lints = &list.tokens;
            Some(quote!(allow(#lints)))
        }
        Meta::List(list) if path.is_ident("doc") => {
            (list.tokens.to_string() == "hidden").then(|| meta.to_token_stream())
        }
        Meta::NameValue(_) if path.is_ident("doc") => None,
        _ => Some(meta.to_token_stream()),
    }
}

/// True if `attributes` deprecate the item, whatever the condition.
pub(crate) fn is_deprecated(attributes: &[Attribute]) -> bool {
    fn deprecates(meta: &Meta) -> bool {
        if let Meta::List(list) = meta
            && list.path.is_ident("cfg_attr")
        {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            return parts.is_ok_and(|parts| parts.iter().skip(1).any(deprecates));
        }
        meta.path().is_ident("deprecated")
    }
    attributes
        .iter()
        .any(|attribute| deprecates(&attribute.meta))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(tokens: TokenStream) -> Box<Function> {
        match Item::parse(tokens).kind {
            Kind::Function(function) => function,
            Kind::Unreadable(error) => panic!("{error}"),
            _ => panic!("not a function"),
        }
    }

    fn names(tokens: TokenStream) -> Vec<String> {
        let parameters = function(tokens).parameters();
        parameters
            .iter()
            .map(|parameter| parameter.name.to_string())
            .collect()
    }

    #[test]
    fn a_pattern_gets_a_name_that_is_free() {
        assert_eq!(
            names(quote!(
                fn f(mut a: u8, (b, c): (u8, u8), _: u8, d @ 0..: u8) {}
            )),
            ["a", "arg1", "arg2", "d"]
        );
        assert_eq!(
            names(quote!(
                fn f(arg1: u8, (b, c): (u8, u8)) {}
            )),
            ["arg1", "arg1_"]
        );
    }

    #[test]
    fn the_body_is_not_read() {
        let body = function(quote!(fn f() { future syntax => %% })).body;
        assert_eq!(
            body.unwrap().to_string(),
            quote!(future syntax => %%).to_string()
        );
    }

    #[test]
    fn what_is_carried_over() {
        let kept = |tokens: TokenStream| carried(&function(tokens).attributes, TO_TYPE).to_string();
        assert_eq!(
            kept(quote!(
                #[inline]
                #[must_use]
                #[doc = "x"]
                fn f() {}
            )),
            ""
        );
        assert_eq!(
            kept(quote!(
                #[expect(a, reason = "b")]
                fn f() {}
            )),
            quote!(#[allow(a, reason = "b")]).to_string()
        );
        assert_eq!(
            kept(quote!(
                #[cfg_attr(unix, inline, cfg(x), doc(hidden))]
                fn f() {}
            )),
            quote!(#[cfg_attr(unix, cfg(x), doc(hidden))]).to_string()
        );
    }

    #[test]
    fn what_is_deprecated() {
        assert!(is_deprecated(
            &function(quote!(
                #[cfg_attr(unix, deprecated)]
                fn f() {}
            ))
            .attributes
        ));
        assert!(!is_deprecated(
            &function(quote!(
                #[cfg_attr(deprecated, inline)]
                fn f() {}
            ))
            .attributes
        ));
    }
}
