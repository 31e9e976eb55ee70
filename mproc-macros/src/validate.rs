//! What may not be an entry, and what to write instead.
//!
//! Each refusal is one function, one message, on the token to change. A mistake that only follows from another one is not
//! reported: a method's `Self`, a reference's lifetime parameter.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, Error, FnArg, GenericParam, ImplItem, ItemImpl, Path, ReturnType, Safety, Signature,
    Type, TypeReference,
};

use crate::borrowed::{Borrow, borrows_in, owned, owned_path, text};
use crate::item::{Function, Item, Kind, without_groups};

const WHAT_CAN_BE: &str = "`#[mproc::entry]` goes on a function or on an `impl mproc::Run for …`";

/// An item that can be an entry.
pub(crate) enum Entry<'a> {
    Function(&'a Function, &'a TokenStream),
    Run(&'a ItemImpl, &'a TokenStream),
}

/// Passes the item on, or says everything that is wrong with it.
pub(crate) fn check(item: &Item) -> syn::Result<Entry<'_>> {
    match &item.kind {
        Kind::Function(function) => {
            check_function(function).map(|()| Entry::Function(function, &item.tokens))
        }
        Kind::Impl(implementation) => {
            check_impl(implementation).map(|()| Entry::Run(implementation, &item.tokens))
        }
        Kind::Other(first) => Err(not_an_entry(first)),
        Kind::Unreadable(error) => Err(error.clone()),
    }
}

/// The messages so far.
#[derive(Default)]
struct Refusals(Option<Error>);

impl Refusals {
    fn refuse(&mut self, token: impl ToTokens, message: impl std::fmt::Display) {
        let error = Error::new_spanned(token, message);
        match &mut self.0 {
            Some(earlier) => earlier.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn into_result(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

fn check_function(function: &Function) -> syn::Result<()> {
    let signature = &function.signature;
    let Some(body) = &function.body else {
        return Err(Error::new_spanned(
            &signature.ident,
            "an entry needs a body; write a function that makes this call, and put `#[mproc::entry]` on it",
        ));
    };
    // These two say that the whole item is in the wrong place, and the rest would only follow from it.
    check_place(signature, body)?;
    check_name(signature)?;

    let refusals = &mut Refusals::default();
    check_attributes(&function.attributes, refusals);
    check_qualifiers(signature, refusals);
    let borrows = check_result(signature, refusals) | check_parameters(signature, refusals);
    check_generics(signature, borrows, refusals);
    std::mem::take(refusals).into_result()
}

fn not_an_entry(first: &TokenTree) -> Error {
    Error::new_spanned(
        first,
        format!("`{first}` cannot be an entry; {WHAT_CAN_BE}"),
    )
}

fn check_place(signature: &Signature, body: &TokenStream) -> syn::Result<()> {
    let remedy =
        "move it out of the `impl`, or put `#[mproc::entry]` on an `impl mproc::Run for …`";
    if let Some(receiver) = signature.receiver() {
        let message = format!(
            "an entry cannot take `self`; a child process finds a free function by name: {remedy}"
        );
        return Err(Error::new_spanned(receiver, message));
    }
    if let Some(self_type) =
        self_type_in(signature.to_token_stream()).or_else(|| self_type_in_body(body))
    {
        let message =
            format!("an entry cannot stand inside an `impl`, where `Self` has a meaning; {remedy}");
        return Err(Error::new_spanned(self_type, message));
    }
    Ok(())
}

fn self_type_in(tokens: TokenStream) -> Option<TokenTree> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => Some(TokenTree::Ident(ident)),
        TokenTree::Group(group) => self_type_in(group.stream()),
        _ => None,
    })
}

/// Finds `Self` in a body, unless an item or macro in that body may be what gives it a meaning.
fn self_type_in_body(body: &TokenStream) -> Option<TokenTree> {
    fn may_declare_self(tokens: TokenStream) -> bool {
        let declares = ["impl", "trait", "struct", "enum", "union"];
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => declares.iter().any(|keyword| ident == keyword),
            TokenTree::Punct(punct) => punct.as_char() == '!',
            TokenTree::Group(group) => may_declare_self(group.stream()),
            TokenTree::Literal(_) => false,
        })
    }
    if may_declare_self(body.clone()) {
        None
    } else {
        self_type_in(body.clone())
    }
}

