//! Runs calls that `layout-writer` made, in children where it can, and prints what comes of each. It depends on
//! `layout-unnamed`, and does not name it.

use mproc::{Call, Failure};

#[mproc::entry(name = "layout: other parameter")]
fn other_parameter(x: u32) -> u64 {
    x.into()
}

#[mproc::entry(name = "layout: other result")]
fn other_result() -> u32 {
    7
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        println!("{}", layout_library::double::spawn(1)?.join()?);
        for line in std::io::stdin().lines() {
            match serde_json::from_str::<Call<u64>>(&line?) {
                Ok(call) => println!("{}", call.spawn()?.join()?),
                Err(error) => println!("{error}"),
            }
        }
        Ok(())
    }
}
