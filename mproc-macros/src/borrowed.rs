//! The borrows inside a type: what in it belongs to this process whatever the types it names, and what to write instead.
//!
//! Only what can be seen in the tokens is found here. That a named type stores a reference, or is not serializable, is for the
//! compiler to find, at the bounds that the generated code puts on the type.

use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{GenericArgument, Path, PathArguments, PathSegment, Type, TypeReference};

use crate::item::without_groups;

/// Something in a type that cannot travel: an address here, or a type without a name.
pub(crate) enum Borrow<'a> {
    /// `&T` or `&mut T`.
    Reference(&'a TypeReference),
    /// A path with an elided or named lifetime in it, such as `Cow<'_, str>`.
    Path(&'a Path),
    /// `*const T` or `*mut T`.
    Pointer(&'a syn::TypePtr),
    /// `dyn Fn(…)`: captures and code of this process.
    Closure(&'a syn::TypeTraitObject),
    /// `impl Trait`, which is no type that the other side could name.
    ImplTrait(&'a syn::TypeImplTrait),
}

/// Finds the outermost borrows of a type, in the order of the text.
pub(crate) fn borrows_in(written: &Type) -> Vec<Borrow<'_>> {
    let mut finder = Finder(Vec::new());
    finder.visit_type(written);
    finder.0
}

struct Finder<'a>(Vec<Borrow<'a>>);

impl<'a> Visit<'a> for Finder<'a> {
    fn visit_type_reference(&mut self, reference: &'a TypeReference) {
        self.0.push(Borrow::Reference(reference));
    }

    fn visit_type_ptr(&mut self, pointer: &'a syn::TypePtr) {
        self.0.push(Borrow::Pointer(pointer));
    }

    fn visit_type_impl_trait(&mut self, unnamed: &'a syn::TypeImplTrait) {
        self.0.push(Borrow::ImplTrait(unnamed));
    }

    fn visit_type_trait_object(&mut self, object: &'a syn::TypeTraitObject) {
        let is_closure = object.bounds.iter().any(|bound| match bound {
            syn::TypeParamBound::Trait(bound) => bound.path.segments.last().is_some_and(|last| {
                matches!(last.arguments, PathArguments::Parenthesized(_))
                    && last.ident.to_string().starts_with("Fn")
            }),
            _ => false,
        });
        if is_closure {
            self.0.push(Borrow::Closure(object));
        } else {
            visit::visit_type_trait_object(self, object);
        }
    }

    fn visit_path(&mut self, path: &'a Path) {
        if path.segments.iter().any(names_a_lifetime) {
            self.0.push(Borrow::Path(path));
        } else {
            visit::visit_path(self, path);
        }
    }

    // References in the signature of a function type belong to its callers: `PhantomData<fn(&str)>` travels.
    fn visit_type_fn_ptr(&mut self, _: &'a syn::TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments(&mut self, _: &'a syn::ParenthesizedGenericArguments) {
    }

    // The length of an array is an expression of its own.
    fn visit_expr(&mut self, _: &'a syn::Expr) {}
}

fn names_a_lifetime(segment: &PathSegment) -> bool {
    let mut lifetimes = generic_arguments(segment).filter_map(|argument| match argument {
        GenericArgument::Lifetime(lifetime) => Some(lifetime),
        _ => None,
    });
    // `Cow<str>` leaves its lifetime out, and there is no `Cow` without one.
    let hides_one = segment.ident == "Cow" && generic_arguments(segment).count() == 1;
    hides_one || lifetimes.any(|lifetime| lifetime.ident != "static")
}

fn generic_arguments(segment: &PathSegment) -> impl Iterator<Item = &GenericArgument> {
    let arguments = match &segment.arguments {
        PathArguments::AngleBracketed(angle) => Some(&angle.args),
        _ => None,
    };
    arguments.into_iter().flatten()
}

/// The owned type to write in place of `&borrowed`.
pub(crate) fn owned(borrowed: &Type) -> String {
    match without_groups(borrowed) {
        Type::Slice(slice) => format!("Vec<{}>", text(&slice.elem)),
        Type::Path(path) => match path.path.segments.last() {
            Some(last) if last.ident == "str" => "String".to_owned(),
            Some(last) if last.ident == "Path" => "PathBuf".to_owned(),
            Some(last) if last.ident == "OsStr" => "OsString".to_owned(),
            Some(last) if last.ident == "CStr" => "CString".to_owned(),
            _ => text(borrowed),
        },
        Type::Reference(reference) => owned(&reference.elem),
        _ => text(borrowed),
    }
}

/// The owned type to write in place of a path with a lifetime, where one is known: `String` for `Cow<'_, str>`.
pub(crate) fn owned_path(path: &Path) -> Option<String> {
    let last = path.segments.last().filter(|last| last.ident == "Cow")?;
    generic_arguments(last).find_map(|argument| match argument {
        GenericArgument::Type(borrowed) => Some(owned(borrowed)),
        _ => None,
    })
}

/// Tokens as a person would space them.
pub(crate) fn text(tokens: &impl ToTokens) -> String {
    let mut spaced = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        (" ;", ";"),
        ("& ", "&"),
        ("* ", "*"),
        ("[ ", "["),
        (" ]", "]"),
        ("( ", "("),
        (" )", ")"),
        (" (", "("),
        (",)", ",)"),
    ] {
        spaced = spaced.replace(from, to);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn types_read_as_they_were_written() {
        let types = [
            "HashMap<String, Vec<u8>>",
            "&[u8; 4]",
            "&'a mut std::path::Path",
            "(u8, &str)",
            "*const u8",
            "Cow<'_, str>",
        ];
        for written in types {
            assert_eq!(text(&syn::parse_str::<Type>(written).unwrap()), written);
        }
    }

    #[test]
    fn what_to_own() {
        assert_eq!(owned(&parse_quote!(str)), "String");
        assert_eq!(owned(&parse_quote!([Vec<u8>])), "Vec<Vec<u8>>");
        assert_eq!(owned(&parse_quote!(std::path::Path)), "PathBuf");
        assert_eq!(owned(&parse_quote!(Config)), "Config");
        assert_eq!(
            owned_path(&parse_quote!(std::borrow::Cow<'_, [u8]>)).unwrap(),
            "Vec<u8>"
        );
        assert!(owned_path(&parse_quote!(Name<'_>)).is_none());
    }

    #[test]
    fn what_can_be_seen_to_borrow() {
        let count = |written: Type| borrows_in(&written).len();
        assert_eq!(count(parse_quote!(Vec<(&str, Cow<'_, str>, *const u8)>)), 3);
        assert_eq!(count(parse_quote!(Cow<'static, str>)), 0);
        assert_eq!(count(parse_quote!(Vec<Cow<str>>)), 1);
        assert_eq!(count(parse_quote!(PhantomData<fn(&str) -> &u8>)), 0);
        assert_eq!(count(parse_quote!(Box<dyn Fn(&str)>)), 1);
        assert_eq!(count(parse_quote!(Box<dyn Shape>)), 0);
        assert_eq!(
            count(parse_quote!(
                [u8; {
                    let x = &3;
                    *x
                }]
            )),
            0
        );
    }
}
