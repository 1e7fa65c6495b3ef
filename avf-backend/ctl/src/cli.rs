// SPDX-License-Identifier: Apache-2.0
//! The command line.

use clap::{Args, Subcommand};
use std::num::NonZeroU32;

/// Memory of a VM where nobody says, in MiB (virtmgr's default).
const DEFAULT_MEMORY_MIB: &str = "256";

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Says whether this machine can run VMs, and if not, why
    #[command(after_help = CHECK_STATUS)]
    Check(CheckArgs),
    /// Shows memory, exits, faults and CPU time of VMs, as the driver counts them
    Stats(StatsArgs),
    /// Compares a guest's clock with the host's, at the same counter value
    Clock(ClockArgs),
    /// Ends a VM
    Stop(StopArgs),
}

const CHECK_STATUS: &str =
    "Exit status: 0 yes, 3 no, 4 unknown, 1 an error, 2 a wrong command line";

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The exit status is about protected VMs
    #[arg(short, long)]
    pub protected: bool,

    /// Memory in MiB that the VM is to have
    #[arg(short, long, value_name = "MIB", default_value = DEFAULT_MEMORY_MIB)]
    pub mem: NonZeroU32,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// CID or name of the only VM to show
    #[arg(value_name = "CID|NAME")]
    pub vm: Option<String>,

    /// Show again every so many seconds, with what happened in between
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    pub watch: Option<NonZeroU32>,

    /// Print JSON, one line each time
    #[arg(long)]
    pub json: bool,
}

/// `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// CID or name of the VM
    #[arg(value_name = "CID|NAME")]
    pub vm: String,

    /// Seconds after which the VMM is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub timeout: u64,
}

/// `clock`.
#[derive(Debug, Args)]
pub struct ClockArgs {
    /// vsock context id of the VM, as `vm run` prints it
    #[arg(value_name = "CID")]
    pub cid: u32,

    /// Set the guest's clock to the host's first
    #[arg(long)]
    pub resync: bool,

    /// Do so now, and whenever the host's clock is set or the host returns from suspend
    #[arg(long, conflicts_with = "resync")]
    pub watch: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Debug, Parser)]
    struct Opt {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Option<Command> {
        let words = ["gzvmctl"].into_iter().chain(line.split_whitespace());
        Opt::try_parse_from(words).ok().map(|opt| opt.command)
    }

    #[test]
    fn clap_is_content() {
        Opt::command().debug_assert();
    }

    #[test]
    fn checks() {
        let check = |line| match parse(line) {
            Some(Command::Check(args)) => Some((args.protected, args.mem.get(), args.json)),
            _ => None,
        };
        assert_eq!(check("check"), Some((false, 256, false)));
        assert_eq!(check("check -p -m 64 --json"), Some((true, 64, true)));
        assert_eq!(check("check --mem 0"), None);
    }

    #[test]
    fn statistics() {
        let stats = |line| match parse(line) {
            Some(Command::Stats(args)) => Some((args.vm, args.watch.map(u32::from), args.json)),
            _ => None,
        };
        assert_eq!(stats("stats"), Some((None, None, false)));
        assert_eq!(stats("stats -w"), Some((None, Some(1), false)));
        assert_eq!(stats("stats a --watch=5 --json"), Some((Some("a".into()), Some(5), true)));
        assert_eq!(stats("stats -w 0"), None);
    }

    #[test]
    fn stopping() {
        let stop = |line| match parse(line) {
            Some(Command::Stop(args)) => Some((args.vm, args.timeout)),
            _ => None,
        };
        assert_eq!(stop("stop 2048"), Some(("2048".into(), 10)));
        assert_eq!(stop("stop --timeout 3 a"), Some(("a".into(), 3)));
        assert_eq!(stop("stop"), None);
    }

    #[test]
    fn clocks() {
        let clock = |line| match parse(line) {
            Some(Command::Clock(args)) => Some((args.cid, args.resync, args.watch)),
            _ => None,
        };
        assert_eq!(clock("clock 2048"), Some((2048, false, false)));
        assert_eq!(clock("clock --resync 5"), Some((5, true, false)));
        assert_eq!(clock("clock 5 --watch"), Some((5, false, true)));
        assert_eq!(clock("clock 5 --watch --resync"), None);
        assert_eq!(clock("clock"), None);
    }
}
