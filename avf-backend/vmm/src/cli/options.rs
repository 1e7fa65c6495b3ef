// SPDX-License-Identifier: Apache-2.0
//! The values of options, but for `--serial`.

use super::kv;
use super::serial::flag;
use crate::config::DiskConfig;
use crate::devices::pci::PciWindows;
use crate::layout::{Region, GIC_DIST, MIB, PVMFW};
use std::path::PathBuf;

/// The value of `--cpus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Number of vCPUs, if it is given.
    pub count: Option<u32>,
}

/// A number of MiB, as bytes.
pub fn mib(text: &str) -> Result<u64, String> {
    let mib: u64 = text.parse().map_err(|_| "a number of MiB is expected".to_owned())?;
    mib.checked_mul(MIB).ok_or_else(|| "more than can be addressed".into())
}

/// `N`, or crosvm's `size=N`.
pub fn mem(text: &str) -> Result<u64, String> {
    match mib(text.strip_prefix("size=").unwrap_or(text)) {
        Ok(0) => Err("a VM needs memory".into()),
        other => other,
    }
}

/// `N` or `num-cores=N`, and keys for what GenieZone guests do not have.
pub fn cpus(text: &str) -> Result<Cpus, String> {
    let mut count = None;
    for item in kv::parse(text).map_err(|e| e.to_string())? {
        match (item.key, item.value) {
            ("num-cores", Some(value)) | (value, None) => {
                count = Some(value.parse().map_err(|_| format!("{value} is not a number"))?);
            }
            // GenieZone hides SVE; `auto` asks for it where it exists.
            ("sve", _) => {}
            (key, _) => return Err(format!("{key} is not supported")),
        }
    }
    Ok(Cpus { count })
}

/// `geniezone`, perhaps with its device node: the path of that.
pub fn hypervisor(text: &str) -> Result<PathBuf, String> {
    let Some(options) = text.strip_prefix("geniezone") else {
        return Err(format!("{text} is not supported: geniezone is the only hypervisor"));
    };
    let options = options.strip_prefix('[').and_then(|o| o.strip_suffix(']')).unwrap_or(options);
    match options.strip_prefix("device=") {
        Some(device) => Ok(device.into()),
        None if options.is_empty() => Ok(gzvm::abi::uapi::DEVICE_PATH.into()),
        None => Err(format!("{options} is not understood: device= is")),
    }
}

/// `path=F` or `F`, then `ro=`, `id=`, and `lock=`, which has no effect.
pub fn disk(text: &str) -> Result<DiskConfig, String> {
    let mut disk = DiskConfig { path: PathBuf::new(), writable: true, id: None };
    for (index, item) in kv::parse(text).map_err(|e| e.to_string())?.into_iter().enumerate() {
        match (item.key, item.value) {
            ("path", Some(path)) => disk.path = path.into(),
            ("ro", value) => disk.writable = !flag("ro", value)?,
            ("id", Some(id)) => disk.id = Some(id.into()),
            ("lock", _) => {}
            (path, None) if index == 0 => disk.path = path.into(),
            (key, _) => return Err(format!("unknown key {key}")),
        }
    }
    match disk.path.as_os_str().is_empty() {
        true => Err("path= is missing".into()),
        false => Ok(disk),
    }
}

/// A file; crosvm's `filter`, which picks parts for assigned devices, has nothing to do here.
pub fn overlay(text: &str) -> Result<PathBuf, String> {
    match text.strip_suffix(",filter") {
        Some(_) => Err("filter is for assigned devices, which GenieZone does not have".into()),
        None => Ok(text.into()),
    }
}

/// `mem=[start=A,size=S],cam=[start=A,size=S]`, each optional, and so is the size.
pub fn pci(text: &str) -> Result<PciWindows, String> {
    let mut windows = PciWindows::default();
    for item in kv::parse(text).map_err(|e| e.to_string())? {
        match (item.key, item.value) {
            ("mem", Some(value)) => windows.memory = window(value, windows.memory.size)?,
            ("cam", Some(value)) => windows.cam = window(value, windows.cam.size)?,
            (key, _) => return Err(format!("unknown key {key}")),
        }
    }
    match windows.memory.overlaps(&windows.cam) {
        true => Err("mem and cam overlap".into()),
        false => Ok(windows),
    }
}

/// Below are the serial ports and other devices with fixed addresses.
const LOWEST_WINDOW: u64 = 0x1_0000;

fn window(text: &str, size: u64) -> Result<Region, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let mut region = Region { start: 0, size };
    for item in kv::parse(inner).map_err(|e| e.to_string())? {
        match (item.key, item.value) {
            ("start", Some(value)) => region.start = number(value)?,
            ("size", Some(value)) => region.size = number(value)?,
            (key, _) => return Err(format!("unknown key {key}")),
        }
    }
    let end = region.start.checked_add(region.size).filter(|_| region.size != 0);
    // The interrupt controller and what is before it grow downwards with the number of vCPUs.
    match end {
        Some(end) if region.start < LOWEST_WINDOW || end > PVMFW.start => {
            Err(format!("{text} is not between {LOWEST_WINDOW:#x} and {:#x}", PVMFW.start))
        }
        Some(end) if region.start < GIC_DIST.end() && end > GIC_DIST.start - 16 * MIB => {
            Err(format!("{text} is where the interrupt controller is"))
        }
        Some(_) => Ok(region),
        None => Err(format!("{text} is no range of addresses")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks() {
        let disk_of = |path: &str, writable, id: Option<&str>| {
            Ok(DiskConfig { path: path.into(), writable, id: id.map(Into::into) })
        };
        assert_eq!(disk("path=/d,ro=true,lock=false"), disk_of("/d", false, None));
        assert_eq!(disk("/d"), disk_of("/d", true, None));
        assert_eq!(disk("/d,ro,id=x"), disk_of("/d", false, Some("x")));
        for bad in ["ro=true", "/d,speed=9", "/d,ro=perhaps", "path="] {
            assert!(disk(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn windows() {
        let text = "mem=[start=0x2c000000,size=0x2000000],cam=[start=0x2e000000,size=0x1000000]";
        assert_eq!(pci(text), Ok(PciWindows::default()));
        assert!(pci("cam=[start=65536,size=0x1000000]").is_ok());
        assert_eq!(pci("mem=[start=0x2c000000],cam=[start=0x2e000000]"), pci(text));
        for bad in [
            "ecam=[start=0x2e000000,size=0x1000000]",
            "mem=[start=0x2e000000,size=0x2000000]",
            "mem=[start=0x80000000,size=0x1000]",
            "mem=[start=0x3ffe0000,size=0x1000]",
            "mem=[start=0,size=0x1000]",
            "mem=[size=0x2000000]",
            "mem=[start=0x2c000000,size=0]",
            "mem=[start=0x2c000000,size=0xffffffffffffffff]",
            "mem=[begin=0x2c000000,size=1]",
            "mem=[start=x,size=1]",
        ] {
            assert!(pci(bad).is_err(), "{bad}");
        }
    }
}
