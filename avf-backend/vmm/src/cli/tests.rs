// SPDX-License-Identifier: Apache-2.0
//! The table of options, row by row, and command lines as virtmgr emits them.

use super::*;
use crate::clock::Resync;
use crate::config::{SerialInput, SerialOutput};
use crate::layout::MIB;
use proptest::prelude::*;

fn run(args: &[&str]) -> Result<Invocation, CliError> {
    parse([&["gzvm_vmm", "--extended-status", "run"], args].concat())
}

fn accepted(args: &[&str]) -> Config {
    run(args).unwrap_or_else(|e| panic!("{args:?}: {}", e.message)).config
}

fn refused(args: &[&str]) -> String {
    let error = run(args).expect_err("is accepted");
    assert_eq!(error.status, ExitStatus::InvalidArgs, "{args:?}");
    assert!(error.message.ends_with('\n'));
    error.message
}

#[test]
fn clap_is_content() {
    command().debug_assert();
}

#[test]
fn help_is_no_error() {
    for args in [&["gzvm_vmm", "--help"][..], &["gzvm_vmm", "run", "--help"]] {
        assert_eq!(parse(args).unwrap_err().status, ExitStatus::Success);
    }
}

/// Command lines as stock virtmgr emits them; the machine tests boot them.
const OF_VIRTMGR: [&str; 3] = [
    include_str!("../../tests/argv/raw.args"),
    include_str!("../../tests/argv/raw-protected.args"),
    include_str!("../../tests/argv/microdroid-protected.args"),
];

#[test]
fn virtmgrs_command_lines() {
    let [raw, protected, microdroid] = OF_VIRTMGR.map(|text| {
        let args = text.lines().filter(|line| !line.starts_with('#'));
        let parsed = parse(["crosvm"].into_iter().chain(args));
        parsed.unwrap_or_else(|e| panic!("{}", e.message)).config
    });
    assert_eq!((raw.protection, raw.memory, raw.swiotlb), (Protection::None, 128 * MIB, None));
    assert_eq!((raw.serial.len(), raw.consoles.len(), raw.vcpus), (2, 3, Vcpus::Count(2)));
    assert_eq!((protected.memory, protected.swiotlb), (138 * MIB, Some(10 * MIB)));
    assert_eq!(protected.dump_device_tree, Some("/proc/self/fd/27".into()));
    assert!(protected.dont_fork && protected.disks[0].writable);
    assert_eq!(microdroid.protection, Protection::HypervisorFirmware);
    assert_eq!((microdroid.vcpus, microdroid.disks.len()), (Vcpus::MatchHost, 2));
    assert!(microdroid.hugepages && !microdroid.disks[0].writable);
    assert_eq!(microdroid.consoles[0].input, Some(SerialInput::File("/proc/self/fd/23".into())));
}

#[test]
fn raw_vm_of_virtmgr() {
    let config = accepted(&[
        "--name",
        "crosvm_VmRun",
        "--disable-sandbox",
        "--cid",
        "2048",
        "--no-balloon",
        "--no-usb",
        "--pci",
        "mem=[start=0x2c000000,size=0x2000000],cam=[start=0x2e000000,size=0x1000000]",
        "--mem",
        "256",
        "--cpus",
        "1,sve=[auto=true]",
        "--serial=type=file,path=/proc/self/fd/7,input=/proc/self/fd/8,hardware=serial,num=1",
        "--serial=type=file,path=/proc/self/fd/9,hardware=serial,num=2",
        "--initrd",
        "/proc/self/fd/10",
        "--params",
        "console=ttyS0 quiet",
        "/proc/self/fd/11",
        "--no-pmu",
        "--socket",
        "/proc/self/fd/12",
    ]);
    assert_eq!(config.name.as_deref(), Some("crosvm_VmRun"));
    assert_eq!((config.cid, config.memory), (Some(2048), 256 * MIB));
    assert_eq!((config.vcpus, config.protection), (Vcpus::Count(1), Protection::None));
    assert_eq!(config.swiotlb, None);
    assert_eq!(
        config.payload,
        Payload::Kernel {
            kernel: "/proc/self/fd/11".into(),
            initrd: Some("/proc/self/fd/10".into()),
        }
    );
    assert_eq!(config.params, ["console=ttyS0 quiet"]);
    let console = &config.serial[0];
    assert_eq!(console.output, SerialOutput::File("/proc/self/fd/7".into()));
    assert_eq!(console.input, Some(SerialInput::File("/proc/self/fd/8".into())));
    assert_eq!(config.serial[1].number, 2);
    assert_eq!(config.socket, Some("/proc/self/fd/12".into()));
    assert!(!config.balloon);
}

