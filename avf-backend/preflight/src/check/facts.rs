// SPDX-License-Identifier: Apache-2.0
//! What can be seen of a host without changing it. (One VM is made and thrown away: no other
//! question proves that it can be.)

use crate::memory::{self, HostMemory};
use crate::presence::{self, Tree};
use crate::Reading;
use gzvm::abi::{cap, ext};
use gzvm::{Error, Gzvm};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What the driver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The limits in QUERY_LIMITS' format.
    pub limits: Option<u64>,
    /// Bits of a guest physical address.
    pub address_bits: Option<u64>,
    /// Whether there are protected VMs.
    pub protected: Option<u64>,
    /// The hypervisor's extensions.
    pub extensions: Option<u64>,
    /// Whether it made a VM.
    pub vm: Result<(), Error>,
    /// Bytes of the hypervisor's firmware for protected VMs.
    pub firmware: Result<u64, Error>,
}

/// Everything that is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's name for its architecture.
    pub machine: String,
    /// Bytes in a page of the kernel.
    pub page_size: u64,
    /// Whether the driver is a module that is loaded.
    pub module: bool,
    /// What the device tree says.
    pub tree: Tree,
    /// Whether the kernel has EL2 itself.
    pub kvm: bool,
    /// The hypervisor's version.
    pub version: Reading<String>,
    /// The driver's last error.
    pub driver_error: Reading<Option<String>>,
    /// `/dev/gzvm`.
    pub device: Reading<Node>,
    /// What it answers, or why it cannot be opened.
    pub asked: Result<Asked, Error>,
    /// Memory of the host.
    pub memory: HostMemory,
    /// Bytes free in blocks of 2 MiB.
    pub free_blocks: Reading<u64>,
    /// Whether guests can have huge pages.
    pub huge_pages: Reading<bool>,
    /// `/dev/vhost-vsock`, if it can be opened.
    pub vsock: Reading<()>,
    /// The binder device.
    pub binder: Reading<&'static str>,
    /// Whether SELinux enforces.
    pub selinux: Reading<bool>,
    /// This process's SELinux context.
    pub context: Reading<String>,
    /// Android's properties for unprotected and protected VMs; nothing where there is no Android.
    pub properties: Option<[Option<bool>; 2]>,
}

/// Where the driver says the hypervisor's version.
const VERSION: &str = "sys/kernel/gzvm/hypervisor_version";
/// Where a binder device may be.
const BINDER: [&str; 2] = ["dev/binderfs/binder", "dev/binder"];
/// Android's properties for unprotected and protected VMs.
const PROPERTIES: [&str; 2] =
    ["ro.boot.hypervisor.vm.supported", "ro.boot.hypervisor.protected_vm.supported"];

impl Facts {
    /// Looks at the host whose files are below `root`.
    pub fn gather(root: &Path) -> Self {
        let text = |path: &str| Reading::new(fs::read_to_string(root.join(path)));
        let device = root.join("dev/gzvm");
        Self {
            machine: machine(),
            page_size: page_size(),
            module: presence::has_module(root),
            tree: presence::tree(root),
            kvm: root.join("dev/kvm").exists(),
            version: map(text(VERSION), |text| text.trim().to_owned()),
            driver_error: presence::driver_error(root),
            device: map(Reading::new(fs::metadata(&device)), |m| Node {
                mode: m.mode() & 0o777,
                uid: m.uid(),
                gid: m.gid(),
            }),
            asked: Gzvm::open_at(&device).map(|gzvm| ask(&gzvm)),
            memory: HostMemory::read(),
            free_blocks: memory::free_blocks(root),
            huge_pages: memory::huge_pages(root),
            vsock: opens(&root.join("dev/vhost-vsock")),
            binder: binder(root),
            selinux: map(text("sys/fs/selinux/enforce"), |text| text.trim() == "1"),
            context: map(text("proc/self/attr/current"), |text| {
                text.trim_end_matches(['\0', '\n']).to_owned()
            }),
            properties: properties(root),
        }
    }
}

fn map<T, U>(reading: Reading<T>, f: impl FnOnce(T) -> U) -> Reading<U> {
    match reading {
        Reading::Value(value) => Reading::Value(f(value)),
        Reading::Absent => Reading::Absent,
        Reading::Unknown(why) => Reading::Unknown(why),
    }
}

fn machine() -> String {
    let name = nix::sys::utsname::uname();
    name.map_or_else(|_| "unknown".into(), |name| name.machine().to_string_lossy().into_owned())
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

fn ask(gzvm: &Gzvm) -> Asked {
    // What is not known and what fails are the same to a reader: no answer.
    let extension = |number| gzvm.check_extension(number).ok().flatten();
    let vm = gzvm.create_vm();
    Asked {
        limits: extension(ext::QUERY_LIMITS),
        address_bits: extension(cap::VM_GPA_SIZE),
        protected: extension(cap::PROTECTED_VM),
        extensions: extension(ext::DISCOVER),
        firmware: vm.as_ref().map_err(|e| *e).and_then(|vm| vm.pvmfw_size()),
        vm: vm.map(drop),
    }
}

fn opens(path: &Path) -> Reading<()> {
    map(Reading::new(OpenOptions::new().read(true).write(true).open(path)), drop)
}

fn binder(root: &Path) -> Reading<&'static str> {
    let mut readings = BINDER.map(|path| map(opens(&root.join(path)), |()| path)).into_iter();
    let first = readings.next().unwrap_or(Reading::Absent);
    readings.fold(first, |best, next| if best == Reading::Absent { next } else { best })
}

/// Asks Android's own tool: the file with the properties is not to be read by everybody.
fn properties(root: &Path) -> Option<[Option<bool>; 2]> {
    let tool = root.join("system/bin/getprop");
    let get = |name| {
        let output = Command::new(&tool).arg(name).output().ok()?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    };
    tool.exists().then(|| PROPERTIES.map(get))
}
