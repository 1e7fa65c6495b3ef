// SPDX-License-Identifier: Apache-2.0
//! Which VMs run: found by their VMMs' processes and command lines, which crosvm and `gzvm_vmm` have
//! in common. No service needs to run for it.

use anyhow::{bail, Result};
use std::fs;
use std::path::Path;

/// Names of VMMs; AVF appends `_` and the VM's name.
const PROGRAMS: [&str; 2] = ["gzvm_vmm", "crosvm"];
/// What AVF puts before a VM's name.
const PREFIX: &str = "crosvm_";

/// A VMM that runs, hence a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vmm {
    /// Its process.
    pub pid: i32,
    /// When it started, in clock ticks after boot: with it, a process id is not taken for another.
    pub started: u64,
    /// Name of the VM.
    pub name: Option<String>,
    /// vsock context id of the VM.
    pub cid: Option<u32>,
    /// Memory of the VM in MiB, with the restricted-DMA pool.
    pub memory_mib: Option<u64>,
}

impl Vmm {
    /// For people: name, CID and process.
    pub fn label(&self) -> String {
        let name = self.name.as_deref().unwrap_or("without a name");
        let cid = self.cid.map_or_else(String::new, |cid| format!(" with CID {cid}"));
        format!("VM {name}{cid} (process {})", self.pid)
    }

    /// Whether a user who says `what` means this one.
    pub fn is(&self, what: &str) -> bool {
        self.cid.is_some_and(|cid| cid.to_string() == what) || self.name.as_deref() == Some(what)
    }

    /// Whether it still runs; `proc` is the host's `/proc`.
    pub fn runs(&self, proc: &Path) -> bool {
        status(proc, self.pid).is_some_and(|status| status == (true, self.started))
    }
}

/// All VMMs that this user can see, in the order of their processes; `proc` is the host's `/proc`.
pub fn all(proc: &Path) -> Vec<Vmm> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut vmms: Vec<_> = pids.filter_map(|pid| vmm(proc, pid)).collect();
    vmms.sort_by_key(|vmm| vmm.pid);
    vmms
}

/// The one that a user means by a CID or a name.
///
/// # Errors
///
/// There is none, or there are several.
pub fn find(vmms: Vec<Vmm>, what: &str) -> Result<Vmm> {
    let labels = |vmms: &[Vmm]| vmms.iter().map(Vmm::label).collect::<Vec<_>>().join(", ");
    let (mut matching, others): (Vec<_>, Vec<_>) = vmms.into_iter().partition(|vmm| vmm.is(what));
    match (matching.pop(), matching.is_empty(), others.is_empty()) {
        (Some(vmm), true, _) => Ok(vmm),
        (Some(vmm), false, _) => {
            matching.push(vmm);
            bail!("{what} is not the name of one VM only: give the CID of {}", labels(&matching))
        }
        (None, _, true) => {
            bail!("no VM with CID or name {what}: none runs that this user can see")
        }
        (None, _, false) => bail!("no VM with CID or name {what}: there is {}", labels(&others)),
    }
}

/// What a process says about its VM, if it is a VMM.
pub fn vmm(proc: &Path, pid: i32) -> Option<Vmm> {
    let (running, started) = status(proc, pid)?;
    let line = fs::read(proc.join(pid.to_string()).join("cmdline")).ok()?;
    let words: Vec<_> = line.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let program = words.first()?.rsplit('/').next()?;
    let is_vmm = PROGRAMS.iter().any(|name| {
        program.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    });
    let runs_vm = words.iter().any(|word| word == "run");
    (is_vmm && runs_vm && running).then(|| {
        let value = |option| value(&words, option);
        let name = value("--name");
        Vmm {
            pid,
            started,
            name: name.map(|name| name.strip_prefix(PREFIX).unwrap_or(name).to_owned()),
            cid: value("--cid").and_then(|cid| cid.parse().ok()),
            memory_mib: value("--mem").and_then(mebibytes),
        }
    })
}