/// True if no type can be declared where the function stands.
pub(crate) fn is_misplaced(function: &Function) -> bool {
    match &function.body {
        Some(body) => check_place(&function.signature, body).is_err(),
        None => true,
    }
}

fn check_name(signature: &Signature) -> syn::Result<()> {
    if signature.ident == "main" {
        let message = "`main` cannot be an entry; write `mproc::main! { fn main() … }` around it, and mark the functions that it starts";
        return Err(Error::new_spanned(&signature.ident, message));
    }
    Ok(())
}

fn check_attributes(attributes: &[Attribute], refusals: &mut Refusals) {
    for attribute in attributes
        .iter()
        .filter(|attribute| is_entry(attribute.path()))
    {
        refusals.refuse(
            attribute,
            "this is an entry already; leave one `#[mproc::entry]`",
        );
    }
}

/// True for the path `mproc::entry`. A bare `entry` may be somebody else's attribute.
pub(crate) fn is_entry(path: &Path) -> bool {
    let mut segments = path
        .segments
        .iter()
        .map(|segment| segment.ident.to_string());
    segments.next().as_deref() == Some("mproc")
        && segments.next().as_deref() == Some("entry")
        && segments.next().is_none()
}

fn check_qualifiers(signature: &Signature, refusals: &mut Refusals) {
    if let Some(variadic) = &signature.variadic {
        // Only `unsafe extern` functions are variadic, so that is no mistake of its own.
        refusals.refuse(
            variadic,
            "an entry cannot be variadic; take the arguments as a `Vec`",
        );
        return;
    }
    if let Some(token) = &signature.asyncness {
        refusals.refuse(
            token,
            "an entry cannot be `async`; a child process starts without a runtime: take `async` off and start one inside the function",
        );
    }
    if let Safety::Unsafe(token) = &signature.safety {
        refusals.refuse(
            token,
            "an entry cannot be `unsafe`; a child process cannot promise what its caller has to: write a safe function that makes this call",
        );
    }
    if let Some(abi) = &signature.abi {
        let abi_text = text(abi);
        refusals.refuse(
            abi,
            format!("an entry cannot be `{abi_text}`; take `{abi_text}` off, or write a plain function that makes this call"),
        );
    }
}

fn check_generics(signature: &Signature, borrows: bool, refusals: &mut Refusals) {
    let by_name = "a child process finds its entry by name, so each entry is one function";
    for parameter in &signature.generics.params {
        match parameter {
            GenericParam::Type(parameter) => {
                let message = format!(
                    "an entry cannot be generic; {by_name}: write one for each `{}`",
                    parameter.ident
                );
                refusals.refuse(&parameter.ident, message);
            }
            GenericParam::Const(parameter) => {
                let message = format!(
                    "an entry cannot be generic; {by_name}: write one for each `{}`, or make it an argument",
                    parameter.ident
                );
                refusals.refuse(&parameter.ident, message);
            }
            // The lifetime is there for a borrow that is refused where it stands.
            GenericParam::Lifetime(_) if borrows => {}
            GenericParam::Lifetime(parameter) => {
                let lifetime = &parameter.lifetime;
                let message = format!(
                    "leave the lifetime `{lifetime}` out; what the caller lends travels as bytes, and the child owns it for as long as the call lasts"
                );
                refusals.refuse(lifetime, message);
            }
        }
    }
}

