//! Prints what a child of an ordinary program is like. The program itself blocks signals and has handlers.

use std::ffi::OsString;

use mproc_tests::facts::{Facts, become_peculiar};

#[mproc::entry]
fn child() -> (Vec<OsString>, Facts) {
    (std::env::args_os().collect(), Facts::of_this_process())
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        become_peculiar();
        let (arguments, facts) = child::spawn()?.join()?;
        println!("same arguments: {}", arguments.iter().eq(&std::env::args_os().collect::<Vec<_>>()));
        println!("{facts:?}");
        println!("{:?}", child::process().env_clear().start()?.join()?.1);
        Ok(())
    }
}
