//! Entries may stand inside functions and blocks, also two of one name.
#![deny(warnings)]

fn one() -> u8 {
    #[mproc::entry]
    fn same(x: u8) -> u8 {
        x + 1
    }
    let _ = same::bind(1);
    same(1)
}

fn other() -> usize {
    #[mproc::entry]
    fn same(x: &str) -> usize {
        x.len()
    }
    let _ = same::bind("x");
    same("abc")
}

fn main() {
    assert_eq!((one(), other()), (2, 3));
    {
        #[mproc::entry]
        fn same() {}
        same();
    }
    let closure = || {
        #[mproc::entry]
        fn same() -> u8 {
            7
        }
        same()
    };
    assert_eq!(closure(), 7);
}
