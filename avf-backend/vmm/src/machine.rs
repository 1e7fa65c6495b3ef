// SPDX-License-Identifier: Apache-2.0
//! Puts a VM together and runs it to its end.
//!
//! The order matters in three places. Everything is written to guest memory before the VM becomes
//! protected, because from then on its pages may be gone from this process. The interrupt
//! controller comes before the vCPUs. The device tree is announced after the last write to it and
//! before any vCPU runs.

mod devices;

use crate::boot::{self, BootError};
use crate::clock::{self, Resync};
use crate::config::{Config, Payload, Protection, Vcpus};
use crate::control::{Commanded, Control};
use crate::devices::bus::Overlap;
use crate::devices::console;
use crate::devices::stall::GuestTimes;
use crate::devices::virtio::vsock::VsockError;
use crate::event::VmEvent;
use crate::fdt::{self, Description, FdtError, Seeds};
use crate::files;
use crate::layout::{Layout, LayoutError, Placement, DTB_WINDOW, PVMFW, PVMFW_SIZE, SERIAL};
use crate::memory::{GuestRam, MemoryError, Policy, Rule};
use crate::sigbus;
use crate::signals;
use crate::status::ExitStatus;
use crate::vcpu::VcpuThreads;
use devices::Devices;
use gzvm::abi::{cap, reg};
use gzvm::{Gzvm, Vcpu, Vm};
use gzvm_preflight::memory::{HostMemory, Shortage};
use gzvm_preflight::presence::DeviceError;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

/// PSTATE at entry: EL1 with its own stack pointer, all interrupts masked.
const PSTATE_BOOT: u64 = 0x3c5;
/// Why a VM could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The device node cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The host has no memory for it.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// It does not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its memory could not be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its payload could not be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// There is no device tree.
    #[error(transparent)]
    Fdt(#[from] FdtError),
    /// A device tree overlay cannot be applied.
    #[error("device tree overlay {path}: {why}")]
    Overlay {
        /// Its name.
        path: String,
        /// Cause.
        why: String,
    },
    /// The devices contradict each other.
    #[error(transparent)]
    Bus(#[from] Overlap),
    /// Its context id cannot be had.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// More devices than the bus has interrupts or addresses for.
    #[error("too many devices: give the VM fewer disks or consoles")]
    PciFull,
    /// The driver or the hypervisor refused something.
    #[error(transparent)]
    Driver(#[from] gzvm::Error),
    /// The hypervisor does not protect VMs.
    #[error(
        "this hypervisor runs no protected VMs: start it unprotected (without --protected-vm...)"
    )]
    NotProtectable,
    /// More vCPUs than a VM may have.
    #[error("{wanted} vCPUs: the hypervisor allows {allowed} (--cpus)")]
    TooManyVcpus {
        /// Asked for.
        wanted: u32,
        /// Allowed.
        allowed: u32,
    },
    /// The hypervisor has no firmware.
    #[error(
        "the hypervisor has no protected-VM firmware: use --protected-vm-without-firmware \
         (vm: hypervisor.pvmfw.path=none), or install the firmware"
    )]
    NoFirmware,
    /// The hypervisor's firmware is larger than its window.
    #[error("the hypervisor's firmware has {0} bytes, more than its window of {PVMFW_SIZE}")]
    FirmwareTooLarge(u64),
    /// Something of the process itself.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Cause.
        source: io::Error,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    |source| StartError::Io { what, source }
}

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the process's exit status should say.
    pub status: ExitStatus,
    /// Why, where that is not all that there is to say.
    pub message: Option<String>,
    /// The signal that asked for the end.
    pub signal: Option<Signal>,
}

/// Starts the VM that `config` describes and runs it to its end.
pub fn run(config: &Config) -> Result<Ending, StartError> {
    let (sender, receiver) = channel();
    signals::watch(sender.clone()).map_err(io_error("signals"))?;
    signals::prepare_kicks().map_err(io_error("signals"))?;
    let gzvm = Gzvm::open_at(&config.device)
        .map_err(|e| gzvm_preflight::presence::explain(Path::new("/"), &config.device, e))?;
    let rule = Rule::ask(&gzvm, config.protection.is_protected())?;
    let machine = Machine::prepare(config, vcpus(config.vcpus, gzvm.max_vcpus()?)?, rule)?;
    let running = machine.start(&gzvm, &sender)?;
    drop(sender);
    Ok(running.wait(&receiver))
}

/// A VM that is complete but for the driver: memory with its contents, and devices.
pub struct Machine<'a> {
    config: &'a Config,
    layout: Layout,
    placement: Placement,
    vcpus: u32,
    ram: Arc<GuestRam>,
    devices: Devices,
    times: Arc<GuestTimes>,
    control: Option<Control>,
}

