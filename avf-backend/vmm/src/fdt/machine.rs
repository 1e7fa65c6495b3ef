// SPDX-License-Identifier: Apache-2.0
//! What this machine says about itself in the device tree.
//!
//! Nodes, names and values are crosvm's, since AOSP's firmware takes the tree apart (what it does
//! not expect, it drops or refuses) and its tests compare it with a reference.

use super::overlay::SYMBOLS;
use super::tree::Node;
use super::FdtError;
use crate::devices::pci::{slot_spi, PciWindows};
use crate::devices::rtc::PERIPHID;
use crate::layout::{
    Layout, Placement, Region, GIC_DIST, RTC, RTC_SPI, SERIAL, SERIAL_SIZE, STALL_DETECTOR,
    STALL_DETECTOR_PPI,
};
use crate::memory::host_page;

const PHANDLE_GIC: u32 = 1;
const PHANDLE_RESTRICTED_DMA: u32 = 2;
const PHANDLE_CLOCK: u32 = 24;
/// The first vCPU's.
const PHANDLE_CPU: u32 = 0x100;

/// GIC binding: shared peripheral interrupt.
const SPI: u32 = 0;
/// GIC binding: private peripheral interrupt.
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;
const LEVEL_LOW: u32 = 8;
/// GIC binding: the lowest bit of the mask of CPUs that a PPI goes to.
const PPI_CPU_SHIFT: u32 = 8;

/// PCI binding (IEEE 1275): 64-bit memory. The window for devices is below 4 GiB, but AVF's firmware
/// refuses 32-bit memory up to and including Android 16's; Linux and later firmware take either.
const PCI_MEMORY_64: u32 = 0x0300_0000;
/// PCI binding: prefetchable 64-bit memory.
const PCI_PREFETCHABLE_64: u32 = 0x4300_0000;
/// PCI binding: the lowest bit of the slot in an address.
const PCI_SLOT_SHIFT: u32 = 11;
/// PCI binding: the slot in an address.
const PCI_SLOT_MASK: u32 = 0xf800;
const PCI_INTA: u32 = 1;

/// The generic timer's PPIs: secure and non-secure physical, virtual, hypervisor.
const TIMER_PPIS: [u32; 4] = [13, 14, 11, 10];
/// Input clock of a PC's 16550, in Hz.
const SERIAL_CLOCK: u32 = 1_843_200;
/// The clock's bus clock, which only has to exist, and its rate in Hz.
const CLOCK: &str = "pclk@3M";
const PCLK: u32 = 3_141_592;
/// How fast the stall detector counts, in Hz, and when a vCPU is stuck, in seconds of guest time.
const STALL_CLOCK: u32 = 2;
const STALL_TIMEOUT: u32 = 10;
/// vCPUs in one affinity level 0 group, as GICv3 SGIs address them.
const VCPUS_PER_CLUSTER: u32 = 16;
/// COMMAND_LINE_SIZE of arm64 Linux, with the terminating zero.
const BOOTARGS_LIMIT: usize = 2048;

/// Randomness for the guest.
#[derive(Clone, Debug)]
pub struct Seeds {
    /// For the address space layout.
    pub kaslr: u64,
    /// For the random number generator.
    pub rng: [u8; 256],
}

/// What the tree describes.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// Address space.
    pub layout: &'a Layout,
    /// Where the payload is.
    pub placement: &'a Placement,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Kernel parameters.
    pub bootargs: &'a str,
    /// Randomness.
    pub seeds: &'a Seeds,
    /// PCI windows, and the number of devices behind the bridge.
    pub pci: (PciWindows, u8),
}