#[test]
fn clock() {
    assert_eq!(accepted(&["k"]).clock_resync, Resync::Auto);
    assert_eq!(accepted(&["--clock-resync", "off", "k"]).clock_resync, Resync::Off);
    assert!(refused(&["--clock-resync", "now", "k"]).contains("auto or off"));
}

#[test]
fn balloon() {
    let config = accepted(&["k"]);
    assert!(config.balloon && !config.page_reporting);
    let config = accepted(&["--balloon-page-reporting", "k"]);
    assert!(config.balloon && config.page_reporting);
    // crosvm refuses both together, too.
    let message = refused(&["--no-balloon", "--balloon-page-reporting", "k"]);
    assert!(message.contains("--balloon-page-reporting"), "{message}");
}

#[test]
fn protected_vms() {
    let config = accepted(&["--protected-vm", "--swiotlb", "12", "--mem", "268", "k"]);
    assert_eq!(config.protection, Protection::HypervisorFirmware);
    assert_eq!(config.swiotlb, Some(12 * MIB));
    let config = accepted(&["--protected-vm-without-firmware", "k"]);
    assert_eq!(config.protection, Protection::WithoutFirmware);
    assert_eq!(config.swiotlb, Some(DEFAULT_SWIOTLB), "GenieZone cannot do without");
    assert_eq!(accepted(&["--swiotlb", "12", "k"]).swiotlb, None, "has no use unprotected");
    let config = accepted(&["--protected-vm-with-firmware", "/f", "k"]);
    assert_eq!(config.protection, Protection::FirmwareFile("/f".into()));
    refused(&["--protected-vm", "--protected-vm-without-firmware", "k"]);
    refused(&["--protected-vm", "--protected-vm-with-firmware=/f", "k"]);
}

#[test]
fn options_without_effect() {
    let plain = accepted(&["k"]);
    for flag in flags::WITHOUT_EFFECT {
        let name = format!("--{}", flag.name);
        let args = if flag.takes_value { vec![&*name, "x", "k"] } else { vec![&*name, "k"] };
        assert_eq!(accepted(&args), plain, "{name}");
        assert!(!flag.why.is_empty());
    }
}

