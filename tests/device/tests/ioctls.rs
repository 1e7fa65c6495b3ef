// SPDX-License-Identifier: Apache-2.0
//! What each ioctl answers to good, bad and malicious arguments.

use std::os::fd::AsFd;

use gzvm_abi::{cap, ext, reg, run, uapi};
use gzvm_device_test::aarch32::{self, movw, SVC};
use gzvm_device_test::events::Event;
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Machine, Vcpu, RAM};
use gzvm_device_test::mapping::Mapping;
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, check_extension, ioctl, ioctl_fd, ioctl_raw};
use gzvm_device_test::tests;

const BAD_ADDRESS: usize = 8;

fn machine() -> Machine {
    Machine::new(1 << 20, guest::spin())
}

fn w33_extensions_are_answered_through_the_pointer() {
    let machine = machine();
    let bits = check_extension(&machine.device, cap::VM_GPA_SIZE).expect("VM_GPA_SIZE");
    assert!((40..=52).contains(&bits), "{bits} bit guest addresses");
    assert_eq!(check_extension(&machine.vm, cap::VM_GPA_SIZE), Ok(bits));
    assert!(check_extension(&machine.device, cap::PROTECTED_VM).expect("PROTECTED_VM") <= 1);
    for unknown in [0, 1, cap::BLOCK_BASED_DEMAND_PAGING, ext::TEST_AUDIT, u64::MAX] {
        let mut value = unknown;
        let answer = ioctl(&machine.device, uapi::CHECK_EXTENSION, &mut value);
        assert_eq!((answer, value), (Err(libc::EOPNOTSUPP), unknown));
    }
    // As crosvm asks.
    let by_value = ioctl_raw(&machine.device, uapi::CHECK_EXTENSION, 0xa5);
    assert_eq!(by_value, Err(libc::EFAULT));
    // As the posted driver tells no argument from a bad one.
    assert_eq!(ioctl_raw(&machine.device, uapi::CHECK_EXTENSION, 0), Err(libc::EINVAL));
    assert_eq!(ioctl_raw(&machine.vm, uapi::CHECK_EXTENSION, 0), Err(libc::EFAULT));
}

fn unknown_ioctls_are_not_there() {
    let machine = machine();
    let vcpu = machine.vcpu(0);
    for number in [0x9202, 0x9260, 0x4018_9240, 0x5401] {
        assert_eq!(ioctl_raw(&machine.device, number, 0), Err(libc::ENOTTY));
        assert_eq!(ioctl_raw(&machine.vm, number, 0), Err(libc::ENOTTY));
        assert_eq!(ioctl_raw(&vcpu.fd, number, 0), Err(libc::ENOTTY));
    }
    // Another object's ioctls.
    assert_eq!(ioctl_raw(&machine.vm, uapi::CREATE_VM, 0), Err(libc::ENOTTY));
    assert_eq!(ioctl_raw(&machine.device, uapi::CREATE_VCPU, 0), Err(libc::ENOTTY));
    assert_eq!(ioctl_raw(&machine.vm, uapi::RUN, 0), Err(libc::ENOTTY));
}

fn bad_addresses_are_faults() {
    let machine = machine();
    let vcpu = machine.vcpu(0);
    for number in [
        uapi::CHECK_EXTENSION,
        uapi::SET_USER_MEMORY_REGION,
        uapi::IRQ_LINE,
        uapi::IRQFD,
        uapi::IOEVENTFD,
        uapi::ENABLE_CAP,
        uapi::CREATE_DEVICE,
        uapi::SET_DTB_CONFIG,
    ] {
        assert_eq!(ioctl_raw(&machine.vm, number, BAD_ADDRESS), Err(libc::EFAULT), "{number:#x}");
    }
    for number in [uapi::RUN, uapi::SET_ONE_REG, uapi::GET_ONE_REG] {
        assert_eq!(ioctl_raw(&vcpu.fd, number, BAD_ADDRESS), Err(libc::EFAULT), "{number:#x}");
    }
    let mut inner = uapi::OneReg { id: reg::PC, addr: BAD_ADDRESS as u64 };
    assert_eq!(ioctl(&vcpu.fd, uapi::SET_ONE_REG, &mut inner), Err(libc::EFAULT));
}