impl<'a> Machine<'a> {
    /// Makes memory and devices, loads the payload and writes the device tree. `rule` says what may be
    /// taken from the guest.
    pub fn prepare(config: &'a Config, vcpus: u32, rule: Rule) -> Result<Self, StartError> {
        let bios = matches!(config.payload, Payload::Bios(_));
        let pvmfw = config.protection.has_firmware();
        let layout = Layout::new(config.memory, config.swiotlb, vcpus, bios, pvmfw)?;
        HostMemory::read().check(layout.memory().size)?;
        for line in
            gzvm_preflight::memory::advice(Path::new("/"), layout.memory().size, config.hugepages)
        {
            log::warn!("{line}");
        }
        let private = config.protection.is_protected() || config.dont_fork;
        let policy = Policy { mode: config.memory_mode, hugepages: config.hugepages, private };
        let ram = Arc::new(GuestRam::new(&layout, policy)?);
        let placement = boot::load(&config.payload, &layout, ram.memory())?;
        if let Protection::FirmwareFile(path) = &config.protection {
            boot::load_firmware(path, ram.memory())?;
        }
        let times = Arc::new(GuestTimes::new(vcpus));
        let devices = Devices::new(config, &ram, Arc::clone(&times), rule)?;
        let open = |path| {
            let what = || format!("control socket {}", files::describe(path));
            Control::open(path).map_err(|e| io_error(what())(e))
        };
        let control = config.socket.as_deref().map(open).transpose()?;
        let machine = Self { config, layout, placement, vcpus, ram, devices, times, control };
        machine.write_device_tree()?;
        Ok(machine)
    }

    fn write_device_tree(&self) -> Result<(), StartError> {
        let bootargs = bootargs(self.config);
        let seeds = seeds().map_err(io_error("/dev/urandom"))?;
        let description = Description {
            layout: &self.layout,
            placement: &self.placement,
            vcpus: self.vcpus,
            bootargs: &bootargs,
            seeds: &seeds,
            pci: self.devices.pci(),
        };
        let mut tree = description.tree()?;
        for path in &self.config.overlays {
            let named = |why: String| StartError::Overlay { path: files::describe(path), why };
            let overlay = read_overlay(path).map_err(|e| named(e.to_string()))?;
            fdt::overlay::apply(&mut tree, &overlay).map_err(|e| named(e.to_string()))?;
        }
        let blob = fdt::write(&tree)?;
        // Before the check: who wants to know what is wrong can look at it.
        if let Some(path) = &self.config.dump_device_tree {
            let dump = || files::open_write(path)?.write_all(&blob);
            dump().map_err(io_error(path.display().to_string()))?;
        }
        fdt::check(&blob, &self.layout, &self.config.protection)?;
        let start = GuestAddress(self.layout.dtb.start);
        self.ram.memory().write_slice(&blob, start).map_err(|source| {
            StartError::Boot(BootError::Memory { what: "the device tree", source })
        })
    }

    /// Hands everything to the driver and starts the vCPUs.
    pub fn start(self, gzvm: &Gzvm, events: &Sender<VmEvent>) -> Result<Running, StartError> {
        let vm = Arc::new(gzvm.create_vm()?);
        let protected = self.config.protection.is_protected();
        if protected && vm.check_extension(cap::PROTECTED_VM)? != Some(1) {
            return Err(StartError::NotProtectable);
        }
        if protected {
            sigbus::watch(self.ram.mappings()).map_err(io_error("signals"))?;
        }
        self.ram.register(&vm)?;
        vm.create_vgic(crate::layout::GIC_DIST.start, self.layout.gic_redist.start)?;
        self.devices.connect(&vm, events)?;
        let vcpus = (0..self.vcpus).map(|id| vm.create_vcpu(id)).collect::<Result<Vec<_>, _>>()?;
        self.protect(&vm)?;
        vm.set_dtb_config(self.layout.dtb.start, DTB_WINDOW)?;
        for vcpu in &vcpus {
            self.set_registers(vcpu)?;
        }
        let balloon = self.devices.balloon();
        let bus = self.devices.start(events)?;
        let threads = VcpuThreads::new(self.config.suspended);
        let threads = threads.spawn(vcpus, bus, &self.times, events);
        let vcpus = Arc::new(threads.map_err(io_error("vCPU thread"))?);
        if let (Resync::Auto, Some(cid)) = (self.config.clock_resync, self.config.cid) {
            clock::follow(cid).map_err(io_error("timer"))?;
        }
        if let Some(control) = self.control {
            let events = events.clone();
            let vm = Commanded { vcpus: Arc::clone(&vcpus), balloon, events };
            control.serve(vm).map_err(io_error("control socket"))?;
        }
        Ok(Running { vcpus, _vm: vm })
    }

    fn protect(&self, vm: &Vm) -> Result<(), StartError> {
        match self.config.protection {
            Protection::None => Ok(()),
            Protection::WithoutFirmware | Protection::FirmwareFile(_) => Ok(vm.set_protected()?),
            Protection::HypervisorFirmware => match vm.pvmfw_size()? {
                0 => Err(StartError::NoFirmware),
                size if size > PVMFW.size => Err(StartError::FirmwareTooLarge(size)),
                _ => Ok(vm.set_pvmfw(PVMFW.start)?),
            },
        }
    }

