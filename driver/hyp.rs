// SPDX-License-Identifier: GPL-2.0

//! Typed hypercalls. What the hypervisor answers is checked here, at the border; what it is given
//! by physical address is borrowed from its owner.

use crate::{
    abi::{
        cap,
        ext,
        hvc,
        uapi::CreateDevice,
        BLOCK_SIZE, //
    },
    kx::{
        exact_pages::ExactPages,
        ratelimit::info_limited,
        sched,
        smccc,
        trace, //
    },
    model::{
        addr::{
            Gfn,
            PageRange,
            Pfn, //
        },
        ids::{
            VcpuId,
            VmId, //
        },
        irq,
        refusal::{
            check_status,
            status_errno,
            Refusal, //
        },
        version::Version, //
    }, //
};
use kernel::prelude::*;

/// Bytes of one page of the ABI, for buffers.
pub(crate) const PAGE: usize = 4096;

/// A vCPU's run page and hardware state page.
pub(crate) type VcpuPages = ExactPages<{ 2 * PAGE }>;
/// SET_MEMREGION's buffer.
pub(crate) type RegionBuffer = ExactPages<{ 2 * PAGE }>;
/// A page of frame numbers, or of a device's description.
pub(crate) type OnePage = ExactPages<PAGE>;

/// A hypercall that the hypervisor refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HypError {
    function: u32,
    status: i32,
}

impl HypError {
    /// The status in x0.
    pub(crate) fn status(&self) -> i32 {
        self.status
    }
}

impl From<HypError> for Error {
    fn from(error: HypError) -> Self {
        let name = hvc::name(error.function).unwrap_or("?");
        let errno = status_errno(error.status).code();
        info_limited!("hypervisor refused {name} with status {} (errno {errno})\n", error.status);
        Error::from_errno(-errno)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        info_limited!("{} (errno {})\n", refusal.why, refusal.errno.code());
        Error::from_errno(-refusal.errno.code())
    }
}

/// Result of a hypercall.
type Result<T = (), E = HypError> = core::result::Result<T, E>;

/// Calls a function with up to seven arguments; returns x0 to x3 as they are.
fn call_raw(function: u32, args: &[u64]) -> [u64; 4] {
    let mut registers = [0; 8];
    registers[0] = u64::from(function);
    for (register, arg) in registers.iter_mut().skip(1).zip(args) {
        *register = *arg;
    }
    trace::hypcall_enter(function);
    let answer = smccc::hvc(registers);
    let unknown =
        matches!(check_status(answer[0]), Err(hvc::ERR_NOT_SUPPORTED | hvc::ERR_NOT_IMPLEMENTED));
    trace::hypcall_leave(function, unknown);
    answer
}

/// Calls a function with up to seven arguments; returns x1 to x3.
fn call(function: u32, args: &[u64]) -> Result<[u64; 3]> {
    let [x0, x1, x2, x3] = call_raw(function, args);
    match check_status(x0) {
        Ok(()) => Ok([x1, x2, x3]),
        Err(status) => Err(HypError { function, status }),
    }
}

/// How often a call is made again that finds the hypervisor busy.
const PATIENCE: u32 = 1 << 16;

/// As [`call`], and once more as it is while the hypervisor is busy, unless the caller is being
/// killed. Gives up after [`PATIENCE`], so that no hypervisor can hold a thread for ever.
fn call_until_done(function: u32, args: &[u64]) -> Result<[u64; 3]> {
    for _ in 0..PATIENCE {
        match call(function, args) {
            Err(HypError { status: hvc::ERR_BUSY, .. }) if !sched::fatal_signal_pending() => {
                sched::cond_resched();
            }
            answer => return answer,
        }
    }
    call(function, args)
}