/// Refuses what cannot travel, and returns true if a borrow inside a type was among it.
fn check_parameters(signature: &Signature, refusals: &mut Refusals) -> bool {
    let mut borrows = false;
    for input in &signature.inputs {
        let FnArg::Typed(parameter) = input else {
            continue;
        };
        if let Some(attribute) = parameter
            .attrs
            .iter()
            .find(|attribute| is_conditional(attribute))
        {
            refusals.refuse(
                attribute,
                "an entry's parameter cannot be conditional; write one function for each condition",
            );
        }
        match without_groups(&parameter.ty) {
            Type::Reference(reference) => borrows |= check_lent(reference, signature, refusals),
            Type::FnPtr(pointer) => refusals.refuse(
                pointer,
                "an entry cannot take a function pointer; it means nothing in another process: take an `mproc::Call`",
            ),
            _ => borrows |= check_travels(&parameter.ty, "take", refusals),
        }
    }
    borrows
}

fn check_lent(reference: &TypeReference, signature: &Signature, refusals: &mut Refusals) -> bool {
    if reference.mutability.is_some() {
        let message = format!(
            "an entry cannot take `&mut`; the child would change a copy of its own: take `{}` and return it",
            owned(&reference.elem)
        );
        refusals.refuse(reference, message);
        return false;
    }
    match (&reference.lifetime, without_groups(&reference.elem)) {
        (_, Type::Reference(second)) => {
            let message = format!(
                "an entry can be lent one reference deep; write `&{}`",
                text(innermost(second))
            );
            refusals.refuse(reference, message);
            false
        }
        (_, Type::TraitObject(object)) => {
            let message = format!(
                "an entry cannot be lent `{}`; the child has to know the type: name it",
                text(&object)
            );
            refusals.refuse(object, message);
            false
        }
        // A lifetime that the function declares is refused where it is declared.
        (Some(lifetime), elem) if signature.generics.lifetimes().next().is_none() => {
            let message = format!(
                "leave the lifetime `{lifetime}` out and write `&{}`; what the child is lent lives as long as the call there",
                text(elem)
            );
            refusals.refuse(lifetime, message);
            check_travels(elem, "take", refusals)
        }
        (_, elem) => check_travels(elem, "take", refusals),
    }
}

fn innermost(reference: &TypeReference) -> &Type {
    match without_groups(&reference.elem) {
        Type::Reference(deeper) => innermost(deeper),
        elem => elem,
    }
}

fn is_conditional(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr")
}

/// Refuses what cannot come back, and returns true if a borrow was among it.
fn check_result(signature: &Signature, refusals: &mut Refusals) -> bool {
    let ReturnType::Type(_, result) = &signature.output else {
        return false;
    };
    match without_groups(result) {
        Type::Never(never) => {
            refusals.refuse(
                never,
                "an entry cannot return `!`; nothing would come back to `join`: return `()`, and let `std::process::exit` end the child",
            );
            false
        }
        _ => check_travels(result, "return", refusals),
    }
}

