// SPDX-License-Identifier: Apache-2.0
//! The VMM's command line, as AVF's virtmgr would write it. A pure function: files are descriptor
//! numbers by now.

use gzvm_host::props::Firmware;
use std::os::fd::RawFd;

/// Number of vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// That many.
    Count(u32),
    /// As many as the host has.
    MatchHost,
}

/// What runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// A kernel, perhaps with an initial ramdisk.
    Kernel {
        /// Image.
        kernel: RawFd,
        /// Initial ramdisk.
        initrd: Option<RawFd>,
    },
    /// A flat binary.
    Bios(RawFd),
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Raw or composite image.
    pub image: RawFd,
    /// Whether the guest may write.
    pub writable: bool,
}

/// A VM, with every file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name.
    pub name: String,
    /// vsock context id.
    pub cid: u32,
    /// `Some` for a protected VM.
    pub protected: Option<Firmware>,
    /// Memory in MiB, without the restricted-DMA pool.
    pub memory_mib: u32,
    /// MiB of restricted-DMA pool of a protected VM, if not the usual.
    pub swiotlb_mib: Option<u32>,
    /// Whether the balloon reports pages to the host.
    pub balloon: bool,
    /// vCPUs.
    pub cpus: Cpus,
    /// What runs first.
    pub boot: Boot,
    /// Kernel parameters.
    pub params: Option<String>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Where the console prints to.
    pub console_out: Option<RawFd>,
    /// Where the console reads from.
    pub console_in: Option<RawFd>,
    /// Whether that is the first serial port, not the first virtio console.
    pub console_in_is_serial: bool,
    /// Where the log goes.
    pub log: Option<RawFd>,
    /// Where the guest says why it failed.
    pub failure: RawFd,
    /// Where the guest's kernel saves its memory when it crashes.
    pub ramdump: Option<RawFd>,
    /// Whether the guest's kernel is to print all that it has to say on its first virtio console.
    pub kernel_log: bool,
    /// Where a copy of the device tree goes.
    pub dump_device_tree: Option<RawFd>,
    /// Where commands come from: a listening socket.
    pub socket: Option<RawFd>,
    /// What is laid over the device tree.
    pub overlays: Vec<RawFd>,
    /// Transparent huge pages.
    pub hugepages: bool,
    /// A scheduling hint.
    pub boost_uclamp: bool,
    /// When the host provides guest memory; the VMM's default if nobody says.
    pub memory_policy: Option<String>,
}

/// Where arm64 guests have their PCI bus.
const PCI: &str = "mem=[start=0x2c000000,size=0x2000000],cam=[start=0x2e000000,size=0x1000000]";

/// MiB that a guest's kernel keeps for the one that saves its memory.
const CRASH_KERNEL_MIB: u64 = 17;

/// MiB of restricted-DMA pool for each device of a protected VM.
const SWIOTLB_MIB_PER_DEVICE: u64 = 2;
/// Devices that every VM has.
const COMMON_DEVICES: u64 = 4;

fn path(fd: RawFd) -> String {
    format!("/proc/self/fd/{fd}")
}

/// The arguments, without the program's name.
pub fn build(request: &Request) -> Vec<String> {
    let mut args = Arguments::default();
    args.all(["--extended-status", "--log-level", "info,disk=warn", "run"]);
    args.pair("--name", format!("crosvm_{}", request.name));
    args.all(["--disable-sandbox"]);
    args.pair("--cid", request.cid.to_string());
    args.all([if request.balloon { "--balloon-page-reporting" } else { "--no-balloon" }]);
    args.all(["--no-usb"]);
    let swiotlb_mib = protection(&mut args, request);
    if request.ramdump.is_some() {
        // The kernel that saves the memory needs a pool as well.
        args.pair("--params", format!("crashkernel={}M", CRASH_KERNEL_MIB + swiotlb_mib));
    }
    if request.kernel_log {
        args.pair("--params", "printk.devkmsg=on".into());
        args.pair("--params", "console=hvc0".into());
    }
    args.pair("--pci", PCI.into());
    args.pair("--mem", (u64::from(request.memory_mib) + swiotlb_mib).to_string());
    match request.cpus {
        Cpus::Count(count) => args.pair("--cpus", format!("{count},sve=[auto=true]")),
        Cpus::MatchHost => {
            args.all(["--host-cpu-topology", "--virt-cpufreq", "--cpus", "sve=[auto=true]"]);
        }
    }
    if let Some(fd) = request.dump_device_tree {
        args.pair("--dump-device-tree-blob", path(fd));
    }
    serial(&mut args, request);
    boot(&mut args, request);
    for disk in &request.disks {
        let read_only = !disk.writable;
        args.pair("--block", format!("path={},ro={read_only},lock=false", path(disk.image)));
    }
    args.all(["--no-pmu"]);
    if let Some(fd) = request.socket {
        args.pair("--socket", path(fd));
    }
    for &fd in &request.overlays {
        args.pair("--device-tree-overlay", path(fd));
    }
    if request.hugepages {
        args.all(["--hugepages"]);
    }
    if request.boost_uclamp {
        args.all(["--boost-uclamp"]);
    }
    if let Some(policy) = &request.memory_policy {
        args.pair("--memory-policy", policy.clone());
    }
    args.0
}

