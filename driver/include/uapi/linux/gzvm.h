/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR Apache-2.0) */
/*
 * Virtual machines under the GenieZone hypervisor: ioctls of /dev/gzvm, of VM files and of vCPU
 * files.
 *
 * Documentation/virt/geniezone/api.rst says what each of them does. The numbers are those of
 * version 13 of the driver as it was posted, wrong directions included: clients were compiled
 * against them. All values are plain literals, so that nothing but <linux/types.h> is needed.
 */
#ifndef _UAPI_LINUX_GZVM_H
#define _UAPI_LINUX_GZVM_H

#include <linux/types.h>

#define GZVM_IOC_MAGIC			0x92

/* Ioctls of /dev/gzvm. CREATE_VM takes the VM's type (0) by value and returns the VM's file. */
#define GZVM_CREATE_VM			0x00009201
/* Also an ioctl of VMs: pointer to a __u64, capability in, value out. */
#define GZVM_CHECK_EXTENSION		0x00009203

/* Ioctls of VMs. CREATE_VCPU takes the vCPU's index by value and returns the vCPU's file. */
#define GZVM_CREATE_VCPU		0x00009241
#define GZVM_SET_USER_MEMORY_REGION	0x40209246	/* struct gzvm_userspace_memory_region */
#define GZVM_IRQ_LINE			0x40089261	/* struct gzvm_irq_level */
#define GZVM_IRQFD			0x40209276	/* struct gzvm_irqfd */
#define GZVM_IOEVENTFD			0x40409279	/* struct gzvm_ioeventfd */
#define GZVM_ENABLE_CAP			0x403092a3	/* struct gzvm_enable_cap */
#define GZVM_CREATE_DEVICE		0xc03092e0	/* struct gzvm_create_device */
#define GZVM_GET_RANGE_STATE		0xc02092e8	/* struct gzvm_range_state */
#define GZVM_SET_DTB_CONFIG		0x401092ff	/* struct gzvm_dtb_config */

/* Ioctls of vCPUs. */
#define GZVM_RUN			0x00009280	/* struct gzvm_vcpu_run */
#define GZVM_GET_ONE_REG		0x401092ab	/* struct gzvm_one_reg */
#define GZVM_SET_ONE_REG		0x401092ac	/* struct gzvm_one_reg */

/* Capabilities of GZVM_CHECK_EXTENSION. */
#define GZVM_CAP_VM_GPA_SIZE		0xa5
/* 1: the guest follows changes of its owner's mapping behind slots. */
#define GZVM_CAP_SYNC_MMU		0x92e0
/* Bits of GZVM_EXT_*; with 0 the hypervisor has no extension. */
#define GZVM_CAP_EXTENSIONS		0x92f0
/*
 * vCPUs per VM in bits 15:0, SPIs in 31:16 (0: not known), address bits in 39:32, protected VMs:
 * bit 40.
 */
#define GZVM_CAP_LIMITS			0x92f1
/* Also of GZVM_ENABLE_CAP; args[0] is one of GZVM_CAP_PVM_*. */
#define GZVM_CAP_PROTECTED_VM		0xffbadab1

/* Of GZVM_ENABLE_CAP only: done by the driver, accepted for the sake of a known client. */
#define GZVM_CAP_ENABLE_IDLE		0x9203
/* Between driver and hypervisor: refused by both ioctls. */
#define GZVM_CAP_BLOCK_BASED_DEMAND_PAGING	0x9201
#define GZVM_CAP_ENABLE_DEMAND_PAGING		0x9202
#define GZVM_CAP_QUERY_HYP_BATCH_PAGES		0x9204
#define GZVM_CAP_QUERY_DESTROY_BATCH_PAGES	0x9205

/* args[1]: guest address of the firmware. */
#define GZVM_CAP_PVM_SET_PVMFW_GPA	0
/* args[1]: the firmware's size in bytes is written there. */
#define GZVM_CAP_PVM_GET_PVMFW_SIZE	1
#define GZVM_CAP_PVM_SET_PROTECTED_VM	2

/* What GZVM_CAP_EXTENSIONS answers. */
#define GZVM_EXT_WAKE_MASK		0x1
#define GZVM_EXT_UNMAP			0x2
#define GZVM_EXT_IRQ_KIND		0x4
#define GZVM_EXT_GET_REG		0x8
#define GZVM_EXT_LIMITS			0x10
#define GZVM_EXT_RANGE_STATE		0x20

struct gzvm_userspace_memory_region {
	__u32 slot;
	__u32 flags;			/* GZVM_USER_MEM_REGION_* */
	__u64 guest_phys_addr;		/* page aligned */
	__u64 memory_size;		/* bytes, a multiple of the page size; 0 deletes the slot */
	__u64 userspace_addr;		/* page aligned */
};

#define GZVM_USER_MEM_REGION_OTHER		0
#define GZVM_USER_MEM_REGION_GUEST_MEM		1
#define GZVM_USER_MEM_REGION_PROTECT_FW		2
#define GZVM_USER_MEM_REGION_STATIC_SWIOTLB	4
#define GZVM_USER_MEM_REGION_READONLY		0x80000000

