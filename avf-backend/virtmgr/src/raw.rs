// SPDX-License-Identifier: Apache-2.0
//! Raw configurations: what is wrong with them, and what the VMM is to be told.

use crate::argv::{Boot, Cpus, Request};
use crate::errors::{failed, illegal_argument, security, unsupported};
use crate::files::Files;
use crate::{disk, overlay};
use anyhow::anyhow;
use avf_aidl::aidl::virtualizationservice::{
    AssignedDevices::AssignedDevices, CpuOptions::CpuTopology::CpuTopology,
    VirtualMachineRawConfig::VirtualMachineRawConfig as RawConfig,
};
use binder::{ExceptionCode, Status};
use gzvm_host::props::Props;
use semver::{Version, VersionReq};
use std::os::fd::RawFd;
use std::path::Path;

/// The virtual platform's version, which a configuration must admit.
pub const PLATFORM_VERSION: Version = Version::new(1, 0, 0);
/// MiB of memory where nobody says.
const DEFAULT_MEMORY_MIB: u32 = 256;

/// What a VM's console, log and so on are connected to: numbers among its files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    /// Where the console prints to.
    pub console_out: Option<RawFd>,
    /// Where the console reads from.
    pub console_in: Option<RawFd>,
    /// Where the log goes.
    pub log: Option<RawFd>,
    /// Where the guest says why it failed.
    pub failure: RawFd,
    /// Where the guest's kernel saves its memory.
    pub ramdump: Option<RawFd>,
    /// Where a copy of the device tree goes.
    pub dump_device_tree: Option<RawFd>,
    /// Where commands come from.
    pub socket: Option<RawFd>,
}

/// Refuses what cannot be, before anything is made for the VM.
pub fn check(config: &RawConfig, props: &Props) -> binder::Result<()> {
    check_shape(config)?;
    check_devices(config)?;
    if !props.supports(config.protectedVm) {
        let kind = if config.protectedVm { "protected VMs" } else { "VMs that are not protected" };
        return Err(unsupported(format!("this machine has no {kind}: so its bootloader says")));
    }
    match (config.gdbPort, config.protectedVm) {
        (0, _) => Ok(()),
        (_, true) => Err(security("gdbPort: a protected VM cannot be debugged")),
        (_, false) => Err(unsupported("gdbPort: GenieZone gives no access to a guest's registers")),
    }
}

fn check_shape(config: &RawConfig) -> binder::Result<()> {
    let texts = [Some(&config.name), config.params.as_ref()];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(illegal_argument("name and params must not contain a zero character"));
    }
    let version = VersionReq::parse(&config.platformVersion).map_err(|e| {
        let text = format!("platformVersion {:?}: {e}", config.platformVersion);
        Status::from((ExceptionCode::BadParcelable, text.as_str()))
    })?;
    if !version.matches(&PLATFORM_VERSION) {
        return Err(failed(&anyhow!(
            "platformVersion: {version} is asked for, this is {PLATFORM_VERSION}"
        )));
    }
    match (&config.kernel, &config.bootloader, &config.initrd) {
        (None, None, _) => Err(failed(&anyhow!("a VM needs a kernel or a bootloader"))),
        (Some(_), Some(_), _) => Err(failed(&anyhow!("kernel and bootloader exclude each other"))),
        (None, Some(_), Some(_)) => {
            Err(failed(&anyhow!("initrd and bootloader exclude each other")))
        }
        _ => Ok(()),
    }
}

/// What GenieZone's VMs do not have.
fn check_devices(config: &RawConfig) -> binder::Result<()> {
    let assigned = matches!(&config.devices, AssignedDevices::Devices(list) if !list.is_empty());
    let usb = config.usbConfig.as_ref().is_some_and(|usb| usb.controller);
    for (asked, what) in [
        (assigned, "devices: GenieZone assigns no devices to guests"),
        (config.networkSupported, "networkSupported: VMs have no network"),
        (usb, "usbConfig: VMs have no USB"),
        (config.displayConfig.is_some(), "displayConfig: VMs have no display"),
        (config.gpuConfig.is_some(), "gpuConfig: VMs have no GPU"),
        (config.audioConfig.is_some(), "audioConfig: VMs have no sound"),
        (!config.inputDevices.is_empty(), "inputDevices: VMs have no input devices"),
        (!config.sharedPaths.is_empty(), "sharedPaths: VMs share no directories"),
        (!config.teeServices.is_empty(), "teeServices: VMs have no TEE"),
        (
            !config.customMemoryBackingFiles.is_empty(),
            "customMemoryBackingFiles: all memory of a VM is one file of its VMM's",
        ),
        (
            config.enableHypervisorSpecificAuthMethod,
            "enableHypervisorSpecificAuthMethod: that is Gunyah's",
        ),
    ] {
        if asked {
            return Err(unsupported(what));
        }
    }
    match config.consoleInputDevice.as_deref() {
        None | Some("hvc0" | "ttyS0") => Ok(()),
        Some(other) => Err(illegal_argument(format!(
            "consoleInputDevice: {other:?} is neither hvc0 nor ttyS0"
        ))),
    }
}