impl Description<'_> {
    /// The tree.
    pub fn tree(&self) -> Result<Node, FdtError> {
        let mut root = Node::new("");
        root.set_strings("compatible", &["linux,dummy-virt"])
            .set_cells("#address-cells", &[2])
            .set_cells("#size-cells", &[2])
            .set_cells("interrupt-parent", &[PHANDLE_GIC]);
        self.chosen(root.child("chosen"))?;
        self.memory(&mut root);
        self.cpus(root.child("cpus"));
        root.child("psci")
            .set_strings("compatible", &["arm,psci-1.0", "arm,psci-0.2"])
            .set_strings("method", &["hvc"]);
        self.gic(root.child("intc"));
        self.timer(root.child("timer"));
        for (address, spi) in SERIAL {
            serial(root.child(&serial_name(address)), address, spi);
        }
        rtc(&mut root);
        self.stall_detector(root.child(&at("vmwdt", STALL_DETECTOR)));
        self.pci(root.child("pci"));
        self.config(root.child("config"));
        // The driver of this name talks to KVM, and leaves alone what is not KVM's.
        root.child("cpufreq").set_strings("compatible", &["virtual,kvm-cpufreq"]);
        // Labels that overlays can refer to.
        root.child(SYMBOLS).set_strings("intc", &["/intc"]);
        // rialto fails without it; what is below comes from overlays.
        root.child("avf");
        Ok(root)
    }

    fn chosen(&self, chosen: &mut Node) -> Result<(), FdtError> {
        let len = self.bootargs.len();
        if len >= BOOTARGS_LIMIT {
            return Err(FdtError::Bootargs { len, limit: BOOTARGS_LIMIT - 1 });
        }
        let stdout = format!("/{}", serial_name(SERIAL[0].0));
        chosen
            .set_cells("linux,pci-probe-only", &[1])
            .set_strings("bootargs", &[self.bootargs])
            .set_strings("stdout-path", &[&stdout])
            .set_pairs("kaslr-seed", &[self.seeds.kaslr])
            .set_bytes("rng-seed", self.seeds.rng.to_vec());
        if let Some(initrd) = self.placement.initrd {
            set_address(chosen, "linux,initrd-start", initrd.start);
            set_address(chosen, "linux,initrd-end", initrd.end());
        }
        Ok(())
    }

    fn memory(&self, root: &mut Node) {
        let memory = self.layout.memory();
        root.child("memory")
            .set_strings("device_type", &["memory"])
            .set_pairs("reg", &[memory.start, memory.size]);
        if let Some(pool) = self.layout.swiotlb {
            let reserved = root.child("reserved-memory");
            reserved
                .set_cells("#address-cells", &[2])
                .set_cells("#size-cells", &[2])
                .set_flag("ranges")
                .child(&at("restricted_dma_reserved", pool))
                .set_strings("compatible", &["restricted-dma-pool"])
                .set_pairs("reg", &[pool.start, pool.size])
                .set_pairs("alignment", &[host_page()])
                .set_cells("phandle", &[PHANDLE_RESTRICTED_DMA]);
        }
    }

    fn cpus(&self, cpus: &mut Node) {
        cpus.set_cells("#address-cells", &[1]).set_cells("#size-cells", &[0]);
        for id in 0..self.vcpus {
            let affinity = affinity(id);
            let cpu = cpus.child(&format!("cpu@{affinity:x}"));
            cpu.set_strings("device_type", &["cpu"])
                .set_strings("compatible", &["arm,armv8"])
                .set_cells("reg", &[affinity])
                .set_cells("phandle", &[PHANDLE_CPU + id]);
            if self.vcpus > 1 {
                cpu.set_strings("enable-method", &["psci"]);
            }
        }
    }

    fn gic(&self, gic: &mut Node) {
        let redist = self.layout.gic_redist;
        gic.set_strings("compatible", &["arm,gic-v3"])
            .set_cells("#interrupt-cells", &[3])
            .set_flag("interrupt-controller")
            .set_pairs("reg", &[GIC_DIST.start, GIC_DIST.size, redist.start, redist.size])
            .set_cells("phandle", &[PHANDLE_GIC])
            .set_cells("#address-cells", &[2])
            .set_cells("#size-cells", &[2]);
    }

    fn timer(&self, timer: &mut Node) {
        let interrupts = TIMER_PPIS.map(|ppi| [PPI, ppi, LEVEL_LOW | self.ppi_mask()]);
        timer
            .set_strings("compatible", &["arm,armv8-timer"])
            .set_cells("interrupts", interrupts.as_flattened())
            .set_flag("always-on");
    }

    /// The CPU mask of a PPI's flags; it has eight bits, which the GICv3 binding ignores.
    fn ppi_mask(&self) -> u32 {
        ((1 << self.vcpus.min(8)) - 1) << PPI_CPU_SHIFT
    }

    fn stall_detector(&self, detector: &mut Node) {
        detector
            .set_strings("compatible", &["qemu,vcpu-stall-detector"])
            .set_pairs("reg", &[STALL_DETECTOR.start, STALL_DETECTOR.size])
            .set_cells("clock-frequency", &[STALL_CLOCK])
            .set_cells("timeout-sec", &[STALL_TIMEOUT])
            .set_cells("interrupts", &[PPI, STALL_DETECTOR_PPI, EDGE_RISING | self.ppi_mask()]);
    }

    fn pci(&self, pci: &mut Node) {
        let (PciWindows { cam, memory }, devices) = self.pci;
        let high = self.layout.high_mmio();
        let mut ranges = Vec::new();
        for (space, window) in [(PCI_MEMORY_64, memory), (PCI_PREFETCHABLE_64, high)] {
            ranges.push(space);
            ranges.extend([window.start, window.start, window.size].map(cells).as_flattened());
        }
        let mut map = Vec::new();
        for slot in 1..=devices {
            let address = u32::from(slot) << PCI_SLOT_SHIFT;
            map.extend([address, 0, 0, PCI_INTA, PHANDLE_GIC, 0, 0]);
            map.extend([SPI, slot_spi(slot), LEVEL_HIGH]);
        }
        pci.set_strings("compatible", &["pci-host-cam-generic"])
            .set_strings("device_type", &["pci"])
            .set_cells("#address-cells", &[3])
            .set_cells("#size-cells", &[2])
            .set_cells("#interrupt-cells", &[1])
            .set_cells("bus-range", &[0, 0])
            .set_pairs("reg", &[cam.start, cam.size])
            .set_cells("ranges", &ranges)
            .set_cells("interrupt-map", &map)
            .set_cells("interrupt-map-mask", &[PCI_SLOT_MASK, 0, 0, 7])
            .set_flag("dma-coherent");
        if self.layout.swiotlb.is_some() {
            pci.set_cells("memory-region", &[PHANDLE_RESTRICTED_DMA]);
        }
    }

    /// Where firmware finds the payload. crosvm has it in every tree.
    fn config(&self, config: &mut Node) {
        let payload = self.placement.payload;
        set_address(config, "kernel-address", payload.start);
        set_address(config, "kernel-size", payload.size);
    }
}

