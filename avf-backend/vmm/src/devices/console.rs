// SPDX-License-Identifier: Apache-2.0
//! Where the output of serial ports and consoles goes, and where their input comes from.

use crate::config::{SerialInput, SerialOutput};
use crate::files;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// A line longer than this is logged in parts: a guest must not make this process grow.
const LOG_LINE: usize = 512;

/// Output of a port. Errors are reported once, then output is dropped: a guest must not end because
/// nobody reads its console.
#[derive(Debug)]
pub struct Output {
    name: String,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Nothing,
    File(File),
    Log(Vec<u8>),
}

impl Output {
    /// Opens what `output` names; `name` is for messages.
    pub fn open(name: String, output: &SerialOutput) -> io::Result<Self> {
        let sink = match output {
            SerialOutput::Sink => Sink::Nothing,
            SerialOutput::Stdout => Sink::File(io::stdout().as_fd().try_clone_to_owned()?.into()),
            SerialOutput::File(path) => Sink::File(files::open_write(path)?),
            SerialOutput::Log => Sink::Log(Vec::new()),
        };
        Ok(Self { name, sink })
    }

    /// The file that the output goes to, if it is one.
    pub fn file(&self) -> Option<&File> {
        match &self.sink {
            Sink::File(file) => Some(file),
            _ => None,
        }
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Nothing => {}
            Sink::File(file) => {
                if let Err(e) = file.write_all(data) {
                    log::warn!("{}: output is lost from here on: {e}", self.name);
                    self.sink = Sink::Nothing;
                }
            }
            Sink::Log(line) => {
                for &byte in data {
                    if byte == b'\n' || line.len() >= LOG_LINE {
                        log::info!("{}: {}", self.name, line.escape_ascii());
                        line.clear();
                    }
                    if byte != b'\n' && byte != b'\r' {
                        line.push(byte);
                    }
                }
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens an input.
pub fn open_input(input: &SerialInput) -> io::Result<File> {
    match input {
        SerialInput::Stdin => Ok(io::stdin().as_fd().try_clone_to_owned()?.into()),
        SerialInput::File(path) => files::open_read(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_reader_is_no_error() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let mut output = Output { name: "test".into(), sink: Sink::File(writer.into()) };
        assert_eq!(output.write(b"x").unwrap(), 1);
        assert!(output.file().is_none(), "dropped from here on");
        assert_eq!(output.write(b"y").unwrap(), 1);
    }

    #[test]
    fn logged_lines_are_bounded() {
        let mut output = Output::open("test".into(), &SerialOutput::Log).unwrap();
        for _ in 0..LOG_LINE * 3 {
            output.write_all(b"z").unwrap();
        }
        assert!(matches!(&output.sink, Sink::Log(line) if line.len() <= LOG_LINE));
    }
}
