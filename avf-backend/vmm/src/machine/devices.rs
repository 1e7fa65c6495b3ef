// SPDX-License-Identifier: Apache-2.0
//! Makes the devices that a configuration asks for, and those that every VM has.

use super::{io_error, StartError};
use crate::config::{Config, SerialOutput, SerialPort as PortConfig};
use crate::control;
use crate::devices::bus::Bus;
use crate::devices::console::{self, Output};
use crate::devices::irq::IrqLine;
use crate::devices::pci::{PciHost, PciWindows};
use crate::devices::pvpanic::{self, PvPanic};
use crate::devices::rtc::Rtc;
use crate::devices::serial::SerialPort;
use crate::devices::stall::{GuestTimes, StallDetector};
use crate::devices::virtio::balloon::handle::Handle;
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::blk::Block;
use crate::devices::virtio::console::Console;
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::pci::{VirtioPci, BAR_SIZE};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::transport::Transport;
use crate::devices::virtio::vsock::{Vsock, VsockError};
use crate::devices::virtio::VirtioDevice;
use crate::disk;
use crate::event::VmEvent;
use crate::files;
use crate::layout::{Region, RTC, SERIAL, SERIAL_SIZE, STALL_DETECTOR};
use crate::memory::{GuestRam, Rule};
use crate::orphan;
use gzvm::Vm;
use std::fs::File;
use std::sync::mpsc::Sender;
use std::sync::Arc;

/// virtmgr reads the reason of a failure from this serial port.
const FAILURE_PORT: u8 = 2;

/// All devices of a VM.
pub struct Devices {
    bus: Bus,
    ports: Vec<Arc<SerialPort>>,
    inputs: Vec<(String, Arc<SerialPort>, File)>,
    failure_output: Option<File>,
    virtio: Vec<Arc<VirtioPci>>,
    balloon: control::Balloon,
    panic: Option<Arc<PvPanic>>,
    stall: Arc<StallDetector>,
    pci: (PciWindows, u8),
}

impl Devices {
    /// Makes them all; none does anything yet. `rule` says what may be taken from the guest.
    pub fn new(
        config: &Config,
        ram: &Arc<GuestRam>,
        times: Arc<GuestTimes>,
        rule: Rule,
    ) -> Result<Self, StartError> {
        let mut devices = Self {
            bus: Bus::default(),
            ports: Vec::new(),
            inputs: Vec::new(),
            failure_output: None,
            virtio: Vec::new(),
            balloon: balloon(config, rule)?,
            panic: None,
            stall: Arc::new(StallDetector::new(times)),
            pci: (config.pci, 0),
        };
        for (number, (address, spi)) in (1..).zip(SERIAL) {
            let given = config.serial.iter().find(|port| port.number == number);
            devices.add_serial(number, given, address, spi)?;
        }
        let mut host = PciHost::new(config.pci);
        let protected = config.protection.is_protected();
        for (name, device) in virtio(config, ram)? {
            devices.add_virtio(&mut host, name, device, ram, protected)?;
        }
        if let Ok(handle) = &devices.balloon {
            let handle = Arc::clone(handle);
            let device = Balloon::new(handle, rule, protected, config.page_reporting);
            devices.add_virtio(&mut host, "balloon".into(), Box::new(device), ram, protected)?;
        }
        devices.add_panic(&mut host)?;
        devices.bus.add(RTC, Arc::new(Rtc::default()))?;
        devices.bus.add(STALL_DETECTOR, devices.stall.clone())?;
        devices.pci.1 = host.devices();
        host.connect(&mut devices.bus)?;
        Ok(devices)
    }

    /// Where PCI is, and how many devices are behind its bridge.
    pub fn pci(&self) -> (PciWindows, u8) {
        self.pci
    }

    /// The balloon, or why there is none.
    pub fn balloon(&self) -> control::Balloon {
        self.balloon.clone()
    }

    /// Connects interrupts and notifications to the VM.
    pub fn connect(&self, vm: &Arc<Vm>, events: &Sender<VmEvent>) -> gzvm::Result<()> {
        self.ports.iter().try_for_each(|port| port.connect(vm))?;
        self.virtio.iter().try_for_each(|device| device.connect(vm, events))
    }

    /// Starts what feeds the guest from outside, and hands out the bus.
    pub fn start(self, events: &Sender<VmEvent>) -> Result<Bus, StartError> {
        if let Some(output) = &self.failure_output {
            orphan::watch(output, events.clone()).map_err(io_error("output of ttyS1"))?;
        }
        for (name, port, input) in self.inputs {
            port.feed(&name, input).map_err(io_error(format!("input of {name}")))?;
        }
        if let Some(panic) = &self.panic {
            panic.start(events.clone());
        }
        self.stall.start(events.clone()).map_err(io_error("stall detector"))?;
        Ok(self.bus)
    }

