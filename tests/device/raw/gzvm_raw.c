// SPDX-License-Identifier: GPL-2.0
/*
 * A host kernel that attacks its guests, remote-controlled by the device tests: hypercalls with any
 * arguments, physical memory with its address, and accesses to any page from the kernel's own map.
 *
 * For test machines only: whoever opens the device can do anything with the machine. User space's
 * half is tests/device/src/raw.rs; numbers and structures are the same there.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/arm-smccc.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/memblock.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

/* A hypercall: x0 to x7 in, x0 to x3 out. */
struct gzvm_raw_hvc {
	__u64 x[8];
};

/* Physically contiguous memory; pa comes back, or says what to free. */
struct gzvm_raw_block {
	__u64 size;
	__u64 pa;
};

/* The physical address of a page of user memory. */
struct gzvm_raw_phys {
	__u64 va;
	__u64 pa;
};

/*
 * One access, or two with a gate between them: a word of a block, which is set to 1 after the first
 * access; the second follows when somebody has set it to 2. The CPU does nothing else meanwhile.
 */
struct gzvm_raw_touch {
	__u64 pa;
	__u64 gate;	/* physical address, or 0 */
	__u64 value;	/* what a write writes first; its complement second */
	__u64 write;	/* 0 or 1 */
	__u64 before;	/* what the first access read */
	__u64 after;	/* what the second one read */
};

/* A copy between kernel and user memory of one word. */
struct gzvm_raw_copy {
	__u64 va;
	__u64 value;
	__u64 to_user;	/* 0 or 1 */
	__u64 left;	/* bytes that were not copied */
};

#define GZVM_RAW_HVC	_IOWR('R', 1, struct gzvm_raw_hvc)
#define GZVM_RAW_ALLOC	_IOWR('R', 2, struct gzvm_raw_block)
#define GZVM_RAW_FREE	_IOW('R', 3, struct gzvm_raw_block)
#define GZVM_RAW_PHYS	_IOWR('R', 4, struct gzvm_raw_phys)
#define GZVM_RAW_TOUCH	_IOWR('R', 5, struct gzvm_raw_touch)
#define GZVM_RAW_COPY	_IOWR('R', 6, struct gzvm_raw_copy)

/* What the page allocator can give in one piece. */
#define MAX_BLOCK	(PAGE_SIZE << MAX_PAGE_ORDER)
/* Nobody sets a gate: well below the soft lockup detector's 20 seconds. */
#define GATE_LIMIT_MS	10000

struct block {
	struct list_head list;
	void *start;
	phys_addr_t pa;
	size_t size;
};

/* An open file. */
struct raw {
	struct mutex lock;	/* of the list */
	struct list_head blocks;
};

static long raw_hvc(void __user *arg)
{
	struct arm_smccc_1_2_regs args = {}, res;
	struct gzvm_raw_hvc call;

	if (copy_from_user(&call, arg, sizeof(call)))
		return -EFAULT;
	args.a0 = call.x[0];
	args.a1 = call.x[1];
	args.a2 = call.x[2];
	args.a3 = call.x[3];
	args.a4 = call.x[4];
	args.a5 = call.x[5];
	args.a6 = call.x[6];
	args.a7 = call.x[7];
	arm_smccc_1_2_hvc(&args, &res);
	call.x[0] = res.a0;
	call.x[1] = res.a1;
	call.x[2] = res.a2;
	call.x[3] = res.a3;
	return copy_to_user(arg, &call, sizeof(call)) ? -EFAULT : 0;
}

/* Caller holds the lock. */
static struct block *find_block(struct raw *raw, phys_addr_t pa)
{
	struct block *block;

	list_for_each_entry(block, &raw->blocks, list)
		if (pa >= block->pa && pa - block->pa < block->size)
			return block;
	return NULL;
}

static long raw_alloc(struct raw *raw, void __user *arg)
{
	struct gzvm_raw_block request;
	struct block *block;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	if (!request.size || request.size > MAX_BLOCK || !PAGE_ALIGNED(request.size))
		return -EINVAL;
	block = kzalloc(sizeof(*block), GFP_KERNEL);
	if (!block)
		return -ENOMEM;
	block->size = request.size;
	block->start = alloc_pages_exact(block->size, GFP_KERNEL | __GFP_ZERO);
	if (!block->start) {
		kfree(block);
		return -ENOMEM;
	}
	block->pa = virt_to_phys(block->start);
	mutex_lock(&raw->lock);
	list_add(&block->list, &raw->blocks);
	mutex_unlock(&raw->lock);
	request.pa = block->pa;
	/* On failure the block stays until the file is closed, and then for ever: see raw_release(). */
	return copy_to_user(arg, &request, sizeof(request)) ? -EFAULT : 0;
}

/* User space says that no guest has the memory any more. */
static long raw_free(struct raw *raw, void __user *arg)
{
	struct gzvm_raw_block request;
	struct block *block;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	mutex_lock(&raw->lock);
	block = find_block(raw, request.pa);
	if (block)
		list_del(&block->list);
	mutex_unlock(&raw->lock);
	if (!block)
		return -ENOENT;
	free_pages_exact(block->start, block->size);
	kfree(block);
	return 0;
}