/// Refuses what is seen to borrow inside a type that has to travel, and returns true if there was such a thing.
fn check_travels(written: &Type, verb: &str, refusals: &mut Refusals) -> bool {
    let borrows = borrows_in(written);
    for borrow in &borrows {
        match borrow {
            Borrow::Reference(reference) => {
                let refused = text(reference);
                let instead = owned(&reference.elem);
                let message = match (verb, without_groups(written)) {
                    ("return", Type::Reference(_)) => {
                        format!(
                            "an entry cannot return `{refused}`; what it borrows from stays in the child: return `{instead}`"
                        )
                    }
                    ("return", _) => {
                        format!(
                            "an entry cannot return `{refused}` inside another type; what it borrows from stays in the child: write `{instead}`"
                        )
                    }
                    _ => format!(
                        "an entry cannot take `{refused}` inside another type; only a whole parameter can be lent: write `{instead}`"
                    ),
                };
                refusals.refuse(reference, message);
            }
            Borrow::Path(path) => {
                let refused = text(path);
                let remedy = match owned_path(path) {
                    Some(instead) => format!("write `{instead}`"),
                    None => "use a type that owns what it holds".to_owned(),
                };
                let message =
                    format!("an entry cannot {verb} `{refused}`, which borrows; {remedy}");
                refusals.refuse(path, message);
            }
            Borrow::Pointer(pointer) => {
                let message = format!(
                    "an entry cannot {verb} `{}`; an address means nothing in another process: send the value it points to",
                    text(pointer)
                );
                refusals.refuse(pointer, message);
            }
            Borrow::Closure(closure) => {
                let message = format!(
                    "an entry cannot {verb} a closure, `{}`; code does not travel: make the closure's body an entry, and send an `mproc::Call` of it",
                    text(closure)
                );
                refusals.refuse(closure, message);
            }
            Borrow::ImplTrait(unnamed) => {
                let message = format!(
                    "an entry cannot {verb} `impl Trait`; the other process has to know the type: name it in place of `{}`",
                    text(unnamed)
                );
                refusals.refuse(unnamed, message);
            }
        }
    }
    !borrows.is_empty()
}

fn check_impl(implementation: &ItemImpl) -> syn::Result<()> {
    let Some((path, _)) = &implementation.trait_ else {
        let message = format!(
            "an `impl` without a trait cannot be an entry; {WHAT_CAN_BE}, so put it on a free function"
        );
        return Err(Error::new_spanned(&implementation.self_ty, message));
    };
    let is_run = path
        .segments
        .last()
        .is_some_and(|last| last.ident == "Run" && last.arguments.is_none());
    if !is_run || implementation.modifiers.polarity.is_some() {
        let message = format!("an `impl {}` cannot be an entry; {WHAT_CAN_BE}", text(path));
        return Err(Error::new_spanned(path, message));
    }

    let refusals = &mut Refusals::default();
    check_attributes(&implementation.attrs, refusals);
    for parameter in &implementation.generics.params {
        let (token, name) = match parameter {
            GenericParam::Type(parameter) => (
                parameter.ident.to_token_stream(),
                parameter.ident.to_string(),
            ),
            GenericParam::Const(parameter) => (
                parameter.ident.to_token_stream(),
                parameter.ident.to_string(),
            ),
            GenericParam::Lifetime(parameter) => {
                let lifetime = &parameter.lifetime;
                let message = format!(
                    "an entry cannot borrow for `{lifetime}`; the value travels to the child: let `{}` own what it holds",
                    text(&implementation.self_ty)
                );
                refusals.refuse(lifetime, message);
                continue;
            }
        };
        let message = format!(
            "an entry cannot be generic; a child process finds its entry by name, so each entry is one type: write one impl for each `{name}`"
        );
        refusals.refuse(token, message);
    }
    if implementation.generics.params.is_empty() {
        check_travels(&implementation.self_ty, "take", refusals);
    }
    for item in &implementation.items {
        match item {
            ImplItem::Type(output) if output.ident == "Output" => {
                check_travels(&output.ty, "return", refusals);
            }
            ImplItem::Fn(run) if run.sig.ident == "run" => check_qualifiers(&run.sig, refusals),
            _ => {}
        }
    }
    std::mem::take(refusals).into_result()
}

