// SPDX-License-Identifier: Apache-2.0
//! The command line: the part of crosvm's that virtmgr emits.
//!
//! Options fall into three classes: those that are acted on, those in [`flags::WITHOUT_EFFECT`]
//! and those in [`flags::REFUSED`]. Everything else is unknown. Refused and unknown options end
//! with [`ExitStatus::InvalidArgs`].

pub mod flags;
pub mod kv;
pub mod options;
pub mod serial;

use crate::clock::Resync;
use crate::config::{
    Config, DiskConfig, Payload, Protection, SerialPort, Vcpus, DEFAULT_MEMORY, DEFAULT_SWIOTLB,
};
use crate::devices::pci::PciWindows;
use crate::memory::Mode;
use crate::status::ExitStatus;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser};
use options::Cpus;
use serial::Serial;
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs one VM on GenieZone. Takes the part of crosvm's command line that Android's virtmgr uses.
#[derive(Debug, Parser)]
#[command(name = "gzvm_vmm", version, max_term_width = 100)]
struct Cli {
    /// Tell a reset, a guest panic and a watchdog reset apart in the exit status
    #[arg(long)]
    extended_status: bool,

    /// Log filter, as `info` or `warn,gzvm_vmm::boot=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,

    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    /// Runs a VM until it ends
    Run(Box<RunArgs>),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Name of the VM, for logs
    #[arg(long)]
    name: Option<String>,

    /// vsock context id
    #[arg(long)]
    cid: Option<u32>,

    /// All guest memory in MiB, the restricted-DMA pool included
    #[arg(long, short, value_name = "MIB", value_parser = options::mem)]
    mem: Option<u64>,

    /// Size of a protected VM's restricted-DMA pool in MiB
    #[arg(long, value_name = "MIB", value_parser = options::mib)]
    swiotlb: Option<u64>,

    /// Protect the VM; the hypervisor's firmware runs first
    #[arg(long, group = "protection")]
    protected_vm: bool,

    /// Protect the VM; the firmware in FILE runs first
    #[arg(long, value_name = "FILE", group = "protection")]
    protected_vm_with_firmware: Option<PathBuf>,

    /// Protect the VM; the payload runs first
    #[arg(long, group = "protection")]
    protected_vm_without_firmware: bool,

    /// Number of vCPUs
    #[arg(long, short, value_name = "N", value_parser = options::cpus)]
    cpus: Option<Cpus>,

    /// As many vCPUs as the host has CPUs
    #[arg(long)]
    host_cpu_topology: bool,

    /// Kernel parameters; may be given several times
    #[arg(long, short, allow_hyphen_values = true)]
    params: Vec<String>,

    /// Initial ramdisk
    #[arg(long, short, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// Flat binary to run instead of a kernel
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd"])]
    bios: Option<PathBuf>,

    /// Serial port: `type=file|stdout|sink|syslog[,path=F][,input=F|stdin][,hardware=serial]`
    /// `[,num=1..4][,console][,earlycon]`
    #[arg(long, value_name = "SPEC", value_parser = serial::parse)]
    serial: Vec<Serial>,

    /// Disk: `path=F[,ro=true|false][,id=SERIAL]`; raw or crosvm's composite format
    #[arg(long, value_name = "SPEC", value_parser = options::disk)]
    block: Vec<DiskConfig>,

    /// Where PCI is: `mem=[start=A,size=S],cam=[start=A,size=S]`
    #[arg(long, value_name = "SPEC", value_parser = options::pci)]
    pci: Option<PciWindows>,

    /// The VM has no balloon
    #[arg(long, conflicts_with = "balloon_page_reporting")]
    no_balloon: bool,

    /// The guest tells which memory is free, and the host takes it
    #[arg(long)]
    balloon_page_reporting: bool,

    /// Whether the guest's clock is set when the host's was set: auto or off
    #[arg(long, value_name = "MODE", default_value = "auto")]
    clock_resync: Resync,

    /// When the host provides guest memory: lazy, prefault or static
    #[arg(long, value_name = "MODE", default_value = "lazy")]
    memory_policy: Mode,

    /// Ask for transparent huge pages for guest memory
    #[arg(long)]
    hugepages: bool,

    /// Keep guest memory out of child processes and core dumps
    #[arg(long)]
    unmap_guest_memory_on_fork: bool,

    /// Overlay to apply to the device tree
    #[arg(long, value_name = "FILE", value_parser = options::overlay)]
    device_tree_overlay: Vec<PathBuf>,

    /// Write a copy of the device tree to a file
    #[arg(long, value_name = "FILE")]
    dump_device_tree_blob: Option<PathBuf>,

    /// The vCPUs do not run before a command resumes them
    #[arg(long, requires = "socket")]
    suspended: bool,

    /// Socket for commands: an inherited one, or where one is made
    #[arg(long, short, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// `geniezone[device=/dev/gzvm]`
    #[arg(long, value_name = "NAME", value_parser = options::hypervisor)]
    hypervisor: Option<PathBuf>,

    /// Kernel in the arm64 Image format
    #[arg(value_name = "KERNEL", required_unless_present = "bios")]
    kernel: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Whether the exit status tells the ends of a VM apart.
    pub extended_status: bool,
    /// Log filter.
    pub log_filter: String,
    /// The VM.
    pub config: Config,
}