/// A 64-bit value as two cells.
fn cells(value: u64) -> [u32; 2] {
    // CAST: the two halves are meant.
    [(value >> 32) as u32, value as u32]
}

/// MPIDR affinity of a vCPU.
fn affinity(id: u32) -> u32 {
    ((id / VCPUS_PER_CLUSTER) << 8) | (id % VCPUS_PER_CLUSTER)
}

/// One cell where that is enough, because the firmware reads one only; Linux reads either.
fn set_address(node: &mut Node, name: &str, value: u64) {
    match u32::try_from(value) {
        Ok(low) => node.set_cells(name, &[low]),
        Err(_) => node.set_pairs(name, &[value]),
    };
}

fn at(name: &str, region: Region) -> String {
    format!("{name}@{:x}", region.start)
}

fn rtc(root: &mut Node) {
    root.child(CLOCK)
        .set_strings("compatible", &["fixed-clock"])
        .set_cells("#clock-cells", &[0])
        .set_cells("clock-frequency", &[PCLK])
        .set_cells("phandle", &[PHANDLE_CLOCK]);
    root.child(&at("rtc", RTC))
        .set_strings("compatible", &["arm,primecell"])
        .set_cells("arm,primecell-periphid", &[PERIPHID])
        .set_pairs("reg", &[RTC.start, RTC.size])
        .set_cells("interrupts", &[SPI, RTC_SPI, LEVEL_HIGH])
        .set_cells("clocks", &[PHANDLE_CLOCK])
        .set_strings("clock-names", &["apb_pclk"]);
}

fn serial_name(address: u64) -> String {
    format!("U6_16550A@{address:x}")
}

fn serial(node: &mut Node, address: u64, spi: u32) {
    node.set_strings("compatible", &["ns16550a"])
        .set_pairs("reg", &[address, SERIAL_SIZE])
        .set_cells("clock-frequency", &[SERIAL_CLOCK])
        .set_cells("interrupts", &[SPI, spi, EDGE_RISING]);
}

#[cfg(test)]
mod tests;
