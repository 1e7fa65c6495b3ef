// SPDX-License-Identifier: Apache-2.0
//! Builds all parts in order: what is fetched first, then Rust programs, the kernel, the module,
//! and the initramfs archives that hold them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::book::bringup;
use crate::cache;
use crate::cargo::{self, Program};
use crate::fetch::Fetcher;
use crate::initramfs::Archive;
use crate::kernel::{self, Kernel, Variant};
use crate::module;
use crate::project::Project;
use crate::sepolicy;
use crate::toolchain::{self, Recipe};

/// Where the host finds the guests' files.
const GUESTS: &str = "usr/share/gzvm/guests";
/// Applets of the Linux guest; the host installs all of them when it boots.
const GUEST_APPLETS: &[&str] = &[
    "cat", "cut", "dd", "dmesg", "echo", "free", "grep", "head", "hexdump", "insmod", "ls",
    "md5sum", "mkdir", "mount", "poweroff", "reboot", "sed", "sh", "sleep", "tr", "uname", "yes",
];

/// Everything that a boot needs.
pub struct Parts {
    /// Which kernel the host has; the guests have the usual one.
    pub variant: Variant,
    /// The host's Linux.
    pub kernel: Kernel,
    /// The hypervisor as users run it.
    pub refhyp: PathBuf,
    /// The hypervisor with its self-test and the hooks that tests need.
    pub refhyp_test: PathBuf,
    /// What the hypervisor starts protected VMs with.
    pub firmware: PathBuf,
    /// The host's initramfs.
    pub initramfs: PathBuf,
    /// The driver in it.
    pub module: PathBuf,
}

/// Builds everything for a host with this kernel; what has not changed is not built again.
///
/// # Errors
///
/// The first failure, with the last lines of what failed.
pub fn build(project: &Project, variant: Variant) -> Result<Parts> {
    fs::create_dir_all(project.out()).context("cannot create the output directory")?;
    let _lock = cache::lock(&project.out().join("build.lock"), "target")?;
    let fetcher = Fetcher::new(project);
    // The user's word and the network first: what is wrong shows before the long builds.
    kernel::users_tree()?;
    let busybox = fetcher.busybox()?;
    let linux = toolchain::linux(&fetcher)?;
    let binder_tools = fetcher.binder_tools(&linux)?;
    let bare = bare_metal(project)?;
    let userland = cargo::build(project, &linux, "build", USERLAND, &["--bins"], "userland")?;
    let tests = cargo::build(project, &linux, "test", DEVICE_TESTS, &["--no-run"], "tests")?;
    // Guests never need what finds the host's defects.
    let guests = if variant == Variant::Debug { Variant::Usual } else { variant };
    let guest_kernel = kernel::build(project, &fetcher, guests)?;
    let guest_image = guest_kernel.image.clone();
    let mut guest = linux_guest(project, &guest_kernel, &busybox)?;
    for program in &cargo::build(project, &linux, "build", GUEST_PROGRAMS, &["--bins"], "guest")? {
        install(project, &mut guest, program, "bin")?;
    }
    let kernel =
        if variant == guests { guest_kernel } else { kernel::build(project, &fetcher, variant)? };
    let name = format!("gzvm{}", variant.suffix());
    let driver = module::build(project, &kernel, &project.top.join("driver"), &name)?;
    let raw = project.top.join("tests/device/raw");
    let raw = module::build(project, &kernel, &raw, &format!("gzvm_raw{}", variant.suffix()))?;

    let mut host = Archive::default();
    bare_host(project, &mut host)?;
    host.file("lib/modules/gzvm.ko", &driver.join("gzvm.ko"))?;
    host.file("lib/modules/gzvm_raw.ko", &raw.join("gzvm_raw.ko"))?;
    for program in &userland {
        let dir = if program.name == VTS { "usr/libexec/gzvm" } else { "usr/bin" };
        install(project, &mut host, program, dir)?;
    }
    for (program, name) in &binder_tools {
        install_as(project, &mut host, (program, name), "usr/bin")?;
    }
    let policy = project.top.join("avf-backend/virtualizationservice/etc/gzvm.toml");
    host.file("etc/rsbinder/hub.d/gzvm.toml", &policy)?;
    for program in tests.iter().filter(|program| program.is_test) {
        let dir = if ALONE.contains(&&*program.name) { &*program.name } else { "tests" };
        install(project, &mut host, program, &format!("usr/libexec/gzvm/{dir}"))?;
    }
    host.file(&format!("{GUESTS}/Image"), &guest_image)?;
    host.data(&format!("{GUESTS}/linux-initramfs.cpio.gz"), 0o644, guest.gzip()?);
    host.file(&format!("{GUESTS}/payload.bin"), &bare.payload)?;
    host.file(&format!("{GUESTS}/pvmfw.bin"), &bare.pvmfw)?;
    host.file(&format!("{GUESTS}/virtio.bin"), &bare.virtio)?;
    if let Some(policy) = sepolicy::for_machine(project)? {
        host.file("usr/share/gzvm/sepolicy", &policy)?;
    }
    configs(project, &mut host)?;
    let page = project.top.join(bringup::PAGE);
    let page =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    host.data("usr/share/gzvm/bring-up", 0o644, bringup::script(&page).into_bytes());
    // Not compressed: the machine would take longer to unpack it than to read it.
    let initramfs = project.out().join(format!("host-initramfs{}.cpio", variant.suffix()));
    write_if_changed(&initramfs, host.write(Vec::new())?)?;
    let BareMetal { refhyp, refhyp_test, pvmfw: firmware, .. } = bare;
    let module = driver.join("gzvm.ko");
    Ok(Parts { variant, kernel, refhyp, refhyp_test, firmware, initramfs, module })
}

