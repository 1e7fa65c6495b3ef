// SPDX-License-Identifier: Apache-2.0
//! crosvm's options that virtmgr may pass and this VMM does not act on: those that are accepted
//! without effect, and those that are refused by name. What stands in neither list, and is no
//! option of ours, is unknown.

/// An option that is accepted and changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct WithoutEffect {
    /// Name without the dashes.
    pub name: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
    /// Why nothing needs to be done.
    pub why: &'static str,
}

/// An option that is known and refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Name without the dashes.
    pub name: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
    /// Why.
    pub why: &'static str,
}

const fn without_effect(name: &'static str, takes_value: bool, why: &'static str) -> WithoutEffect {
    WithoutEffect { name, takes_value, why }
}

const fn refused(name: &'static str, takes_value: bool, why: &'static str) -> Refused {
    Refused { name, takes_value, why }
}

/// Accepted without effect.
pub const WITHOUT_EFFECT: &[WithoutEffect] = &[
    without_effect("boost-uclamp", false, "a scheduling hint"),
    without_effect("disable-sandbox", false, "SELinux is the sandbox; there is no other"),
    without_effect("no-pmu", false, "GenieZone guests have no PMU"),
    without_effect("no-usb", false, "there is no USB"),
    without_effect("virt-cpufreq", false, "a scheduling hint"),
];

const GRAPHICS: &str = "there is no display, input or sound";
const PASSTHROUGH: &str = "GenieZone assigns no devices to guests";
const NO_DEBUG: &str = "GenieZone gives no access to guest registers";
const MINIMAL: &str = "there is no such device";

/// Refused by name, with the status for a wrong command line.
pub const REFUSED: &[Refused] = &[
    refused("android-display-service", true, GRAPHICS),
    refused("file-backed-mapping", true, MINIMAL),
    refused("fdt-position", true, "the place of the device tree is fixed"),
    refused("gdb", true, NO_DEBUG),
    refused("gpu", true, GRAPHICS),
    refused("gpu-cgroup-path", true, GRAPHICS),
    refused("gpu-display", true, GRAPHICS),
    refused("gpu-render-server", true, GRAPHICS),
    refused("gpu-server-cgroup-path", true, GRAPHICS),
    refused("input", true, GRAPHICS),
    refused("net", true, "there is no network device"),
    refused("shared-dir", true, MINIMAL),
    refused("vfio", true, PASSTHROUGH),
    refused("vhost-user-fs", true, MINIMAL),
    refused("virtio-snd", true, GRAPHICS),
];