/* The largest slot, in pages. */
#define GZVM_MEM_MAX_NR_PAGES		0x7fffffff

struct gzvm_irq_level {
	union {
		__u32 irq;		/* fields GZVM_IRQ_* */
		__s32 status;		/* not written */
	};
	__u32 level;			/* 0 or 1 */
};

#define GZVM_IRQ_VCPU2_SHIFT		28
#define GZVM_IRQ_VCPU2_MASK		0xf
#define GZVM_IRQ_TYPE_SHIFT		24
#define GZVM_IRQ_TYPE_MASK		0xf
#define GZVM_IRQ_VCPU_SHIFT		16
#define GZVM_IRQ_VCPU_MASK		0xff
#define GZVM_IRQ_NUM_SHIFT		0
#define GZVM_IRQ_NUM_MASK		0xffff
/* The same fields as masks in their places. */
#define GZVM_IRQ_LINE_VCPU2		0xf0000000
#define GZVM_IRQ_LINE_TYPE		0x0f000000
#define GZVM_IRQ_LINE_VCPU		0x00ff0000
#define GZVM_IRQ_LINE_NUM		0x0000ffff

#define GZVM_IRQ_TYPE_CPU		0
#define GZVM_IRQ_TYPE_SPI		1
#define GZVM_IRQ_TYPE_PPI		2

struct gzvm_irqfd {
	__u32 fd;
	__u32 gsi;			/* SPI, from 0 */
	__u32 flags;			/* GZVM_IRQFD_FLAG_* */
	__u32 resamplefd;
	__u8 pad[16];			/* 0 */
};

#define GZVM_IRQFD_FLAG_DEASSIGN	0x1
#define GZVM_IRQFD_FLAG_RESAMPLE	0x2

struct gzvm_ioeventfd {
	__u64 datamatch;
	__u64 addr;
	__u32 len;			/* 1, 2, 4, 8, or 0 for any */
	__s32 fd;
	__u32 flags;			/* GZVM_IOEVENTFD_FLAG_* */
	__u8 pad[36];
};

#define GZVM_IOEVENTFD_FLAG_DATAMATCH	0x1
#define GZVM_IOEVENTFD_FLAG_PIO		0x2
#define GZVM_IOEVENTFD_FLAG_DEASSIGN	0x4
#define GZVM_IOEVENTFD_VALID_FLAG_MASK	0x7

struct gzvm_enable_cap {
	__u64 cap;
	__u64 args[5];
};

struct gzvm_one_reg {
	__u64 id;			/* GZVM_REG_* */
	__u64 addr;			/* of the value */
};

#define GZVM_REG_ARCH_MASK		0xff00000000000000ULL
#define GZVM_REG_GENERIC		0x0000000000000000ULL
#define GZVM_REG_ARCH_ARM64		0x6000000000000000ULL
#define GZVM_REG_ARM64			GZVM_REG_ARCH_ARM64
/* Bytes: 1 << ((id & GZVM_REG_SIZE_MASK) >> GZVM_REG_SIZE_SHIFT), at most 8. */
#define GZVM_REG_SIZE_SHIFT		52
#define GZVM_REG_SIZE_MASK		0x00f0000000000000ULL
#define GZVM_REG_SIZE_U8		0x0000000000000000ULL
#define GZVM_REG_SIZE_U16		0x0010000000000000ULL
#define GZVM_REG_SIZE_U32		0x0020000000000000ULL
#define GZVM_REG_SIZE_U64		0x0030000000000000ULL
#define GZVM_REG_SIZE_U128		0x0040000000000000ULL
#define GZVM_REG_SIZE_U256		0x0050000000000000ULL
#define GZVM_REG_SIZE_U512		0x0060000000000000ULL
#define GZVM_REG_SIZE_U1024		0x0070000000000000ULL
#define GZVM_REG_SIZE_U2048		0x0080000000000000ULL
#define GZVM_REG_CLASS_SHIFT		16
#define GZVM_REG_CLASS_MASK		0xfff
#define GZVM_REG_CLASS_CORE		0x10
#define GZVM_REG_CLASS_SYSREG		0x13
/* The class of core registers in its place. */
#define GZVM_REG_TYPE_GENERAL2		0x00100000
#define GZVM_REG_INDEX_MASK		0xffff
/* Register Xn is GZVM_REG_X0 + 2 * n. */
#define GZVM_REG_X0			0x6030000000100000ULL
#define GZVM_REG_SP_EL0			0x603000000010003eULL
#define GZVM_REG_PC			0x6030000000100040ULL
#define GZVM_REG_PSTATE			0x6030000000100042ULL
#define GZVM_REG_SP_EL1			0x6030000000100044ULL
#define GZVM_REG_ELR_EL1		0x6030000000100046ULL
#define GZVM_REG_SPSR_EL1		0x6030000000100048ULL

