// SPDX-License-Identifier: Apache-2.0
//! A terminal of its own for a VM's console: `vm console` shows it. What the guest prints goes to
//! standard output too, so that a guest does not wait for somebody who looks at the terminal.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{cfmakeraw, tcgetattr, tcsetattr, SetArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::thread;

/// Bytes that are passed on at once.
const CHUNK: usize = 4096;

/// The VM's ends, and the terminal's name.
#[derive(Debug)]
pub struct Terminal {
    /// `/dev/pts/N`.
    pub name: String,
    /// Where the VM's console prints to.
    pub output: OwnedFd,
    /// Where it reads from.
    pub input: OwnedFd,
}

impl Terminal {
    /// A new terminal, and threads that pass on what is printed and typed.
    pub fn open() -> Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).context("cannot make a terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname_r(&master)?;
        // While one end stays open here, the terminal outlives those who look at it.
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
        let slave = options.open(&name).with_context(|| format!("cannot open {name}"))?;
        // Else what the guest prints would be echoed to it as if it were typed.
        let mut modes = tcgetattr(&slave)?;
        cfmakeraw(&mut modes);
        tcsetattr(&slave, SetArg::TCSANOW, &modes)?;
        fcntl(master.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let master = Arc::new(master);
        let (printed, output) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (input, typed) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let shown = Arc::clone(&master);
        thread::spawn(move || {
            // Kept open as long as the guest may print.
            let _slave = slave;
            show(File::from(printed), |part| {
                // Nobody looks, and the terminal is full: it is lost there.
                let _ = (&*shown).write(part);
            })
        });
        thread::spawn(move || pass_typed(&master, File::from(typed)));
        Ok(Self { name, output, input })
    }
}

/// Passes on what the guest prints, until it is gone.
fn show(mut printed: File, mut terminal: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = [0; CHUNK];
    loop {
        match printed.read(&mut chunk)? {
            0 => return Ok(()),
            len => {
                let part = chunk.get(..len).unwrap_or_default();
                terminal(part);
                io::stdout().write_all(part)?;
                io::stdout().flush()?;
            }
        }
    }
}

/// Passes on what is typed, until the guest is gone.
fn pass_typed(master: &(impl AsFd + AsRawFd), mut typed: File) -> io::Result<()> {
    let mut chunk = [0; CHUNK];
    loop {
        match poll(&mut [PollFd::new(master.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        match nix::unistd::read(master.as_raw_fd(), &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => typed.write_all(chunk.get(..len).unwrap_or_default())?,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_shows_and_what_is_typed_arrives() {
        let terminal = Terminal::open().unwrap();
        let mut user = OpenOptions::new().read(true).write(true).open(&terminal.name).unwrap();
        File::from(terminal.output).write_all(b"login: \n").unwrap();
        let mut shown = [0; 8];
        user.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"login: \n");
        user.write_all(b"root\n").unwrap();
        let mut typed = [0; 5];
        File::from(terminal.input).read_exact(&mut typed).unwrap();
        // Nothing of what was printed came back.
        assert_eq!(&typed, b"root\n");
    }
}
