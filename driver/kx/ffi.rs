// SPDX-License-Identifier: GPL-2.0

//! Declarations of C functions that `kernel::bindings` lacks: the shims of `c/kx_helpers.c`, and
//! exported functions whose header is not in the bindings.

use kernel::{
    bindings,
    ffi::{
        c_char,
        c_int,
        c_uint,
        c_ulong,
        c_void, //
    }, //
};

#[expect(
    improper_ctypes,
    reason = "some kernel structs contain empty ones; they are passed by address only"
)]
// SAFETY: The declarations repeat those of `c/kx_helpers.h`, `linux/anon_inodes.h` and
// `linux/reboot.h`. The functions marked safe take plain values, check an address that they
// are given, and may be called wherever their callers' contracts say.
unsafe extern "C" {
    pub(super) safe fn gzvm_kx_at_el2() -> bool;
    pub(super) safe fn gzvm_kx_counter_hz() -> u32;
    pub(super) safe fn gzvm_kx_is_arch_counter(clocksource_id: c_int) -> bool;
    pub(super) safe fn gzvm_kx_cond_resched();
    pub(super) safe fn gzvm_kx_fatal_signal_pending() -> bool;
    pub(super) safe fn gzvm_kx_guest_enter();
    pub(super) safe fn gzvm_kx_guest_exit();
    pub(super) safe fn gzvm_kx_may_log() -> bool;
    pub(super) safe fn gzvm_kx_put_u32(address: c_ulong, value: u32) -> bool;
    pub(super) safe fn gzvm_kx_trace_hypcall_enter(id: c_ulong);
    pub(super) safe fn gzvm_kx_trace_hypcall_leave(id: c_ulong, invalid: c_ulong);
    pub(super) safe fn gzvm_kx_trace_vcpu_exit(exit_reason: c_ulong);

    pub(super) fn gzvm_kx_copy(to: *mut c_void, from: *const c_void, bytes: usize);
    pub(super) fn gzvm_kx_virt_to_phys(address: *mut c_void) -> bindings::phys_addr_t;
    pub(super) fn gzvm_kx_page_to_pfn(page: *mut bindings::page) -> c_ulong;
    pub(super) fn gzvm_kx_charge_pinned(mm: *mut bindings::mm_struct, pages: c_ulong) -> c_int;
    pub(super) fn gzvm_kx_uncharge_pinned(mm: *mut bindings::mm_struct, pages: c_ulong);
    pub(super) fn gzvm_kx_set_dirty(page: *mut bindings::page, pages: c_ulong);
    #[cfg(CONFIG_MMU_NOTIFIER)]
    pub(super) fn gzvm_kx_interval_set_seq(
        node: *mut bindings::mmu_interval_notifier,
        sequence: c_ulong,
    );
    pub(super) fn gzvm_kx_vfs_poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> c_uint;
    pub(super) fn gzvm_kx_eventfd_drain(
        ctx: *mut bindings::eventfd_ctx,
        head: *mut bindings::wait_queue_head,
    );
    pub(super) fn anon_inode_getfile(
        name: *const c_char,
        fops: *const bindings::file_operations,
        private: *mut c_void,
        flags: c_int,
    ) -> *mut bindings::file;
    pub(super) fn register_reboot_notifier(block: *mut bindings::notifier_block) -> c_int;
    pub(super) fn unregister_reboot_notifier(block: *mut bindings::notifier_block) -> c_int;
}