struct gzvm_create_device {
	__u32 dev_type;			/* GZVM_DEV_TYPE_* */
	__u32 id;			/* not written */
	__u64 flags;			/* 0 */
	__u64 dev_addr;			/* guest address of the registers */
	__u64 dev_reg_size;		/* bytes */
	__u64 attr_addr;		/* attributes, or 0 */
	__u64 attr_size;		/* bytes, at most a page */
};

#define GZVM_DEV_TYPE_ARM_VGIC_V3_DIST		0
#define GZVM_DEV_TYPE_ARM_VGIC_V3_REDIST	1
#define GZVM_DEV_TYPE_MAX			2

/* Bytes of the distributor, and of one vCPU's redistributor. */
#define GZVM_VGIC_V3_DIST_SIZE		0x10000
#define GZVM_VGIC_V3_REDIST_SIZE	0x20000

struct gzvm_dtb_config {
	__u64 dtb_addr;			/* guest address */
	__u64 dtb_size;			/* bytes */
};

struct gzvm_range_state {
	__u64 guest_phys_addr;		/* in: page aligned */
	__u64 size;			/* in: bytes to look at; out: bytes that have the state */
	__u32 state;			/* out: GZVM_RANGE_STATE_* */
	__u32 flags;			/* 0 */
	__u64 pad;			/* 0 */
};

#define GZVM_RANGE_STATE_ABSENT		0
#define GZVM_RANGE_STATE_PRIVATE	1
#define GZVM_RANGE_STATE_SHARED		2
#define GZVM_RANGE_STATE_UNPINNED	3

/* Exit reasons. */
#define GZVM_EXIT_UNKNOWN		0x92920000
#define GZVM_EXIT_MMIO			0x92920001
#define GZVM_EXIT_HYPERCALL		0x92920002
#define GZVM_EXIT_IRQ			0x92920003
#define GZVM_EXIT_EXCEPTION		0x92920004
#define GZVM_EXIT_DEBUG			0x92920005
#define GZVM_EXIT_FAIL_ENTRY		0x92920006
#define GZVM_EXIT_INTERNAL_ERROR	0x92920007
#define GZVM_EXIT_SYSTEM_EVENT		0x92920008
#define GZVM_EXIT_SHUTDOWN		0x92920009
#define GZVM_EXIT_GZ			0x9292000a
#define GZVM_EXIT_IDLE			0x9292000b
#define GZVM_EXIT_RESERVED_C		0x9292000c
#define GZVM_EXIT_IPI			0x9292000d

struct gzvm_exit_mmio {
	__u64 phys_addr;
	__u8 data[8];			/* little-endian; for a read: set before the next RUN */
	__u64 size;			/* 1, 2, 4 or 8 */
	__u32 reg_nr;			/* the hypervisor's */
	__u8 is_write;
	__u8 padding[3];
};

struct gzvm_exit_fail_entry {
	__u64 hardware_entry_failure_reason;
	__u32 cpu;
	__u32 padding;
};

struct gzvm_exit_exception {
	__u32 exception;		/* GZVM_EXCEPTION_* */
	__u32 error_code;		/* errno of a page fault that the driver could not serve */
	__u64 fault_gpa;
	__u64 reserved[30];
};

#define GZVM_EXCEPTION_UNKNOWN		0
#define GZVM_EXCEPTION_PAGE_FAULT	1

struct gzvm_exit_hypercall {
	__u64 args[8];			/* x0 to x7, and x0 to x3 back */
};

/* Hypercalls that the driver answers. */
#define GZVM_HVC_PTP			0x86000001
#define GZVM_HVC_MEM_RELINQUISH		0xc6000009

struct gzvm_exit_internal {
	__u32 suberror;
	__u32 ndata;			/* valid words in data */
	__u64 data[16];
};

struct gzvm_exit_event {
	__u32 type;			/* GZVM_SYSTEM_EVENT_* */
	__u32 ndata;			/* valid words in data */
	__u64 data[16];
};

#define GZVM_SYSTEM_EVENT_SHUTDOWN	1
#define GZVM_SYSTEM_EVENT_RESET		2
#define GZVM_SYSTEM_EVENT_CRASH		3
#define GZVM_SYSTEM_EVENT_WAKEUP	4
#define GZVM_SYSTEM_EVENT_SUSPEND	5
#define GZVM_SYSTEM_EVENT_SEV_TERM	6
#define GZVM_SYSTEM_EVENT_S2IDLE	7

struct gzvm_vcpu_run {
	__u32 exit_reason;		/* GZVM_EXIT_* */
	/* Not 0: RUN ends with -EINTR before the guest is entered. Never written. */
	__u8 immediate_exit;
	__u8 padding1[3];		/* 0 */
	union {
		struct gzvm_exit_mmio mmio;
		struct gzvm_exit_fail_entry fail_entry;
		struct gzvm_exit_exception exception;
		struct gzvm_exit_hypercall hypercall;
		struct gzvm_exit_internal internal;
		struct gzvm_exit_event system_event;
		__u64 padding[32];
	};
};

#endif /* _UAPI_LINUX_GZVM_H */
