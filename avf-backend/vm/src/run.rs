// SPDX-License-Identifier: Apache-2.0
//! `vm run`: opens what the description names, and has the VMM run it.

use crate::argv::{Boot, Disk, Request};
use crate::cli::{CommonArgs, DebugArgs, RunArgs};
use crate::config::{self, ConsoleInput, VmConfig};
use crate::death::DeathReason;
use crate::launch;
use crate::partitions;
use crate::props::Props;
use anyhow::{anyhow, bail, ensure, Context, Result};
use std::fs::OpenOptions;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process;

/// MiB of memory where nobody says (virtmgr's default).
const DEFAULT_MEMORY_MIB: u32 = 256;
/// Name of a VM that was given none.
const DEFAULT_NAME: &str = "VmRun";
/// The first context id of VMs, and how many there are.
const FIRST_CID: u32 = 2048;
const CIDS: u32 = 65_536 - FIRST_CID;

/// Runs a VM to its end.
pub fn run(args: &RunArgs) -> Result<()> {
    ensure!(args.debug.gdb.is_none(), "--gdb: GenieZone gives no access to a guest's registers");
    let config = VmConfig::load(&args.config)?;
    warn_without_effect(&args.common, &args.debug);
    let (failure_out, failure_in) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .context("cannot make a pipe for the failure port")?;
    let mut files = Files::default();
    let failure = files.keep(failure_in);
    let request = request(&config, args, &Props::load()?, failure, &mut files)?;
    let cid = request.cid;
    let launched = launch::launch(&request, files.0, failure_out)?;
    println!("Created VM from {:?} with CID {cid}, state is STARTING.", args.config);
    let outcome = launched.wait()?;
    println!("VM ended: {}", outcome.reason.name());
    match (outcome.reason, outcome.error) {
        (DeathReason::StartFailed, error) => {
            Err(anyhow!(error.unwrap_or_else(|| "the VMM said nothing".into())))
        }
        (_, Some(error)) => {
            eprintln!("VMM: {error}");
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

/// AVF accepts these silently.
fn warn_without_effect(common: &CommonArgs, debug: &DebugArgs) {
    if common.network_supported {
        log::warn!("--network-supported has no effect: VMs have no network");
    }
    if debug.enable_earlycon {
        log::warn!("--enable-earlycon has no effect: put earlycon into the parameters");
    }
}

/// Files for the VMM; their numbers are the same there.
#[derive(Debug, Default)]
struct Files(Vec<OwnedFd>);

impl Files {
    fn keep(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }

    /// Opens what `key` of the description, or an option, names.
    fn open(&mut self, key: &str, path: &Path, options: &OpenOptions) -> Result<RawFd> {
        let file =
            options.open(path).with_context(|| format!("{key}: cannot open {}", path.display()))?;
        Ok(self.keep(file.into()))
    }

    fn read(&mut self, key: &str, path: &Path) -> Result<RawFd> {
        self.open(key, path, OpenOptions::new().read(true))
    }

    fn write(&mut self, key: &str, path: &Path) -> Result<RawFd> {
        self.open(key, path, OpenOptions::new().write(true).create(true).truncate(true))
    }
}

fn request(
    config: &VmConfig,
    args: &RunArgs,
    props: &Props,
    failure: RawFd,
    files: &mut Files,
) -> Result<Request> {
    let (common, debug) = (&args.common, &args.debug);
    let protected = common.protected || config.protected;
    let memory = common.mem.or(config.memory_mib);
    let console_out = match &debug.console {
        Some(path) => files.write("--console", path)?,
        None => files.keep(duplicate(stdout(), "standard output")?),
    };
    let console_in = match &debug.console_in {
        Some(path) => files.read("--console-in", path)?,
        None => files.keep(duplicate(stdin(), "standard input")?),
    };
    let log = match &debug.log {
        Some(path) => files.write("--log", path)?,
        None => files.keep(duplicate(stdout(), "standard output")?),
    };
    let dump = debug.dump_device_tree.as_ref();
    Ok(Request {
        name: common.name.clone().unwrap_or_else(|| DEFAULT_NAME.into()),
        cid: FIRST_CID + process::id() % CIDS,
        protected: protected.then(|| props.firmware()),
        memory_mib: memory.map_or(DEFAULT_MEMORY_MIB, u32::from),
        cpus: common.cpu_topology,
        boot: boot(config, files)?,
        params: config.params.clone(),
        disks: config.disks.iter().map(|d| disk(d, files)).collect::<Result<_>>()?,
        console_out: Some(console_out),
        console_in: Some(console_in),
        console_in_is_serial: config.console_input_device == ConsoleInput::TtyS0,
        log: Some(log),
        failure,
        dump_device_tree: dump.map(|p| files.write("--dump-device-tree", p)).transpose()?,
        hugepages: common.hugepages,
        boost_uclamp: common.boost_uclamp,
        memory_policy: props.memory_policy(),
    })
}

fn boot(config: &VmConfig, files: &mut Files) -> Result<Boot> {
    let initrd = config.initrd.as_ref().map(|p| files.read("key \"initrd\"", p)).transpose()?;
    match (&config.kernel, &config.bootloader) {
        (Some(kernel), _) => {
            Ok(Boot::Kernel { kernel: files.read("key \"kernel\"", kernel)?, initrd })
        }
        (None, Some(bios)) => Ok(Boot::Bios(files.read("key \"bootloader\"", bios)?)),
        // The description was checked.
        (None, None) => bail!("missing key `kernel` (or `bootloader`)"),
    }
}

fn disk(disk: &config::Disk, files: &mut Files) -> Result<Disk> {
    let Some(image) = &disk.image else {
        let list = partitions::compose(&disk.partitions, &mut |fd| files.keep(fd))?;
        return Ok(Disk { image: files.keep(list), writable: disk.writable });
    };
    let mut options = OpenOptions::new();
    options.read(true).write(disk.writable);
    let image = files.open("key \"disks\"", image, &options)?;
    Ok(Disk { image, writable: disk.writable })
}

fn duplicate(fd: impl AsFd, what: &str) -> Result<OwnedFd> {
    let fd = fd.as_fd().try_clone_to_owned();
    fd.with_context(|| format!("{what} is not open: name a file instead"))
}
