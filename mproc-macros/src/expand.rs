//! What is written beside an item that can be an entry.
//!
//! The item itself is kept as written. Everything else hangs behind the one type that is added, see [`behind`].
//!
//! Three kinds of spans are in use. The user's types keep theirs wherever they are written, so that a type which cannot travel is
//! underlined in the signature; the compiler merges complaints that are the same at the same place, however often we write it.
//! What stands for the item, its type and its functions, is located at the item's name and resolved as the macro's own: messages
//! and editors lead to the item, and lints know that nobody wrote this. Locals are mixed-site, so that no parameter
//! can collide with them, whatever its name.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ItemImpl, Type};

use crate::args::Arguments;
use crate::borrowed::text;
use crate::item::{self, Function, Parameter, Passing, spoken};
use crate::validate::Entry;

/// Writes out an entry: the item, and what makes it one.
pub(crate) fn entry(entry: &Entry<'_>, arguments: &Arguments) -> TokenStream {
    let (item, beside) = match entry {
        Entry::Function(function, tokens) => {
            (tokens, FunctionEntry::new(function, arguments).expand())
        }
        Entry::Run(implementation, tokens) => {
            (tokens, RunEntry::new(implementation, arguments).expand())
        }
    };
    quote!(#item #beside)
}

/// The place of `span`, with the name resolution and the lints of generated code.
pub(crate) fn generated_at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// Puts `items` behind `front`, in a second call of `#[entry]` that writes them after it.
///
/// Inside an `impl` no type can be declared, and the compiler says so of each item that cannot stand there. This way there
/// is one such item, and the rest is written only where that one may stand.
pub(crate) fn behind(
    front: &TokenStream,
    items: &TokenStream,
    mproc: &TokenStream,
    span: Span,
) -> TokenStream {
    quote_spanned!(span=> #[#mproc::entry(=> #items)] #front)
}

/// The items that [`behind`] left in the attribute's arguments, if this is its call.
pub(crate) fn items_behind(arguments: &TokenStream) -> Option<TokenStream> {
    let mut tokens = arguments.clone().into_iter();
    let arrow = [tokens.next()?.to_string(), tokens.next()?.to_string()];
    (arrow == ["=", ">"]).then(|| tokens.collect())
}

/// The names that the items of a function's entry have in common.
struct FunctionEntry<'a> {
    function: &'a Function,
    parameters: Vec<Parameter>,
    result: Type,
    /// The function's name, and the name of the type that is added.
    name: Ident,
    arguments: &'a Arguments,
    mproc: TokenStream,
    span: Span,
}

impl<'a> FunctionEntry<'a> {
    fn new(function: &'a Function, arguments: &'a Arguments) -> Self {
        let mut name = function.signature.ident.clone();
        let span = generated_at(name.span());
        name.set_span(span);
        FunctionEntry {
            function,
            parameters: function.parameters(),
            result: function.result(),
            name,
            arguments,
            mproc: arguments.mproc(span),
            span,
        }
    }

    fn expand(&self) -> TokenStream {
        let items = [
            self.starters(),
            self.entry(),
            self.unary(),
            self.registered(),
            submission(&self.name, &self.mproc, self.span),
        ];
        // These use the function, also when it is deprecated.
        let quiet =
            item::is_deprecated(&self.function.attributes).then(|| quote!(#[allow(deprecated)]));
        let items = items
            .iter()
            .filter(|item| !item.is_empty())
            .map(|item| quote!(#quiet #item))
            .collect();
        let added = added_type(self.function);
        behind(&added, &items, &self.mproc, self.span)
    }

    /// `spawn`, `process` and `bind`, with the parameters of the function.
    fn starters(&self) -> TokenStream {
        let Self {
            name,
            mproc,
            result,
            span,
            ..
        } = self;
        let visibility = &self.function.visibility;
        let carried = item::carried(&self.function.attributes, item::TO_CODE);
        let names = self
            .parameters
            .iter()
            .map(|parameter| &parameter.name)
            .collect::<Vec<_>>();
        let types = self
            .parameters
            .iter()
            .map(|parameter| &parameter.written)
            .collect::<Vec<_>>();
        let puts = self.parameters.iter().map(|parameter| self.put(parameter));
        let encoded = Ident::new("arguments", Span::mixed_site().located_at(*span));
        let link = link_to(self.function);
        let spawn =
            format!("Calls {link} with these arguments in a process of its own, started here.");
        let process = format!(
            "Describes a process that will call {link} with these arguments, to be named, configured and started."
        );
        let bind = format!(
            "Binds {link} to these arguments: a value that can be kept, sent elsewhere and run there."
        );
        quote_spanned! {*span=>
            #carried
            #[allow(dead_code, clippy::too_many_arguments)]
            impl #name {
                #[doc = #spawn]
                #visibility fn spawn(#(#names: #types),*) -> #mproc::Result<#mproc::Child<#result>> {
                    Self::process(#(#names),*).start()
                }

                #[doc = #process]
                #visibility fn process(#(#names: #types),*) -> #mproc::Process<#result> {
                    Self::bind(#(#names),*).process()
                }

                #[doc = #bind]
                #visibility fn bind(#(#names: #types),*) -> #mproc::Call<#result> {
                    let mut #encoded = #mproc::__private::Arguments::new::<Self>();
                    #(#puts)*
                    #encoded.into_call()
                }
            }
        }
    }

    fn put(&self, parameter: &Parameter) -> TokenStream {
        let name = &parameter.name;
        let label = spoken(name);
        let carrier = self.carrier(parameter);
        let encoded = Ident::new("arguments", Span::mixed_site().located_at(self.span));
        let value = match parameter.passing {
            Passing::Value => quote_spanned!(self.span=> &#name),
            Passing::Lent(_) => name.to_token_stream(),
        };
        quote_spanned!(self.span=> #encoded.put(#label, #carrier, #value);)
    }

    /// How the parameter travels. Its bounds are demanded here, so every token lies on its type.
    fn carrier(&self, parameter: &Parameter) -> TokenStream {
        match &parameter.passing {
            Passing::Value => wire(&parameter.written, self.arguments),
            Passing::Lent(borrowed) => lent(borrowed, self.arguments),
        }
    }

    fn entry(&self) -> TokenStream {
        let Self {
            name,
            mproc,
            result,
            span,
            ..
        } = self;
        let arrive = self
            .parameters
            .iter()
            .map(|parameter| self.arrives(parameter));
        let readable = self.readable();
        let given = (0..self.parameters.len()).map(|index| {
            Ident::new(
                &format!("argument{index}"),
                Span::mixed_site().located_at(*span),
            )
        });
        let given = given.collect::<Vec<_>>();
        let to = Ident::new("to", Span::mixed_site().located_at(*span));
        let puts = self
            .parameters
            .iter()
            .zip(&given)
            .map(|(parameter, given)| {
                let label = spoken(&parameter.name);
                let carrier = self.carrier(parameter);
                let value = match &parameter.passing {
                    Passing::Value => quote_spanned!(*span=> &#given),
                    Passing::Lent(borrowed) => {
                        quote_spanned!(*span=> #mproc::__private::lend::<#borrowed>(&#given))
                    }
                };
                quote_spanned!(*span=> #to.put(#label, #carrier, #value);)
            });
        let short = self
            .parameters
            .iter()
            .zip(&given)
            .map(|(parameter, given)| {
                let carrier = self.carrier(parameter);
                let value = match &parameter.passing {
                    Passing::Value => quote_spanned!(*span=> #given),
                    Passing::Lent(borrowed) => {
                        quote_spanned!(*span=> #mproc::__private::lend::<#borrowed>(#given))
                    }
                };
                quote_spanned!(*span=> #to.put(#carrier, #value))
            });
        quote_spanned! {*span=>
            impl #mproc::Entry for #name {
                type Args = (#(#arrive,)*);
                type Output = #result;
                const NAME: &'static str = #readable;
                #[allow(unused_variables)]
                #[inline]
                fn put((#(#given,)*): Self::Args, #to: &mut #mproc::__private::Arguments) {
                    #(#puts)*
                }
                #[allow(unused_variables)]
                #[inline(always)]
                fn put_short((#(#given,)*): &Self::Args, #to: &mut #mproc::__private::Short<'_>) -> bool {
                    true #(&& #short)*
                }
            }
        }
    }

    /// `Unary`, where there is one parameter.
    fn unary(&self) -> TokenStream {
        let Self {
            name, mproc, span, ..
        } = self;
        let [parameter] = &self.parameters[..] else {
            return TokenStream::new();
        };
        let arrives = self.arrives(parameter);
        quote_spanned! {*span=>
            impl #mproc::Unary for #name {
                type Arg = #arrives;
                #[inline]
                fn alone(argument: Self::Arg) -> Self::Args {
                    (argument,)
                }
            }
        }
    }

    /// The type of the parameter as it comes out of the message: `String` for `&str`.
    fn arrives(&self, parameter: &Parameter) -> TokenStream {
        let mproc = &self.mproc;
        match &parameter.passing {
            Passing::Value => parameter.written.to_token_stream(),
            Passing::Lent(borrowed) => {
                quote_spanned!(self.span=> <#borrowed as #mproc::__private::Lend>::Owned)
            }
        }
    }

    fn registered(&self) -> TokenStream {
        let Self {
            name,
            mproc,
            result,
            span,
            ..
        } = self;
        let from = Ident::new("from", Span::mixed_site().located_at(*span));
        let taken = (0..self.parameters.len()).map(|index| {
            Ident::new(
                &format!("argument{index}"),
                Span::mixed_site().located_at(*span),
            )
        });
        let taken = taken.collect::<Vec<_>>();
        let takes = self
            .parameters
            .iter()
            .zip(&taken)
            .map(|(parameter, taken)| {
                let label = spoken(&parameter.name);
                let carrier = self.carrier(parameter);
                quote_spanned!(*span=> let #taken = #from.take(#label, #carrier)?;)
            });
        let given = self
            .parameters
            .iter()
            .zip(&taken)
            .map(|(parameter, taken)| match &parameter.passing {
                Passing::Value => taken.to_token_stream(),
                Passing::Lent(borrowed) => {
                    quote_spanned!(*span=> #mproc::__private::lend::<#borrowed>(&#taken))
                }
            });
        let call = quote_spanned! {*span=>
            #(#takes)*
            #from.finish()?;
            ::core::result::Result::Ok(#name(#(#given),*))
        };
        registered(
            name,
            result,
            &self.readable(),
            &from,
            &call,
            self.arguments,
            *span,
        )
    }

    fn readable(&self) -> TokenStream {
        readable(&spoken(&self.name), self.arguments, self.span)
    }
}

/// The type that carries a function's entry: empty, so that it has no value to be mistaken for the function.
pub(crate) fn added_type(function: &Function) -> TokenStream {
    let mut name = function.signature.ident.clone();
    let span = generated_at(name.span());
    name.set_span(span);
    let visibility = &function.visibility;
    let carried = item::carried(&function.attributes, item::TO_TYPE);
    let documentation = format!(
        "The entry of {}: what runs it in a process of its own.",
        link_to(function)
    );
    quote_spanned! {span=>
        #carried
        #[doc = #documentation]
        #[allow(non_camel_case_types, dead_code)]
        #visibility enum #name {}
    }
}

/// A link to the function for rustdoc, which the parentheses tell from the type of the same name.
fn link_to(function: &Function) -> String {
    let name = &function.signature.ident;
    // rustdoc cannot parse the link to a name that is a keyword.
    if *name == spoken(name) {
        format!("[`{name}()`]")
    } else {
        format!("`{name}()`")
    }
}

/// The names that the items of an entry on `impl Run` have in common.
struct RunEntry<'a> {
    implementation: &'a ItemImpl,
    arguments: &'a Arguments,
    mproc: TokenStream,
    span: Span,
}

impl<'a> RunEntry<'a> {
    fn new(implementation: &'a ItemImpl, arguments: &'a Arguments) -> Self {
        let span = generated_at(implementation.self_ty.span());
        RunEntry {
            implementation,
            arguments,
            mproc: arguments.mproc(span),
            span,
        }
    }

    fn expand(&self) -> TokenStream {
        let carried = item::carried(&self.implementation.attrs, item::TO_CODE);
        let items = [
            self.entry(),
            self.registered(),
            self.run(),
            submission(&self.implementation.self_ty, &self.mproc, self.span),
        ];
        items.iter().map(|item| quote!(#carried #item)).collect()
    }

    fn entry(&self) -> TokenStream {
        let Self { mproc, span, .. } = self;
        let worker = &self.implementation.self_ty;
        let output = self.output();
        let readable = self.readable();
        let carrier = wire(worker, self.arguments);
        quote_spanned! {*span=>
            impl #mproc::Entry for #worker {
                type Args = (#worker,);
                type Output = #output;
                const NAME: &'static str = #readable;
                #[inline]
                fn put((worker,): Self::Args, to: &mut #mproc::__private::Arguments) {
                    to.put("self", #carrier, &worker);
                }
                #[inline(always)]
                fn put_short((worker,): &Self::Args, to: &mut #mproc::__private::Short<'_>) -> bool {
                    to.put(#carrier, worker)
                }
            }
        }
    }

    fn registered(&self) -> TokenStream {
        let Self { mproc, span, .. } = self;
        let worker = &self.implementation.self_ty;
        let from = Ident::new("from", Span::mixed_site().located_at(*span));
        let taken = Ident::new("worker", Span::mixed_site().located_at(*span));
        let carrier = wire(worker, self.arguments);
        let call = quote_spanned! {*span=>
            let #taken = #from.take("self", #carrier)?;
            #from.finish()?;
            ::core::result::Result::Ok(<#worker as #mproc::Run>::run(#taken))
        };
        registered(
            worker,
            &self.output(),
            &self.readable(),
            &from,
            &call,
            self.arguments,
            *span,
        )
    }

    fn run(&self) -> TokenStream {
        let Self { mproc, span, .. } = self;
        let worker = &self.implementation.self_ty;
        let carrier = wire(worker, self.arguments);
        quote_spanned! {*span=>
            impl #mproc::__private::RegisteredRun for #worker {
                fn into_arguments(self) -> #mproc::__private::Arguments {
                    let mut arguments = #mproc::__private::Arguments::new::<Self>();
                    arguments.put("self", #carrier, &self);
                    arguments
                }
            }
        }
    }

    fn output(&self) -> Type {
        let Self { mproc, span, .. } = self;
        let worker = &self.implementation.self_ty;
        item::run_output(self.implementation)
            .cloned()
            // The compiler says that it is missing; we go on with something that says nothing more.
            .unwrap_or_else(|| syn::parse_quote_spanned!(*span=> <#worker as #mproc::Run>::Output))
    }

    fn readable(&self) -> TokenStream {
        readable(
            &text(&self.implementation.self_ty),
            self.arguments,
            self.span,
        )
    }
}

/// `__private::Registered`, what the two kinds of entries differ in being `call`, which reads from `from`.
fn registered(
    entry: &impl ToTokens,
    value: &Type,
    readable: &TokenStream,
    from: &Ident,
    call: &TokenStream,
    arguments: &Arguments,
    span: Span,
) -> TokenStream {
    let mproc = arguments.mproc(span);
    let explicit = arguments.name.is_some();
    let carrier = wire(value, arguments);
    quote_spanned! {span=>
        impl #mproc::__private::Registered for #entry {
            type Value = #value;
            const NAME: &'static str = #readable;
            const EXPLICIT: bool = #explicit;
            const POSITION: #mproc::__private::Position = #mproc::__private::Position {
                package: ::core::option_env!("CARGO_PKG_VERSION"),
                file: ::core::file!(),
                line: ::core::line!(),
                column: ::core::column!(),
            };
            #[inline]
            fn call(
                #from: &mut impl #mproc::__private::Takes,
            ) -> ::core::result::Result<#value, #mproc::__private::Undecodable> {
                #call
            }
            #[inline]
            fn value() -> #mproc::__private::Wire<#value> {
                #carrier
            }
            fn exit_code(value: &#value) -> i32 {
                use #mproc::__private::{ExitCodeOfAny as _, ExitCodeOfResult as _};
                (&#mproc::__private::Probe(value)).mproc_exit_code()
            }
        }
    }
}

/// `wire::<T>()`, lying on the type from its first token to its last: that is where the compiler says what the type lacks.
fn wire(carried: &Type, arguments: &Arguments) -> TokenStream {
    let (start, end) = ends(carried);
    let mproc = arguments.mproc(start);
    let call = quote_spanned!(end=> ());
    quote_spanned!(start=> #mproc::__private::wire::<#carried>#call)
}

/// `lent::<U>(…)`, lying on the type in the same way, and so does what asks whether the type may be lent.
fn lent(carried: &Type, arguments: &Arguments) -> TokenStream {
    let (start, end) = ends(carried);
    let mproc = arguments.mproc(start);
    let how = quote_spanned!(end=> HOW);
    let how = quote_spanned!(start=> #mproc::__private::Lending::<#carried>::#how);
    let call = quote_spanned!(end=> (#how));
    // Unused where a unique handle answers for itself, and that error is enough.
    quote_spanned! {start=> {
        #[allow(unused_imports)]
        use #mproc::__private::LendingOfAny as _;
        #mproc::__private::lent::<#carried>#call
    }}
}

/// The places of a type's first and last tokens.
fn ends(written: &Type) -> (Span, Span) {
    let mut tokens = written
        .to_token_stream()
        .into_iter()
        .map(|token| token.span());
    let first = tokens.next().unwrap_or_else(Span::call_site);
    let last = tokens.last().unwrap_or(first);
    (first, last)
}

/// The entry's line in the program's list of entries.
fn submission(entry: &impl ToTokens, mproc: &TokenStream, span: Span) -> TokenStream {
    quote_spanned! {span=>
        const _: () = {
            #mproc::__private::inventory::submit! { #mproc::__private::Listed::new::<#entry>() }
        };
    }
}

/// The name under which the entry is known: the user's, or its path.
fn readable(name: &str, arguments: &Arguments, span: Span) -> TokenStream {
    match &arguments.name {
        Some(name) => name.to_token_stream(),
        None => {
            let name = Literal::string(name);
            quote_spanned!(span=> ::core::concat!(::core::module_path!(), "::", #name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_behind_comes_out_behind() {
        let items = quote!(impl f {} const _: () = (););
        let whole = behind(
            &quote!(
                enum f {}
            ),
            &items,
            &quote!(::mproc),
            Span::call_site(),
        );
        let attribute = syn::parse2::<syn::ItemEnum>(whole).unwrap().attrs.remove(0);
        let arguments = attribute.meta.require_list().unwrap().tokens.clone();
        assert_eq!(
            items_behind(&arguments).unwrap().to_string(),
            items.to_string()
        );
        assert!(items_behind(&quote!(name = "x")).is_none());
    }
}
