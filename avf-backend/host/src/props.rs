// SPDX-License-Identifier: Apache-2.0
//! System properties, where there is no Android to keep them: lines `name=value` in one file,
//! `/etc/gzvm/props`, or what the environment variable `GZVM_PROPS` names. Lines that start with
//! `#` are comments.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::{env, fs};

const FILE: &str = "/etc/gzvm/props";
const FILE_VARIABLE: &str = "GZVM_PROPS";

/// Whether VMs that are not protected are possible, as the bootloader says.
const VM_SUPPORTED: &str = "ro.boot.hypervisor.vm.supported";

/// Whether protected VMs are possible, as the bootloader says.
const PROTECTED_VM_SUPPORTED: &str = "ro.boot.hypervisor.protected_vm.supported";

/// Whether memory that a guest's balloon takes comes back to the host.
const MEMORY_RECLAIM: &str = "hypervisor.memory_reclaim.supported";

/// Whether each VM's device tree is kept in its directory.
const DUMP_DEVICE_TREE: &str = "hypervisor.virtualizationmanager.dump_device_tree";

/// An overlay with AVF's debug policy, in place of what the host's device tree says.
const DEBUG_POLICY: &str = "hypervisor.virtualizationmanager.debug_policy.path";

/// Where dumps are kept that kernels of guests leave. Ours, not AVF's.
const RAMDUMP_DIR: &str = "hypervisor.gzvm.ramdump_dir";

/// Which firmware protected VMs start with: not set, the hypervisor's own; `none`; or a file.
const PVMFW_PATH: &str = "hypervisor.pvmfw.path";

/// When the host provides guest memory: the VMM's `--memory-policy`. Ours, not AVF's.
const MEMORY_POLICY: &str = "hypervisor.gzvm.memory_policy";

/// The program that runs a VM: a path, or a name in PATH. Ours, not AVF's.
const VMM: &str = "hypervisor.gzvm.vmm";

/// How a protected VM starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// With the hypervisor's firmware.
    Hypervisor,
    /// Without.
    None,
    /// With a file.
    File(String),
}

/// All properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Props(HashMap<String, String>);

impl Props {
    /// Reads the file; where there is none, nothing is set.
    pub fn load() -> Result<Self> {
        let given = env::var_os(FILE_VARIABLE).map(PathBuf::from);
        let path = given.clone().unwrap_or_else(|| FILE.into());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(e) if given.is_none() && e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// What a file with this text says.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Self(pairs.map(|(name, value)| (name.trim().into(), value.trim().into())).collect())
    }

    /// A property's value, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A switch: Android's words for on and off.
    fn switch(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            "1" | "on" | "true" | "y" | "yes" => Some(true),
            "0" | "false" | "n" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// Whether VMs of this kind are possible. What nobody says is: only GenieZone's driver knows.
    pub fn supports(&self, protected: bool) -> bool {
        self.switch(if protected { PROTECTED_VM_SUPPORTED } else { VM_SUPPORTED }).unwrap_or(true)
    }

    /// Whether memory that a guest's balloon takes comes back to the host.
    pub fn memory_reclaim(&self) -> bool {
        self.switch(MEMORY_RECLAIM).unwrap_or(false)
    }

    /// Whether each VM's device tree is kept in its directory.
    pub fn dump_device_tree(&self) -> bool {
        self.switch(DUMP_DEVICE_TREE).unwrap_or(false)
    }

    /// A file with AVF's debug policy, if the property says.
    pub fn debug_policy(&self) -> Option<PathBuf> {
        self.get(DEBUG_POLICY).map(PathBuf::from)
    }

    /// Where dumps are kept that kernels of guests leave, if the property says.
    pub fn ramdump_dir(&self) -> Option<PathBuf> {
        self.get(RAMDUMP_DIR).map(PathBuf::from)
    }

    /// The program that runs a VM, if the property says.
    pub fn vmm(&self) -> Option<PathBuf> {
        self.get(VMM).map(PathBuf::from)
    }

    /// When the host provides guest memory, if the property says.
    pub fn memory_policy(&self) -> Option<String> {
        self.get(MEMORY_POLICY).map(str::to_owned)
    }

    /// How protected VMs start.
    pub fn firmware(&self) -> Firmware {
        match self.get(PVMFW_PATH) {
            None => Firmware::Hypervisor,
            Some("none") => Firmware::None,
            Some(path) => Firmware::File(path.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_policy_is_passed_on() {
        assert_eq!(Props::default().memory_policy(), None);
        let props = Props::parse("hypervisor.gzvm.memory_policy=static");
        assert_eq!(props.memory_policy().as_deref(), Some("static"));
    }

    #[test]
    fn switches_have_defaults() {
        let none = Props::default();
        assert!(none.supports(true) && none.supports(false));
        assert!(!none.memory_reclaim() && !none.dump_device_tree() && none.vmm().is_none());
        let props = Props::parse(
            "ro.boot.hypervisor.protected_vm.supported=false\n\
             hypervisor.memory_reclaim.supported=1\nhypervisor.gzvm.vmm=crosvm",
        );
        assert!(!props.supports(true) && props.supports(false) && props.memory_reclaim());
        assert_eq!(props.vmm(), Some("crosvm".into()));
        assert_eq!(props.get("no.such"), None);
    }

    #[test]
    fn firmware_follows_the_property() {
        let firmware = |text| Props::parse(text).firmware();
        assert_eq!(firmware(""), Firmware::Hypervisor);
        assert_eq!(firmware("# hypervisor.pvmfw.path=none"), Firmware::Hypervisor);
        assert_eq!(firmware("a=b\n hypervisor.pvmfw.path = none\n"), Firmware::None);
        assert_eq!(firmware("hypervisor.pvmfw.path=/x=y"), Firmware::File("/x=y".into()));
    }
}
