// SPDX-License-Identifier: Apache-2.0
//! Writes the device trees of some VMs to a directory, for tools that check device trees.

#![forbid(unsafe_code)]

use gzvm_vmm::devices::pci::PciWindows;
use gzvm_vmm::fdt::{self, Description, Seeds};
use gzvm_vmm::layout::{Layout, MIB};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("a directory is expected")?;
    for (name, pool, firmware, vcpus) in [
        ("plain", None, false, 1),
        ("protected", Some(8), false, 2),
        ("firmware", Some(8), true, 9),
    ] {
        let layout = Layout::new(264 * MIB, pool.map(|mib| mib * MIB), vcpus, false, firmware)?;
        let placement = layout.place_kernel(0, 12 * MIB, 13 * MIB, Some(MIB))?;
        let seeds = Seeds { kaslr: 1, rng: [2; 256] };
        let description = Description {
            layout: &layout,
            placement: &placement,
            vcpus,
            bootargs: "panic=-1",
            seeds: &seeds,
            pci: (PciWindows::default(), 8),
        };
        std::fs::write(dir.join(name).with_extension("dtb"), fdt::write(&description.tree()?)?)?;
    }
    Ok(())
}
