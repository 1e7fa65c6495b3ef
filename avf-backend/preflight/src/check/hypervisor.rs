// SPDX-License-Identifier: Apache-2.0
//! Hypervisor, driver, and what they can do.

use super::facts::{Asked, Facts, Node};
use super::{Answer, Line, Need};
use crate::presence::Tree;
use crate::Reading;
use gzvm::abi::{ext, hvc, uapi};
use gzvm::Error;

/// What the kernel calls 64-bit Arm.
const MACHINE: &str = "aarch64";
/// The driver's page size: the hypervisor's ABI counts in it.
const PAGE_SIZE: u64 = 4096;
/// Extensions of the hypervisor, as documents call them.
const EXTENSIONS: [(u64, &str); 6] = [
    (ext::WAKE_MASK, "WAKE_MASK"),
    (ext::UNMAP, "UNMAP"),
    (ext::IRQ_KIND, "IRQ_KIND"),
    (ext::GET_REG, "GET_REG"),
    (ext::LIMITS, "LIMITS"),
    (ext::RANGE_STATE, "RANGE_STATE"),
];

/// All lines, in the order in which things depend on each other.
pub(super) fn lines(facts: &Facts) -> Vec<Line> {
    let mut lines = vec![
        architecture(facts),
        page_size(facts),
        device_tree(facts),
        driver(facts),
        hypervisor(facts),
        version(facts),
        device(facts),
        access(facts),
        vm_creation(facts),
        protected_vms(facts),
        firmware(facts),
    ];
    lines.extend(limits(facts));
    lines
}

fn architecture(facts: &Facts) -> Line {
    let line = Line::new("architecture", facts.machine == MACHINE).detail(&facts.machine);
    line.remedy("GenieZone is a hypervisor of 64-bit Arm machines")
}

fn page_size(facts: &Facts) -> Line {
    let line = Line::new("page-size", facts.page_size == PAGE_SIZE);
    line.detail(format!("{} bytes", facts.page_size))
        .remedy("boot a kernel with pages of 4 KiB: the hypervisor's ABI counts in them")
}

fn device_tree(facts: &Facts) -> Line {
    let name = "device-tree";
    match &facts.tree {
        Tree::Node { path, compatible } => {
            Line::new(name, true).detail(format!("{path} is {compatible}"))
        }
        Tree::None { traces } if traces.is_empty() => Line::new(name, false)
            .detail("no node is mediatek,geniezone or mediatek,geniezone-hyp")
            .remedy(
                "boot under GenieZone (in QEMU: virtualization=on and the reference hypervisor)",
            ),
        Tree::None { traces } => Line::new(name, false)
            .detail(format!("no node for the driver, but reserved memory {}", traces.join(", ")))
            .remedy(
                "GenieZone seems to be there, and its firmware does not say so: a node with \
                 compatible = \"mediatek,geniezone\" is needed in the device tree",
            ),
        Tree::Absent => Line::new(name, false)
            .detail("the machine has none")
            .remedy("boot with a device tree that has a node for GenieZone"),
        Tree::Unknown(why) => Line::unknown(name, why.clone()).remedy("look as root"),
    }
}

fn driver(facts: &Facts) -> Line {
    let built_in = facts.device.value().is_some();
    let line = Line::new("driver", facts.module || built_in);
    match (facts.module, built_in) {
        (true, _) => line.detail("module gzvm is loaded"),
        (false, true) => line.detail("built into the kernel"),
        (false, false) => line.remedy("load it (modprobe gzvm, or insmod gzvm.ko)"),
    }
}

/// The driver offers `/dev/gzvm` only after the hypervisor has answered.
fn hypervisor(facts: &Facts) -> Line {
    let name = "hypervisor";
    let error = facts.driver_error.value().cloned().flatten();
    match (&facts.device, facts.module, error) {
        (Reading::Value(_), ..) => Line::new(name, true).detail("it answers the driver"),
        _ if facts.kvm && facts.machine == MACHINE => Line::new(name, false)
            .detail("/dev/kvm is there: this kernel has EL2 to itself")
            .remedy("boot under GenieZone, with the kernel at EL1"),
        (_, true, Some(error)) => {
            Line::new(name, false).detail(format!("the driver said: {error}")).remedy("see dmesg")
        }
        (_, false, _) => Line::unknown(name, "the driver is not loaded, so nobody asked it"),
        (_, true, None) if matches!(facts.tree, Tree::None { .. } | Tree::Absent) => {
            Line::unknown(name, "the device tree has no node, so the driver did not ask it")
        }
        (_, true, None) => Line::unknown(name, "the driver's messages cannot be seen")
            .remedy("see what the driver said (dmesg, as root)"),
    }
}

fn version(facts: &Facts) -> Line {
    let name = "abi-version";
    let known = hvc::VERSION_MAJOR;
    let Reading::Value(version) = &facts.version else {
        let mut line = Line::of(name, &facts.version);
        if facts.version == Reading::Absent {
            line.answer = Answer::Unknown("/sys/kernel/gzvm is not there".into());
        }
        return line;
    };
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    let line = Line::new(name, major == Some(known)).detail(format!("version {version}"));
    line.remedy(format!(
        "{known} is known: VMs run, without idle exits, virtual-counter time and ends of interrupts"
    ))
}

