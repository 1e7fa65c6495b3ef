// SPDX-License-Identifier: Apache-2.0
//! What crosvm asks of the driver, in its order.

use std::time::Duration;

use gzvm_device_test::events::Event;
use gzvm_device_test::guest;
use gzvm_device_test::mapping::{memfd, Mapping};
use gzvm_device_test::signals::Target;

use crate::client::{self, *};

const RAM: u64 = 0x8000_0000;
const SIZE: u64 = 8 << 20;
const DIST: u64 = 0x3fff_0000;
const FRAMES: u64 = 0x2_0000;
const REPORT: u64 = 0x0900_0000;
const VCPUS: u64 = 2;
/// First shared interrupt of a virtio device in crosvm's numbering.
const SPI: u64 = 4;
const LONG: Duration = Duration::from_secs(60);

/// From the first call to the registers. The guest sets its interrupt controller up and reports
/// each interrupt.
struct Crosvm {
    vm: std::os::fd::OwnedFd,
    vcpus: Vec<std::os::fd::OwnedFd>,
    ram: Mapping,
}

fn start() -> Crosvm {
    let (device, vm) = client::open();
    // It asks for the width of guest addresses by value, and assumes 40 bits after the refusal.
    assert_eq!(by_value(&device, CHECK_EXTENSION, CAP_GPA_SIZE), Err(libc::EFAULT));
    let ram = Mapping::of_file(&memfd(SIZE), 0, SIZE);
    ram.load(0, guest::take_irq());
    // Two regions that are parts of one mapping.
    assert_eq!(slot(&vm, 0, 1, RAM, SIZE / 2, ram.address()), Ok(0));
    assert_eq!(slot(&vm, 1, 1, RAM + SIZE / 2, SIZE / 2, ram.address() + SIZE / 2), Ok(0));
    // Memory tagging has number 0 there; the answer must not be 1.
    assert_eq!(extension(&vm, 0), (Err(libc::EOPNOTSUPP), 0));
    assert_eq!(extension(&vm, CAP_PROTECTED), (Ok(0), 1));
    assert_eq!(client::device(&vm, 0, DIST, 0x1_0000), Ok(0));
    // One vCPU's frames, however many there will be.
    assert_eq!(client::device(&vm, 1, DIST - FRAMES * VCPUS, FRAMES), Ok(0));
    let create = |index| descriptor(&vm, CREATE_VCPU, index).expect("CREATE_VCPU");
    let vcpus = (0..VCPUS).map(create).collect();
    Crosvm { vm, vcpus, ram }
}

impl Crosvm {
    fn configure(&self) {
        let dtb = RAM + SIZE - (2 << 20);
        assert_eq!(call(&self.vm, SET_DTB_CONFIG, 16, &[(0, 8, dtb), (8, 8, 2 << 20)]), Ok(0));
        for vcpu in &self.vcpus {
            assert_eq!(set_reg(vcpu, PSTATE, 0x3c5), Ok(0));
        }
        let boot = &self.vcpus[0];
        let arguments = [32 + SPI, DIST, DIST - FRAMES * VCPUS];
        for (index, value) in (0..).zip(arguments) {
            assert_eq!(set_reg(boot, X0 + 2 * index, value), Ok(0));
        }
        // The test's guest wants to know where to report; a real one reads its device tree.
        assert_eq!(set_reg(boot, X0 + 2 * 20, REPORT), Ok(0));
        assert_eq!(set_reg(boot, PC, RAM), Ok(0));
        let mut value = [0; 8];
        let get = [(0, 8, PC), (8, 8, value.as_mut_ptr() as u64)];
        let answer = call(boot, GET_ONE_REG, 16, &get);
        assert!(answer == Err(libc::EOPNOTSUPP) || u64::from_le_bytes(value) == RAM);
    }
}

