//! `mproc::main!`, in both its forms.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Path, Safety, Signature, Token, Visibility};

use crate::expand::generated_at;

const BOTH_FORMS: &str =
    "write `mproc::main! { fn main() { … } }` or `mproc::main!(path::to::function);`";

/// Writes the program's `main`.
pub(crate) fn expand(input: TokenStream) -> syn::Result<TokenStream> {
    if input.is_empty() {
        return Err(Error::new(
            Span::call_site(),
            format!("`main!` needs to know what to run; {BOTH_FORMS}"),
        ));
    }
    if let Ok(path) = Parser::parse2(parse_path, input.clone()) {
        return Ok(main_of_path(&path));
    }
    refuse_call(input.clone())?;
    Parser::parse2(parse_main, input).map(|main| main_of_function(&main))
}

/// `mproc::main!(run);`
fn parse_path(input: ParseStream<'_>) -> syn::Result<Path> {
    let path: Path = input.parse()?;
    // rustfmt, or a hand, may leave one.
    input.parse::<Option<Token![,]>>()?;
    Ok(path)
}

/// `mproc::main!(run())` has one token too many, which the general message would not say.
fn refuse_call(input: TokenStream) -> syn::Result<()> {
    if let Ok(call) = syn::parse2::<syn::ExprCall>(input) {
        let arguments = &call.args;
        let parentheses = quote_spanned!(call.paren_token.span.join()=> (#arguments));
        let message =
            "`main!` takes the path of the function and calls it itself; leave the parentheses out";
        return Err(Error::new_spanned(parentheses, message));
    }
    Ok(())
}

fn main_of_path(path: &Path) -> TokenStream {
    let span = generated_at(path.span());
    quote_spanned! {span=>
        fn main() -> impl ::std::process::Termination {
            ::mproc::freeze_support();
            #path()
        }
    }
}

/// `mproc::main! { fn main() { … } }`
struct Main {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: TokenStream,
}

fn parse_main(input: ParseStream<'_>) -> syn::Result<Main> {
    let neither = |at: ParseStream<'_>| at.error(format!("this is not a `main`; {BOTH_FORMS}"));
    let attributes = input
        .call(Attribute::parse_outer)
        .map_err(|_| neither(input))?;
    let visibility = input.parse()?;
    let start = input.fork();
    let signature: Signature = input.parse().map_err(|_| neither(&start))?;
    check(&attributes, &signature)?;
    if !input.peek(syn::token::Brace) {
        return Err(input.error("`main` needs a body: `{ … }`"));
    }
    let body: proc_macro2::Group = input.parse()?;
    if !input.is_empty() {
        return Err(input.error("`main!` takes one function; move the rest out of it"));
    }
    Ok(Main {
        attributes,
        visibility,
        signature,
        body: body.to_token_stream(),
    })
}

fn check(attributes: &[Attribute], signature: &Signature) -> syn::Result<()> {
    let name = &signature.ident;
    if name != "main" {
        let message = format!(
            "the function in `main!` is named `main`; rename it, or leave it outside and write `mproc::main!({name});`"
        );
        return Err(Error::new_spanned(name, message));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            "`main` cannot be generic; take the parameters off",
        ));
    }
    if !signature.inputs.is_empty() {
        return Err(Error::new_spanned(
            &signature.inputs,
            "`main` takes no parameters; read the command line from `std::env::args()`",
        ));
    }
    if let Some(variadic) = &signature.variadic {
        return Err(Error::new_spanned(
            variadic,
            "`main` takes no parameters; read the command line from `std::env::args()`",
        ));
    }
    if let Safety::Unsafe(token) = &signature.safety {
        return Err(Error::new_spanned(
            token,
            "`main` cannot be `unsafe`; take it off and write `unsafe { … }` inside",
        ));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(
            abi,
            "`main` cannot be `extern`; take it off",
        ));
    }
    match &signature.asyncness {
        Some(token) if !attributes.iter().any(may_bring_a_runtime) => Err(Error::new_spanned(
            token,
            "an `async fn main` needs a runtime; write the attribute that brings one above it, such as `#[tokio::main]`",
        )),
        _ => Ok(()),
    }
}

/// False for the attributes that the compiler knows itself.
fn may_bring_a_runtime(attribute: &Attribute) -> bool {
    let built_in = [
        "allow",
        "cold",
        "cfg",
        "deny",
        "deprecated",
        "doc",
        "expect",
        "forbid",
        "inline",
        "must_use",
        "no_mangle",
        "track_caller",
        "warn",
    ];
    !built_in.iter().any(|name| attribute.path().is_ident(name))
}

/// The user's `main` stands inside the program's, so that its attributes see a function and boot comes before them.
fn main_of_function(main: &Main) -> TokenStream {
    let Main {
        attributes,
        visibility,
        signature,
        body,
    } = main;
    let output = &signature.output;
    let name = &signature.ident;
    let span = generated_at(name.span());
    quote_spanned! {span=>
        #visibility fn #name() #output {
            ::mproc::freeze_support();
            #(#attributes)*
            #signature #body
            main()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::quote;

    fn refused(tokens: TokenStream) -> String {
        expand(tokens).unwrap_err().to_string()
    }

    #[test]
    fn both_forms() {
        for tokens in [
            quote!(run),
            quote!(crate::cli::run),
            quote!(run::<u8>),
            quote!(run,),
            quote!(
                fn main() {}
            ),
            quote!(
                /** Says hello. */
                #[tokio::main]
                pub async fn main() -> Result<(), Error> {
                    Ok(())
                }
            ),
        ] {
            assert!(expand(tokens.clone()).is_ok(), "{tokens}");
        }
    }

    #[test]
    fn what_is_not_a_main() {
        assert!(refused(quote!()).contains("what to run"));
        assert!(refused(quote!(run())).contains("parentheses"));
        assert!(refused(quote!(|| {})).contains("not a `main`"));
        assert!(
            refused(quote!(
                fn start() {}
            ))
            .contains("main!(start)")
        );
        assert!(
            refused(quote!(
                fn main(arguments: Vec<String>) {}
            ))
            .contains("no parameters")
        );
        assert!(
            refused(quote!(
                fn main<T>() {}
            ))
            .contains("generic")
        );
        assert!(
            refused(quote!(
                #[inline]
                async fn main() {}
            ))
            .contains("runtime")
        );
        assert!(
            refused(quote!(
                unsafe fn main() {}
            ))
            .contains("unsafe")
        );
        assert!(
            refused(quote!(
                fn main();
            ))
            .contains("body")
        );
        assert!(
            refused(quote!(
                fn main() {}
                fn helper() {}
            ))
            .contains("one function")
        );
    }

    #[test]
    fn a_child_boots_before_the_runtime() {
        let expanded = expand(quote!(
            #[tokio::main]
            async fn main() {}
        ))
        .unwrap()
        .to_string();
        assert!(expanded.find("freeze_support").unwrap() < expanded.find("tokio").unwrap());
    }
}
