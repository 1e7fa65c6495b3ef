// SPDX-License-Identifier: Apache-2.0
//! A console of a guest: what it prints is read line by line, by a thread that can be held up.

use anyhow::{bail, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that are quoted when something is missing.
const QUOTED: usize = 25;

/// A console.
pub struct Console {
    lines: Receiver<String>,
    seen: Vec<String>,
    input: Option<File>,
}

impl Console {
    /// Reads `output`, and writes to `input` what [`Console::send`] is given.
    pub fn new(output: File, input: Option<File>) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                if sender.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { lines, seen: Vec::new(), input }
    }

    /// Sends a line to the guest.
    pub fn send(&mut self, line: &str) -> Result<()> {
        match &mut self.input {
            Some(input) => Ok(input.write_all(format!("{line}\n").as_bytes())?),
            None => bail!("the console has no input"),
        }
    }

    /// Waits for a line that contains `part`, and returns it.
    pub fn expect(&mut self, part: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next(deadline) {
                Ok(line) if line.contains(part) => return Ok(line),
                Ok(_) => {}
                Err(e) => bail!("no line with \"{part}\": {}; before:\n{}", why(e), self.quote()),
            }
        }
    }

    /// The next line.
    pub fn next(&mut self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        self.seen.push(line.clone());
        Ok(line)
    }

    /// The last lines that were seen.
    pub fn quote(&self) -> String {
        let start = self.seen.len().saturating_sub(QUOTED);
        self.seen[start..].iter().map(|line| format!("  | {line}\n")).collect()
    }
}

/// What a missing line means.
pub fn why(e: RecvTimeoutError) -> &'static str {
    match e {
        RecvTimeoutError::Timeout => "it does not come",
        RecvTimeoutError::Disconnected => "the VMM closed the console",
    }
}

/// Counts what comes, once somebody reads.
pub fn count(mut output: impl Read, wanted: usize) -> std::io::Result<usize> {
    let mut buffer = [0; 65536];
    let mut counted = 0;
    while counted < wanted {
        match output.read(&mut buffer)? {
            0 => break,
            read => counted += read,
        }
    }
    Ok(counted)
}
