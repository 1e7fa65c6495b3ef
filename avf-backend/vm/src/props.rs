// SPDX-License-Identifier: Apache-2.0
//! System properties, where there is no Android to keep them: lines `name=value` in one file,
//! `/etc/gzvm/props`, or what the environment variable `GZVM_PROPS` names. Lines that start with
//! `#` are comments.

use crate::argv::Firmware;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::{env, fs};

const FILE: &str = "/etc/gzvm/props";
const FILE_VARIABLE: &str = "GZVM_PROPS";

/// Which firmware protected VMs start with: not set, the hypervisor's own; `none`; or a file.
const PVMFW_PATH: &str = "hypervisor.pvmfw.path";

/// When the host provides guest memory: the VMM's `--memory-policy`. Ours, not AVF's.
const MEMORY_POLICY: &str = "hypervisor.gzvm.memory_policy";

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

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Self(pairs.map(|(name, value)| (name.trim().into(), value.trim().into())).collect())
    }

    /// When the host provides guest memory, if the property says.
    pub fn memory_policy(&self) -> Option<String> {
        self.0.get(MEMORY_POLICY).filter(|value| !value.is_empty()).cloned()
    }

    /// How protected VMs start.
    pub fn firmware(&self) -> Firmware {
        match self.0.get(PVMFW_PATH).map(String::as_str) {
            None | Some("") => Firmware::Hypervisor,
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
    fn firmware_follows_the_property() {
        let firmware = |text| Props::parse(text).firmware();
        assert_eq!(firmware(""), Firmware::Hypervisor);
        assert_eq!(firmware("# hypervisor.pvmfw.path=none"), Firmware::Hypervisor);
        assert_eq!(firmware("a=b\n hypervisor.pvmfw.path = none\n"), Firmware::None);
        assert_eq!(firmware("hypervisor.pvmfw.path=/x=y"), Firmware::File("/x=y".into()));
    }
}
