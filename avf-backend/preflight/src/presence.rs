// SPDX-License-Identifier: Apache-2.0
//! Whether the host has the hypervisor and the driver, and what to do if not.

use crate::Reading;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What the device tree says of the hypervisor; the second was used until v10 of the driver.
const COMPATIBLE: [&str; 2] = ["mediatek,geniezone", "mediatek,geniezone-hyp"];

/// Why a device node cannot be opened.
#[derive(Debug, Error)]
#[error("{}: {why}", path.display())]
pub struct DeviceError {
    /// The device node.
    pub path: PathBuf,
    /// Cause and remedy.
    pub why: String,
}

/// Says why the device node `path` could not be opened; `root` is where the host's `/sys` and
/// `/proc` are.
pub fn explain(root: &Path, path: &Path, error: gzvm::Error) -> DeviceError {
    let why = match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => missing(root).to_owned(),
        _ => error.to_string(),
    };
    DeviceError { path: path.to_owned(), why }
}

fn missing(root: &Path) -> &'static str {
    match (has_module(root), tree(root)) {
        (_, Tree::None { .. } | Tree::Absent) => {
            "this machine has no GenieZone hypervisor (no mediatek,geniezone in its device tree): \
             boot it under one (in QEMU: virtualization=on and the reference hypervisor)"
        }
        (false, _) => "the driver is not loaded: load it (modprobe gzvm, or insmod gzvm.ko)",
        (true, _) => {
            "the driver is loaded but did not find the hypervisor: see what it said (dmesg)"
        }
    }
}

/// Whether the driver is loaded as a module.
pub fn has_module(root: &Path) -> bool {
    root.join("sys/module/gzvm").is_dir()
}

/// What the device tree says about the hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// This node is the hypervisor's.
    Node {
        /// Its path in the tree.
        path: String,
        /// How the driver knows it.
        compatible: &'static str,
    },
    /// No node is.
    None {
        /// Memory reserved under names that GenieZone's firmware uses: it may be there all the same.
        traces: Vec<String>,
    },
    /// The machine has no device tree.
    Absent,
    /// It cannot be read, and why.
    Unknown(String),
}

/// Looks for the hypervisor among the children of the device tree's root, and one level below
/// (`/firmware/...`).
pub fn tree(root: &Path) -> Tree {
    let base = root.join("proc/device-tree");
    let top = match children(&base) {
        Ok(top) => top,
        Err(e) if e.kind() == ErrorKind::NotFound => return Tree::Absent,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Tree::Unknown("no permission".into())
        }
        Err(e) => return Tree::Unknown(e.to_string()),
    };
    let below = top.iter().flat_map(|node| children(node).unwrap_or_default());
    let found = top.iter().cloned().chain(below).find_map(|node| {
        let path = node.strip_prefix(&base).ok()?;
        Some(Tree::Node { path: format!("/{}", path.display()), compatible: compatible(&node)? })
    });
    found.unwrap_or_else(|| Tree::None { traces: traces(&base) })
}

/// Directories, in order.
fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path)?.flatten().map(|entry| entry.path());
    let mut nodes: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    nodes.sort();
    Ok(nodes)
}

fn compatible(node: &Path) -> Option<&'static str> {
    let words = fs::read(node.join("compatible")).unwrap_or_default();
    let mut words = words.split(|&b| b == 0);
    words.find_map(|word| COMPATIBLE.into_iter().find(|known| known.as_bytes() == word))
}

/// `mblock-3-gz`, `gz-log` and the like.
fn traces(tree: &Path) -> Vec<String> {
    let nodes = children(&tree.join("reserved-memory")).unwrap_or_default();
    let names = nodes.iter().filter_map(|node| node.file_name()?.to_str());
    let is_trace = |name: &&str| {
        let name = name.split('@').next().unwrap_or_default();
        name.split(['-', '_']).any(|word| word == "gz")
    };
    names.filter(is_trace).map(str::to_owned).collect()
}