pub fn crosvm_boots_and_takes_interrupts() {
    let crosvm = start();
    // Devices register their interrupts, all of them with resampling, and their queues.
    let (event, resample, queue) = (Event::new(), Event::new(), Event::new());
    assert_eq!(irqfd(&crosvm.vm, event.fd(), SPI, 2, resample.fd()), Ok(0));
    for (index, value) in [(0, Some(0)), (1, Some(1)), (2, Some(2))] {
        let at = 0x200_0000 + 4 * index;
        assert_eq!(ioeventfd(&crosvm.vm, queue.fd(), at, 2, value, false), Ok(0));
    }
    assert_eq!(ioeventfd(&crosvm.vm, queue.fd(), 0x210_0000, 0, None, false), Ok(0));
    crosvm.configure();
    let mut run = RunBuffer::new();
    assert_eq!(run.stored(&crosvm.vcpus[0]), (REPORT, 0));
    for _ in 0..20 {
        event.signal();
        assert_eq!(run.stored(&crosvm.vcpus[0]), (REPORT, 32 + SPI));
        assert!(resample.wait(LONG) > 0, "a level-triggered device waits for this");
    }
    // A device goes away with its eventfds; another gets the same numbers.
    let number = event.fd();
    drop(event);
    let again = Event::new();
    assert_eq!(again.fd(), number, "the number is used again");
    assert_eq!(irqfd(&crosvm.vm, again.fd(), SPI, 2, resample.fd()), Ok(0));
    again.signal();
    assert_eq!(run.stored(&crosvm.vcpus[0]), (REPORT, 32 + SPI));
    assert_eq!(irqfd(&crosvm.vm, again.fd(), SPI, 1, 0), Ok(0));
    assert_eq!(ioeventfd(&crosvm.vm, queue.fd(), 0x200_0000, 2, Some(0), true), Ok(0));
    let bare = call(&crosvm.vm, IRQ_LINE, 8, &[(0, 4, SPI), (4, 4, 1)]);
    assert_eq!(bare, Ok(0), "a bare number, as crosvm's service_irq has it");
    assert_eq!(run.stored(&crosvm.vcpus[0]), (REPORT, 32 + SPI));
    assert_eq!(call(&crosvm.vm, IRQ_LINE, 8, &[(0, 4, SPI), (4, 4, 0)]), Ok(0));
    let _ = &crosvm.ram;
}

/// Memory regions added later get numbers without end, flags 0, and are removed by zeros.
pub fn crosvm_adds_and_removes_regions() {
    let crosvm = start();
    let file = memfd(SIZE);
    let more: Vec<_> = (0..24).map(|_| Mapping::of_file(&file, 0, 0x1000)).collect();
    for _ in 0..2 {
        for (index, mapping) in (2..).zip(&more) {
            let gpa = RAM + (1 << 30) + index * 0x2000;
            assert_eq!(slot(&crosvm.vm, index, 0, gpa, 0x1000, mapping.address()), Ok(0));
        }
        for index in 2..2 + more.len() as u64 {
            assert_eq!(slot(&crosvm.vm, index, 0, 0, 0, 0), Ok(0), "removal of slot {index}");
        }
    }
    crosvm.configure();
    assert_eq!(RunBuffer::new().stored(&crosvm.vcpus[0]), (REPORT, 0));
}

/// Threads are kicked by a signal whose handler sets `immediate_exit`; no exit is lost by that.
pub fn crosvm_kicks_its_vcpus() {
    client::install_kick();
    let crosvm = start();
    crosvm.ram.load(0, guest::count());
    crosvm.configure();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for vcpu in &crosvm.vcpus {
            let sender = sender.clone();
            scope.spawn(move || {
                sender.send(Target::this()).expect("the other end waits");
                let (mut run, mut kicks, mut next) = (RunBuffer::new(), 0, 32 + SPI);
                while kicks < 50 {
                    match run.run(vcpu) {
                        Ok(EXIT_MMIO) => {
                            assert_eq!(field(run.bytes(), 16, 8), next, "a number was lost");
                            next += 1;
                        }
                        Err(libc::EINTR) => kicks += 1,
                        other => panic!("{other:x?}"),
                    }
                }
                sender.send(Target::this()).expect("the other end waits");
            });
        }
        let targets: Vec<Target> = receiver.iter().take(crosvm.vcpus.len()).collect();
        // Both are kicked until both have had enough. The pthreads live until the scope ends.
        let (mut done, start) = (0, std::time::Instant::now());
        while done < targets.len() {
            assert!(start.elapsed() < LONG, "a vCPU's thread has ended early, or hangs");
            targets.iter().for_each(|target| target.signal());
            std::thread::sleep(Duration::from_millis(2));
            done += receiver.try_iter().count();
        }
    });
}

/// The first two steps towards a protected VM: without firmware crosvm ends here.
pub fn crosvm_asks_for_the_firmware() {
    let crosvm = start();
    let mut request = lay(48, &[(0, 8, CAP_PROTECTED), (8, 8, 1), (16, 8, u64::MAX)]);
    match by_pointer(&crosvm.vm, ENABLE_CAP, &mut request) {
        Ok(0) => {
            let size = field(&request, 16, 8);
            assert!(size < 4 << 20, "the firmware's window has 4 MiB: {size:#x}");
        }
        Err(libc::EINVAL) => {}
        other => panic!("{other:?}"),
    }
    let idle = call(&crosvm.vm, ENABLE_CAP, 48, &[(0, 8, CAP_IDLE)]);
    assert_eq!(idle, Ok(0), "a known client sends this");
}
