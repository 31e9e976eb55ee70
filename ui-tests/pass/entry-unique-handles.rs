//! Unique handles are taken by value, alone or inside of other types; what contains them may be lent.

use mproc::{Connection, Receiver, Sender};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Ends {
    to: Sender<String>,
    from: Receiver<String>,
}

type Line = Connection<u8, u8>;

#[mproc::entry]
fn by_value(to: Sender<u64>, from: Receiver<u64>, line: Line) {
    drop((to, from, line));
}

#[mproc::entry]
fn inside(ends: Ends, more: Vec<(Line, Option<Sender<u8>>)>) -> (Ends, usize) {
    (ends, more.len())
}

#[mproc::entry]
fn lent(ends: &Ends, more: &[Line]) -> usize {
    let _ = (&ends.to, &ends.from);
    more.len()
}

fn main() -> mproc::Result<()> {
    let (to, from) = mproc::pipe()?;
    let ends = Ends { to, from };
    assert_eq!(lent::bind(&ends, &[]).run()?, 0);
    let (to, from) = mproc::pipe()?;
    let (line, _) = mproc::duplex()?;
    by_value::bind(to, from, line).run()?;
    let (to, from) = mproc::pipe()?;
    assert_eq!(inside::bind(Ends { to, from }, Vec::new()).run()?.1, 0);
    Ok(())
}
