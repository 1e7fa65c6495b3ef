// SPDX-License-Identifier: Apache-2.0
//! The machine with the policy: loaded, files labelled, enforcing.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use gzvm_abi::uapi;
use gzvm_device_test::suite::POLICY;

/// The device.
pub const DEVICE: &str = uapi::DEVICE_PATH;
/// A file that is handed to VMMs.
pub const DATA: &str = "/run/selinux/disk.img";
/// A kernel for a VM.
pub const PAYLOAD: &str = "/run/selinux/payload.bin";
const SELINUX: &str = "/sys/fs/selinux";
/// A file system that has labels: an initramfs has none.
const HOME: &str = "/run/selinux";
const VMM: &str = "/usr/bin/gzvm_vmm";
const GUEST: &str = "/usr/share/gzvm/guests/payload.bin";

/// Programs by their place, and the label of each.
const PROGRAMS: [(&str, &str); 4] = [
    ("sh", "shell_exec"),
    ("virtmgr", "virtualizationmanager_exec"),
    ("vmm", "crosvm_exec"),
    ("gzvm_vmm", "crosvm_exec"),
];

/// A machine that enforces the policy from the first use on.
pub struct Machine {
    programs: Vec<String>,
}

impl Machine {
    /// The machine.
    pub fn get() -> &'static Self {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(Self::new)
    }

    fn new() -> Self {
        mount("selinuxfs", SELINUX);
        let policy = fs::read(POLICY).expect("the policy is there");
        fs::write(format!("{SELINUX}/load"), policy).expect("the kernel takes the policy");
        fs::create_dir_all(HOME).expect("a place for labelled files");
        mount("tmpfs", HOME);
        let own = std::env::current_exe().expect("/proc is mounted");
        let programs = PROGRAMS.map(|(name, kind)| {
            let path = format!("{HOME}/{name}");
            let from = if name == "gzvm_vmm" { Path::new(VMM) } else { &own };
            fs::copy(from, &path).expect("room for a copy of a program");
            label(&path, &format!("u:object_r:{kind}:s0"));
            path
        });
        fs::write(DATA, "data").expect("room for a file");
        fs::copy(GUEST, PAYLOAD).expect("room for a guest");
        for (path, kind) in [
            (DATA, "virtualizationservice_data_file"),
            (PAYLOAD, "virtualizationservice_data_file"),
        ] {
            label(path, &format!("u:object_r:{kind}:s0"));
        }
        label("/dev/null", "u:object_r:null_device:s0");
        label("/dev/urandom", "u:object_r:random_device:s0");
        label(DEVICE, "u:object_r:gzvm_device:s0");
        fs::write(format!("{SELINUX}/enforce"), "1").expect("SELinux can be made to enforce");
        Self { programs: programs.into() }
    }

    /// A program of the domain `shell`.
    pub fn shell(&self) -> &str {
        &self.programs[0]
    }

    /// A program of the domain `virtualizationmanager`.
    pub fn manager(&self) -> &str {
        &self.programs[1]
    }

    /// A program of the domain `crosvm`.
    pub fn vmm(&self) -> &str {
        &self.programs[2]
    }

    /// The real one.
    pub fn real_vmm(&self) -> &str {
        &self.programs[3]
    }
}

fn mount(kind: &str, at: &str) {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let (kind, at) = (text(kind), text(at));
    // SAFETY: all strings end with NUL and live; these file systems want no data.
    let answer = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    assert_eq!(answer, 0, "mount {kind:?} at {at:?}: {}", std::io::Error::last_os_error());
}

/// Gives a file a label.
pub fn label(path: &str, context: &str) {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let (path, name, value) = (text(path), text("security.selinux"), text(context));
    let bytes = value.as_bytes_with_nul();
    // SAFETY: all strings end with NUL and live, and the value has as many bytes as is said.
    let answer = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0)
    };
    assert_eq!(answer, 0, "{path:?} {value:?}: {}", std::io::Error::last_os_error());
}

/// What a program says; standard error too, after the rest.
pub fn in_domain(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The kernel's line about a denial that has `what` in it: it comes from a thread of its own.
pub fn denial(what: &str) -> String {
    for _ in 0..100 {
        let log = kernel_log();
        let found = log.lines().find(|line| line.contains("avc:  denied") && line.contains(what));
        if let Some(line) = found {
            println!("{line}");
            return line.to_owned();
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the kernel's log has no denial with {what}");
}

fn kernel_log() -> String {
    let mut said = Command::new("dmesg");
    let mut text = String::new();
    let mut child = said.stdout(std::process::Stdio::piped()).spawn().expect("dmesg starts");
    let read = child.stdout.take().map(|mut out| out.read_to_string(&mut text));
    child.wait().expect("dmesg ends");
    assert!(matches!(read, Some(Ok(_))), "dmesg's output");
    text
}
