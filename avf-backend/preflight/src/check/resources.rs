// SPDX-License-Identifier: Apache-2.0
//! Memory, and what else a VM wants of the host.

use super::facts::Facts;
use super::{Answer, Line, Need};
use crate::memory::{COMPACT_REMEDY, HUGE_PAGES_REMEDY};
use crate::{Reading, MIB};

/// All lines, for a VM with `needed` bytes of memory.
pub(super) fn lines(facts: &Facts, needed: u64) -> Vec<Line> {
    let mut lines = vec![
        memory(facts, needed),
        locked_memory(facts, needed),
        blocks(facts, needed),
        huge_pages(facts),
        vsock(facts),
        binder(facts),
        selinux(facts),
    ];
    lines.extend(properties(facts));
    lines
}

fn memory(facts: &Facts, needed: u64) -> Line {
    let name = "memory";
    let Some(available) = facts.memory.available else {
        return Line::unknown(name, "/proc/meminfo does not say");
    };
    let line = match facts.memory.check_available(needed) {
        Ok(()) => Line::new(name, true),
        Err(shortage) => Line::new(name, false).remedy(shortage.to_string()),
    };
    line.detail(format!("{} MiB available", available / MIB)).needed_by(Need::Vms)
}

fn locked_memory(facts: &Facts, needed: u64) -> Line {
    let line = match facts.memory.check_memlock(needed) {
        Ok(()) => Line::new("memory-lock", true),
        Err(shortage) => Line::new("memory-lock", false).remedy(shortage.to_string()),
    };
    let detail = match facts.memory.memlock {
        Some(limit) => format!("{} MiB may be locked", limit / MIB),
        None => "no limit".into(),
    };
    line.detail(detail).needed_by(Need::Vms)
}

fn blocks(facts: &Facts, needed: u64) -> Line {
    let name = "contiguous-memory";
    let Reading::Value(free) = facts.free_blocks else {
        return Line::of(name, &facts.free_blocks);
    };
    let line = Line::new(name, free >= needed);
    line.detail(format!("{} MiB free in blocks of 2 MiB", free / MIB)).remedy(format!(
        "VMs get the rest page by page, which is slower: {COMPACT_REMEDY} may help"
    ))
}

fn huge_pages(facts: &Facts) -> Line {
    let name = "huge-pages";
    match facts.huge_pages {
        Reading::Value(on) => {
            Line::new(name, on).detail("for guest memory").remedy(HUGE_PAGES_REMEDY)
        }
        Reading::Absent => Line::new(name, false).detail("the kernel has none"),
        Reading::Unknown(_) => Line::of(name, &facts.huge_pages),
    }
}

fn vsock(facts: &Facts) -> Line {
    Line::of("vsock", &facts.vsock).detail("/dev/vhost-vsock").remedy(
        "VMs run, but host and guest cannot talk: a kernel with CONFIG_VHOST_VSOCK is needed, and \
         a user who may open it",
    )
}

fn binder(facts: &Facts) -> Line {
    let line = Line::of("binder", &facts.binder);
    match facts.binder {
        Reading::Value(path) => line.detail(format!("/{path}")),
        _ => line.remedy(
            "services cannot be asked: a kernel with CONFIG_ANDROID_BINDERFS is needed, and \
             binderfs mounted",
        ),
    }
}

fn selinux(facts: &Facts) -> Line {
    let name = "selinux";
    let mut line = match facts.selinux {
        Reading::Value(true) => Line::new(name, true).detail("enforcing"),
        Reading::Value(false) => Line::new(name, true).detail("permissive"),
        _ => Line::of(name, &facts.selinux),
    };
    if let (Reading::Value(context), false) = (&facts.context, line.answer == Answer::No) {
        let separator = if line.detail.is_empty() { "" } else { ", " };
        line.detail = format!("{}{separator}this is {context}", line.detail);
    }
    line
}

/// What Android's services go by.
fn properties(facts: &Facts) -> Vec<Line> {
    let Some([plain, protected]) = facts.properties else { return Vec::new() };
    let line = |name, value: Option<bool>, property: &str| {
        let line = match value {
            Some(value) => Line::new(name, value),
            None => Line::unknown(name, "not set"),
        };
        line.detail(property)
            .remedy("the bootloader sets it (bootconfig); Android's services refuse VMs without it")
    };
    vec![
        line("android-vms", plain, "ro.boot.hypervisor.vm.supported"),
        line("android-protected-vms", protected, "ro.boot.hypervisor.protected_vm.supported"),
    ]
}