/// The VTS program, which a script among the tests starts.
const VTS: &str = "vts_gzvm_test";
/// Packages with programs for the host.
const USERLAND: &[&str] =
    &["gzvm-ctl", "gzvm-demo", "gzvm-virtmgr", "gzvm-virtualizationservice", "gzvm-vmm", "vm", VTS];
/// Packages with tests that run in the machine.
const DEVICE_TESTS: &[&str] = &["gzvm-device-test", "gzvm-vmm-test"];
/// Test programs after which the machine is another, and their directories: each has a boot alone. One leaves
/// the host's kernel for another, one enforces a policy.
pub const ALONE: [&str; 2] = ["kexec", "selinux"];
/// Packages with programs for the Linux guest.
const GUEST_PROGRAMS: &[&str] = &["gzvm-clock", "gzvm-vmm-test"];

/// Flat images that run without an operating system.
struct BareMetal {
    refhyp: PathBuf,
    refhyp_test: PathBuf,
    payload: PathBuf,
    pvmfw: PathBuf,
    virtio: PathBuf,
}

fn bare_metal(project: &Project) -> Result<BareMetal> {
    let recipe = toolchain::bare_metal()?;
    let flat = |package, name| flat(project, &recipe, package, &[], name);
    Ok(BareMetal {
        refhyp: flat("refhyp", "refhyp")?,
        refhyp_test: test_hypervisor(project, "refhyp-test")?,
        payload: flat("payload", "payload")?,
        pvmfw: flat("pvmfw", "pvmfw")?,
        virtio: flat("virtio-guest", "virtio")?,
    })
}

/// The hypervisor with the hooks that tests need, from a project's sources, as an image of this name.
///
/// # Errors
///
/// When it cannot be built.
pub fn test_hypervisor(project: &Project, name: &str) -> Result<PathBuf> {
    let recipe = toolchain::bare_metal()?;
    flat(project, &recipe, "refhyp", &["--features", "test-hooks"], name)
}

/// A package's program as a flat image of this name.
fn flat(
    project: &Project,
    recipe: &Recipe,
    package: &str,
    more: &[&str],
    name: &str,
) -> Result<PathBuf> {
    let programs = cargo::build(project, recipe, "build", &[package], more, name)?;
    let program = programs.first().with_context(|| format!("{package} has no program"))?;
    let image = project.out().join(format!("{name}.img"));
    cargo::flat_image(&program.path, &image)?;
    // Names for addresses in it: the next build of the package may replace the program.
    fs::copy(&program.path, image.with_extension("elf"))?;
    Ok(image)
}

/// The host as far as its first process needs it.
///
/// # Errors
///
/// When a file cannot be read.
pub fn bare_host(project: &Project, archive: &mut Archive) -> Result<()> {
    skeleton(archive, &Fetcher::new(project).busybox()?)?;
    archive.tree("", &project.top.join("tests/harness/rootfs"))
}

/// Directories and the shell, the same for host and guest.
fn skeleton(archive: &mut Archive, busybox: &Path) -> Result<()> {
    for dir in ["bin", "dev", "etc", "lib/modules", "proc", "root", "run", "sys", "tmp"] {
        archive.directory(dir);
    }
    let data = fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    archive.data("bin/busybox", 0o755, data);
    archive.link("bin/sh", "busybox");
    Ok(())
}

/// The initramfs of the Linux guest.
fn linux_guest(project: &Project, kernel: &Kernel, busybox: &Path) -> Result<Archive> {
    let source = project.top.join("tests/guests/linux");
    let mut archive = Archive::default();
    skeleton(&mut archive, busybox)?;
    for applet in GUEST_APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    let init = source.join("init");
    let data = fs::read(&init).with_context(|| format!("cannot read {}", init.display()))?;
    archive.data("init", 0o755, data);
    let built = module::build(project, kernel, &source, "gzvm_guest")?;
    for name in ["gzvm_guest.ko", "gzvm_ptp.ko"] {
        archive.file(&format!("lib/modules/{name}"), &built.join(name))?;
    }
    Ok(archive)
}

/// Adds a program of ours.
fn install(project: &Project, host: &mut Archive, program: &Program, dir: &str) -> Result<()> {
    install_as(project, host, (&program.path, &program.name), dir)
}

/// Adds a program without its debug information, which stays on the build machine.
fn install_as(
    project: &Project,
    host: &mut Archive,
    (program, name): (&Path, &str),
    dir: &str,
) -> Result<()> {
    let copy = project.out().join("stripped").join(name);
    cargo::stripped(program, &copy)?;
    host.file(&format!("{dir}/{name}"), &copy)
}

/// The guests' configurations and the demo's script.
fn configs(project: &Project, host: &mut Archive) -> Result<()> {
    let guests = project.top.join("tests/guests");
    for entry in fs::read_dir(&guests)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "json") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            host.file(&format!("{GUESTS}/{name}"), &path)?;
        }
    }
    let script = project.top.join("tests/demo/demo.sh");
    let data = fs::read(&script).with_context(|| format!("cannot read {}", script.display()))?;
    host.data("usr/share/gzvm/demo.sh", 0o755, data);
    Ok(())
}

fn write_if_changed(path: &Path, data: Vec<u8>) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == data) {
        return Ok(());
    }
    fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}