/// Asks for the hypervisor's version; any error means that there is none.
pub(crate) fn probe() -> Result<Version> {
    let ours = [hvc::VERSION_MAJOR, hvc::VERSION_MINOR, hvc::VERSION_SUB];
    let [x1, x2, x3] = call(hvc::PROBE, &ours)?;
    Ok(Version::from_answer(x1, x2, x3))
}

/// Asks a question about the machine.
pub(crate) fn machine_capability(capability: u64) -> Result<[u64; 3]> {
    call(hvc::ENABLE_CAP, &[0, capability])
}

/// Creates a VM; answers the id as it is.
pub(crate) fn create_vm(vm_type: u64) -> Result<u64> {
    call(hvc::CREATE_VM, &[vm_type]).map(|[x1, ..]| x1)
}

/// Works on the destruction of a VM; answers x0.
pub(crate) fn destroy_vm(vm: VmId, pages: u32) -> u64 {
    call_raw(hvc::DESTROY_VM, &[vm.arg(), u64::from(pages)])[0]
}

/// Creates a vCPU. The hypervisor uses the pages until [`destroy_vcpu`] succeeds.
pub(crate) fn create_vcpu(vm: VmId, vcpu: VcpuId, pages: &VcpuPages) -> Result {
    call(hvc::CREATE_VCPU, &[vm.with_vcpu(vcpu), pages.phys()]).map(|_| ())
}

/// Destroys a vCPU.
pub(crate) fn destroy_vcpu(vm: VmId, vcpu: VcpuId) -> Result {
    call(hvc::DESTROY_VCPU, &[vm.with_vcpu(vcpu)]).map(|_| ())
}

/// Registers or populates memory described by the buffer.
pub(crate) fn set_memregion(vm: VmId, buffer: &RegionBuffer) -> Result {
    let args = [vm.arg(), hvc::MEM_REGION_BUFFER_SIZE, buffer.phys()];
    call_until_done(hvc::SET_MEMREGION, &args).map(|_| ())
}

/// Runs a vCPU; answers the exit reason.
pub(crate) fn run(vm: VmId, vcpu: VcpuId) -> Result<u64> {
    call(hvc::RUN, &[vm.with_vcpu(vcpu)]).map(|[x1, ..]| x1)
}

/// Reads a register.
pub(crate) fn get_one_reg(vm: VmId, vcpu: VcpuId, id: u64) -> Result<u64> {
    call(hvc::GET_ONE_REG, &[vm.with_vcpu(vcpu), id]).map(|[x1, ..]| x1)
}

/// Writes a register.
pub(crate) fn set_one_reg(vm: VmId, vcpu: VcpuId, id: u64, value: u64) -> Result {
    call(hvc::SET_ONE_REG, &[vm.with_vcpu(vcpu), id, value]).map(|_| ())
}

/// Sets an interrupt's line; answers x1, the mask of target vCPUs with extension WAKE_MASK.
pub(crate) fn irq_line(vm: VmId, line: &irq::Call) -> Result<u64> {
    let (number, high) = (u64::from(line.number), u64::from(line.high));
    call(hvc::IRQ_LINE, &[vm.with_vcpu(line.vcpu), number, high, line.kind]).map(|[x1, ..]| x1)
}

/// Creates a device from the description at the start of the page.
pub(crate) fn create_device(vm: VmId, description: &OnePage) -> Result {
    const { assert!(size_of::<CreateDevice>() <= PAGE) };
    call(hvc::CREATE_DEVICE, &[vm.arg(), description.phys()]).map(|_| ())
}

/// Turns demand paging on.
pub(crate) fn enable_demand_paging(vm: VmId) -> Result {
    call(hvc::ENABLE_CAP, &[vm.arg(), cap::ENABLE_DEMAND_PAGING]).map(|_| ())
}

/// Turns block-based demand paging on. The hypervisor reads the mailbox in [`map_block`], until the
/// VM is destroyed.
pub(crate) fn enable_block_paging(vm: VmId, mailbox: &OnePage) -> Result {
    let args = [vm.arg(), cap::BLOCK_BASED_DEMAND_PAGING, BLOCK_SIZE, mailbox.phys()];
    call(hvc::ENABLE_CAP, &args).map(|_| ())
}

