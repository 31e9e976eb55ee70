//! Prints calls for `layout-reader`, a program with other entries.

use mproc::{Call, Failure};

/// The reader's takes something else.
#[mproc::entry(name = "layout: other parameter")]
fn other_parameter(x: u64) -> u64 {
    x
}

/// The reader's gives something else.
#[mproc::entry(name = "layout: other result")]
fn other_result() -> u64 {
    7
}

#[mproc::entry]
fn only_here(x: u64) -> u64 {
    x
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let calls: [Call<u64>; 5] = [
            layout_library::double::bind(21),
            layout_unnamed::hidden::bind(7),
            only_here::bind(7),
            other_parameter::bind(7),
            other_result::bind(),
        ];
        for call in calls {
            println!("{}", serde_json::to_string(&call)?);
        }
        Ok(())
    }
}
