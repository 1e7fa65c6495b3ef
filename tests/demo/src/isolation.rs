// SPDX-License-Identifier: Apache-2.0
//! Isolation: a guest makes a secret, the host's administrator looks for it in every way there is,
//! and only then the guest reveals it. The same is done to a VM that is not protected, which shows
//! that the search finds what is there to be found.

use crate::claims::{attempted, observed, Claims, Observed};
use crate::dump::{self, Dump, PAGE};
use crate::search;
use crate::secret::{self, Published};
use crate::tour::{shut_down, PATIENCE};
use crate::vm::Vm;
use crate::vmm::Vmm;
use crate::Tools;
use anyhow::{ensure, Context, Result};
use std::ops::Range;

/// What the host's kernel is made to write over a part of the secret.
const SCRIBBLE: &[u8; 16] = b"HOST WROTE THIS!";

/// A guest that keeps a secret, seen from the host.
struct Target {
    vm: Vm,
    vmm: Vmm,
    published: Published,
    /// What the host's kernel has pages for.
    ranges: Vec<Range<u64>>,
}

/// Dumps of guest memory, by the way in which they were taken.
struct Dumps([(&'static str, Dump); 3]);

/// Attacks a protected VM, and then one that is not.
pub fn show(claims: &mut Claims, tools: &Tools) {
    let result = attack_protected(claims, tools);
    let text = "the attacked VM went on, revealed its secret last and shut down";
    claims.record("isolation-vm-goes-on", text, attempted(result));

    claims.screen().note("The same with a VM that is not protected:");
    let result = attack_unprotected(claims, tools);
    claims.record(
        "control-run",
        "the same attacks ran against an unprotected VM",
        attempted(result),
    );
}

/// Attacks a protected VM: nothing works, and nothing breaks.
fn attack_protected(claims: &mut Claims, tools: &Tools) -> Result<String> {
    let mut target = Target::start(claims, tools, "secret-protected.json")?;
    let offset = target.published.offset;

    // User mode first: once the kernel has touched a private page, user mode may get zeros instead
    // of a bus error.
    let load = bus_error(dump::load_by_user(&target.vmm, offset));
    claims.record("isolation-user-load", "a user-mode load of it is a bus error", load);
    let store = bus_error(dump::store_by_user(&target.vmm, offset));
    claims.record("isolation-user-store", "a user-mode store to it is a bus error", store);
    let dumps = target.dump()?;
    claims.record("isolation-user-dump", "a user-mode dump does not get its page", {
        let (_, dump) = &dumps.0[0];
        let seen = dump.describe();
        observed(!dump.pages.contains_key(&offset) && dump.refused > 0, &seen, &seen)
    });
    let kernel = dumps.0[1..].iter().map(|(way, dump)| zeros(way, dump, offset));
    let kernel = kernel.collect::<Result<Vec<_>, _>>().map(|ways| ways.join("; "));
    claims.record("isolation-kernel-dump", "the kernel reads zeros in its place", kernel);

    // Whether the kernel's write is refused or swallowed is all the same: the guest must not see it.
    let written = match dump::write_by_kernel(&target.vmm, offset + PAGE / 2, SCRIBBLE) {
        Ok(()) => "the write went nowhere".to_owned(),
        Err(error) => format!("the write was refused: {error:#}"),
    };
    ensure!(target.vm.is_running(), "the VM did not survive the attacks");
    let (revealed, intact) = target.reveal()?;
    let own_copy = observed(intact, written, "the guest's own copy has changed");
    claims.record("isolation-kernel-store", "the kernel's writes do not reach the guest", own_copy);
    let nowhere = dumps.pieces_nowhere(&revealed);
    claims.record("isolation-secret-nowhere", "the dumps contain the secret nowhere", nowhere);
    let checked = target.published.check(&revealed);
    checked.context("the guest revealed something else than its secret")?;
    shut_down(&target.vm.finish(PATIENCE)?)?;
    Ok("its own copy was intact".to_owned())
}

/// Attacks a VM that is not protected: everything works.
fn attack_unprotected(claims: &mut Claims, tools: &Tools) -> Result<String> {
    let mut target = Target::start(claims, tools, "secret-unprotected.json")?;
    let offset = target.published.offset;
    let dumps = target.dump()?;
    let found = dumps.found_by_hash(&target.published);
    claims.record("control-found", "each dump contains its secret", found);

    let store = dump::store_by_user(&target.vmm, offset)?;
    ensure!(store.success(), "the child that writes to guest memory ended with {store}");
    dump::write_by_kernel(&target.vmm, offset + PAGE / 2, SCRIBBLE)?;
    let (revealed, intact) = target.reveal()?;
    let (flipped, scribble) = (revealed.first(), revealed.get(2048..2048 + SCRIBBLE.len()));
    let original = dumps.0[0].1.pages.get(&offset).and_then(|page| page.first());
    let arrived = scribble == Some(SCRIBBLE) && flipped.copied() == original.map(|byte| !byte);
    let noticed =
        observed(arrived && !intact, "the guest read them back", "the guest read something else");
    claims.record("control-stores", "both of the host's writes reach its secret", noticed);
    shut_down(&target.vm.finish(PATIENCE)?)?;
    Ok("it shut down".to_owned())
}

impl Target {
    /// Starts a VM in mode `secret` and finds its memory.
    fn start(claims: &Claims, tools: &Tools, config: &str) -> Result<Self> {
        let mut vm = Vm::start(claims.screen(), &tools.vm, &tools.guests.join(config))?;
        let published = Published::parse(&vm.expect("secret: hash ", PATIENCE)?)?;
        vm.expect("secret: send a line", PATIENCE)?;
        ensure!(
            published.size == PAGE && published.offset.is_multiple_of(PAGE),
            "the secret is not a page"
        );
        let vmm = Vmm::find(vm.pid())?;
        let ranges = dump::populated(&vmm)?;
        let pages: u64 = ranges.iter().map(|range| (range.end - range.start) / PAGE).sum();
        claims.screen().note(&format!(
            "host: guest memory is file descriptor {} of process {}, {pages} pages of it populated",
            vmm.fd, vmm.pid
        ));
        let kept = ranges.iter().any(|range| range.contains(&published.offset));
        ensure!(kept, "the host has no page where the guest says its secret is");
        Ok(Self { vm, vmm, published, ranges })
    }

    /// Dumps guest memory in each way, user mode first.
    fn dump(&self) -> Result<Dumps> {
        Ok(Dumps([
            ("mmap", dump::by_user(&self.vmm, &self.ranges)?),
            ("/proc/PID/mem", dump::by_kernel(&self.vmm, &self.ranges)?),
            ("read(2)", dump::by_file(&self.vmm, &self.ranges)?),
        ]))
    }

    /// Has the guest reveal its secret; returns it, and whether the guest found it intact.
    fn reveal(&mut self) -> Result<(Vec<u8>, bool)> {
        self.vm.send_line()?;
        let secret = secret::hex(&self.vm.expect("secret: reveal ", PATIENCE)?)?;
        Ok((secret, self.vm.expect("secret: own copy ", PATIENCE)? == "intact"))
    }
}

impl Dumps {
    /// That no piece of the secret is in any of them.
    fn pieces_nowhere(&self, secret: &[u8]) -> Observed {
        let mut seen = Vec::new();
        let mut found = 0;
        for (way, dump) in &self.0 {
            let (pieces, all) = search::pieces_found(dump, secret);
            found += pieces;
            seen.push(format!("{way}: {pieces} of {all} pieces in {} pages", dump.pages.len()));
        }
        let seen = seen.join("; ");
        observed(found == 0, &seen, &seen)
    }

    /// That each of them has the published secret where it was published to be, and that the search
    /// for pieces, given the secret, finds all of them.
    fn found_by_hash(&self, published: &Published) -> Observed {
        let mut seen = Vec::new();
        for (way, dump) in &self.0 {
            let pages = search::pages_with_hash(dump, &published.hash);
            let Some(page) = dump.pages.get(&published.offset) else {
                return Err(format!("{way}: the page could not be read"));
            };
            if !pages.contains(&published.offset) {
                return Err(format!("{way}: no page has the published hash"));
            }
            let (pieces, all) = search::pieces_found(dump, page);
            if pieces != all {
                return Err(format!("{way}: only {pieces} of {all} pieces were found"));
            }
            seen.push(format!("{way}: found by its hash, {pieces} of {all} pieces"));
        }
        Ok(seen.join("; "))
    }
}

/// That a child died of a bus error.
fn bus_error(status: Result<std::process::ExitStatus>) -> Observed {
    match status {
        Ok(status) => {
            let seen = format!("the child ended with {status}");
            observed(dump::is_bus_error(status), &seen, &seen)
        }
        Err(error) => Err(format!("{error:#}")),
    }
}

/// That a page of a dump is all zeros.
fn zeros(way: &str, dump: &Dump, offset: u64) -> Observed {
    match dump.pages.get(&offset) {
        Some(page) if page.iter().all(|&byte| byte == 0) => {
            Ok(format!("{way}: {}", dump.describe()))
        }
        Some(_) => Err(format!("{way}: something else than zeros")),
        None => Err(format!("{way}: the read failed")),
    }
}