    fn add_serial(
        &mut self,
        number: u8,
        given: Option<&PortConfig>,
        address: u64,
        spi: u32,
    ) -> Result<(), StartError> {
        let name = format!("ttyS{}", number - 1);
        let (output, input) = open_ends(&name, given)?;
        if number == FAILURE_PORT {
            let file = output.file().map(File::try_clone).transpose();
            self.failure_output = file.map_err(io_error(format!("output of {name}")))?;
        }
        let irq = IrqLine::new(spi).map_err(io_error("eventfd"))?;
        let port = Arc::new(SerialPort::new(irq, output));
        self.bus.add(Region { start: address, size: SERIAL_SIZE }, port.clone())?;
        self.inputs.extend(input.map(|input| (name, Arc::clone(&port), input)));
        self.ports.push(port);
        Ok(())
    }

    fn add_panic(&mut self, host: &mut PciHost) -> Result<(), StartError> {
        let (_, bar) = host.reserve(pvpanic::BAR_SIZE).ok_or(StartError::PciFull)?;
        let device = Arc::new(PvPanic::new(bar));
        host.plug(device.clone(), bar);
        self.panic = Some(device);
        Ok(())
    }

    fn add_virtio(
        &mut self,
        host: &mut PciHost,
        name: String,
        device: Box<dyn VirtioDevice>,
        ram: &Arc<GuestRam>,
        protected: bool,
    ) -> Result<(), StartError> {
        let (slot, bar) = host.reserve(BAR_SIZE).ok_or(StartError::PciFull)?;
        let interrupt = Arc::new(Interrupt::new(slot.spi).map_err(io_error("eventfd"))?);
        let transport =
            Transport::new(name, device, Arc::clone(ram), Arc::clone(&interrupt), protected)
                .map_err(io_error("eventfd"))?;
        let device = Arc::new(VirtioPci::new(transport, interrupt, slot, bar));
        host.plug(device.clone(), bar);
        self.virtio.push(device);
        Ok(())
    }
}

/// The balloon's handle, or why the VM has no balloon. An unprotected VM whose pages stay pinned
/// whatever the guest says would lose memory that the host does not get.
fn balloon(config: &Config, rule: Rule) -> Result<control::Balloon, StartError> {
    let why = match (config.balloon, config.protection.is_protected(), rule) {
        (false, ..) => "there is no balloon (--no-balloon)",
        (true, false, Rule::Never | Rule::Unpinned) => {
            "there is no balloon: the hypervisor cannot take pages from a guest"
        }
        _ => "",
    };
    if config.page_reporting && rule == Rule::Never {
        log::warn!(
            "--balloon-page-reporting has no effect: the hypervisor cannot tell which pages the \
             guest has given back"
        );
    }
    Ok(match why {
        "" => Ok(Arc::new(Handle::new().map_err(io_error("eventfd"))?)),
        why => Err(why),
    })
}

type Named = (String, Box<dyn VirtioDevice>);

/// The virtio devices in the order of their slots.
fn virtio(config: &Config, ram: &GuestRam) -> Result<Vec<Named>, StartError> {
    let mut devices: Vec<Named> = Vec::new();
    for (index, port) in config.consoles.iter().enumerate() {
        let name = format!("hvc{index}");
        let (output, input) = open_ends(&name, Some(port))?;
        devices.push((name.clone(), Box::new(Console::new(name, output, input))));
    }
    for (index, disk) in config.disks.iter().enumerate() {
        let name = disk.id.clone().unwrap_or_else(|| format!("disk{index}"));
        let contents = disk::open(&disk.path, disk.writable)
            .map_err(io_error(format!("disk {}", files::describe(&disk.path))))?;
        devices.push((name.clone(), Box::new(Block::new(name, contents, disk.writable))));
    }
    let random = File::open("/dev/urandom").map_err(io_error("/dev/urandom"))?;
    devices.push(("rng".into(), Box::new(Rng::new(random))));
    if let Some(cid) = config.cid {
        match Vsock::new(cid, ram) {
            Ok(vsock) => devices.push(("vsock".into(), Box::new(vsock))),
            // virtmgr always gives a CID, and most guests can do without.
            Err(VsockError::Absent(e)) => log::warn!("the VM has no vsock: /dev/vhost-vsock: {e}"),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(devices)
}

/// Opens what a port prints to and reads from.
fn open_ends(name: &str, given: Option<&PortConfig>) -> Result<(Output, Option<File>), StartError> {
    let output = given.map_or(&SerialOutput::Sink, |port| &port.output);
    let output =
        Output::open(name.into(), output).map_err(io_error(format!("output of {name}")))?;
    let input = given.and_then(|port| port.input.as_ref()).map(console::open_input).transpose();
    Ok((output, input.map_err(io_error(format!("input of {name}")))?))
}
