//! Starts a child for each line that it reads; between the lines its file is replaced.

mproc::main! {
    fn main() -> mproc::Result<()> {
        for line in std::io::stdin().lines() {
            let line = line.expect("the test writes text");
            println!("{}", shout::spawn(&line)?.join()?);
        }
        Ok(())
    }
}

#[mproc::entry]
fn shout(text: &str) -> String {
    text.to_uppercase()
}