/// Lets idle vCPUs come to the host.
pub(crate) fn enable_idle(vm: VmId) -> Result {
    call(hvc::ENABLE_CAP, &[vm.arg(), cap::ENABLE_IDLE]).map(|_| ())
}

/// Uses the protected-VM capability; answers x1.
pub(crate) fn protected_vm(vm: VmId, sub_command: u64, operand: u64) -> Result<u64> {
    call(hvc::ENABLE_CAP, &[vm.arg(), cap::PROTECTED_VM, sub_command, operand]).map(|[x1, ..]| x1)
}

/// Tells that a vCPU left for user space because of a signal.
pub(crate) fn inform_exit(vm: VmId) -> Result {
    call(hvc::INFORM_EXIT, &[vm.arg()]).map(|_| ())
}

/// Announces what a guest range is for.
pub(crate) fn memregion_purpose(vm: VmId, range: PageRange, purpose: u32) -> Result {
    let args = [vm.arg(), range.start().gpa(), range.bytes(), u64::from(purpose)];
    call(hvc::MEMREGION_PURPOSE, &args).map(|_| ())
}

/// Tells where the device tree is.
pub(crate) fn set_dtb_config(vm: VmId, gpa: u64, size: u64) -> Result {
    call(hvc::SET_DTB_CONFIG, &[vm.arg(), gpa, size]).map(|_| ())
}

/// Maps one page.
pub(crate) fn map_page(vm: VmId, slot: u32, pfn: Pfn, gfn: Gfn) -> Result {
    let args = [vm.arg(), u64::from(slot), pfn.0, gfn.0, 1];
    call_until_done(hvc::MAP_GUEST, &args).map(|_| ())
}

/// Maps a range from the frame numbers in the mailbox.
pub(crate) fn map_block(vm: VmId, slot: u32, range: PageRange) -> Result {
    let args = [vm.arg(), u64::from(slot), range.start().0, range.pages()];
    call_until_done(hvc::MAP_GUEST_BLOCK, &args).map(|_| ())
}

/// Unmaps a range of an unprotected VM, or its first part; answers x0 and x1. With extension UNMAP.
pub(crate) fn unmap_range(vm: VmId, range: PageRange) -> [u64; 2] {
    let args = [vm.arg(), ext::UNMAP_RANGE, range.start().0, range.pages()];
    let [x0, x1, ..] = call_raw(hvc::ENABLE_CAP, &args);
    [x0, x1]
}

/// The error of an [`unmap_range`] that was refused with this status.
pub(crate) fn unmap_refused(status: i32) -> HypError {
    HypError { function: hvc::ENABLE_CAP, status }
}

/// Removes a region in which nothing is mapped. With extension UNMAP.
pub(crate) fn remove_region(vm: VmId, range: PageRange) -> Result {
    let args = [vm.arg(), ext::REMOVE_REGION, range.start().gpa(), range.bytes()];
    call(hvc::ENABLE_CAP, &args).map(|_| ())
}

/// State of the first pages of a range; answers x1, the state, and x2, the number of pages. With
/// extension RANGE_STATE.
pub(crate) fn range_state(vm: VmId, range: PageRange) -> Result<(u64, u64)> {
    let args = [vm.arg(), ext::QUERY_RANGE_STATE, range.start().0, range.pages()];
    call(hvc::ENABLE_CAP, &args).map(|[state, pages, _]| (state, pages))
}

/// Bytes that the hypervisor uses for a VM, and bytes shared between guest and host.
pub(crate) fn statistics(vm: VmId) -> Result<(u64, u64)> {
    call(hvc::GET_STATISTICS, &[vm.arg()]).map(|[used, shared, _]| (used, shared))
}
