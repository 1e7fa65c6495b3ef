// SPDX-License-Identifier: Apache-2.0
//! What the firmware changes in the device tree: seeds that the host knows are replaced, and the
//! payload learns that it was started by the firmware.

use crate::Refusal;
use dtoolkit::fdt_mut::FdtMut;
use dtoolkit::{Node, Property};
use gzvm_dtcheck::Fault;
use gzvm_guest::{Hvc, Trng};

/// Bytes of the seed for the payload's random number generator.
const SEED: usize = 256;

/// Changes the tree at the start of `window`; the rest of the window is room to grow into.
pub(crate) fn patch<H: Hvc>(window: &mut [u8], trng: &Trng<H>) -> Result<(), Refusal> {
    let mut tree = FdtMut::from_slice(window).map_err(Fault::Malformed)?;
    let mut kaslr = [0; 8];
    let mut seed = [0; SEED];
    trng.fill(&mut kaslr)?;
    trng.fill(&mut seed)?;
    set(&mut tree, "kaslr-seed", &kaslr)?;
    set(&mut tree, "rng-seed", &seed)?;
    set(&mut tree, "avf,strict-boot", &[])?;
    set(&mut tree, "avf,new-instance", &[])
}

/// Sets a property of `/chosen`, which the checks have found.
fn set(
    tree: &mut FdtMut<dtoolkit::fdt_mut::SliceBuffer<'_>>,
    name: &str,
    value: &[u8],
) -> Result<(), Refusal> {
    let mut chosen = tree.find_node_mut("/chosen").ok_or(Fault::Missing("/chosen"))?;
    match chosen.property_mut(name) {
        Some(mut property) => property.set_value(value)?,
        None => _ = chosen.add_property(name, value)?,
    }
    Ok(())
}

/// A word of the payload's command line.
pub(crate) fn has_parameter(blob: &[u8], word: &str) -> bool {
    let Ok(tree) = gzvm_dtcheck::parse(blob) else { return false };
    let Some(chosen) = tree.find_node("/chosen") else { return false };
    let Some(line) = chosen.property("bootargs") else { return false };
    line.value_as::<&str>().is_ok_and(|line| line.split_ascii_whitespace().any(|w| w == word))
}
