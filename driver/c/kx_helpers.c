// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot call itself: inline functions and macros of kernel headers.
 */
#include <linux/capability.h>
#include <linux/clocksource_ids.h>
#include <linux/context_tracking_state.h>
#include <linux/eventfd.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/poll.h>
#include <linux/ratelimit.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vtime.h>
#include <asm/arch_timer.h>
#include <asm/virt.h>

#include "kx_helpers.h"

bool gzvm_kx_at_el2(void)
{
	return is_kernel_in_hyp_mode();
}

u32 gzvm_kx_counter_hz(void)
{
	return arch_timer_get_cntfrq();
}

bool gzvm_kx_is_arch_counter(int clocksource_id)
{
	return clocksource_id == CSID_ARM_ARCH_COUNTER;
}

/* To or from memory that others may write meanwhile. */
void gzvm_kx_copy(void *to, const void *from, size_t bytes)
{
	memcpy(to, from, bytes);
}

phys_addr_t gzvm_kx_virt_to_phys(void *address)
{
	return virt_to_phys(address);
}

unsigned long gzvm_kx_page_to_pfn(struct page *page)
{
	return page_to_pfn(page);
}

/* As RDMA does: no mmap lock, and over the limit only with CAP_IPC_LOCK. */
int gzvm_kx_charge_pinned(struct mm_struct *mm, unsigned long pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	if (atomic64_add_return(pages, &mm->pinned_vm) <= limit || capable(CAP_IPC_LOCK))
		return 0;
	atomic64_sub(pages, &mm->pinned_vm);
	return -ENOMEM;
}

void gzvm_kx_uncharge_pinned(struct mm_struct *mm, unsigned long pages)
{
	atomic64_sub(pages, &mm->pinned_vm);
}

/* Without the folio's lock, which whoever calls an MMU notifier may hold: only the flag is set. */
void gzvm_kx_set_dirty(struct page *page, unsigned long pages)
{
	for (; pages; pages--, page++)
		if (!PageDirty(page))
			SetPageDirty(page);
}

#ifdef CONFIG_MMU_NOTIFIER
void gzvm_kx_interval_set_seq(struct mmu_interval_notifier *node, unsigned long sequence)
{
	mmu_interval_set_seq(node, sequence);
}
#endif

void gzvm_kx_cond_resched(void)
{
	cond_resched();
}

bool gzvm_kx_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

/*
 * Where guest time is counted without ticks (nohz_full), both want interrupts off: a task switch or
 * a reader in between would find the counters half changed. Elsewhere a flag is all there is.
 */
void gzvm_kx_guest_enter(void)
{
	unsigned long flags;

	if (!context_tracking_enabled()) {
		vtime_account_guest_enter();
		return;
	}
	local_irq_save(flags);
	vtime_account_guest_enter();
	local_irq_restore(flags);
}

void gzvm_kx_guest_exit(void)
{
	unsigned long flags;

	if (!context_tracking_enabled()) {
		vtime_account_guest_exit();
		return;
	}
	local_irq_save(flags);
	vtime_account_guest_exit();
	local_irq_restore(flags);
}

bool gzvm_kx_may_log(void)
{
	static DEFINE_RATELIMIT_STATE(state, 5 * HZ, 20);

	return __ratelimit(&state);
}

/* To user memory. */
bool gzvm_kx_put_u32(unsigned long address, u32 value)
{
	u32 __user *to = (u32 __user *)address;

	if (!user_access_begin(to, sizeof(*to)))
		return false;
	unsafe_put_user(value, to, fault);
	user_access_end();
	return true;
fault:
	user_access_end();
	return false;
}

__poll_t gzvm_kx_vfs_poll(struct file *file, struct poll_table_struct *table)
{
	return vfs_poll(file, table);
}

void gzvm_kx_eventfd_drain(struct eventfd_ctx *ctx, struct wait_queue_head *head)
{
	__u64 count;

	spin_lock_irq(&head->lock);
	eventfd_ctx_do_read(ctx, &count);
	spin_unlock_irq(&head->lock);
}