/// The options of a protected VM; returns the size of its restricted-DMA pool in MiB.
fn protection(args: &mut Arguments, request: &Request) -> u64 {
    let Some(firmware) = &request.protected else { return 0 };
    match firmware {
        Firmware::Hypervisor => args.all(["--protected-vm"]),
        Firmware::None => args.all(["--protected-vm-without-firmware"]),
        Firmware::File(file) => args.pair("--protected-vm-with-firmware", file.clone()),
    }
    let devices = COMMON_DEVICES + u64::try_from(request.disks.len()).unwrap_or(0);
    let mib = request.swiotlb_mib.map_or(SWIOTLB_MIB_PER_DEVICE * devices, u64::from);
    args.pair("--swiotlb", mib.to_string());
    args.all(["--unmap-guest-memory-on-fork"]);
    mib
}

fn serial(args: &mut Arguments, request: &Request) {
    let output = |fd: Option<RawFd>| match fd {
        Some(fd) => format!("type=file,path={}", path(fd)),
        None => "type=sink".into(),
    };
    let input = |wanted: bool| match request.console_in {
        Some(fd) if wanted => format!(",input={}", path(fd)),
        _ => String::new(),
    };
    let console = output(request.console_out);
    let (failure, log) = (output(Some(request.failure)), output(request.log));
    let ramdump = output(request.ramdump);
    let is_serial = request.console_in_is_serial;
    args.one(format!("--serial={console}{},hardware=serial,num=1", input(is_serial)));
    args.one(format!("--serial={failure},hardware=serial,num=2"));
    args.one(format!("--serial={console}{},hardware=virtio-console,num=1", input(!is_serial)));
    args.one(format!("--serial={ramdump},hardware=virtio-console,num=2"));
    args.one(format!("--serial={log},hardware=virtio-console,num=3"));
}

