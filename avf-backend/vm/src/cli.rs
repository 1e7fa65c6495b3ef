// SPDX-License-Identifier: Apache-2.0
//! The command line: AVF's, where what AVF accepts and ignores is said to have no effect.

use crate::partition::Kind;
use clap::{ArgAction, Args, Parser, ValueEnum};
use std::path::PathBuf;

/// Starts and manages virtual machines.
#[derive(Debug, Parser)]
#[command(name = "vm", version, max_term_width = 100)]
pub enum Opt {
    /// Runs a VM that a JSON file describes
    Run(Box<RunArgs>),
    /// Lists the VMs that run
    List,
    /// Says what this machine has for VMs
    Info,
    /// Shows a VM's console, if it is at a terminal of its own
    Console {
        /// vsock context id of the VM; the first that has a console, if not given
        cid: Option<i32>,
    },
    /// Makes an empty partition, for a disk of a VM
    CreatePartition {
        /// The file to make, which must not exist
        path: PathBuf,
        /// Its size in bytes
        size: u64,
        /// What it is for
        #[arg(short = 't', long = "type", value_enum, default_value = "raw")]
        kind: Kind,
    },
    /// Says whether a feature of AVF is there
    CheckFeatureEnabled {
        /// Name of the feature
        feature: String,
    },
    /// Unsupported: app VMs are Android's
    RunApp(Ignored),
    /// Unsupported: app VMs are Android's
    RunMicrodroid(Ignored),
    /// Makes the APK Signature Scheme v4 file of an APK
    CreateIdsig {
        /// The APK
        apk: PathBuf,
        /// The file to make; one that exists is replaced
        path: PathBuf,
    },
    #[command(flatten)]
    Ctl(gzvm_ctl::Command),
}

/// Number of vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// That many.
    Count(u32),
    /// As many as the host has.
    MatchHost,
}

/// Whatever AVF takes there.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Ignored {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    ignored: Vec<std::ffi::OsString>,
}

/// `vm run`.
#[derive(Debug, Args)]
// -h is --hugepages, as in AVF's tool.
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// Description of the VM
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,

    #[command(flatten)]
    pub common: CommonArgs,

    #[command(flatten)]
    pub debug: DebugArgs,

    /// Say by the exit status how the VM ended (docs/vm.md), not only whether it was started
    #[arg(long)]
    pub exit_status: bool,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What every subcommand that starts a VM takes.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Name of the VM
    #[arg(long)]
    pub name: Option<String>,

    /// one_cpu, match_host or cpu_count=N
    #[arg(long, default_value = "one_cpu", value_parser = cpu_topology)]
    pub cpu_topology: Cpus,

    /// Memory in MiB, instead of what CONFIG says
    #[arg(short, long)]
    pub mem: Option<std::num::NonZeroU32>,

    /// Run it as a protected VM, whatever CONFIG says
    #[arg(short, long)]
    pub protected: bool,

    /// Ask for transparent huge pages
    #[arg(short = 'h', long)]
    pub hugepages: bool,

    /// Has no effect: VMs have no network
    #[arg(short, long)]
    pub network_supported: bool,

    /// A scheduling hint
    #[arg(short, long)]
    pub boost_uclamp: bool,
}

/// What helps with finding faults.
#[derive(Debug, Args)]
pub struct DebugArgs {
    /// Has no effect on `run`: a raw VM has no debug level
    #[arg(long, value_enum, default_value_t = DebugLevel::Full)]
    pub debug: DebugLevel,

    /// File for the VM's console, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,

    /// Put the console at a terminal of its own, which `vm console` shows
    #[arg(long, conflicts_with_all = ["console", "console_in"])]
    pub pty: bool,

    /// File that the VM's console reads from, instead of standard input
    #[arg(long, value_name = "FILE")]
    pub console_in: Option<PathBuf>,

    /// File for the VM's log, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// File for a copy of the VM's device tree
    #[arg(long, value_name = "FILE")]
    pub dump_device_tree: Option<PathBuf>,

    /// Refused: GenieZone gives no access to a guest's registers
    #[arg(long, value_name = "PORT")]
    pub gdb: Option<u16>,

    /// Has no effect on `run`: put earlycon into the parameters
    #[arg(long)]
    pub enable_earlycon: bool,
}

/// AVF's debug levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DebugLevel {
    /// Not debuggable.
    None,
    /// Fully debuggable.
    Full,
}

fn cpu_topology(text: &str) -> Result<Cpus, String> {
    match (text, text.strip_prefix("cpu_count=")) {
        ("one_cpu", _) => Ok(Cpus::Count(1)),
        ("match_host", _) => Ok(Cpus::MatchHost),
        (_, Some(count)) => match count.parse() {
            Ok(0) | Err(_) => Err("cpu_count= needs a number of at least 1".into()),
            Ok(count) => Ok(Cpus::Count(count)),
        },
        _ => Err("one_cpu, match_host or cpu_count=N is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(args: &[&str]) -> Result<Box<RunArgs>, clap::Error> {
        match Opt::try_parse_from([&["vm", "run"], args].concat())? {
            Opt::Run(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clap_is_content() {
        Opt::command().debug_assert();
    }

    #[test]
    fn avfs_flags() {
        let args = run(&[
            "c.json",
            "-p",
            "-h",
            "-b",
            "-n",
            "-m",
            "300",
            "--name",
            "x",
            "--cpu-topology",
            "cpu_count=4",
            "--debug",
            "none",
            "--console",
            "o",
            "--console-in",
            "i",
            "--log",
            "l",
            "--dump-device-tree",
            "d",
            "--enable-earlycon",
        ])
        .unwrap();
        assert!(args.common.protected && args.common.hugepages);
        assert_eq!(args.common.cpu_topology, Cpus::Count(4));
        assert_eq!(args.common.mem.map(u32::from), Some(300));
        assert_eq!(args.debug.log, Some("l".into()));
    }

    #[test]
    fn app_vms_are_refused_whatever_they_are_given() {
        for line in [
            "run-app a.apk a.idsig i.img -p --payload-binary-name x --mem 5",
            "run-microdroid --os microdroid_gki -h",
        ] {
            let words = ["vm"].into_iter().chain(line.split(' '));
            let opt = Opt::try_parse_from(words).unwrap();
            let app = matches!(opt, Opt::RunApp(_) | Opt::RunMicrodroid(_));
            assert!(app, "{opt:?}");
        }
    }

    #[test]
    fn partitions() {
        let partition = |line: &str| {
            let words = ["vm", "create-partition"].into_iter().chain(line.split(' '));
            match Opt::try_parse_from(words) {
                Ok(Opt::CreatePartition { path, size, kind }) => Some((path, size, kind)),
                _ => None,
            }
        };
        assert_eq!(partition("a 4096"), Some(("a".into(), 4096, Kind::Raw)));
        assert_eq!(partition("-t instance a 1"), Some(("a".into(), 1, Kind::Instance)));
        assert_eq!(partition("a 1 --type=encryptedstore").unwrap().2, Kind::Encryptedstore);
        assert_eq!((partition("a"), partition("a -1"), partition("-t x a 1")), (None, None, None));
    }

    #[test]
    fn topologies() {
        let topology =
            |text: &str| run(&["c", "--cpu-topology", text]).map(|a| a.common.cpu_topology);
        assert_eq!(run(&["c"]).unwrap().common.cpu_topology, Cpus::Count(1));
        assert_eq!(topology("match_host").unwrap(), Cpus::MatchHost);
        for bad in ["cpu_count=0", "cpu_count=x", "two"] {
            assert!(topology(bad).is_err(), "{bad}");
        }
    }
}
