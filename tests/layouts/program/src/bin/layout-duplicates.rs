//! Two entries of one name: the program ends before its `main` begins.

#[mproc::entry(name = "layout: twice")]
fn one() {}

mod other {
    #[mproc::entry(name = "layout: twice")]
    pub(crate) fn other() {}
}

mproc::main! {
    fn main() {
        println!("main has begun");
        let _ = (one::spawn(), other::other::spawn());
    }
}

#[cfg(test)]
mod tests {
    /// Nothing boots before the tests, so it is the start that is told.
    #[test]
    fn a_start_is_refused() {
        let error = super::one::spawn().unwrap_err();
        assert_eq!(error.kind(), mproc::ErrorKind::DuplicateEntry);
        let text = error.to_string();
        assert!(text.contains("`layout: twice`"), "{text}");
        assert_eq!(text.matches("layout-duplicates.rs:").count(), 2, "{text}");
    }
}
