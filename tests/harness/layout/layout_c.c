// SPDX-License-Identifier: Apache-2.0
/* Sizes and offsets as the C compiler sees them; layout_rust.rs has the same list in the same order. */
#include <linux/arm-smccc.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#define OFFSET(type, field) offsetof(struct type, field)
#define SIZE(type) sizeof(struct type)

extern const u64 gzvm_layout_table[];
const u64 gzvm_layout_table[] = {
	SIZE(task_struct),
	OFFSET(task_struct, mm),
	OFFSET(task_struct, pid),
	OFFSET(task_struct, tgid),
	OFFSET(task_struct, group_leader),
	OFFSET(task_struct, flags),
	OFFSET(task_struct, cred),
	OFFSET(task_struct, signal),
	OFFSET(task_struct, files),
	SIZE(mm_struct),
	SIZE(vm_area_struct),
	OFFSET(vm_area_struct, vm_mm),
	OFFSET(vm_area_struct, vm_ops),
	OFFSET(vm_area_struct, vm_pgoff),
	OFFSET(vm_area_struct, vm_file),
	OFFSET(vm_area_struct, vm_private_data),
	SIZE(file),
	OFFSET(file, f_op),
	OFFSET(file, private_data),
	OFFSET(file, f_flags),
	OFFSET(file, f_inode),
	SIZE(file_operations),
	OFFSET(file_operations, owner),
	OFFSET(file_operations, open),
	OFFSET(file_operations, release),
	OFFSET(file_operations, unlocked_ioctl),
	OFFSET(file_operations, compat_ioctl),
	OFFSET(file_operations, mmap),
	OFFSET(file_operations, poll),
	OFFSET(file_operations, llseek),
	OFFSET(file_operations, show_fdinfo),
	SIZE(miscdevice),
	OFFSET(miscdevice, minor),
	OFFSET(miscdevice, name),
	OFFSET(miscdevice, fops),
	OFFSET(miscdevice, parent),
	SIZE(device),
	OFFSET(device, parent),
	OFFSET(device, driver),
	OFFSET(device, of_node),
	SIZE(hrtimer),
	OFFSET(hrtimer, node),
	OFFSET(hrtimer, base),
	SIZE(wait_queue_entry),
	OFFSET(wait_queue_entry, flags),
	OFFSET(wait_queue_entry, private),
	OFFSET(wait_queue_entry, func),
	OFFSET(wait_queue_entry, entry),
	SIZE(wait_queue_head),
	OFFSET(wait_queue_head, lock),
	OFFSET(wait_queue_head, head),
	SIZE(poll_table_struct),
	OFFSET(poll_table_struct, _qproc),
	OFFSET(poll_table_struct, _key),
	SIZE(page),
	OFFSET(page, flags),
	SIZE(module),
	OFFSET(module, state),
	OFFSET(module, name),
	SIZE(signal_struct),
	OFFSET(signal_struct, rlim),
	OFFSET(signal_struct, oom_score_adj),
	SIZE(work_struct),
	OFFSET(work_struct, data),
	OFFSET(work_struct, entry),
	OFFSET(work_struct, func),
	SIZE(arm_smccc_res),
	OFFSET(arm_smccc_res, a0),
	OFFSET(arm_smccc_res, a3),
	SIZE(mmu_interval_notifier),
	OFFSET(mmu_interval_notifier, ops),
	OFFSET(mmu_interval_notifier, invalidate_seq),
	SIZE(mmu_interval_notifier_ops),
	OFFSET(mmu_interval_notifier_ops, invalidate),
	SIZE(mmu_notifier_range),
	OFFSET(mmu_notifier_range, start),
	OFFSET(mmu_notifier_range, end),
	OFFSET(mmu_notifier_range, flags),
	OFFSET(mmu_notifier_range, event),
};