/// How much of the kernel's log is read at a time: the kernel refuses smaller buffers than a record
/// (`LOG_LINE_MAX` and prefixes, kernel/printk/printk.c).
const RECORD: usize = 8192;
/// Records looked at; a log that grows while it is read has an end too.
const RECORDS: usize = 100_000;
/// The kernel's level of errors, and the bits of a record's priority that are its level
/// (include/linux/kern_levels.h).
const LEVEL_ERROR: u32 = 3;
const LEVEL_MASK: u32 = 7;

/// The last error that the driver wrote to the kernel's log, without its prefix.
pub fn driver_error(root: &Path) -> Reading<Option<String>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    match Reading::new(options.open(root.join("dev/kmsg"))) {
        Reading::Value(log) => Reading::Value(last_error(log)),
        Reading::Absent => Reading::Absent,
        Reading::Unknown(why) => Reading::Unknown(why),
    }
}

fn last_error(mut log: File) -> Option<String> {
    let mut last = None;
    let mut record = vec![0; RECORD];
    for _ in 0..RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(n) => {
                let text = String::from_utf8_lossy(record.get(..n).unwrap_or_default());
                last = text.lines().filter_map(error_of_driver).next_back().or(last);
            }
            // Records were overwritten meanwhile; the next one is there.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            // The end of the log is EAGAIN.
            Err(_) => break,
        }
    }
    last
}

/// The message of a record `priority,number,time,flags;message`, if it is an error of the driver.
fn error_of_driver(record: &str) -> Option<String> {
    let (head, message) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let message = message.strip_prefix("gzvm: ")?;
    (priority & LEVEL_MASK <= LEVEL_ERROR).then(|| message.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gzvm::Gzvm;

    fn why(root: &Path) -> String {
        let path = root.join("dev/gzvm");
        let error = Gzvm::open_at(&path).unwrap_err();
        explain(root, &path, error).to_string()
    }

    fn node(root: &Path, path: &str, compatible: &[u8]) {
        let node = root.join("proc/device-tree").join(path);
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("compatible"), compatible).unwrap();
    }

    #[test]
    fn absences_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let none = why(root.path());
        assert!(none.contains("no GenieZone hypervisor"), "{none}");
        node(root.path(), "firmware/hypervisor", b"mediatek,geniezone\0");
        assert!(why(root.path()).contains("modprobe"));
        fs::create_dir_all(root.path().join("sys/module/gzvm")).unwrap();
        assert!(why(root.path()).contains("dmesg"));
    }

    #[test]
    fn both_names_of_the_hypervisor_are_known() {
        for (name, path) in
            [("mediatek,geniezone", "hypervisor"), ("mediatek,geniezone-hyp", "a/b")]
        {
            let root = tempfile::tempdir().unwrap();
            assert_eq!(tree(root.path()), Tree::Absent);
            node(root.path(), "cpus", b"other,mediatek,geniezone\0");
            assert_eq!(tree(root.path()), Tree::None { traces: Vec::new() });
            node(root.path(), path, format!("x\0{name}\0").as_bytes());
            let expected = Tree::Node { path: format!("/{path}"), compatible: name };
            assert_eq!(tree(root.path()), expected);
        }
    }

    #[test]
    fn firmware_that_does_not_say_leaves_traces() {
        let root = tempfile::tempdir().unwrap();
        for name in ["mblock-3-gz@5f", "gz-log", "frog_gzx", "cma"] {
            node(root.path(), &format!("reserved-memory/{name}"), b"");
        }
        let traces = vec!["gz-log".to_owned(), "mblock-3-gz@5f".to_owned()];
        assert_eq!(tree(root.path()), Tree::None { traces });
    }

    #[test]
    fn the_drivers_last_error_is_found_in_the_kernels_log() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(driver_error(root.path()), Reading::Absent);
        fs::create_dir_all(root.path().join("dev")).unwrap();
        let text = "3,1,5,-;gzvm: first\n11,2,6,-;gzvm: second\n KEY=value\n\
            6,3,7,-;gzvm: no error\n3,4,8,-;other: error\nrubbish\n;\n";
        fs::write(root.path().join("dev/kmsg"), text).unwrap();
        assert_eq!(driver_error(root.path()), Reading::Value(Some("second".into())));
        fs::write(root.path().join("dev/kmsg"), "6,1,1,-;gzvm: fine\n").unwrap();
        assert_eq!(driver_error(root.path()), Reading::Value(None));
    }
}
