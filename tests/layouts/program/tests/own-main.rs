//! An integration test without a harness (`harness = false`): `main` is its own, so `main!` boots it.

#[mproc::entry]
fn here(x: u64) -> u64 {
    x + 1
}

mproc::main! {
    fn main() -> mproc::Result<()> {
        // A runner asks for the list of tests, and again for those that are ignored.
        let asked = |word: &str| std::env::args().any(|argument| argument == word);
        if asked("--list") {
            if !asked("--ignored") {
                println!("own_main: test");
            }
            return Ok(());
        }
        assert_eq!(here::spawn(3)?.join()?, 4);
        assert_eq!(layout_library::double::spawn(3)?.join()?, 6);
        Ok(())
    }
}
