// SPDX-License-Identifier: Apache-2.0
//! Where the output of serial ports and consoles goes, and where their input comes from.

use crate::config::{SerialInput, SerialOutput};
use crate::files;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// A line longer than this is logged in parts: a guest must not make this process grow.
const LOG_LINE: usize = 512;

/// Whether the VM is ending, so that nobody has to wait for a reader any more.
static ENDING: AtomicBool = AtomicBool::new(false);

/// From now on output that has to wait is lost.
pub fn give_up_waiting() {
    ENDING.store(true, Ordering::Relaxed);
}

fn go_on_waiting() -> io::Result<()> {
    match ENDING.load(Ordering::Relaxed) {
        true => Err(io::ErrorKind::Interrupted.into()),
        false => Ok(()),
    }
}

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
            SerialOutput::File(path) => Sink::File(files::open_append(path)?),
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
                if let Err(e) = write_all(file, data) {
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

/// Writes all of `data`, waiting also where a file's owner made it non-blocking. While the VM ends the
/// signal that vCPUs are kicked with ends the waiting.
fn write_all(file: &mut File, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match file.write(data) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => data = &data[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => go_on_waiting()?,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                wait_for(file, PollFlags::POLLOUT)?;
                go_on_waiting()?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Waits until a file is ready, or has failed.
pub fn wait_for(file: &File, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(file.as_fd(), what)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
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
    fn a_full_non_blocking_pipe_loses_nothing() {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let mut output = Output { name: "test".into(), sink: Sink::File(writer.into()) };
        // More than a pipe holds.
        let sent: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let sending = std::thread::spawn(move || output.write_all(&sent).map(|()| output));
        let (mut reader, mut received) = (File::from(reader), Vec::<u8>::new());
        let mut buffer = [0; 4096];
        while received.len() < expected.len() {
            wait_for(&reader, PollFlags::POLLIN).unwrap();
            let count = std::io::Read::read(&mut reader, &mut buffer).unwrap();
            received.extend(&buffer[..count]);
        }
        assert!(received == expected, "what arrives is not what was sent");
        assert!(sending.join().unwrap().unwrap().file().is_some(), "it goes on");
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