/// True for `impl Run for …`, by whatever path.
pub(crate) fn is_run(implementation: &ItemImpl) -> bool {
    let last = implementation
        .trait_
        .as_ref()
        .and_then(|(path, _)| path.segments.last());
    last.is_some_and(|last| last.ident == "Run" && last.arguments.is_none())
        && implementation.modifiers.polarity.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn messages(tokens: TokenStream) -> Vec<String> {
        match check(&Item::parse(tokens)) {
            Ok(_) => Vec::new(),
            Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
        }
    }

    #[test]
    fn one_mistake_is_one_message() {
        for mistake in [
            quote!(
                async fn f() {}
            ),
            quote!(
                unsafe fn f() {}
            ),
            quote!(
                extern "C" fn f() {}
            ),
            quote!(
                fn f<T>(value: T, more: Vec<T>) -> T {
                    value
                }
            ),
            quote!(
                fn f<const N: usize>(values: [u8; N]) {}
            ),
            quote!(
                fn f<'a>(text: &'a str) {}
            ),
            quote!(
                fn f<'a>(text: &'a str) -> &'a str {
                    text
                }
            ),
            quote!(
                fn f(text: &str) -> &str {
                    text
                }
            ),
            quote!(
                fn f(text: &'static str) {}
            ),
            quote!(
                fn f(texts: Vec<&str>) {}
            ),
            quote!(
                fn f(texts: &[&str]) {}
            ),
            quote!(
                fn f(text: &&str) {}
            ),
            quote!(
                fn f(text: Option<Cow<'_, str>>) {}
            ),
            quote!(
                fn f(text: &mut String) {}
            ),
            quote!(
                fn f(text: *const u8) {}
            ),
            quote!(
                fn f(text: impl ToString) {}
            ),
            quote!(
                fn f() -> impl ToString {
                    1
                }
            ),
            quote!(
                fn f() -> ! {
                    loop {}
                }
            ),
            quote!(
                fn f(g: fn()) {}
            ),
            quote!(
                fn f(&self) -> &Self {
                    self
                }
            ),
            quote!(
                fn f() {
                    Self::g()
                }
            ),
            quote!(
                fn f(#[cfg(unix)] text: String) {}
            ),
            quote!(
                fn f();
            ),
            quote!(
                fn main() {}
            ),
            quote!(
                #[mproc::entry]
                fn f() {}
            ),
            quote!(
                struct S<'a>(&'a str);
            ),
            quote!(
                pub mod m {}
            ),
            quote!(impl S { fn f(&self) {} }),
            quote!(impl Clone for S { fn clone(&self) -> S { S } }),
            quote!(
                impl<T> Run for S<T> {
                    type Output = ();
                    fn run(self) {}
                }
            ),
            quote!(
                impl<'a> Run for S<'a> {
                    type Output = ();
                    fn run(self) {}
                }
            ),
            quote!(impl Run for S<'_> { type Output = (); fn run(self) {} }),
            quote!(impl Run for S { type Output = &'static str; fn run(self) -> &'static str { "" } }),
        ] {
            assert_eq!(
                messages(mistake.clone()).len(),
                1,
                "{mistake}: {:?}",
                messages(mistake.clone())
            );
        }
    }

    #[test]
    fn two_mistakes_are_two_messages() {
        assert_eq!(
            messages(quote!(
                async unsafe fn f(a: &mut u8, b: Vec<&str>) {}
            ))
            .len(),
            4
        );
    }

    #[test]
    fn what_can_be_an_entry_is() {
        for entry in [
            quote!(
                fn f() {}
            ),
            quote!(
                pub(crate) const fn r#type(r#in: u8) -> u8 {
                    r#in
                }
            ),
            quote!(
                fn f(
                    mut a: u8,
                    (b, _): (u8, u8),
                    text: &str,
                    path: &std::path::Path,
                    all: &[String],
                ) {
                }
            ),
            quote!(
                fn f(text: std::borrow::Cow<'static, str>) {}
            ),
            quote!(
                fn f() {
                    struct S;
                    impl S {
                        fn g() -> Self {
                            S
                        }
                    }
                }
            ),
            quote!(
                #[track_caller]
                #[inline]
                fn f() -> Result<(), String> {
                    Ok(())
                }
            ),
            quote!(
                #[entry]
                fn somebody_elses() {}
            ),
            quote!(impl mproc::Run for S { type Output = Vec<u8>; fn run(self) -> Vec<u8> { Vec::new() } }),
        ] {
            assert_eq!(messages(entry.clone()), [] as [String; 0], "{entry}");
        }
    }
}
