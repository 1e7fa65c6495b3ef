// SPDX-License-Identifier: GPL-2.0
/*
 * The host's wall clock as /dev/ptpN of a Linux guest under GenieZone, by the PTP hypercall.
 *
 * The host answers its wall time and the guest's virtual counter of the same moment, so that
 * PTP_SYS_OFFSET_PRECISE compares both clocks at the same counter value. Mainline's ptp_kvm makes the
 * same call, but arms itself under KVM's UID only.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/arm-smccc.h>
#include <linux/clocksource_ids.h>
#include <linux/init.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/ptp_clock_kernel.h>
#include <linux/timekeeping.h>

/* Guest calls; the numbers are those of driver/abi/src/guest.rs. */
#define GZVM_GUEST_UID		0x8600ff01
#define GZVM_GUEST_PTP		0x86000001
#define GZVM_PTP_VIRT_COUNTER	0

/* 7e134ed0-3b82-488d-8cee-69c19211dbe7, as the UID call answers it. */
static const u32 geniezone[] = { 0xd04e137e, 0x8d48823b, 0xc169ee8c, 0xe7db1192 };

static struct ptp_clock *clock;

/* Each result has 32 bits: time high and low, counter high and low. */
static int gzvm_ptp_ask(ktime_t *time, u64 *cycles)
{
	struct arm_smccc_res res;

	arm_smccc_1_1_hvc(GZVM_GUEST_PTP, GZVM_PTP_VIRT_COUNTER, 0, 0, &res);
	if ((s32)res.a0 < 0)
		return -EOPNOTSUPP;
	*time = ns_to_ktime((u64)(u32)res.a0 << 32 | (u32)res.a1);
	*cycles = (u64)(u32)res.a2 << 32 | (u32)res.a3;
	return 0;
}

static int gzvm_ptp_both(ktime_t *device, struct system_counterval_t *counter, void *ctx)
{
	counter->cs_id = CSID_ARM_ARCH_COUNTER;
	counter->use_nsecs = false;
	return gzvm_ptp_ask(device, &counter->cycles);
}

static int gzvm_ptp_getcrosststamp(struct ptp_clock_info *info,
				   struct system_device_crosststamp *stamp)
{
	return get_device_system_crosststamp(gzvm_ptp_both, NULL, NULL, stamp);
}

static int gzvm_ptp_gettime64(struct ptp_clock_info *info, struct timespec64 *ts)
{
	ktime_t time;
	u64 cycles;
	int err = gzvm_ptp_ask(&time, &cycles);

	if (!err)
		*ts = ktime_to_timespec64(time);
	return err;
}

/* The host's clock is not the guest's to set. */
static int gzvm_ptp_settime64(struct ptp_clock_info *info, const struct timespec64 *ts)
{
	return -EOPNOTSUPP;
}

static int gzvm_ptp_adjfine(struct ptp_clock_info *info, long scaled_ppm)
{
	return -EOPNOTSUPP;
}

static int gzvm_ptp_adjtime(struct ptp_clock_info *info, s64 delta)
{
	return -EOPNOTSUPP;
}

static struct ptp_clock_info info = {
	.owner = THIS_MODULE,
	.name = "GenieZone host",
	.gettime64 = gzvm_ptp_gettime64,
	.settime64 = gzvm_ptp_settime64,
	.adjfine = gzvm_ptp_adjfine,
	.adjtime = gzvm_ptp_adjtime,
	.getcrosststamp = gzvm_ptp_getcrosststamp,
};

static int __init gzvm_ptp_init(void)
{
	struct arm_smccc_res res;
	ktime_t time;
	u64 cycles;

	/* Without a hypervisor below, the instruction would be undefined. */
	if (arm_smccc_1_1_get_conduit() != SMCCC_CONDUIT_HVC)
		return -ENODEV;
	arm_smccc_1_1_hvc(GZVM_GUEST_UID, &res);
	if ((u32)res.a0 != geniezone[0] || (u32)res.a1 != geniezone[1] ||
	    (u32)res.a2 != geniezone[2] || (u32)res.a3 != geniezone[3])
		return -ENODEV;
	if (gzvm_ptp_ask(&time, &cycles)) {
		pr_info("the host does not tell its time\n");
		return -ENODEV;
	}
	clock = ptp_clock_register(&info, NULL);
	return PTR_ERR_OR_ZERO(clock);
}

static void __exit gzvm_ptp_exit(void)
{
	ptp_clock_unregister(clock);
}

module_init(gzvm_ptp_init);
module_exit(gzvm_ptp_exit);
MODULE_DESCRIPTION("The host's clock under GenieZone");
MODULE_LICENSE("GPL");