fn w01_internal_capabilities_are_refused() {
    let machine = machine();
    for cap in [
        cap::BLOCK_BASED_DEMAND_PAGING,
        cap::ENABLE_DEMAND_PAGING,
        cap::QUERY_HYP_BATCH_PAGES,
        cap::QUERY_DESTROY_BATCH_PAGES,
        ext::DISCOVER,
        ext::TEST_AUDIT,
        0,
    ] {
        let mut request = uapi::EnableCap { cap, args: [RAM, machine.ram.address(), 0, 0, 0] };
        assert_eq!(ioctl(&machine.vm, uapi::ENABLE_CAP, &mut request), Err(libc::EINVAL));
    }
    // A known client sends this one.
    let mut request = uapi::EnableCap { cap: cap::ENABLE_IDLE, args: [0; 5] };
    assert_eq!(ioctl(&machine.vm, uapi::ENABLE_CAP, &mut request), Ok(0));
    let mut request = uapi::EnableCap { cap: cap::PROTECTED_VM, args: [7, 0, 0, 0, 0] };
    assert_eq!(ioctl(&machine.vm, uapi::ENABLE_CAP, &mut request), Err(libc::EINVAL));
}

fn vcpu_indices_are_checked() {
    let machine = machine();
    assert_eq!(ioctl_raw(&machine.vm, uapi::CREATE_VCPU, 64), Err(libc::EINVAL));
    assert_eq!(ioctl_raw(&machine.vm, uapi::CREATE_VCPU, 1 << 16), Err(libc::EINVAL));
    assert_eq!(ioctl_raw(&machine.vm, uapi::CREATE_VCPU, usize::MAX), Err(libc::EINVAL));
}

fn w08_vcpu_numbers_are_used_once() {
    let machine = machine();
    let first = Vcpu::new(&machine.vm, 0).expect("first vCPU");
    assert_eq!(Vcpu::new(&machine.vm, 0).map(|_| ()), Err(libc::EEXIST));
    first.set_reg(reg::x(0), 1).expect("the first one still works");
    drop(first);
    Vcpu::new(&machine.vm, 0).expect("the number is free again");
}

fn w08_a_vcpu_without_a_descriptor_is_gone() {
    let machine = machine();
    let limits = sys::descriptor_limits();
    // No descriptor that is not in use already is below this.
    sys::limit_descriptors(libc::rlimit { rlim_cur: 3, ..limits });
    let answer = ioctl_raw(&machine.vm, uapi::CREATE_VCPU, 0);
    sys::limit_descriptors(limits);
    assert_eq!(answer, Err(libc::EMFILE));
    let mut vcpu = machine.boot_vcpu(&[]);
    vcpu.run.immediate_exit = 1;
    assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
}

fn registers_are_checked_by_size_and_architecture() {
    let machine = machine();
    let vcpu = machine.vcpu(0);
    assert_eq!(vcpu.set_reg(reg::PC, RAM), Ok(()));
    let wide = reg::ARCH_ARM64 | 4 << reg::SIZE_SHIFT;
    assert_eq!(vcpu.set_reg(wide, 0), Err(libc::EINVAL));
    assert_eq!(vcpu.set_reg(0x4030_0000_0010_0000, 0), Err(libc::EINVAL));
    assert_eq!(vcpu.set_reg(0, 0), Err(libc::EINVAL));
    assert!(vcpu.set_reg(reg::ARCH_ARM64 | reg::SIZE_U64 | 0xfff_ffff, 0).is_err());
    assert_eq!(vcpu.set_reg(reg::PC, RAM), Ok(()), "a refusal has no effect");
}

