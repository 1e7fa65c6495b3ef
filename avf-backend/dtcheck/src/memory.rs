// SPDX-License-Identifier: Apache-2.0
//! Memory, and what lies in it.

use crate::fault::Fault;
use crate::tree::{cell, pair, range, registers, value, Tree};
use crate::{Pool, Reader, FIRMWARE_WINDOW, MAIN_MEMORY, PAGE_SIZE};
use core::ops::Range;

/// The first range of memory, which is all of it.
pub(crate) fn all(tree: &Tree<'_>) -> Result<Range<u64>, Fault> {
    let node = tree.node("/memory").ok_or(Fault::Missing("/memory"))?;
    let (base, size) = registers(node)[0].ok_or(Fault::Missing("/memory reg"))?;
    if base != MAIN_MEMORY && base != FIRMWARE_WINDOW {
        return Err(Fault::MemoryBase(base));
    }
    let memory = range(base, size).filter(|_| size % PAGE_SIZE == 0);
    memory.filter(|memory| memory.end > MAIN_MEMORY).ok_or(Fault::MemorySize(size))
}

/// Whether `inner` is not empty and lies in main memory.
fn inside(inner: &Range<u64>, memory: &Range<u64>) -> bool {
    MAIN_MEMORY <= inner.start && inner.start < inner.end && inner.end <= memory.end
}

/// What `/config` calls the kernel. The firmware reads single cells only and has no other way to
/// find it.
pub(crate) fn kernel(
    tree: &Tree<'_>,
    memory: &Range<u64>,
    initrd: Option<&Range<u64>>,
    reader: Reader,
) -> Result<Option<Range<u64>>, Fault> {
    if reader != Reader::Firmware {
        return Ok(None);
    }
    let config = tree.node("/config").ok_or(Fault::Missing("/config"))?;
    let word = |name, what| cell(config, name).map(u64::from).ok_or(Fault::Missing(what));
    let start = word("kernel-address", "/config kernel-address (one cell)")?;
    let end = start + word("kernel-size", "/config kernel-size (one cell)")?;
    if !inside(&(start..end), memory) {
        return Err(Fault::NotInMemory { what: "the kernel", start, end });
    }
    if initrd.is_some_and(|initrd| start < initrd.end && initrd.start < end) {
        return Err(Fault::PayloadOverlap);
    }
    Ok(Some(start..end))
}

/// What `/chosen` calls the initial ramdisk. With only one of its ends, or one of another size,
/// the firmware would start the payload without it.
pub(crate) fn initrd(tree: &Tree<'_>, memory: &Range<u64>) -> Result<Option<Range<u64>>, Fault> {
    let chosen = tree.node("/chosen").ok_or(Fault::Missing("/chosen"))?;
    let [start, end] = ["linux,initrd-start", "linux,initrd-end"];
    if value(chosen, start).or(value(chosen, end)).is_none() {
        return Ok(None);
    }
    let word = |name, what| cell(chosen, name).map(u64::from).ok_or(Fault::Missing(what));
    let start = word(start, "/chosen linux,initrd-start (one cell)")?;
    let end = word(end, "/chosen linux,initrd-end (one cell)")?;
    if !inside(&(start..end), memory) {
        return Err(Fault::NotInMemory { what: "the initial ramdisk", start, end });
    }
    Ok(Some(start..end))
}

/// The restricted-DMA pool, without which a protected guest's devices do not work.
pub(crate) fn pool(
    tree: &Tree<'_>,
    memory: &Range<u64>,
    reader: Reader,
) -> Result<Option<Pool>, Fault> {
    let node = match tree.compatible("restricted-dma-pool") {
        Ok(node) => node,
        Err(_) if reader == Reader::Plain => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let (start, size) = match registers(node)[0] {
        Some((start, size)) => (Some(start), size),
        None => (None, pair(node, "size").ok_or(Fault::Missing("restricted-dma-pool size"))?),
    };
    if size == 0 || size % PAGE_SIZE != 0 {
        return Err(Fault::PoolSize(size));
    }
    let Some(start) = start else {
        let alignment = pair(node, "alignment");
        let alignment = alignment.ok_or(Fault::Missing("restricted-dma-pool alignment"))?;
        if alignment % PAGE_SIZE != 0 {
            return Err(Fault::PoolAlignment(alignment));
        }
        return Ok(Some(Pool::Anywhere(size)));
    };
    let end = start.saturating_add(size);
    if !inside(&(start..end), memory) {
        return Err(Fault::NotInMemory { what: "the restricted-DMA pool", start, end });
    }
    Ok(Some(Pool::Fixed(start..end)))
}
