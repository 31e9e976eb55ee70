//! Starts children though standard streams are closed: those that its caller closed, and those that it closes itself.
//!
//! `streams REPORT CLOSE` closes the streams whose digits are in `CLOSE`. The answers are written to the file `REPORT`,
//! because there may be no stream left to write them to.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use mproc::{Failure, Stdio};

/// Where each descriptor of this process leads.
fn targets() -> Vec<(i32, PathBuf)> {
    let target = |number: i32| {
        Some((
            number,
            std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?,
        ))
    };
    mproc_tests::descriptors()
        .into_iter()
        .filter_map(target)
        .collect()
}

#[mproc::entry]
fn look(file: &Path, large: &str) -> Result<String, Failure> {
    // Opened before anything is printed: it must not have become a stream.
    let mut opened = File::create(file)?;
    // A write to a stream that is not there is let pass, as by std in every program.
    println!("printed by a child");
    eprintln!("printed by a child");
    print!("without an end of line");
    opened.write_all(b"written")?;
    let mut targets = targets();
    targets.truncate(3);
    Ok(format!(
        "{} {}",
        large.len(),
        targets
            .iter()
            .map(|(number, _)| number.to_string())
            .collect::<String>()
    ))
}

#[mproc::entry]
fn wait_for_the_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[mproc::entry]
fn copy() -> Result<(), Failure> {
    let text = std::io::read_to_string(std::io::stdin())?;
    print!("{text}");
    eprint!("{}", text.to_uppercase());
    Ok(())
}

fn report(file: &Path) -> Result<String, Failure> {
    let mut report = String::new();
    // Lives through all that follows, so that what mproc opened for it is open meanwhile.
    let waits = wait_for_the_end::process().stdin(Stdio::piped()).start()?;
    let child_file = file.with_extension("child");
    for large in [0, 100_000] {
        let answer = look::spawn(&child_file, &"x".repeat(large))?.join()??;
        writeln!(
            report,
            "inherited: {answer} {}",
            std::fs::read_to_string(&child_file)?
        )?;
    }
    let child = copy::process()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .start()?;
    child
        .take_stdin()
        .expect("it is piped")
        .write_all(b"text")?;
    let stdout = std::io::read_to_string(child.take_stdout().expect("it is piped"))?;
    let stderr = std::io::read_to_string(child.take_stderr().expect("it is piped"))?;
    child.join()??;
    writeln!(report, "piped: {stdout} {stderr}")?;
    // Into nothing, and not into something of mproc's that got the number of a stream.
    println!("printed by the parent");
    eprintln!("printed by the parent");
    let own = targets().into_iter().take_while(|(number, _)| *number < 3);
    for (number, target) in own {
        let target = target.display().to_string();
        assert!(
            !target.contains("anon_inode") && !target.contains("memfd"),
            "stream {number} is {target}"
        );
    }
    assert!(waits.is_alive());
    drop(waits.take_stdin());
    waits.join()?;
    std::fs::remove_file(&child_file)?;
    Ok(report)
}

mproc::main! {
    fn main() -> Result<(), Failure> {
        let arguments: Vec<String> = std::env::args().collect();
        let file = Path::new(&arguments[1]);
        for digit in arguments[2].chars() {
            let number = digit.to_digit(10).expect("a digit") as i32;
            nix::unistd::close(number)?;
        }
        let text = report(file).unwrap_or_else(|failure| format!("{failure:?}"));
        std::fs::write(file, text)?;
        Ok(())
    }
}