fn devices_are_checked() {
    let machine = machine();
    let create = |change: &dyn Fn(&mut uapi::CreateDevice)| {
        let mut device = uapi::CreateDevice {
            dev_type: uapi::DEV_TYPE_VGIC_V3_DIST,
            dev_addr: guest::GIC_DIST,
            dev_reg_size: uapi::VGIC_DIST_SIZE,
            ..Default::default()
        };
        change(&mut device);
        ioctl(&machine.vm, uapi::CREATE_DEVICE, &mut device)
    };
    assert_eq!(create(&|device| device.dev_type = 2), Err(libc::EINVAL));
    assert_eq!(create(&|device| device.dev_type = u32::MAX), Err(libc::EINVAL));
    assert_eq!(
        create(&|device| (device.attr_addr, device.attr_size) = (1, 4097)),
        Err(libc::EINVAL)
    );
    assert_eq!(create(&|device| (device.attr_addr, device.attr_size) = (8, 16)), Err(libc::EFAULT));
    // An address without a size is nothing; it must not reach the hypervisor as an address.
    assert_eq!(create(&|device| device.attr_addr = 0x1000), Ok(0));
}

fn ioeventfds_are_checked() {
    let machine = machine();
    let event = Event::new();
    let set = |change: &dyn Fn(&mut uapi::Ioeventfd)| {
        let mut argument = uapi::Ioeventfd {
            datamatch: 0,
            addr: 0x1000,
            len: 4,
            fd: event.fd(),
            flags: 0,
            pad: [0xff; 36],
        };
        change(&mut argument);
        ioctl(&machine.vm, uapi::IOEVENTFD, &mut argument)
    };
    assert_eq!(set(&|argument| argument.len = 3), Err(libc::EINVAL));
    assert_eq!(set(&|argument| argument.addr = u64::MAX), Err(libc::EINVAL));
    assert_eq!(set(&|argument| argument.flags = uapi::IOEVENTFD_FLAG_PIO), Err(libc::EINVAL));
    assert_eq!(set(&|argument| argument.flags = 8), Err(libc::EINVAL));
    assert_eq!(set(&|argument| (argument.flags, argument.len) = (1, 0)), Err(libc::EINVAL));
    assert_eq!(set(&|argument| argument.fd = -1), Err(libc::EBADF));
    assert_eq!(set(&|argument| argument.fd = 0), Err(libc::EINVAL), "not an eventfd");
    assert_eq!(set(&|argument| argument.flags = uapi::IOEVENTFD_FLAG_DEASSIGN), Err(libc::ENOENT));
    assert_eq!(set(&|_| ()), Ok(0));
    assert_eq!(set(&|_| ()), Err(libc::EEXIST));
    assert_eq!(set(&|argument| argument.flags = uapi::IOEVENTFD_FLAG_DEASSIGN), Ok(0));
}