/// The options in the rows of docs/vmm.md, each with its class.
fn documented() -> Vec<(String, &'static str)> {
    let rows = include_str!("../../../../docs/vmm.md").lines().filter(|l| l.starts_with("| `--"));
    rows.flat_map(|row| {
        let mut cells = row.split(" | ");
        let (options, class) = (cells.next().unwrap(), cells.next().unwrap());
        let words = options.split(|c: char| !c.is_ascii_lowercase() && c != '-');
        let names = words.filter_map(|word| word.strip_prefix("--")).filter(|n| !n.is_empty());
        names.map(move |name| (name.to_owned(), class)).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn the_documented_table_is_this_one() {
    let documented = documented();
    let command = command();
    let run = command.find_subcommand("run").unwrap();
    let known: Vec<&str> = run
        .get_arguments()
        .chain(command.get_arguments())
        .filter_map(|option| option.get_long())
        .filter(|name| !["help", "version"].contains(name))
        .collect();
    for name in &known {
        let classes: Vec<&str> =
            documented.iter().filter(|(n, _)| n == name).map(|(_, class)| *class).collect();
        let expected: &[&str] = if flags::REFUSED.iter().any(|flag| flag.name == *name) {
            &["refused"]
        } else if flags::WITHOUT_EFFECT.iter().any(|flag| flag.name == *name) {
            &["accepted"]
        } else {
            // Some values of an option may be of another class.
            &["same", "ours", "accepted", "refused"]
        };
        let fits = |class: &&str| expected.contains(class);
        assert!(!classes.is_empty() && classes.iter().all(fits), "--{name}: {classes:?}");
        let acted_on = classes.iter().any(|class| ["same", "ours"].contains(class));
        assert_eq!(acted_on, expected.len() > 1, "--{name}: {classes:?}");
    }
    for (name, class) in &documented {
        assert!(known.contains(&&name[..]), "--{name} ({class}) is not an option");
    }
}

#[test]
fn refused_options_are_named() {
    for flag in flags::REFUSED {
        let name = format!("--{}", flag.name);
        let with_value = format!("{name}=x");
        let args = if flag.takes_value { vec![&*with_value, "k"] } else { vec![&*name, "k"] };
        let message = refused(&args);
        assert!(message.contains(&name) && message.contains(flag.why), "{message}");
    }
}

#[test]
fn unknown_options_and_bad_values() {
    for (args, word) in [
        (&["--frobnicate", "k"][..], "--frobnicate"),
        (&[], "KERNEL"),
        (&["--mem", "0", "k"], "memory"),
        (&["--mem", "lots", "k"], "MiB"),
        (&["--mem", "99999999999999999999", "k"], "MiB"),
        (&["--mem", "18446744073709551615", "k"], "addressed"),
        (&["--cpus", "0", "k"], "vCPU"),
        (&["--cpus", "two", "k"], "two"),
        (&["--cpus", "2,clusters=[0]", "k"], "clusters"),
        (&["--serial", "type=unix,path=x", "k"], "unix"),
        (&["--serial=num=1", "--serial=num=1", "k"], "twice"),
        (&["--hypervisor", "gunyah", "k"], "gunyah"),
        (&["--device-tree-overlay", "o,filter", "k"], "assigned"),
        (&["--block", "ro=true", "k"], "path="),
        (&["--bios", "b", "k"], "--bios"),
        (&["--bios", "b", "--initrd", "i"], "--initrd"),
        (&["k", "k2"], "k2"),
    ] {
        let message = refused(args);
        assert!(message.contains(word), "{args:?}: {message}");
    }
    assert_eq!(parse(["gzvm_vmm", "device", "fs"]).unwrap_err().status, ExitStatus::InvalidArgs);
    assert_eq!(parse(["gzvm_vmm"]).unwrap_err().status, ExitStatus::InvalidArgs);
}

#[test]
fn spellings() {
    assert_eq!(accepted(&["--mem", "size=512", "k"]).memory, 512 * MIB);
    assert_eq!(accepted(&["k"]).memory, DEFAULT_MEMORY);
    assert_eq!(accepted(&["--cpus", "num-cores=3", "k"]).vcpus, Vcpus::Count(3));
    let config =
        accepted(&["--host-cpu-topology", "--virt-cpufreq", "--cpus", "sve=[auto=true]", "k"]);
    assert_eq!(config.vcpus, Vcpus::MatchHost);
    assert_eq!(accepted(&["--params", "-- --init-flag", "k"]).params, ["-- --init-flag"]);
    assert_eq!(accepted(&["--bios", "b"]).payload, Payload::Bios("b".into()));
    assert_eq!(accepted(&["--hypervisor", "geniezone", "k"]).device, PathBuf::from("/dev/gzvm"));
    let config = accepted(&["--device-tree-overlay", "a", "--device-tree-overlay", "b", "k"]);
    assert_eq!(config.overlays, [PathBuf::from("a"), PathBuf::from("b")]);
    let config = accepted(&["--hypervisor", "geniezone[device=/dev/x]", "k"]);
    assert_eq!(config.device, PathBuf::from("/dev/x"));
}

#[test]
fn memory_policies() {
    assert_eq!(accepted(&["k"]).memory_mode, Mode::Lazy);
    assert_eq!(accepted(&["--memory-policy", "static", "k"]).memory_mode, Mode::Static);
    assert!(refused(&["--memory-policy", "eager", "k"]).contains("lazy, prefault or static"));
}

#[test]
fn a_vm_that_waits_needs_somebody_to_resume_it() {
    assert!(!accepted(&["k"]).suspended);
    assert!(accepted(&["--suspended", "--socket", "/s", "k"]).suspended);
    assert!(refused(&["--suspended", "k"]).contains("--socket"));
}

#[test]
fn global_options() {
    let line = ["crosvm", "--log-level", "info,disk=warn", "run", "k"];
    let invocation = parse(line).unwrap_or_else(|e| panic!("{}", e.message));
    assert!(!invocation.extended_status);
    assert_eq!(invocation.log_filter, "info,disk=warn");
}

proptest! {
    /// Words of real command lines, mixed, cut and joined: each is accepted or refused with a line.
    #[test]
    fn any_command_line_is_answered(
        words in proptest::collection::vec((0..200_usize, 0..60_usize, 0..4_u8), 0..12)
    ) {
        let known: Vec<&str> =
            OF_VIRTMGR.iter().flat_map(|text| text.lines()).filter(|l| !l.starts_with('#')).collect();
        let mut args = vec!["gzvm_vmm".to_owned(), "run".to_owned()];
        for (word, cut, how) in words {
            let word = known[word % known.len()];
            let cut = cut.min(word.len());
            match how {
                0 => args.push(word[..cut].to_owned()),
                1 => args.push(format!("{word}{}", &word[cut..])),
                _ => args.push(word.to_owned()),
            }
        }
        if let Err(error) = parse(args) {
            prop_assert!(error.message.ends_with('\n'));
        }
    }
}