fn boot(args: &mut Arguments, request: &Request) {
    match request.boot {
        Boot::Bios(bios) => args.pair("--bios", path(bios)),
        Boot::Kernel { initrd, .. } => {
            if let Some(initrd) = initrd {
                args.pair("--initrd", path(initrd));
            }
        }
    }
    if let Some(params) = &request.params {
        args.pair("--params", params.clone());
    }
    if let Boot::Kernel { kernel, .. } = request.boot {
        args.one(path(kernel));
    }
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn one(&mut self, argument: String) {
        self.0.push(argument);
    }

    fn all<const N: usize>(&mut self, arguments: [&str; N]) {
        self.0.extend(arguments.map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gzvm_vmm::config as vmm;

    fn request() -> Request {
        Request {
            name: "VmRun".into(),
            cid: 2048,
            protected: None,
            memory_mib: 256,
            swiotlb_mib: None,
            balloon: false,
            cpus: Cpus::Count(1),
            boot: Boot::Kernel { kernel: 10, initrd: Some(11) },
            params: Some("console=ttyS0 quiet".into()),
            disks: Vec::new(),
            console_out: Some(12),
            console_in: Some(13),
            console_in_is_serial: false,
            log: None,
            failure: 14,
            ramdump: None,
            kernel_log: false,
            dump_device_tree: None,
            socket: None,
            overlays: Vec::new(),
            hugepages: false,
            boost_uclamp: false,
            memory_policy: None,
        }
    }

    /// What the VMM makes of it.
    fn parsed(request: &Request) -> vmm::Config {
        let args = [vec!["gzvm_vmm".into()], build(request)].concat();
        gzvm_vmm::cli::parse(args).unwrap_or_else(|e| panic!("{}", e.message)).config
    }

    /// A command line of AVF's own virtmgr.
    fn stock(file: &str) -> Vec<String> {
        file.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_raw_vm_is_started_as_avf_starts_it() {
        let request = Request {
            memory_mib: 128,
            cpus: Cpus::Count(2),
            boot: Boot::Kernel { kernel: 20, initrd: Some(21) },
            params: Some("console=ttyS0 loglevel=4 guest.mode=commands".into()),
            console_out: Some(22),
            console_in: Some(23),
            console_in_is_serial: true,
            failure: 24,
            log: Some(25),
            socket: Some(26),
            ..request()
        };
        assert_eq!(build(&request), stock(include_str!("../../vmm/tests/argv/raw.args")));
        let protected = Request {
            cid: 2049,
            protected: Some(Firmware::None),
            cpus: Cpus::Count(1),
            dump_device_tree: Some(27),
            disks: vec![Disk { image: 28, writable: true }],
            ..request
        };
        let expected = stock(include_str!("../../vmm/tests/argv/raw-protected.args"));
        assert_eq!(build(&protected), expected);
    }

    #[test]
    fn a_vm_of_microdroids_shape_is_started_as_avf_starts_it() {
        let request = Request {
            name: "microdroid".into(),
            cid: 2050,
            protected: Some(Firmware::Hypervisor),
            memory_mib: 160,
            cpus: Cpus::MatchHost,
            boot: Boot::Kernel { kernel: 20, initrd: Some(21) },
            params: Some("console=hvc0 loglevel=4 guest.mode=commands pvmfw.keep-mmio".into()),
            disks: [(28, false), (29, true)]
                .map(|(image, writable)| Disk { image, writable })
                .into(),
            console_out: Some(22),
            console_in: Some(23),
            failure: 24,
            log: Some(25),
            socket: Some(26),
            hugepages: true,
            boost_uclamp: true,
            ..request()
        };
        let expected = stock(include_str!("../../vmm/tests/argv/microdroid-protected.args"));
        assert_eq!(build(&request), expected);
    }

    #[test]
    fn the_vmm_understands_it() {
        let config = parsed(&Request {
            protected: Some(Firmware::None),
            cpus: Cpus::Count(4),
            hugepages: true,
            boost_uclamp: true,
            console_in_is_serial: true,
            dump_device_tree: Some(15),
            swiotlb_mib: Some(32),
            balloon: true,
            overlays: vec![16],
            memory_policy: Some("prefault".into()),
            ..request()
        });
        assert_eq!(config.protection, vmm::Protection::WithoutFirmware);
        assert_eq!((config.memory, config.swiotlb), (288 << 20, Some(32 << 20)));
        assert_eq!(config.vcpus, vmm::Vcpus::Count(4));
        assert_eq!(config.params, ["console=ttyS0 quiet"]);
        let input = vmm::SerialInput::File("/proc/self/fd/13".into());
        assert_eq!(config.serial[0].input, Some(input));
        assert_eq!(config.dump_device_tree, Some("/proc/self/fd/15".into()));
        assert_eq!(config.overlays, [std::path::PathBuf::from("/proc/self/fd/16")]);
        assert!(config.hugepages && config.dont_fork);
        assert_eq!(config.memory_mode, gzvm_vmm::memory::Mode::Prefault);
    }

    /// Parameters that nobody asked for come first: the user's win.
    #[test]
    fn a_debug_policy_adds_parameters() {
        let plain = Request { ramdump: Some(17), kernel_log: true, ..request() };
        let expected =
            ["crashkernel=17M", "printk.devkmsg=on", "console=hvc0", "console=ttyS0 quiet"];
        assert_eq!(parsed(&plain).params, expected);
        let dump = "--serial=type=file,path=/proc/self/fd/17,hardware=virtio-console,num=2";
        assert!(build(&plain).iter().any(|arg| arg == dump), "{:?}", build(&plain));
        let protected = Request { protected: Some(Firmware::None), kernel_log: false, ..plain };
        assert_eq!(parsed(&protected).params, ["crashkernel=25M", "console=ttyS0 quiet"]);
    }

    #[test]
    fn firmware_and_topology() {
        let config = parsed(&Request {
            protected: Some(Firmware::Hypervisor),
            cpus: Cpus::MatchHost,
            boot: Boot::Bios(10),
            ..request()
        });
        assert_eq!(config.protection, vmm::Protection::HypervisorFirmware);
        assert_eq!(config.vcpus, vmm::Vcpus::MatchHost);
        assert_eq!(config.payload, vmm::Payload::Bios("/proc/self/fd/10".into()));
    }
}