fn irqfds_are_checked() {
    let machine = machine();
    machine.add_gic(1);
    let event = Event::new();
    let set = |change: &dyn Fn(&mut uapi::Irqfd)| {
        let fd = u32::try_from(event.fd()).expect("descriptor");
        let mut argument = uapi::Irqfd { fd, gsi: 3, ..Default::default() };
        change(&mut argument);
        ioctl(&machine.vm, uapi::IRQFD, &mut argument)
    };
    assert_eq!(set(&|argument| argument.pad[15] = 1), Err(libc::EINVAL));
    assert_eq!(set(&|argument| argument.flags = 4), Err(libc::EINVAL));
    assert_eq!(set(&|argument| argument.fd = u32::MAX), Err(libc::EBADF));
    assert_eq!(set(&|argument| argument.fd = 0), Err(libc::EINVAL), "not an eventfd");
    assert_eq!(set(&|argument| argument.gsi = 1 << 16), Err(libc::EINVAL));
    assert_eq!(set(&|_| ()), Ok(0));
    assert_eq!(set(&|_| ()), Err(libc::EBUSY));
    assert_eq!(set(&|argument| argument.flags = uapi::IRQFD_FLAG_DEASSIGN), Ok(0));
    assert_eq!(set(&|argument| argument.flags = uapi::IRQFD_FLAG_DEASSIGN), Ok(0));
    assert_eq!(set(&|_| ()), Ok(0), "the eventfd is free again");
    // As the posted driver: nothing is connected to what does not exist, and that is no error.
    let deassign = |gsi, fd| {
        set(&|argument| {
            (argument.flags, argument.gsi) = (uapi::IRQFD_FLAG_DEASSIGN, gsi);
            argument.fd = fd;
        })
    };
    let fd = u32::try_from(event.fd()).expect("descriptor");
    assert_eq!(deassign(u32::MAX, fd), Ok(0));
    assert_eq!(deassign(u32::MAX, 0), Err(libc::EINVAL), "not an eventfd");
    assert_eq!(set(&|_| ()), Err(libc::EBUSY), "and it stays connected");
}

fn w35_interrupt_lines_are_checked() {
    let machine = machine();
    machine.add_gic(1);
    let _vcpu = machine.vcpu(0);
    let line = |irq, level| {
        let mut line = uapi::IrqLevel { irq, level };
        ioctl(&machine.vm, uapi::IRQ_LINE, &mut line)
    };
    assert_eq!(line(5, 1), Ok(0), "as crosvm says it");
    assert_eq!(line(0x0100_0005, 1), Ok(0));
    assert_eq!(line(0x0300_0005, 1), Err(libc::EINVAL));
    assert_eq!(line(0x0200_0040, 1), Err(libc::EINVAL));
    assert_eq!(line(0xf2ff_000b, 1), Err(libc::EINVAL), "vCPU out of range");
    assert!(line(0x0000_ffff, 1).is_err());
}

fn w06_other_processes_are_refused() {
    let machine = machine();
    let vcpu = machine.vcpu(0);
    let status = sys::in_child(|| {
        let mut value = cap::VM_GPA_SIZE;
        let vm = ioctl(&machine.vm, uapi::CHECK_EXTENSION, &mut value);
        let slot = machine.add_ram();
        let run = ioctl_raw(&vcpu.fd, uapi::RUN, vcpu.run.as_ref() as *const _ as usize);
        u8::from(vm != Err(libc::EIO))
            | u8::from(slot != Err(libc::EIO)) << 1
            | u8::from(run != Err(libc::EIO)) << 2
    });
    assert_eq!(status, 0, "calls that another process could make, as a bit mask");
}

fn w13_padding_and_immediate_exit() {
    let machine = machine();
    let mut vcpu = machine.boot_vcpu(&[]);
    vcpu.run.padding1 = [0, 0, 1];
    assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINVAL));
    vcpu.run.padding1 = [0; 3];
    vcpu.run.immediate_exit = 1;
    vcpu.run.exit_reason = 0x1234;
    assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
    assert_eq!(vcpu.run.exit_reason, 0x1234, "the structure stays as it is");
}

fn dtb_config_takes_any_place() {
    let machine = machine();
    let mut config = uapi::DtbConfig { dtb_addr: RAM + 0x1234, dtb_size: 0x321 };
    assert_eq!(ioctl(&machine.vm, uapi::SET_DTB_CONFIG, &mut config), Ok(0));
}

