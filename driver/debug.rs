// SPDX-License-Identifier: GPL-2.0

//! What debugfs shows of a VM and its vCPUs. `Documentation/ABI/testing/debugfs-gzvm` says what it
//! means.

use crate::{
    hyp,
    machine::Machine,
    model::ids::VcpuId, //
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// The directory of a VM and the files about all of it.
#[pin_data]
pub(crate) struct VmFiles {
    #[pin]
    hyp_mem: File<Arc<Machine>>,
    #[pin]
    shared_mem: File<Arc<Machine>>,
    #[pin]
    vm_stats: File<Arc<Machine>>,
    #[pin]
    vcpu_stats: File<Arc<Machine>>,
    dir: Dir,
}

impl VmFiles {
    /// Makes the directory of a VM of the current process.
    pub(crate) fn new(machine: &Arc<Machine>) -> Result<impl PinInit<Self, Error> + '_> {
        let pid = kernel::current!().group_leader().pid();
        let name = CString::try_from_fmt(fmt!("{pid}-{}", machine.id().arg()))?;
        let dir = machine.gzvm().debugfs.subdir(&name);
        let vm = || machine.clone();
        Ok(try_pin_init!(Self {
            hyp_mem <- dir.read_callback_file(c"protected_hyp_mem", vm(), &hyp_mem),
            shared_mem <- dir.read_callback_file(c"protected_shared_mem", vm(), &shared_mem),
            vm_stats <- dir.read_callback_file(c"vm_stats", vm(), &vm_stats),
            vcpu_stats <- dir.read_callback_file(c"vcpu_stats", vm(), &vcpu_stats),
            dir,
        }? Error))
    }
}

fn hyp_mem(machine: &Arc<Machine>, text: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(text, "{}", hyp::statistics(machine.id()).map_or(0, |(used, _)| used))
}

fn shared_mem(machine: &Arc<Machine>, text: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(text, "{}", hyp::statistics(machine.id()).map_or(0, |(_, shared)| shared))
}

fn vm_stats(machine: &Arc<Machine>, text: &mut fmt::Formatter<'_>) -> fmt::Result {
    let pages = &machine.memory.pages;
    let (pinned, (records, bytes)) = {
        let backing = pages.given.backing.lock();
        (backing.pages(), backing.records())
    };
    writeln!(text, "protected {}", u8::from(pages.is_protected()))?;
    writeln!(text, "paging {:?}", pages.paging)?;
    writeln!(text, "pinned_pages {pinned}")?;
    writeln!(text, "records {records}")?;
    writeln!(text, "record_bytes {bytes}")?;
    writeln!(text, "mappings {}", pages.mapping_count())
}

fn vcpu_stats(machine: &Arc<Machine>, text: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, place) in machine.places().iter().enumerate() {
        write!(text, "vcpu{index} ")?;
        place.stats.print(text)?;
    }
    Ok(())
}

/// What the file about a vCPU needs.
struct View {
    machine: Arc<Machine>,
    vcpu: VcpuId,
}

/// The file about a vCPU.
#[pin_data]
pub(crate) struct VcpuFile {
    #[pin]
    stats: File<View>,
}

impl VcpuFile {
    /// Makes the file in the directory of the vCPU's VM.
    pub(crate) fn new(
        vm: &VmFiles,
        machine: &Arc<Machine>,
        vcpu: VcpuId,
    ) -> Result<impl PinInit<Self, Error>> {
        let name = CString::try_from_fmt(fmt!("vcpu{}", vcpu.index()))?;
        let view = View { machine: machine.clone(), vcpu };
        let dir = vm.dir.clone();
        Ok(pin_init::pin_init_scope(move || {
            Ok(try_pin_init!(Self {
                stats <- dir.read_callback_file(&name, view, &one_vcpu),
            }? Error))
        }))
    }
}

fn one_vcpu(view: &View, text: &mut fmt::Formatter<'_>) -> fmt::Result {
    match view.machine.places().get(view.vcpu.index()) {
        Some(place) => place.stats.print_lines(text),
        None => Ok(()),
    }
}