fn device(facts: &Facts) -> Line {
    let line = Line::of("device", &facts.device).detail(uapi::DEVICE_PATH);
    line.remedy("what comes before it in this list says why")
}

fn access(facts: &Facts) -> Line {
    let name = "access";
    let owned = |Node { mode, uid, gid }: &Node| format!("mode {mode:04o}, owner {uid}:{gid}");
    match (&facts.device, &facts.asked) {
        (Reading::Value(node), Ok(_)) => Line::new(name, true).detail(owned(node)),
        (Reading::Value(node), Err(e)) if denied(e) => Line::new(name, false)
            .detail(owned(node))
            .remedy("run as a user who may open /dev/gzvm (on Android only the VMM's domain may)"),
        (Reading::Value(node), Err(e)) => {
            Line::new(name, false).detail(owned(node)).remedy(e.to_string())
        }
        (Reading::Absent, _) => Line::unknown(name, "no /dev/gzvm"),
        (Reading::Unknown(why), _) => Line::unknown(name, why.clone()),
    }
}

/// Whether an error says only that this user may not.
fn denied(error: &Error) -> bool {
    matches!(error.errno(), libc::EACCES | libc::EPERM)
}

/// What the driver answers, or the answer for everything that it would have to be asked.
fn asked(facts: &Facts) -> Result<&Asked, Answer> {
    facts.asked.as_ref().map_err(|e| {
        Answer::Unknown(match e.errno() {
            _ if denied(e) => "no permission".into(),
            libc::ENOENT | libc::ENXIO | libc::ENODEV => "no /dev/gzvm".into(),
            _ => e.to_string(),
        })
    })
}

fn vm_creation(facts: &Facts) -> Line {
    let name = "vm-creation";
    let line = match asked(facts) {
        Ok(Asked { vm: Ok(()), .. }) => Line::new(name, true).detail("one was made and removed"),
        Ok(Asked { vm: Err(e), .. }) => Line::new(name, false).remedy(e.to_string()),
        Err(_) if facts.device == Reading::Absent => Line::new(name, false).detail("no /dev/gzvm"),
        Err(answer) => Line::new(name, answer),
    };
    line.needed_by(Need::Vms)
}

fn protected_vms(facts: &Facts) -> Line {
    let name = "protection";
    let line = match asked(facts) {
        Ok(Asked { protected: Some(1), .. }) => Line::new(name, true),
        Ok(Asked { protected: Some(_), .. }) => {
            Line::new(name, false).remedy("the hypervisor has no protected VMs: use another")
        }
        Ok(Asked { protected: None, .. }) => Line::unknown(name, "the driver does not say"),
        Err(answer) => Line::new(name, answer),
    };
    line.needed_by(Need::ProtectedVms)
}

fn firmware(facts: &Facts) -> Line {
    let name = "firmware";
    let without = "protected VMs start without firmware only: property hypervisor.pvmfw.path=none";
    match asked(facts).map(|asked| asked.firmware) {
        Ok(Ok(0)) => Line::new(name, false).detail("none is installed").remedy(without),
        Ok(Ok(size)) => Line::new(name, true).detail(format!("{size} bytes")),
        Ok(Err(e)) if matches!(e.errno(), libc::EINVAL | libc::EOPNOTSUPP) => {
            Line::new(name, false).remedy(without)
        }
        Ok(Err(e)) => Line::unknown(name, e.to_string()),
        Err(answer) => Line::new(name, answer),
    }
}

fn limits(facts: &Facts) -> Vec<Line> {
    const NAMES: [&str; 4] = ["vcpu-limit", "interrupt-limit", "address-bits", "extensions"];
    let asked = match asked(facts) {
        Ok(asked) => asked,
        Err(answer) => return NAMES.map(|name| Line::new(name, answer.clone())).into(),
    };
    let known = asked.extensions.is_some_and(|bits| bits & ext::LIMITS != 0);
    let [vcpus, interrupts, bits, extensions] = NAMES;
    let field = |shift: u32, default: u32| match asked.limits.map(|limits| limits >> shift & 0xffff)
    {
        Some(limit) if limit != 0 => limit.to_string(),
        _ => default.to_string(),
    };
    let limit = |name, text: String| match known {
        true => Line::new(name, true).detail(text),
        false => {
            Line::unknown(name, "the hypervisor does not say").detail(format!("assumed: {text}"))
        }
    };
    let address_bits = asked.address_bits.unwrap_or(u64::from(uapi::DEFAULT_IPA_BITS));
    vec![
        limit(vcpus, field(0, uapi::DEFAULT_MAX_VCPUS)),
        limit(interrupts, field(16, uapi::DEFAULT_MAX_SPIS)),
        limit(bits, address_bits.to_string()),
        extension_line(extensions, asked.extensions.unwrap_or(0)),
    ]
}

fn extension_line(name: &'static str, bits: u64) -> Line {
    let names: Vec<_> =
        EXTENSIONS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    match names.is_empty() {
        true => Line::new(name, false).detail("none, as on phones: VMs run without"),
        false => Line::new(name, true).detail(names.join(" ")),
    }
}
