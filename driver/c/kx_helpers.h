/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Rust side cannot call itself: inline functions and macros of kernel headers. One
 * statement each where possible; no policy here.
 */
#ifndef _GZVM_KX_HELPERS_H
#define _GZVM_KX_HELPERS_H

#include <linux/types.h>

struct eventfd_ctx;
struct file;
struct mm_struct;
struct mmu_interval_notifier;
struct notifier_block;
struct page;
struct poll_table_struct;
struct wait_queue_head;

bool gzvm_kx_at_el2(void);
u32 gzvm_kx_counter_hz(void);
bool gzvm_kx_is_arch_counter(int clocksource_id);
void gzvm_kx_copy(void *to, const void *from, size_t bytes);
phys_addr_t gzvm_kx_virt_to_phys(void *address);
unsigned long gzvm_kx_page_to_pfn(struct page *page);
int gzvm_kx_charge_pinned(struct mm_struct *mm, unsigned long pages);
void gzvm_kx_uncharge_pinned(struct mm_struct *mm, unsigned long pages);
void gzvm_kx_set_dirty(struct page *page, unsigned long pages);
void gzvm_kx_interval_set_seq(struct mmu_interval_notifier *node, unsigned long sequence);
void gzvm_kx_cond_resched(void);
bool gzvm_kx_fatal_signal_pending(void);
void gzvm_kx_guest_enter(void);
void gzvm_kx_guest_exit(void);
bool gzvm_kx_may_log(void);
bool gzvm_kx_put_u32(unsigned long address, u32 value);
__poll_t gzvm_kx_vfs_poll(struct file *file, struct poll_table_struct *table);
void gzvm_kx_eventfd_drain(struct eventfd_ctx *ctx, struct wait_queue_head *head);
void gzvm_kx_trace_hypcall_enter(unsigned long id);
void gzvm_kx_trace_hypcall_leave(unsigned long id, unsigned long invalid);
void gzvm_kx_trace_vcpu_exit(unsigned long exit_reason);

#endif /* _GZVM_KX_HELPERS_H */
