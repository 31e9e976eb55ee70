//! `main!` around a function, with its attributes, documentation and result.
#![deny(warnings)]

mproc::main! {
    /// Says nothing.
    #[allow(unused_variables)]
    fn main() -> Result<(), Box<dyn std::error::Error>> {
        let unused = 1;
        let early: u8 = "7".parse()?;
        if early == 7 {
            return Ok(());
        }
        Ok(())
    }
}
