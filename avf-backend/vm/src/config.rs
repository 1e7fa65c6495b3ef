// SPDX-License-Identifier: Apache-2.0
//! AVF's JSON description of a VM. Keys that are not known are named in a warning and ignored, as
//! AVF ignores them.

use anyhow::{anyhow, ensure, Context, Result};
use semver::{Version, VersionReq};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The virtual platform's version, which a description's `platform_version` must admit.
const PLATFORM_VERSION: Version = Version::new(1, 0, 0);

/// Keys of the description.
const KEYS: &[&str] = &[
    "bootloader",
    "console_input_device",
    "cpu_topology",
    "devices",
    "disks",
    "initrd",
    "kernel",
    "memory_mib",
    "name",
    "params",
    "platform_version",
    "protected",
    "usb_config",
];
/// Keys of an entry of `disks`.
const DISK_KEYS: &[&str] = &["image", "partitions", "writable"];
/// Keys of an entry of `partitions`.
const PARTITION_KEYS: &[&str] = &["guid", "label", "path", "writable"];

/// A description.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct VmConfig {
    /// Overwritten by the command line, as in AVF.
    pub name: Option<String>,
    /// Kernel Image.
    pub kernel: Option<PathBuf>,
    /// Initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// Kernel parameters.
    pub params: Option<String>,
    /// Flat binary instead of a kernel.
    pub bootloader: Option<PathBuf>,
    /// Disks.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Whether the VM is protected from the host.
    #[serde(default)]
    pub protected: bool,
    /// Memory in MiB.
    pub memory_mib: Option<NonZeroU32>,
    /// Which platform versions it runs on.
    pub platform_version: VersionReq,
    /// Devices to assign.
    #[serde(default)]
    pub devices: Vec<PathBuf>,
    /// Which of the guest's devices console input goes to.
    #[serde(default)]
    pub console_input_device: ConsoleInput,
}

/// A disk: exactly one of image and partitions.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Disk {
    /// One file for all of it.
    pub image: Option<PathBuf>,
    /// Files that become partitions.
    #[serde(default)]
    pub partitions: Vec<Partition>,
    /// Whether the guest may write.
    pub writable: bool,
}

/// A partition.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Partition {
    /// Its name in the partition table.
    pub label: String,
    /// Its contents.
    pub path: PathBuf,
    /// Whether the guest may write.
    #[serde(default)]
    pub writable: bool,
    /// Its unique id in the partition table; a random one if there is none.
    pub guid: Option<Uuid>,
}

/// Which of the guest's devices console input goes to.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum ConsoleInput {
    /// The first virtio console.
    #[default]
    #[serde(rename = "hvc0")]
    Hvc0,
    /// The first serial port.
    #[serde(rename = "ttyS0")]
    TtyS0,
}

impl VmConfig {
    /// Reads a description and checks what can be checked without opening what it names.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let config = Self::parse(&text).with_context(|| name.to_string())?;
        for key in unknown_keys(&text) {
            log::warn!("{name}: unknown key {key:?} is ignored");
        }
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(&mut reader).map_err(|e| wrong(&e))?;
        reader.end()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.platform_version.matches(&PLATFORM_VERSION),
            "key \"platform_version\": {} is asked for, this is {PLATFORM_VERSION}",
            self.platform_version
        );
        match (&self.kernel, &self.bootloader) {
            (None, None) => anyhow::bail!("missing key `kernel` (or `bootloader`)"),
            (Some(_), Some(_)) => {
                anyhow::bail!("keys \"kernel\" and \"bootloader\" exclude each other")
            }
            (None, Some(_)) => {
                ensure!(
                    self.initrd.is_none(),
                    "keys \"initrd\" and \"bootloader\" exclude each other"
                );
            }
            (Some(_), None) => {}
        }
        for disk in &self.disks {
            ensure!(
                disk.image.is_some() == disk.partitions.is_empty(),
                "key \"disks\": each disk has either \"image\" or \"partitions\""
            );
        }
        ensure!(self.devices.is_empty(), "key \"devices\": GenieZone assigns no devices to guests");
        Ok(())
    }
}

/// What cannot be, where, and in which line.
fn wrong(error: &serde_path_to_error::Error<serde_json::Error>) -> anyhow::Error {
    // Users write keys; fields are this program's.
    let why = error.inner().to_string();
    let why = why.replace("missing field", "missing key").replace("duplicate field", "two keys");
    // What is no JSON is not at a key.
    let at_key = error.inner().is_data() && error.path().iter().next().is_some();
    match at_key {
        true => anyhow!("key \"{}\": {why}", error.path()),
        false => anyhow!(why),
    }
}

