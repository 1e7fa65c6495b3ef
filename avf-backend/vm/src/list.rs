// SPDX-License-Identifier: Apache-2.0
//! `vm list`, `vm info` and `vm console`: what the service knows, in AVF's words.

use anyhow::{bail, Context, Result};
use avf_aidl::aidl::virtualizationservice::VirtualMachineDebugInfo::VirtualMachineDebugInfo;
use gzvm_client::{exception, Service};
use gzvm_ctl::output;
use gzvm_host::props::Props;
use std::io::{stdin, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The hypervisor's version, as the bootloader says.
const VERSION: &str = "ro.boot.hypervisor.version";
/// Shows a terminal, and types into it.
const TERMINAL: &str = "microcom";

/// The VMs that this user may see.
fn vms() -> Result<Vec<VirtualMachineDebugInfo>> {
    Service::start()?.connect()?.debugListVms().map_err(exception)
}

/// Prints them, as Rust prints structures: scripts look for its lines.
pub fn list() -> Result<()> {
    output::print(&format!("Running VMs: {:#?}\n", vms()?)).map(drop)
}

/// Prints what this machine has for VMs.
pub fn info() -> Result<()> {
    let props = Props::load()?;
    let mut lines = vec![kinds(props.supports(false), props.supports(true)).to_owned()];
    lines.push(match props.get(VERSION) {
        Some(version) => format!("Hypervisor version: {version}"),
        None => "Hypervisor version not set.".into(),
    });
    for node in ["/dev/kvm", "/dev/gzvm", "/dev/vfio/vfio"] {
        let verb = if Path::new(node).exists() { "exists" } else { "does not exist" };
        lines.push(format!("{node} {verb}."));
    }
    let vfio = Path::new("/sys/bus/platform/drivers/vfio-platform").exists();
    lines.push(format!("VFIO-platform is {}supported.", if vfio { "" } else { "not " }));
    let service = Service::start()?;
    let service = service.connect()?;
    let devices = service.getAssignableDevices().map_err(exception)?;
    let nodes: Vec<_> = devices.into_iter().map(|device| device.node).collect();
    lines.push(format!("Assignable devices: {}", serde_json::to_string(&nodes)?));
    let systems = service.getSupportedOSList().map_err(exception)?;
    lines.push(format!("Available OS list: {}", serde_json::to_string(&systems)?));
    lines.push(format!("Debug policy: {}\n", service.getDebugPolicy().map_err(exception)?));
    output::print(&lines.join("\n")).map(drop)
}

fn kinds(plain: bool, protected: bool) -> &'static str {
    match (plain, protected) {
        (true, true) => "Both protected and non-protected VMs are supported.",
        (false, true) => "Only protected VMs are supported.",
        (true, false) => "Only non-protected VMs are supported.",
        (false, false) => "VMs are not supported.",
    }
}

/// Shows the console of a VM, or of the first that has one, until the user leaves it.
pub fn console(cid: Option<i32>) -> Result<()> {
    if !stdin().is_terminal() {
        bail!("standard input must be a terminal: over adb, use adb shell -t");
    }
    let name = console_of(vms()?, cid)?;
    Err(Command::new(TERMINAL).arg(&name).exec())
        .with_context(|| format!("cannot start {TERMINAL} for {name}"))
}

fn console_of(vms: Vec<VirtualMachineDebugInfo>, cid: Option<i32>) -> Result<String> {
    let mut wanted = vms.into_iter().filter(|vm| cid.is_none_or(|cid| vm.cid == cid)).peekable();
    if wanted.peek().is_none() {
        match cid {
            Some(cid) => bail!("there is no VM with the CID {cid}: see vm list"),
            None => bail!("there is no VM: see vm list"),
        }
    }
    wanted.find_map(|vm| vm.hostConsoleName).context(
        "its console is at no terminal of its own: vm run shows it where vm run was started, \
         unless it was given --pty",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(cid: i32, console: Option<&str>) -> VirtualMachineDebugInfo {
        VirtualMachineDebugInfo {
            cid,
            hostConsoleName: console.map(str::to_owned),
            ..Default::default()
        }
    }

    #[test]
    fn the_first_console_is_shown() {
        let vms =
            || vec![vm(2048, None), vm(2049, Some("/dev/pts/1")), vm(2050, Some("/dev/pts/2"))];
        assert_eq!(console_of(vms(), None).unwrap(), "/dev/pts/1");
        assert_eq!(console_of(vms(), Some(2050)).unwrap(), "/dev/pts/2");
        assert!(console_of(vms(), Some(2048)).unwrap_err().to_string().contains("--pty"));
        assert!(console_of(vms(), Some(7)).unwrap_err().to_string().contains("CID 7"));
        assert!(console_of(Vec::new(), None).unwrap_err().to_string().contains("no VM"));
    }

    #[test]
    fn a_listing_has_avfs_shape() {
        let text = format!("{:#?}", vec![vm(2048, Some("/dev/pts/1"))]);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let expected = [
            "[",
            "VirtualMachineDebugInfo {",
            "cid: 2048,",
            "temporaryDirectory: \"\",",
            "requesterUid: 0,",
            "requesterPid: 0,",
            "hostConsoleName: Some(",
            "\"/dev/pts/1\",",
            "),",
            "},",
            "]",
        ];
        assert_eq!(lines, expected);
    }
}
