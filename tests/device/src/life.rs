// SPDX-License-Identifier: Apache-2.0
//! The whole life of a VM in one function, which stops at the first refusal: for tests that make
//! something fail on the way.

use gzvm_abi::{cap, reg, uapi};

use crate::events::Event;
use crate::guest::{self, REPORT};
use crate::machine::{Exit, Vcpu, RAM};
use crate::mapping::{Mapping, PAGE};
use crate::sys::{self, ioctl, ioctl_fd, Result};

const MIB: u64 = 1 << 20;

/// VMs that exist, of all processes, if the kernel tells.
pub fn vms() -> Option<usize> {
    Some(std::fs::read_dir("/sys/kernel/debug/gzvm").ok()?.count())
}

/// What a file in debugfs says about the only VM of this process; `None` without debugfs.
pub fn statistics(file: &str) -> Option<String> {
    let prefix = format!("{}-", std::process::id());
    let entries = std::fs::read_dir("/sys/kernel/debug/gzvm").ok()?;
    let mut ours = entries
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    std::fs::read_to_string(ours.next()?.path().join(file)).ok()
}

/// Free memory of the machine in kB, with what is only borrowed and what its CPUs keep.
///
/// # Panics
///
/// Without `/proc`.
pub fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let available: u64 = number.and_then(|number| number.parse().ok()).expect("MemAvailable");
    available + kept_by_cpus()
}

/// Memory in kB that the machine's CPUs keep ready for themselves, up to an eighth of all (Linux,
/// `zone_highsize`): `/proc/meminfo` counts it nowhere.
///
/// # Panics
///
/// Without `/proc`.
pub fn kept_by_cpus() -> u64 {
    let zones = std::fs::read_to_string("/proc/zoneinfo").expect("/proc is mounted");
    pages_of_cpus(&zones).expect("numbers in /proc/zoneinfo") * (PAGE / 1024)
}

/// Pages in the lists of CPUs; `None` if one of the counts is not a number.
fn pages_of_cpus(zones: &str) -> Option<u64> {
    let counts = zones.lines().filter_map(|line| line.trim_start().strip_prefix("count:"));
    counts.map(|count| count.trim().parse::<u64>().ok()).sum()
}

/// Memory for [`live`].
pub fn memory() -> Mapping {
    Mapping::anonymous(4 * MIB)
}

/// Makes a VM with two vCPUs and an interrupt controller, and lets it touch its memory.
///
/// # Errors
///
/// The first errno.
pub fn live(ram: &Mapping, event: &Event) -> Result<()> {
    let vm = begin(ram, event)?;
    run(&vm, ram, event)
}

/// As [`live`], with what only some VMs do: a slot that goes again, a device tree, protection.
///
/// # Errors
///
/// The first errno.
pub fn live_fully(ram: &Mapping, event: &Event, protect: bool) -> Result<()> {
    let vm = begin(ram, event)?;
    sys::set_region(&vm, 5, RAM + 64 * MIB, PAGE, ram.address())?;
    sys::set_region(&vm, 5, 0, 0, 0)?;
    let mut dtb = uapi::DtbConfig { dtb_addr: RAM + MIB, dtb_size: PAGE };
    ioctl(&vm, uapi::SET_DTB_CONFIG, &mut dtb)?;
    if protect {
        let args = [cap::PVM_SET_PROTECTED_VM, 0, 0, 0, 0];
        let mut request = uapi::EnableCap { cap: cap::PROTECTED_VM, args };
        ioctl(&vm, uapi::ENABLE_CAP, &mut request)?;
    }
    // The file's reader asks the hypervisor.
    for entry in std::fs::read_dir("/sys/kernel/debug/gzvm").into_iter().flatten().flatten() {
        let _ = std::fs::read(entry.path().join("protected_hyp_mem"));
    }
    run(&vm, ram, event)
}

fn begin(ram: &Mapping, event: &Event) -> Result<std::os::fd::OwnedFd> {
    // A protected VM's memory comes back wiped.
    ram.load(0, guest::check_pages());
    let device = sys::open_device().map_err(|error| error.raw_os_error().unwrap_or(0))?;
    let vm = ioctl_fd(&device, uapi::CREATE_VM, 0)?;
    sys::set_region(&vm, 0, RAM, ram.size(), ram.address())?;
    for (dev_type, dev_addr) in [
        (uapi::DEV_TYPE_VGIC_V3_DIST, guest::GIC_DIST),
        (uapi::DEV_TYPE_VGIC_V3_REDIST, guest::gic_redist(2)),
    ] {
        let mut device = uapi::CreateDevice {
            dev_type,
            dev_addr,
            dev_reg_size: uapi::VGIC_REDIST_SIZE,
            ..Default::default()
        };
        ioctl(&vm, uapi::CREATE_DEVICE, &mut device)?;
    }
    let fd = u32::try_from(event.fd()).expect("descriptor");
    ioctl(&vm, uapi::IRQFD, &mut uapi::Irqfd { fd, gsi: 1, ..Default::default() })?;
    let mut ioeventfd = uapi::Ioeventfd {
        datamatch: 0,
        addr: 0x1000,
        len: 4,
        fd: event.fd(),
        flags: 0,
        pad: [0; 36],
    };
    ioctl(&vm, uapi::IOEVENTFD, &mut ioeventfd)?;
    Ok(vm)
}

fn run(vm: &std::os::fd::OwnedFd, ram: &Mapping, event: &Event) -> Result<()> {
    let mut vcpu = Vcpu::new(vm, 0)?;
    let _second = Vcpu::new(vm, 1)?;
    for (id, value) in [(reg::PSTATE, 0x3c5), (reg::PC, RAM), (reg::x(20), REPORT)] {
        vcpu.set_reg(id, value)?;
    }
    for (index, value) in [RAM + PAGE, RAM + ram.size(), PAGE, 0].into_iter().enumerate() {
        vcpu.set_reg(reg::x(index as u64), value)?;
    }
    event.signal();
    let exit = vcpu.run()?;
    // Takes a page from the guest, where it follows its owner's mapping.
    ram.drop_pages(2 * MIB + 5 * PAGE, PAGE);
    match exit {
        Exit::Write(_) => Ok(()),
        // A page fault that could not be served.
        Exit::Exception(exception) => Err(exception.error_code.cast_signed()),
        other => panic!("a life ends with {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_keep_pages() {
        let zones = "Node 0, zone      DMA\n  pages free     7\n  pagesets\n    cpu: 0\n              \
                     count:    60\n              high:     252\n    cpu: 1\n              count: 2\n";
        assert_eq!(pages_of_cpus(zones), Some(62));
        assert_eq!(pages_of_cpus(""), Some(0));
        assert_eq!(pages_of_cpus("count: x"), None);
    }
}
