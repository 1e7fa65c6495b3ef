// SPDX-License-Identifier: Apache-2.0
//! Standard output and error, whose readers may go before all is said: `vm stats -w | head`.

use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::{stderr, stdout, ErrorKind, Write};

/// Prints; whether anybody reads it.
///
/// # Errors
///
/// It cannot be written, to a full disk for example.
pub fn print(text: &str) -> Result<bool> {
    print_to(&mut stdout(), text)
}

/// Says a line on standard error. Nobody could be told that nobody hears it.
pub fn tell(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

fn print_to(out: &mut impl Write, text: &str) -> Result<bool> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e).context("cannot print"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_reader_may_go() {
        let (mut out, reader) = UnixStream::pair().unwrap();
        assert!(print_to(&mut out, "x").unwrap());
        drop(reader);
        assert!(!print_to(&mut out, "x").unwrap());
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        assert!(print_to(&mut full, "x").unwrap_err().to_string().contains("cannot print"));
    }
}