static long raw_phys(void __user *arg)
{
	struct gzvm_raw_phys request;
	struct page *page;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	if (get_user_pages_fast(request.va, 1, FOLL_WRITE, &page) != 1)
		return -EFAULT;
	request.pa = page_to_phys(page) + offset_in_page(request.va);
	put_page(page);
	return copy_to_user(arg, &request, sizeof(request)) ? -EFAULT : 0;
}

static u64 access_word(u64 *word, bool write, u64 value)
{
	if (write)
		WRITE_ONCE(*word, value);
	return READ_ONCE(*word);
}

/* Waits with preemption disabled; interrupts of the host do not reach the hypervisor. */
static int wait_at(u64 *gate)
{
	u64 limit = ktime_get_mono_fast_ns() + GATE_LIMIT_MS * NSEC_PER_MSEC;

	smp_store_release(gate, 1);
	while (smp_load_acquire(gate) != 2) {
		if (ktime_get_mono_fast_ns() > limit)
			return -ETIMEDOUT;
		cpu_relax();
	}
	return 0;
}

static long raw_touch(struct raw *raw, void __user *arg)
{
	struct gzvm_raw_touch touch;
	u64 *word, *gate = NULL;
	int err = 0;

	if (copy_from_user(&touch, arg, sizeof(touch)))
		return -EFAULT;
	if (!IS_ALIGNED(touch.pa | touch.gate, sizeof(u64)))
		return -EINVAL;
	/* What the kernel has not mapped cannot be touched: that would be the kernel's own fault. */
	if (!pfn_is_map_memory(PHYS_PFN(touch.pa)))
		return -EFAULT;
	word = phys_to_virt(touch.pa);
	if (touch.gate) {
		struct block *block;

		mutex_lock(&raw->lock);
		block = find_block(raw, touch.gate);
		mutex_unlock(&raw->lock);
		/* Tests free no block while they wait at it. */
		if (!block)
			return -ENOENT;
		gate = phys_to_virt(touch.gate);
	}
	preempt_disable();
	touch.before = access_word(word, touch.write, touch.value);
	if (gate) {
		err = wait_at(gate);
		if (!err)
			touch.after = access_word(word, touch.write, ~touch.value);
	}
	preempt_enable();
	if (err)
		return err;
	return copy_to_user(arg, &touch, sizeof(touch)) ? -EFAULT : 0;
}

static long raw_copy(void __user *arg)
{
	struct gzvm_raw_copy copy;
	void __user *va;

	if (copy_from_user(&copy, arg, sizeof(copy)))
		return -EFAULT;
	va = u64_to_user_ptr(copy.va);
	if (copy.to_user)
		copy.left = copy_to_user(va, &copy.value, sizeof(copy.value));
	else
		copy.left = copy_from_user(&copy.value, va, sizeof(copy.value));
	return copy_to_user(arg, &copy, sizeof(copy)) ? -EFAULT : 0;
}

static long raw_ioctl(struct file *file, unsigned int number, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	struct raw *raw = file->private_data;

	switch (number) {
	case GZVM_RAW_HVC:
		return raw_hvc(user);
	case GZVM_RAW_ALLOC:
		return raw_alloc(raw, user);
	case GZVM_RAW_FREE:
		return raw_free(raw, user);
	case GZVM_RAW_PHYS:
		return raw_phys(user);
	case GZVM_RAW_TOUCH:
		return raw_touch(raw, user);
	case GZVM_RAW_COPY:
		return raw_copy(user);
	default:
		return -ENOTTY;
	}
}

/* Maps physical memory: the file's offset is its address. */
static int raw_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_pfn_range(vma, vma->vm_start, vma->vm_pgoff,
			       vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

static int raw_open(struct inode *inode, struct file *file)
{
	struct raw *raw;

	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	raw = kzalloc(sizeof(*raw), GFP_KERNEL);
	if (!raw)
		return -ENOMEM;
	mutex_init(&raw->lock);
	INIT_LIST_HEAD(&raw->blocks);
	file->private_data = raw;
	return 0;
}

/*
 * A block that was not freed is kept for ever: the process may have died while a guest had it, and
 * the kernel must not use such a page for anything else.
 */
static int raw_release(struct inode *inode, struct file *file)
{
	struct raw *raw = file->private_data;
	struct block *block, *next;

	list_for_each_entry_safe(block, next, &raw->blocks, list) {
		pr_info("a block of %zu bytes stays allocated\n", block->size);
		kfree(block);
	}
	kfree(raw);
	return 0;
}

static const struct file_operations raw_operations = {
	.owner		= THIS_MODULE,
	.open		= raw_open,
	.release	= raw_release,
	.unlocked_ioctl	= raw_ioctl,
	.mmap		= raw_mmap,
	.llseek		= noop_llseek,
};

static struct miscdevice raw_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "gzvm_raw",
	.fops	= &raw_operations,
	.mode	= 0600,
};

module_misc_device(raw_device);
MODULE_DESCRIPTION("A host kernel that attacks its guests, for tests");
MODULE_LICENSE("GPL");
