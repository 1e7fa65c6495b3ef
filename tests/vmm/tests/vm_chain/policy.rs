// SPDX-License-Identifier: Apache-2.0
//! AVF's debug policy, for a VM that cannot be debugged.

use crate::chain::inventory::Before;
use crate::chain::run::{linux, VmRun};
use crate::chain::services::{or_log, services};
use anyhow::{ensure, Context, Result};
use gzvm_vmm_test::overlay;
use std::fs;

/// Where the policy is, and where dumps are kept.
const POLICY: &str = "/tmp/vm_chain/policy.dtbo";
const DUMPS: &str = "/tmp/vm_chain";

/// More properties, until the end of the value.
struct Properties(String);

impl Properties {
    const PATH: &str = "/etc/gzvm/props";

    fn add(lines: &str) -> Result<Self> {
        let before = fs::read_to_string(Self::PATH).context(Self::PATH)?;
        fs::write(Self::PATH, format!("{before}{lines}"))?;
        Ok(Self(before))
    }
}

impl Drop for Properties {
    fn drop(&mut self) {
        // Tests that follow ask for what they need.
        let _ = fs::write(Self::PATH, &self.0);
    }
}

/// An overlay that allows logs and dumps.
fn overlay() -> Vec<u8> {
    overlay::blob(|root| {
        let common = root.child("avf").child("guest").child("common");
        for allowed in ["log", "ramdump"] {
            common.set_cells(allowed, &[1]);
        }
    })
}

pub fn the_debug_policy_is_followed() -> Result<()> {
    let services = services()?;
    let services = services.as_ref().context("no services")?;
    let before = Before::take(services)?;
    let linux = linux(true)?;
    fs::write(POLICY, overlay()).context(POLICY)?;
    let _properties = Properties::add(&format!(
        "hypervisor.virtualizationmanager.debug_policy.path={POLICY}\n\
         hypervisor.gzvm.ramdump_dir={DUMPS}\n"
    ))?;
    let (mut vm_run, cid) = or_log(VmRun::ready(&[&linux], "guest: commands"))?;
    vm_run.send("cat /proc/cmdline")?;
    // 17 MiB, and the pool of a protected VM; the VM's own console comes last, and wins.
    vm_run.expect("crashkernel=25M printk.devkmsg=on console=hvc0 console=ttyS0")?;
    vm_run.send("echo memory > /dev/hvc1; poweroff -f")?;
    vm_run.ends("Shutdown")?;
    let dump = format!("{DUMPS}/ramdump-{cid}");
    let text = fs::read_to_string(&dump).with_context(|| dump.clone())?;
    ensure!(text.trim_end() == "memory", "{text:?}");
    fs::remove_file(dump)?;
    before.is_back(services)
}