fn descriptors_are_closed_on_exec() {
    let machine = machine();
    let vcpu = machine.vcpu(0);
    for (fd, name) in [(&machine.vm, "gzvm-vm"), (&vcpu.fd, "gzvm-vcpu:0")] {
        let fd = std::os::fd::AsRawFd::as_raw_fd(fd);
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("link");
        assert_eq!(link.to_string_lossy(), format!("anon_inode:{name}"));
        // SAFETY: asks for a flag.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}

/// There is nothing to map, read or write: the hypervisor's run page stays in the kernel.
fn files_have_ioctls_only() {
    let machine = machine();
    let vcpu = machine.vcpu(0);
    for fd in [machine.device.as_fd(), machine.vm.as_fd(), vcpu.fd.as_fd()] {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
        for offset in [0, 4096, 1 << 20] {
            for share in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
                // SAFETY: a new mapping at an address of the kernel's choice, if any.
                let map = unsafe {
                    libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, share, fd, offset)
                };
                assert_eq!((map, sys::errno()), (libc::MAP_FAILED, libc::ENODEV));
            }
        }
        let mut byte = 0u8;
        // SAFETY: the byte is live.
        let moved = unsafe {
            let at = std::ptr::from_mut(&mut byte).cast();
            [libc::read(fd, at, 1), libc::write(fd, at, 1)]
        };
        assert_eq!((moved, sys::errno()), ([-1, -1], libc::EINVAL));
        let mut poll = libc::pollfd { fd, events: libc::POLLIN | libc::POLLPRI, revents: 0 };
        // SAFETY: the structure is live.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 1, "never blocks");
    }
}

/// Numbers, values and structures are the same for 32-bit processes.
fn a_32_bit_process_is_served() {
    let code = [
        0xe28f_004c, // add r0, pc, #76: the path
        0xe3a0_1002, // mov r1, #2: O_RDWR
        movw(7, 5),
        SVC,
        movw(1, 0x9201), // CREATE_VM
        movw(2, 0),
        movw(7, 54),
        SVC,
        movw(1, 0x9241), // CREATE_VCPU
        movw(2, 0),
        movw(7, 54),
        SVC,
        0xe28f_2028,     // add r2, pc, #40: the run structure
        movw(1, 0x9280), // RUN
        movw(7, 54),
        SVC,
        0xe370_0004, // cmn r0, #4: is it -EINTR?
        0x03a0_0000, // moveq r0, #0
        0x13a0_0001, // movne r0, #1
        movw(7, 1),
        SVC,
    ];
    let mut run = [0; size_of::<run::Run>()];
    run[std::mem::offset_of!(run::Run, immediate_exit)] = 1;
    let data = [b"/dev/gzvm\0\0\0", run.as_slice()].concat();
    match aarch32::run(&code, &data, std::io::stdin().as_fd()) {
        Some(status) => assert_eq!(status, 0, "RUN with immediate_exit is not -EINTR"),
        None => println!("no AArch32 here"),
    }
}

fn vm_without_memory_runs_into_an_exit() {
    let machine = Machine::bare(Mapping::anonymous(4096));
    let mut vcpu = machine.boot_vcpu(&[]);
    // Nothing can be fetched: whatever the exit is called, it comes, and the machine lives on.
    let _ = vcpu.run();
    let _again = ioctl_fd(&machine.device, uapi::CREATE_VM, 0).expect("another VM");
}

fn main() {
    tests![
        Needs::Device => [
            w33_extensions_are_answered_through_the_pointer,
            unknown_ioctls_are_not_there,
            bad_addresses_are_faults,
            w01_internal_capabilities_are_refused,
            vcpu_indices_are_checked,
            w08_vcpu_numbers_are_used_once,
            w08_a_vcpu_without_a_descriptor_is_gone,
            registers_are_checked_by_size_and_architecture,
            devices_are_checked,
            ioeventfds_are_checked,
            irqfds_are_checked,
            w35_interrupt_lines_are_checked,
            w06_other_processes_are_refused,
            w13_padding_and_immediate_exit,
            dtb_config_takes_any_place,
            descriptors_are_closed_on_exec,
            files_have_ioctls_only,
            a_32_bit_process_is_served,
            vm_without_memory_runs_into_an_exit,
        ],
    ]
}
