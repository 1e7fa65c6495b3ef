// SPDX-License-Identifier: Apache-2.0
//! Names for addresses in the host's kernel and in the module under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::parts::Parts;
use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// What the benchmarks' boot says about where the module's code is.
const MODULE: &str = "##module-text ";

/// Functions by their addresses.
#[derive(Debug, Default)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// The kernel's map, the hypervisor's symbols, and the module's from where its code was loaded to.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or the console does not say where the module is.
    pub fn load(parts: &Parts, module: &Path, console: &[String]) -> Result<Self> {
        let mut symbols = read_map(parts)?;
        symbols.add(&parts.refhyp.with_extension("elf"), None)?;
        let address = console.iter().find_map(|line| line.trim_end().strip_prefix(MODULE));
        let address = address.context("the console does not say where gzvm.ko is")?;
        symbols.add(module, Some(u64::from_str_radix(address.trim_start_matches("0x"), 16)?))?;
        Ok(symbols)
    }

    /// Adds the functions of an ELF file, of a module where its code was loaded to.
    fn add(&mut self, path: &Path, loaded: Option<u64>) -> Result<()> {
        let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = object::File::parse(&*data)?;
        let code = file.section_by_name(".text");
        let code = code.with_context(|| format!("{} has no code", path.display()))?;
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
            if symbol.section_index() == Some(code.index()) {
                let offset = symbol.address() - code.address();
                let address = loaded.unwrap_or(code.address()) + offset;
                self.0.insert(address, readable(symbol.name().unwrap_or("?")));
            }
        }
        Ok(())
    }

    /// `ffff800080000000 T name` in each line.
    fn of_map(text: &str) -> Self {
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let code = matches!(words.next()?, "t" | "T" | "w" | "W");
            code.then(|| words.next().map(|name| (address, readable(name))))?
        };
        Self(text.lines().filter_map(entry).collect())
    }

    /// Where a function is.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.0.iter().find_map(|(address, own)| (own == name).then_some(*address))
    }

    /// The function that has an address in it, and whether it is its first.
    pub fn name(&self, address: u64) -> Option<(&str, bool)> {
        let (start, name) = self.0.range(..=address).next_back()?;
        Some((name, *start == address))
    }

    /// The function that has an address in it, and where in it that is.
    pub fn place(&self, address: u64) -> Option<String> {
        let (start, name) = self.0.range(..=address).next_back()?;
        Some(format!("{name}+{:#x}", address - start))
    }
}

/// The kernel's functions.
///
/// # Errors
///
/// When the kernel's map cannot be read.
pub fn read_map(parts: &Parts) -> Result<Symbols> {
    let map = parts.kernel.build.join("System.map");
    let text =
        fs::read_to_string(&map).with_context(|| format!("cannot read {}", map.display()))?;
    Ok(Symbols::of_map(&text))
}

/// A name as people write it.
fn readable(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_has_names() {
        let map = "ffff800080010000 T first\nffff800080010040 d data\nffff800080010080 t second\n";
        let symbols = Symbols::of_map(map);
        assert_eq!(symbols.name(0xffff_8000_8001_0000), Some(("first", true)));
        assert_eq!(symbols.name(0xffff_8000_8001_0044), Some(("first", false)));
        assert_eq!(symbols.name(0xffff_8000_8001_0080), Some(("second", true)));
        assert_eq!(symbols.name(0), None);
        assert_eq!(symbols.place(0xffff_8000_8001_0044).unwrap(), "first+0x44");
        assert_eq!(symbols.address("second"), Some(0xffff_8000_8001_0080));
    }

    #[test]
    fn rust_s_names_become_readable() {
        let name = "_RNvNtNtCs4fqI2P2rA04_4core3fmt3num9something";
        assert_eq!(readable(name), "core::fmt::num::something");
        assert_eq!(readable("do_el0_svc"), "do_el0_svc");
    }
}
