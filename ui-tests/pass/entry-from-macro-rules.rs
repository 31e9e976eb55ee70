//! Macros may write entries, with types and names of their own.
#![deny(warnings)]

macro_rules! entries {
    ($($vis:vis $name:ident($($parameter:ident: $type:ty),*) -> $result:ty $body:block)*) => {
        $(
            #[mproc::entry]
            $vis fn $name($($parameter: $type),*) -> $result $body
        )*
    };
}

entries! {
    add(a: i32, b: i32) -> i32 { a + b }
    pub(crate) length(text: &str) -> usize { text.len() }
    count(all: &[String]) -> usize { all.len() }
}

// The two parameters have one name and different hygiene.
macro_rules! hygienic {
    ($name:ident, $first:ident) => {
        #[mproc::entry]
        fn $name($first: u8, x: u8) -> (u8, u8) {
            ($first, x)
        }
    };
}
hygienic!(pair, x);

macro_rules! twice {
    ($($module:ident)*) => {
        $(mod $module {
            #[mproc::entry]
            pub(crate) fn same() -> String { stringify!($module).to_owned() }
        })*
    };
}
twice!(a b);

fn main() {
    assert_eq!(add(1, 2), 3);
    assert_eq!(length("abc") + count(&[]), 3);
    let _ = (add::bind(1, 2), length::bind("abc"), count::bind(&[]));
    assert_eq!(pair(1, 2), (1, 2));
    let _ = pair::bind(1, 2);
    assert_eq!(a::same() + &b::same(), "ab");
    let _ = (a::same::bind(), b::same::bind());
}