/// Why a command line is not accepted, or is only a question for help.
#[derive(Debug)]
pub struct CliError {
    /// What to print, complete with a newline at the end.
    pub message: String,
    /// The status to exit with: success after help.
    pub status: ExitStatus,
}

/// Understands a command line; `args` starts with the program's name.
pub fn parse<I: IntoIterator<Item = T>, T: Into<OsString> + Clone>(
    args: I,
) -> Result<Invocation, CliError> {
    let matches = command().try_get_matches_from(args).map_err(from_clap)?;
    let cli = Cli::from_arg_matches(&matches).map_err(from_clap)?;
    if let Some(run) = matches.subcommand_matches("run") {
        check_refused(run)?;
    }
    let Sub::Run(run) = cli.command;
    let config = config(*run).map_err(invalid)?;
    Ok(Invocation { extended_status: cli.extended_status, log_filter: cli.log_level, config })
}

/// The complete command: ours, and crosvm's options that are accepted or refused by name.
fn command() -> Command {
    Cli::command().mut_subcommand("run", |run| {
        let run = flags::WITHOUT_EFFECT
            .iter()
            .fold(run, |run, flag| run.arg(hidden(flag.name, flag.takes_value)));
        flags::REFUSED.iter().fold(run, |run, flag| run.arg(hidden(flag.name, flag.takes_value)))
    })
}

fn hidden(name: &'static str, takes_value: bool) -> Arg {
    let action = if takes_value { ArgAction::Append } else { ArgAction::Count };
    Arg::new(name).long(name).action(action).hide(true)
}

fn check_refused(run: &ArgMatches) -> Result<(), CliError> {
    let given = |flag: &&flags::Refused| {
        run.value_source(flag.name) == Some(clap::parser::ValueSource::CommandLine)
    };
    match flags::REFUSED.iter().find(given) {
        Some(flag) => Err(invalid(format!("--{} is not supported: {}", flag.name, flag.why))),
        None => Ok(()),
    }
}

fn from_clap(error: clap::Error) -> CliError {
    let status = if error.use_stderr() { ExitStatus::InvalidArgs } else { ExitStatus::Success };
    CliError { message: error.render().to_string(), status }
}

fn invalid(message: String) -> CliError {
    CliError { message: format!("gzvm_vmm: error: {message}\n"), status: ExitStatus::InvalidArgs }
}

fn config(run: RunArgs) -> Result<Config, String> {
    let protection = match run.protected_vm_with_firmware {
        Some(file) => Protection::FirmwareFile(file),
        None if run.protected_vm => Protection::HypervisorFirmware,
        None if run.protected_vm_without_firmware => Protection::WithoutFirmware,
        None => Protection::None,
    };
    let payload = match (run.bios, run.kernel) {
        (Some(bios), _) => Payload::Bios(bios),
        (None, Some(kernel)) => Payload::Kernel { kernel, initrd: run.initrd },
        (None, None) => return Err("a kernel or --bios is needed".into()),
    };
    let vcpus = match run.cpus {
        _ if run.host_cpu_topology => Vcpus::MatchHost,
        Some(Cpus { count: Some(0) }) => return Err("--cpus 0: a VM has at least one vCPU".into()),
        Some(Cpus { count: Some(count) }) => Vcpus::Count(count),
        Some(Cpus { count: None }) | None => Vcpus::Count(1),
    };
    let swiotlb = match (protection.is_protected(), run.swiotlb) {
        (true, given) => Some(given.unwrap_or(DEFAULT_SWIOTLB)).filter(|&size| size != 0),
        (false, _) => None,
    };
    Ok(Config {
        name: run.name,
        cid: run.cid,
        memory: run.mem.unwrap_or(DEFAULT_MEMORY),
        swiotlb,
        protection,
        vcpus,
        payload,
        params: run.params,
        serial: ports(&run.serial)?,
        consoles: consoles(&run.serial)?,
        disks: run.block,
        pci: run.pci.unwrap_or_default(),
        balloon: !run.no_balloon,
        page_reporting: run.balloon_page_reporting,
        clock_resync: run.clock_resync,
        memory_mode: run.memory_policy,
        hugepages: run.hugepages,
        dont_fork: run.unmap_guest_memory_on_fork,
        suspended: run.suspended,
        socket: run.socket,
        overlays: run.device_tree_overlay,
        dump_device_tree: run.dump_device_tree_blob,
        device: run.hypervisor.unwrap_or_else(|| gzvm::abi::uapi::DEVICE_PATH.into()),
    })
}

fn ports(serial: &[Serial]) -> Result<Vec<SerialPort>, String> {
    let ports = serial.iter().filter_map(|given| match given {
        Serial::Port(port) => Some(port.clone()),
        Serial::VirtioConsole(_) => None,
    });
    unique("serial port", ports.collect())
}

fn consoles(serial: &[Serial]) -> Result<Vec<SerialPort>, String> {
    let consoles = serial.iter().filter_map(|given| match given {
        Serial::Port(_) => None,
        Serial::VirtioConsole(console) => Some(console.clone()),
    });
    unique("virtio console", consoles.collect())
}

fn unique(what: &str, mut ports: Vec<SerialPort>) -> Result<Vec<SerialPort>, String> {
    ports.sort_by_key(|port| port.number);
    match ports.windows(2).find(|pair| pair[0].number == pair[1].number) {
        Some(pair) => Err(format!("--serial: {what} {} is given twice", pair[0].number)),
        None => Ok(ports),
    }
}

#[cfg(test)]
mod tests;