    /// Only the boot vCPU gets more than PSTATE; phones refuse anything else for the others.
    fn set_registers(&self, vcpu: &Vcpu) -> gzvm::Result<()> {
        vcpu.set_reg(reg::PSTATE, PSTATE_BOOT)?;
        if vcpu.id() != 0 {
            return Ok(());
        }
        let payload = self.placement.payload;
        if self.config.protection.has_firmware() {
            // Firmware takes the payload from X1 and X2.
            vcpu.set_reg(reg::x(1), payload.start)?;
            vcpu.set_reg(reg::x(2), payload.size)?;
        }
        match self.config.protection {
            // The hypervisor sets PC to its firmware.
            Protection::HypervisorFirmware => {}
            Protection::FirmwareFile(_) => vcpu.set_reg(reg::PC, PVMFW.start)?,
            Protection::None | Protection::WithoutFirmware => {
                vcpu.set_reg(reg::PC, payload.start)?;
            }
        }
        vcpu.set_reg(reg::x(0), self.layout.dtb.start)
    }
}

/// How many vCPUs the VM gets.
fn vcpus(wanted: Vcpus, allowed: u32) -> Result<u32, StartError> {
    match wanted {
        Vcpus::Count(wanted) if wanted > allowed => {
            Err(StartError::TooManyVcpus { wanted, allowed })
        }
        Vcpus::Count(count) => Ok(count),
        Vcpus::MatchHost => Ok(host_cpus().min(allowed)),
    }
}

fn host_cpus() -> u32 {
    let count = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The kernel's command line: crosvm's own words, then the given ones.
fn bootargs(config: &Config) -> String {
    let mut words = vec!["panic=-1".to_owned(), format!("8250.nr_uarts={}", SERIAL.len())];
    for (ports, terminal) in [(&config.serial, "ttyS"), (&config.consoles, "hvc")] {
        let consoles = ports.iter().filter(|port| port.console);
        words.extend(consoles.map(|port| format!("console={terminal}{}", port.number - 1)));
    }
    for (number, (address, _)) in (1..).zip(SERIAL) {
        let early = config.serial.iter().find(|port| port.number == number && port.earlycon);
        words.extend(early.map(|_| format!("earlycon=uart8250,mmio,{address:#x}")));
    }
    words.extend(config.params.iter().cloned());
    words.join(" ")
}

/// The whole file, wherever the position is that its giver left.
fn read_overlay(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = files::open_read(path)?;
    match file.rewind() {
        // A pipe, which has no other position.
        Err(e) if e.raw_os_error() == Some(libc::ESPIPE) => {}
        other => other?,
    }
    let mut overlay = Vec::new();
    file.take(DTB_WINDOW).read_to_end(&mut overlay)?;
    Ok(overlay)
}

fn seeds() -> io::Result<Seeds> {
    let mut random = File::open("/dev/urandom")?;
    let mut kaslr = [0; 8];
    let mut rng = [0; 256];
    random.read_exact(&mut kaslr)?;
    random.read_exact(&mut rng)?;
    Ok(Seeds { kaslr: u64::from_ne_bytes(kaslr), rng })
}

/// A VM whose vCPUs run.
#[derive(Debug)]
pub struct Running {
    vcpus: Arc<VcpuThreads>,
    _vm: Arc<Vm>,
}

impl Running {
    /// Waits for the end, and ends everything that still runs.
    pub fn wait(self, events: &Receiver<VmEvent>) -> Ending {
        let ending = match events.recv() {
            Ok(event) => ending(event),
            // All vCPU threads are gone without a word.
            Err(_) => crash("the vCPU threads ended".into()),
        };
        console::give_up_waiting();
        if !self.vcpus.stop() {
            log::warn!("vCPU threads do not stop; the end of the process will stop them");
        }
        ending
    }
}

fn ending(event: VmEvent) -> Ending {
    let plain = |status| Ending { status, message: None, signal: None };
    match event {
        VmEvent::Shutdown => plain(ExitStatus::Success),
        VmEvent::Reset => plain(ExitStatus::Reset),
        VmEvent::GuestCrash => {
            let message = Some("the guest panicked".into());
            Ending { message, ..plain(ExitStatus::GuestPanic) }
        }
        VmEvent::Stalled { vcpu } => {
            let message =
                Some(format!("vCPU {vcpu} is stuck: its stall detector was not reloaded"));
            Ending { message, ..plain(ExitStatus::WatchdogReset) }
        }
        VmEvent::VcpuFailed { vcpu, why } => crash(format!("vCPU {vcpu}: {why}")),
        VmEvent::PrivateQueue { device, queue, address } => crash(format!(
            "{device} queue {queue}: guest address {address:#x} is private: the guest lacks \
             restricted DMA for this device"
        )),
        VmEvent::ParentGone => {
            let message = Some("nobody reads the failure port any more".into());
            Ending { message, ..plain(ExitStatus::Success) }
        }
        VmEvent::Stopped => {
            let message = Some("it was ended through the control socket".into());
            Ending { message, ..plain(ExitStatus::Success) }
        }
        VmEvent::Signal(signal) => Ending { signal: Some(signal), ..plain(ExitStatus::Success) },
    }
}

fn crash(why: String) -> Ending {
    Ending { status: ExitStatus::Crash, message: Some(why), signal: None }
}

#[cfg(test)]
mod tests;