/// What the VMM is to be told about a configuration that [`check`] lets pass.
pub fn request(
    config: &RawConfig,
    props: &Props,
    cid: u32,
    streams: Streams,
    files: &mut Files,
) -> binder::Result<Request> {
    let positive = |number: i32| u32::try_from(number).ok().filter(|&number| number != 0);
    let disks = config.disks.iter().map(|d| disk::disk(d, files)).collect::<Result<_, _>>()?;
    Ok(Request {
        name: config.name.clone(),
        cid,
        protected: config.protectedVm.then(|| props.firmware()),
        memory_mib: positive(config.memoryMib).unwrap_or(DEFAULT_MEMORY_MIB),
        swiotlb_mib: positive(config.swiotlbMib),
        balloon: config.balloon && props.memory_reclaim(),
        cpus: cpus(config)?,
        boot: boot(config, files)?,
        params: config.params.clone(),
        disks,
        console_out: streams.console_out,
        console_in: streams.console_in,
        console_in_is_serial: config.consoleInputDevice.as_deref() == Some("ttyS0"),
        log: streams.log,
        failure: streams.failure,
        ramdump: streams.ramdump,
        kernel_log: false,
        dump_device_tree: streams.dump_device_tree,
        socket: streams.socket,
        overlays: overlays(config, files)?,
        hugepages: config.hugePages,
        boost_uclamp: config.boostUclamp,
        memory_policy: props.memory_policy(),
    })
}

fn cpus(config: &RawConfig) -> binder::Result<Cpus> {
    match config.cpuOptions.cpuTopology {
        CpuTopology::MatchHost(true) => Ok(Cpus::MatchHost),
        CpuTopology::MatchHost(false) => Ok(Cpus::Count(1)),
        CpuTopology::CpuCount(count) => match u32::try_from(count) {
            Ok(count @ 1..) => Ok(Cpus::Count(count)),
            _ => Err(illegal_argument(format!("cpuCount: {count} vCPUs cannot be"))),
        },
    }
}

fn boot(config: &RawConfig, files: &mut Files) -> binder::Result<Boot> {
    let mut copy = |fd| files.copy(fd).map_err(|e| failed(&e));
    match (&config.kernel, &config.bootloader) {
        (Some(kernel), _) => Ok(Boot::Kernel {
            kernel: copy(kernel)?,
            initrd: config.initrd.as_ref().map(copy).transpose()?,
        }),
        (None, Some(bootloader)) => Ok(Boot::Bios(copy(bootloader)?)),
        (None, None) => Err(failed(&anyhow!("a VM needs a kernel or a bootloader"))),
    }
}

fn overlays(config: &RawConfig, files: &mut Files) -> binder::Result<Vec<RawFd>> {
    let mut overlays = Vec::new();
    let own = overlay::overlay(Path::new(overlay::REFERENCE), &config.instanceId);
    if let Some(own) = own.map_err(|e| failed(&e))? {
        overlays.push(files.contents("vm_dt_overlay.dtbo", &own).map_err(|e| failed(&e))?);
    }
    match &config.devices {
        AssignedDevices::Dtbo(Some(dtbo)) => {
            overlays.push(files.copy(dtbo).map_err(|e| failed(&e))?);
        }
        AssignedDevices::Dtbo(None) => return Err(illegal_argument("devices: no dtbo")),
        AssignedDevices::Devices(_) => {}
    }
    Ok(overlays)
}

#[cfg(test)]
mod tests;
