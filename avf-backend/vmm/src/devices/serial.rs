// SPDX-License-Identifier: Apache-2.0
//! The 16550 ports.

use super::bus::MmioDevice;
use super::console::{wait_for, Output};
use super::irq::IrqLine;
use nix::poll::PollFlags;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use vm_superio::serial::NoEvents;

type Model = vm_superio::Serial<IrqLine, NoEvents, Output>;

/// How long input waits where no access of the guest announces room: the port is looped back.
const RETRY: Duration = Duration::from_millis(10);

/// How often a terminal is asked again after this process was in its background.
const TERMINAL_RETRY: Duration = Duration::from_secs(1);

/// A 16550 port.
pub struct SerialPort {
    model: Mutex<Model>,
    /// Signalled after each read of the guest: there may be room for input.
    room: Condvar,
}

impl SerialPort {
    /// A port that interrupts through `irq` and prints to `output`.
    pub fn new(irq: IrqLine, output: Output) -> Self {
        Self { model: Mutex::new(Model::new(irq, output)), room: Condvar::new() }
    }

    /// Connects the port's interrupt.
    pub fn connect(&self, vm: &gzvm::Vm) -> gzvm::Result<()> {
        self.model().interrupt_evt().connect(vm)
    }

    /// Feeds the guest from `input`, in a thread of its own, until its end.
    pub fn feed(self: &Arc<Self>, name: &str, mut input: File) -> io::Result<()> {
        let port = Arc::clone(self);
        let pump = move || {
            let mut buffer = [0; 64];
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => port.enqueue(&buffer[..count]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // Its owner made it non-blocking.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        if let Err(e) = wait_for(&input, PollFlags::POLLIN) {
                            log::warn!("serial input ends: {e}");
                            return;
                        }
                    }
                    // A terminal whose foreground is somebody else; that may change.
                    Err(e) if e.raw_os_error() == Some(libc::EIO) => thread::sleep(TERMINAL_RETRY),
                    Err(e) => {
                        log::warn!("serial input ends: {e}");
                        return;
                    }
                }
            }
        };
        thread::Builder::new().name(format!("{name}-input")).spawn(pump)?;
        Ok(())
    }

    /// Hands bytes to the guest as it makes room for them.
    fn enqueue(&self, mut bytes: &[u8]) {
        let mut model = self.model();
        while !bytes.is_empty() {
            // An error here is a full FIFO; what was taken otherwise depends on the room.
            let taken = model.enqueue_raw_bytes(bytes).unwrap_or(0);
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken == 0 {
                let waited = self.room.wait_timeout(model, RETRY);
                model = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MmioDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            *byte = self.model().read(offset);
            self.room.notify_one();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (Ok(offset), [byte]) = (u8::try_from(offset), data) {
            if let Err(e) = self.model().write(offset, *byte) {
                log::debug!("serial: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SerialOutput;
    use nix::fcntl::OFlag;
    use proptest::prelude::*;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsRawFd;

    const DATA: u64 = 0;
    const LINE_STATUS: u64 = 5;
    const MODEM_CONTROL: u64 = 4;

    fn port(output: &SerialOutput) -> Arc<SerialPort> {
        let output = Output::open("test".into(), output).unwrap();
        Arc::new(SerialPort::new(IrqLine::new(0).unwrap(), output))
    }

    /// A pipe with these bytes, whose reader would not wait.
    fn input(bytes: &[u8]) -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut writer = File::from(writer);
        writer.write_all(bytes).unwrap();
        (reader.into(), writer)
    }

    fn read(port: &SerialPort, offset: u64) -> u8 {
        let mut data = [0];
        port.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn what_the_guest_prints_arrives() {
        let mut file = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let port = port(&SerialOutput::File(path.into()));
        for byte in b"hello" {
            port.write(DATA, &[*byte]);
        }
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn input_longer_than_the_fifo_waits_for_the_guest() {
        let port = port(&SerialOutput::Sink);
        let sent: Vec<u8> = (0..200).collect();
        let (reader, mut writer) = input(&sent[..100]);
        port.feed("test", reader).unwrap();
        let (mut received, mut more) = (Vec::new(), &sent[100..]);
        while received.len() < sent.len() {
            if received.len() == 100 && !more.is_empty() {
                // The port has found the pipe empty, or is about to.
                writer.write_all(std::mem::take(&mut more)).unwrap();
            }
            if read(&port, LINE_STATUS) & 1 != 0 {
                received.push(read(&port, DATA));
            } else {
                thread::yield_now();
            }
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn input_survives_loopback() {
        let port = port(&SerialOutput::Sink);
        port.write(MODEM_CONTROL, &[0x10]);
        let (reader, _writer) = input(b"x");
        port.feed("test", reader).unwrap();
        port.write(MODEM_CONTROL, &[0]);
        while read(&port, LINE_STATUS) & 1 == 0 {
            thread::yield_now();
        }
        assert_eq!(read(&port, DATA), b'x');
    }

    proptest! {
        #[test]
        fn any_access_is_survived(accesses: Vec<(u8, u8, bool)>) {
            let port = port(&SerialOutput::Sink);
            for (offset, value, write) in accesses {
                match write {
                    true => port.write(u64::from(offset), &[value]),
                    false => drop(read(&port, u64::from(offset))),
                }
                port.read(u64::from(offset), &mut [0; 4]);
            }
        }
    }
}
