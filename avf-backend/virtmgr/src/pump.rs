// SPDX-License-Identifier: Apache-2.0
//! A guest's output that nobody asked for goes to the log, line by line.

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::thread;

/// How much of a line is one message.
const LINE_LIMIT: u64 = 1024;

/// A pipe whose lines are logged under a name, for as long as somebody writes.
pub fn to_log(name: String) -> Result<OwnedFd> {
    let (reader, writer) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe for a console")?;
    thread::spawn(move || pump(&File::from(reader), |line| log::info!("{name}: {line}")));
    Ok(writer)
}

fn pump(from: impl Read, mut say: impl FnMut(&str)) {
    let mut reader = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            // What a guest prints must not steer a terminal.
            Ok(_) => say(&String::from_utf8_lossy(&line).trim_end().escape_debug().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_harmless() {
        let mut lines = Vec::new();
        let long = "x".repeat(1500);
        let text = format!("one\r\n\x1b[2J\n{long}\nlast");
        pump(text.as_bytes(), |line| lines.push(line.to_owned()));
        assert_eq!(&lines[..2], ["one", "\\u{1b}[2J"]);
        assert_eq!(lines[2..].iter().map(String::len).collect::<Vec<_>>(), [1024, 476, 4]);
    }
}