/// The value of an option: the next word, or what follows `=`.
fn value<'a>(words: &'a [impl AsRef<str>], option: &str) -> Option<&'a str> {
    let mut words = words.iter().map(AsRef::as_ref);
    while let Some(word) = words.next() {
        match word.strip_prefix(option) {
            Some("") => return words.next(),
            Some(rest) if rest.starts_with('=') => return rest.strip_prefix('='),
            _ => {}
        }
    }
    None
}

/// crosvm's `--mem N` or `--mem size=N`.
fn mebibytes(text: &str) -> Option<u64> {
    text.strip_prefix("size=").unwrap_or(text).split(',').next()?.parse().ok()
}

/// Whether a process has not ended, and when it started: fields 3 and 22 of `stat` (proc(5)).
fn status(proc: &Path, pid: i32) -> Option<(bool, u64)> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The second field may hold anything but ends with the last parenthesis.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    Some((!ended, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A process with this command line in a made-up `/proc`.
    pub fn process(proc: &Path, pid: i32, state: &str, words: &[&str]) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let stat = format!("{pid} (a) b) {state} {} 77{pid} 0\n", "1 ".repeat(18).trim());
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("cmdline"), words.join("\0") + "\0").unwrap();
    }

    fn running(name: &str, cid: u32, pid: i32) -> Vmm {
        Vmm { pid, name: Some(name.into()), cid: Some(cid), ..Vmm::default() }
    }

    #[test]
    fn vmms_are_known_by_their_command_lines() {
        let proc = tempfile::tempdir().unwrap();
        let words = "crosvm_a --extended-status run --name crosvm_a --cid 2048 --mem 264 /k";
        process(proc.path(), 20, "S", &words.split(' ').collect::<Vec<_>>());
        process(proc.path(), 3, "R", &["/usr/bin/gzvm_vmm", "run", "--cid=7", "--mem=size=64,x"]);
        process(proc.path(), 4, "Z", &["gzvm_vmm", "run"]);
        process(proc.path(), 5, "S", &["crosvm_control", "stop"]);
        process(proc.path(), 6, "S", &["vi", "run", "gzvm_vmm"]);
        process(proc.path(), 8, "S", &["gzvm_vmmx", "run"]);
        fs::create_dir(proc.path().join("tty")).unwrap();
        let vmms = all(proc.path());
        let expected = [
            Vmm { pid: 3, started: 773, name: None, cid: Some(7), memory_mib: Some(64) },
            Vmm { started: 7720, memory_mib: Some(264), ..running("a", 2048, 20) },
        ];
        assert_eq!(vmms, expected);
        assert!(vmms[1].runs(proc.path()));
        process(proc.path(), 20, "Z", &[]);
        assert!(!vmms[1].runs(proc.path()), "it has ended");
        let other = Vmm { started: 1, ..vmms[0].clone() };
        assert!(!other.runs(proc.path()), "another process has its number");
        assert_eq!(vmms[0].label(), "VM without a name with CID 7 (process 3)");
    }

    #[test]
    fn a_vm_is_found_by_cid_or_name() {
        let vmms = || vec![running("a", 7, 1), running("b", 8, 2), running("b", 9, 3)];
        assert_eq!(find(vmms(), "7").unwrap().pid, 1);
        assert_eq!(find(vmms(), "a").unwrap().pid, 1);
        assert_eq!(find(vmms(), "9").unwrap().pid, 3);
        let error = |vmms, what| find(vmms, what).unwrap_err().to_string();
        let two = error(vmms(), "b");
        assert!(two.contains("CID 8") && two.contains("CID 9") && !two.contains("CID 7"), "{two}");
        assert!(error(vmms(), "c").contains("VM a with CID 7 (process 1)"));
        assert!(error(Vec::new(), "c").contains("none runs"));
    }
}