/// The keys in `text`, which is a valid description, that are not known.
fn unknown_keys(text: &str) -> BTreeSet<String> {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let mut unknown = BTreeSet::new();
    collect_unknown(&value, KEYS, "", &mut unknown);
    for disk in list(&value, "disks") {
        collect_unknown(disk, DISK_KEYS, "disks.", &mut unknown);
        for partition in list(disk, "partitions") {
            collect_unknown(partition, PARTITION_KEYS, "disks.partitions.", &mut unknown);
        }
    }
    unknown
}

fn list<'a>(value: &'a serde_json::Value, key: &str) -> &'a [serde_json::Value] {
    value.get(key).and_then(|list| list.as_array()).map_or(&[], Vec::as_slice)
}

fn collect_unknown(
    value: &serde_json::Value,
    known: &[&str],
    prefix: &str,
    unknown: &mut BTreeSet<String>,
) {
    let keys = value.as_object().into_iter().flat_map(|object| object.keys());
    unknown.extend(
        keys.filter(|key| !known.contains(&key.as_str())).map(|key| format!("{prefix}{key}")),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", VmConfig::parse(text).unwrap_err())
    }

    #[test]
    fn the_shortest_description() {
        let config = VmConfig::parse(r#"{"kernel": "/k", "platform_version": "~1.0"}"#).unwrap();
        assert_eq!(config.kernel, Some("/k".into()));
        assert!(!config.protected && config.disks.is_empty());
        assert_eq!(config.console_input_device, ConsoleInput::Hvc0);
    }

    #[test]
    fn everything() {
        let text = r#"{"name": "n", "bootloader": "b", "params": "p", "protected": true,
            "disks": [{"image": "i", "writable": true}, {"writable": false, "partitions":
            [{"label": "l", "path": "p", "guid": "0fc63daf-8483-4772-8e79-3d69d8477de4"}]}], "memory_mib": 300,
            "cpu_topology": "match_host", "platform_version": "1.0.0", "devices": [],
            "console_input_device": "ttyS0", "usb_config": {"controller": false}}"#;
        let config = VmConfig::parse(text).unwrap();
        assert_eq!(config.disks[1].partitions[0].label, "l");
        assert_eq!(config.console_input_device, ConsoleInput::TtyS0);
        assert!(unknown_keys(text).is_empty(), "{:?}", unknown_keys(text));
    }

    #[test]
    fn unknown_keys_are_named() {
        let text = r#"{"kernel": "/k", "platform_version": "~1.0", "colour": 1, "disks":
            [{"image": "i", "writable": true, "speed": 2, "partitions": [{"label": "l",
            "path": "p", "size": 3}]}]}"#;
        let names: Vec<_> = unknown_keys(text).into_iter().collect();
        assert_eq!(names, ["colour", "disks.partitions.size", "disks.speed"]);
    }

    #[test]
    fn what_is_wrong_is_named_in_one_line() {
        for (text, word) in [
            (r#"{"kernel": "/k"}"#, "missing key `platform_version`"),
            (r#"{"platform_version": "~1.0"}"#, "missing key `kernel`"),
            (r#"{"kernel": "/k", "platform_version": "~2.0"}"#, "~2.0"),
            (r#"{"kernel": "/k", "platform_version": "one"}"#, "version"),
            (r#"{"kernel": 1, "platform_version": "~1.0"}"#, "line 1 column 12"),
            (r#"{"kernel": "/k", "platform_version": "~1.0"} x"#, "trailing characters"),
            (
                r#"{"kernel": "/k", "platform_version": "~1.0", "kernel": "/l"}"#,
                "two keys `kernel`",
            ),
            (r#"{"kernel": "/k", "memory_mib": -5, "platform_version": "~1.0"}"#, "\"memory_mib\""),
            (
                r#"{"kernel": "/k", "platform_version": "~1.0", "disks": [{"writable": 1}]}"#,
                "\"disks[0].writable\"",
            ),
            (r#"{"kernel": "/k", "bootloader": "/b", "platform_version": "~1.0"}"#, "exclude"),
            (r#"{"bootloader": "/b", "initrd": "/i", "platform_version": "~1.0"}"#, "initrd"),
            (r#"{"kernel": "/k", "platform_version": "~1.0", "memory_mib": 0}"#, "0"),
            (
                r#"{"kernel": "/k", "platform_version": "~1.0", "disks": [{"image": "i"}]}"#,
                "writable",
            ),
            (
                r#"{"kernel": "/k", "platform_version": "~1.0", "disks": [{"writable": true}]}"#,
                "image",
            ),
            (r#"{"kernel": "/k", "platform_version": "~1.0", "devices": ["/sys/x"]}"#, "devices"),
            (
                r#"{"kernel": "/k", "platform_version": "~1.0", "console_input_device": "x"}"#,
                "ttyS0",
            ),
            ("", "EOF"),
            ("[]", "invalid"),
        ] {
            let error = error(text);
            assert!(error.contains(word) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
