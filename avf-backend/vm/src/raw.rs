// SPDX-License-Identifier: Apache-2.0
//! A description as the service wants it: with the files open.

use crate::cli::{Cpus, RunArgs};
use crate::config::{self, ConsoleInput, VmConfig};
use anyhow::{anyhow, ensure, Context, Result};
use avf_aidl::aidl::virtualizationservice::{
    CpuOptions::{CpuOptions, CpuTopology::CpuTopology},
    DiskImage::DiskImage,
    Partition::Partition,
    VirtualMachineRawConfig::VirtualMachineRawConfig,
};
use binder::ParcelFileDescriptor;
use std::fs::OpenOptions;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// Name of a VM that was given none.
const DEFAULT_NAME: &str = "VmRun";

/// Opens what `key` of the description, or an option, names.
pub fn open(key: &str, path: &Path, writable: bool) -> Result<ParcelFileDescriptor> {
    let file = OpenOptions::new().read(true).write(writable).open(path);
    let file = file.with_context(|| format!("{key}: cannot open {}", path.display()))?;
    // One can be opened for reading.
    let is_dir = file.metadata().is_ok_and(|data| data.is_dir());
    ensure!(!is_dir, "{key}: {} is a directory", path.display());
    Ok(ParcelFileDescriptor::new(file))
}

fn read(key: &str, path: &Option<PathBuf>) -> Result<Option<ParcelFileDescriptor>> {
    path.as_ref().map(|path| open(key, path, false)).transpose()
}

/// What the service is to run: the description, and what the command line says instead.
pub fn parcelable(config: &VmConfig, args: &RunArgs) -> Result<VirtualMachineRawConfig> {
    let (common, debug) = (&args.common, &args.debug);
    let memory = common.mem.or(config.memory_mib);
    let topology = match common.cpu_topology {
        Cpus::Count(count) => CpuTopology::CpuCount(i32::try_from(count).context("cpu_count")?),
        Cpus::MatchHost => CpuTopology::MatchHost(true),
    };
    let input = match config.console_input_device {
        ConsoleInput::Hvc0 => "hvc0",
        ConsoleInput::TtyS0 => "ttyS0",
    };
    Ok(VirtualMachineRawConfig {
        name: common.name.clone().unwrap_or_else(|| DEFAULT_NAME.into()),
        kernel: read("key \"kernel\"", &config.kernel)?,
        initrd: read("key \"initrd\"", &config.initrd)?,
        params: config.params.clone(),
        bootloader: read("key \"bootloader\"", &config.bootloader)?,
        disks: config.disks.iter().map(disk).collect::<Result<_>>()?,
        protectedVm: common.protected || config.protected,
        memoryMib: memory.map_or(Ok(0), memory_mib)?,
        cpuOptions: CpuOptions { cpuTopology: topology },
        platformVersion: config.platform_version.to_string(),
        gdbPort: debug.gdb.map_or(0, i32::from),
        hugePages: common.hugepages,
        consoleInputDevice: Some(input.into()),
        boostUclamp: common.boost_uclamp,
        balloon: true,
        ..Default::default()
    })
}

fn memory_mib(mib: NonZeroU32) -> Result<i32> {
    i32::try_from(mib.get())
        .map_err(|_| anyhow!("memory: {mib} MiB are more than a VM can have: {} MiB", i32::MAX))
}

fn disk(disk: &config::Disk) -> Result<DiskImage> {
    let image = disk.image.as_ref().map(|path| open("key \"disks\"", path, disk.writable));
    Ok(DiskImage {
        image: image.transpose()?,
        writable: disk.writable,
        partitions: disk.partitions.iter().map(partition).collect::<Result<_>>()?,
    })
}

fn partition(partition: &config::Partition) -> Result<Partition> {
    Ok(Partition {
        label: partition.label.clone(),
        image: Some(open("key \"partitions\"", &partition.path, partition.writable)?),
        writable: partition.writable,
        guid: partition.guid.map(|guid| guid.to_string()),
    })
}
