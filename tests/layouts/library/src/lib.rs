//! Entries in every place of a library where they may stand.

pub mod tree;

use mproc::Run;
use serde::{Deserialize, Serialize};

/// Twice its argument.
///
/// Doctests are merged into one program, whose harness has to start the right one of them in a child:
///
/// ```
/// # fn main() -> mproc::Result<()> {
/// assert_eq!(layout_library::double::spawn(21)?.join()?, 42);
/// # Ok(())
/// # }
/// ```
///
/// with an entry of its own,
///
/// ```
/// #[mproc::entry]
/// fn triple(x: u64) -> u64 { 3 * x }
///
/// assert_eq!(triple::spawn(14).unwrap().join().unwrap(), 42);
/// ```
///
/// with `main!`,
///
/// ```
/// #[mproc::entry]
/// fn half(x: u64) -> u64 { x / 2 }
///
/// mproc::main! {
///     fn main() -> mproc::Result<()> {
///         assert_eq!(half::spawn(84)?.join()?, 42);
///         Ok(())
///     }
/// }
/// ```
///
/// with children that have children and no environment,
///
/// ```
/// #[mproc::entry]
/// fn deep(levels: u64) -> u64 {
///     match levels {
///         0 => 0,
///         _ => 1 + deep::process(levels - 1).env_clear().start().unwrap().join().unwrap(),
///     }
/// }
///
/// assert_eq!(deep::spawn(3).unwrap().join().unwrap(), 3);
/// ```
///
/// and apart from the others.
///
/// ```standalone_crate
/// # fn main() -> mproc::Result<()> {
/// assert_eq!(layout_library::double::spawn(21)?.join()?, 42);
/// # Ok(())
/// # }
/// ```
#[mproc::entry]
pub fn double(x: u64) -> u64 {
    2 * x
}

/// An entry of another one's name, inside a function.
pub fn first_inner() -> mproc::Call<String> {
    #[mproc::entry]
    fn inner() -> String {
        "first".into()
    }
    inner::bind()
}

/// Two of the same name in two blocks of one function: nothing but their place tells them apart.
pub fn both_inner() -> [mproc::Call<String>; 2] {
    let second = {
        #[mproc::entry]
        fn inner() -> String {
            "second".into()
        }
        inner::bind()
    };
    let third = {
        #[mproc::entry]
        fn inner() -> String {
            "third".into()
        }
        inner::bind()
    };
    [second, third]
}

/// The one of two that is compiled.
#[cfg(unix)]
#[mproc::entry]
pub fn chosen() -> String {
    "unix".into()
}

/// The one of two that is not compiled.
#[cfg(not(unix))]
#[mproc::entry]
pub fn chosen() -> String {
    "not unix".into()
}

/// An entry by condition.
#[cfg_attr(all(), mproc::entry)]
pub fn by_condition() -> String {
    "by condition".into()
}

macro_rules! entries {
    ($($name:ident),*) => {$(
        /// Its own name.
        #[mproc::entry]
        pub fn $name() -> String {
            stringify!($name).into()
        }
    )*};
}

// All of them stand at one line; the columns differ.
entries!(one_of_macro, other_of_macro);

/// Found by this name wherever it moves.
#[mproc::entry(name = "layout: explicit")]
pub fn explicit(text: &str) -> String {
    text.to_uppercase()
}

/// An object with behaviour.
#[derive(Serialize, Deserialize)]
pub struct Adder {
    /// Is added.
    pub to: u64,
}

#[mproc::entry]
impl Run for Adder {
    type Output = u64;
    fn run(self) -> u64 {
        self.to + 1
    }
}

/// Its private part is in a crate that the program does not see.
pub fn call_of_a_private_entry() -> mproc::Call<u64> {
    #[mproc::entry]
    fn private(x: u64) -> u64 {
        x
    }
    private::bind(7)
}

#[cfg(test)]
mod tests {
    #[mproc::entry]
    fn only_in_tests(x: u64) -> u64 {
        super::double::spawn(x).unwrap().join().unwrap() + 1
    }

    #[test]
    fn entries_of_unit_tests_are_found() {
        assert_eq!(only_in_tests::spawn(3).unwrap().join().unwrap(), 7);
    }

    #[test]
    fn entries_of_the_library_are_found_in_its_unit_tests() {
        assert_eq!(super::double::spawn(3).unwrap().join().unwrap(), 6);
        assert_eq!(
            super::tree::branch::leaf::deep::spawn()
                .unwrap()
                .join()
                .unwrap(),
            "deep"
        );
    }
}
