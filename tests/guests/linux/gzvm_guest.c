// SPDX-License-Identifier: GPL-2.0
/*
 * Shows a Linux guest's user space what GenieZone says to the guest: the files of
 * /sys/kernel/gzvm_guest. Each read makes the hypercall anew.
 *
 * Mainline Linux has no guest side for GenieZone (its ptp_kvm accepts KVM's UID only), so the test
 * guest brings its own.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/arm-smccc.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/sysfs.h>
#include <linux/uuid.h>

/* Guest calls; the numbers are those of driver/abi/src/guest.rs. */
#define GZVM_GUEST_UID		0x8600ff01
#define GZVM_GUEST_FEATURES	0x86000000
#define GZVM_GUEST_PTP		0x86000001
#define GZVM_GUEST_MEMINFO	0xc6000002

/* Bit of MEM_SHARE in the features: memory can be shared, so it is not shared to begin with. */
#define GZVM_FEATURE_MEM_SHARE	BIT(3)

static struct kobject *directory;

static struct arm_smccc_res gzvm_guest_call(u32 function)
{
	struct arm_smccc_res res;

	arm_smccc_1_1_hvc(function, 0, 0, 0, &res);
	return res;
}

/* The UUID's bytes are the answer's words in little-endian order (SMCCC 1.4, section 5.2). */
static void gzvm_guest_uid(uuid_t *uid)
{
	struct arm_smccc_res res = gzvm_guest_call(GZVM_GUEST_UID);
	__le32 words[] = {
		cpu_to_le32(res.a0), cpu_to_le32(res.a1),
		cpu_to_le32(res.a2), cpu_to_le32(res.a3),
	};

	import_uuid(uid, (u8 *)words);
}

/* 7e134ed0-3b82-488d-8cee-69c19211dbe7 */
static const uuid_t geniezone = UUID_INIT(0x7e134ed0, 0x3b82, 0x488d,
					  0x8c, 0xee, 0x69, 0xc1, 0x92, 0x11, 0xdb, 0xe7);

static ssize_t uid_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	uuid_t uid;

	gzvm_guest_uid(&uid);
	return sysfs_emit(buf, "%pUb\n", &uid);
}

static ssize_t features_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct arm_smccc_res res = gzvm_guest_call(GZVM_GUEST_FEATURES);

	/* A 32-bit call: its answer is in the low half. */
	if ((s32)res.a0 < 0)
		return -EOPNOTSUPP;
	return sysfs_emit(buf, "%#x\n", (u32)res.a0);
}

static ssize_t protected_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct arm_smccc_res res = gzvm_guest_call(GZVM_GUEST_FEATURES);

	if ((s32)res.a0 < 0)
		return sysfs_emit(buf, "unknown\n");
	return sysfs_emit(buf, "%s\n", res.a0 & GZVM_FEATURE_MEM_SHARE ? "yes" : "no");
}

static ssize_t share_granule_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct arm_smccc_res res = gzvm_guest_call(GZVM_GUEST_MEMINFO);

	if ((s64)res.a0 < 0)
		return -EOPNOTSUPP;
	return sysfs_emit(buf, "%lu\n", res.a0);
}

/* The host's wall clock in nanoseconds since 1970, in two halves of 32 bits. */
static ssize_t host_clock_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct arm_smccc_res res = gzvm_guest_call(GZVM_GUEST_PTP);

	if ((s32)res.a0 < 0)
		return -EOPNOTSUPP;
	return sysfs_emit(buf, "%llu\n", ((u64)(u32)res.a0 << 32) | (u32)res.a1);
}

static struct kobj_attribute uid_attr = __ATTR_RO(uid);
static struct kobj_attribute features_attr = __ATTR_RO(features);
static struct kobj_attribute protected_attr = __ATTR_RO(protected);
static struct kobj_attribute share_granule_attr = __ATTR_RO(share_granule);
static struct kobj_attribute host_clock_attr = __ATTR_RO(host_clock);

static const struct attribute *const files[] = {
	&uid_attr.attr,
	&features_attr.attr,
	&protected_attr.attr,
	&share_granule_attr.attr,
	&host_clock_attr.attr,
	NULL,
};

static int __init gzvm_guest_init(void)
{
	uuid_t uid;
	int err;

	/* Without a hypervisor below, the instruction would be undefined. */
	if (arm_smccc_1_1_get_conduit() != SMCCC_CONDUIT_HVC) {
		pr_info("no hypervisor that is called by HVC\n");
		return -ENODEV;
	}
	gzvm_guest_uid(&uid);
	if (!uuid_equal(&uid, &geniezone)) {
		pr_info("the hypervisor's UID is %pUb, not GenieZone's\n", &uid);
		return -ENODEV;
	}
	directory = kobject_create_and_add("gzvm_guest", kernel_kobj);
	if (!directory)
		return -ENOMEM;
	err = sysfs_create_files(directory, files);
	if (err)
		kobject_put(directory);
	return err;
}

static void __exit gzvm_guest_exit(void)
{
	kobject_put(directory);
}

module_init(gzvm_guest_init);
module_exit(gzvm_guest_exit);
MODULE_DESCRIPTION("What GenieZone says to a guest");
MODULE_LICENSE("GPL");
