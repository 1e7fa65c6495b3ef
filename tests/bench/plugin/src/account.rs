// SPDX-License-Identifier: Apache-2.0
//! Who executes a block of instructions, and the sums of a window of time.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// CPUs that are told apart; what more there are count as the last.
pub const CPUS: usize = 16;
/// Mutexes that the code on a CPU holds at the same time, as far as who took them is noted.
const DEPTH: usize = 8;
/// Places in the code that take mutexes; what more there are count as the last.
const SITES: usize = 64;
/// Where RAM starts on QEMU's `virt`.
pub const RAM: u64 = 0x4000_0000;
/// End of the reference hypervisor's memory, which is mapped to itself.
const HYPERVISOR_END: u64 = 0x4400_0000;
/// End of what the host's kernel image occupies.
const KERNEL_END: u64 = 0x4800_0000;
/// Where the benchmarks' guests have their memory; they run without translation.
const GUEST: core::ops::Range<u64> = 0x8000_0000..0x2_8000_0000;
/// Linux for arm64 with 48-bit addresses, not randomised: modules lie below the kernel.
const MODULES: u64 = 0xffff_8000_0000_0000;
const KERNEL: u64 = 0xffff_8000_8000_0000;

/// Who executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A guest.
    Guest,
    /// The hypervisor.
    Hypervisor,
    /// A module of the host's kernel: the driver.
    Module,
    /// The host's kernel.
    Kernel,
    /// A program.
    User,
}

impl Class {
    /// All, in the order of the output.
    pub const ALL: [Self; 5] =
        [Self::Guest, Self::Hypervisor, Self::Module, Self::Kernel, Self::User];

    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Hypervisor => "hypervisor",
            Self::Module => "module",
            Self::Kernel => "kernel",
            Self::User => "user",
        }
    }

    /// Who has code at this virtual and physical address.
    pub fn of(virt: u64, phys: u64) -> Self {
        match virt {
            RAM..HYPERVISOR_END => Self::Hypervisor,
            at if GUEST.contains(&at) => Self::Guest,
            MODULES..KERNEL => Self::Module,
            // A Linux guest's kernel has the host's virtual addresses.
            KERNEL.. if (HYPERVISOR_END..KERNEL_END).contains(&phys) => Self::Kernel,
            KERNEL.. => Self::Guest,
            _ => Self::User,
        }
    }
}

/// What an instruction asks the plugin for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// `HINT #0x70`: a window begins.
    Begin,
    /// `HINT #0x71`: the window ends.
    End,
    /// `HINT #0x72`: count from here on.
    On,
    /// `HINT #0x73`: do not count until told to.
    Off,
}

impl Mark {
    /// The mark that an instruction is.
    pub fn of(instruction: u32) -> Option<Self> {
        match instruction {
            0xd503_2e1f => Some(Self::Begin),
            0xd503_2e3f => Some(Self::End),
            0xd503_2e5f => Some(Self::On),
            0xd503_2e7f => Some(Self::Off),
            _ => None,
        }
    }
}

/// Is the instruction a hypercall?
pub fn is_hvc(instruction: u32) -> bool {
    instruction & 0xffe0_001f == 0xd400_0002
}

/// What a block begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Nothing of interest.
    #[default]
    None,
    /// The kernel's `mutex_lock`.
    Lock,
    /// The kernel's `mutex_unlock`.
    Unlock,
}

/// Instructions that are executed one after the other.
#[derive(Debug)]
pub struct Block {
    /// Virtual address of the first.
    pub virt: u64,
    /// Number of them.
    pub instructions: u64,
    /// Who executes them.
    pub class: Class,
    /// Do they end with a hypercall?
    pub hvc: bool,
    /// What they begin with.
    pub entry: Entry,
    /// How often they were executed since the window began.
    pub runs: AtomicU64,
}

/// Sums of the window. QEMU executes all CPUs in one thread when it counts instructions, so plain
/// loads and stores do.
#[derive(Debug)]
pub struct Sums {
    counting: AtomicBool,
    classes: [[AtomicU64; Class::ALL.len()]; CPUS],
    hypercalls: AtomicU64,
    /// How many mutexes the code on a CPU holds.
    held: [AtomicU64; CPUS],
    /// Which of `sites` took them.
    takers: [[AtomicU64; DEPTH]; CPUS],
    /// Address of the block that a CPU executed last.
    last: [AtomicU64; CPUS],
    /// Blocks that take mutexes, and the instructions of driver and kernel meanwhile.
    sites: [Site; SITES],
    /// Instructions of driver and kernel with a mutex held.
    locked: AtomicU64,
    /// Instructions of the hypervisor since it was entered.
    stay: [AtomicU64; CPUS],
    longest_stay: AtomicU64,
    windows: AtomicU64,
}

/// A block that takes a mutex.
#[derive(Debug)]
struct Site {
    virt: AtomicU64,
    locked: AtomicU64,
}

fn add(sum: &AtomicU64, more: u64) {
    sum.store(sum.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Sums {
    /// Nothing counted.
    pub const fn new() -> Self {
        Self {
            counting: AtomicBool::new(false),
            classes: [const { [const { AtomicU64::new(0) }; Class::ALL.len()] }; CPUS],
            hypercalls: AtomicU64::new(0),
            held: [const { AtomicU64::new(0) }; CPUS],
            takers: [const { [const { AtomicU64::new(0) }; DEPTH] }; CPUS],
            last: [const { AtomicU64::new(0) }; CPUS],
            sites: [const { Site { virt: AtomicU64::new(0), locked: AtomicU64::new(0) } }; SITES],
            locked: AtomicU64::new(0),
            stay: [const { AtomicU64::new(0) }; CPUS],
            longest_stay: AtomicU64::new(0),
            windows: AtomicU64::new(0),
        }
    }

    /// A CPU executes a block.
    pub fn executed(&self, cpu: usize, block: &Block) {
        if !self.counting.load(Relaxed) {
            return;
        }
        let cpu = cpu.min(CPUS - 1);
        add(&self.classes[cpu][block.class as usize], block.instructions);
        add(&block.runs, 1);
        if block.class == Class::Hypervisor {
            add(&self.stay[cpu], block.instructions);
        } else {
            let stay = self.stay[cpu].swap(0, Relaxed);
            self.longest_stay.fetch_max(stay, Relaxed);
        }
        self.count_locked(cpu, block);
        // Hypercalls of the host only: guests' are theirs.
        if block.hvc && matches!(block.class, Class::Kernel | Class::Module) {
            add(&self.hypercalls, 1);
        }
    }

    /// Mutexes: what is tried without waiting, as a vCPU's own, is not counted, only its end is.
    fn count_locked(&self, cpu: usize, block: &Block) {
        let last = self.last[cpu].swap(block.virt, Relaxed);
        let held = self.held[cpu].load(Relaxed);
        if held > 0 && matches!(block.class, Class::Kernel | Class::Module) {
            add(&self.locked, block.instructions);
            add(
                &self.sites[self.taker(cpu, held).load(Relaxed) as usize].locked,
                block.instructions,
            );
        }
        match block.entry {
            Entry::None => {}
            Entry::Lock => {
                self.held[cpu].store(held + 1, Relaxed);
                self.taker(cpu, held + 1).store(self.site(last) as u64, Relaxed);
            }
            Entry::Unlock => self.held[cpu].store(held.saturating_sub(1), Relaxed),
        }
        // A program holds nothing: what was counted wrongly before is forgotten.
        if block.class == Class::User {
            self.held[cpu].store(0, Relaxed);
        }
    }

    /// Who took the last of so many mutexes.
    fn taker(&self, cpu: usize, held: u64) -> &AtomicU64 {
        let depth = usize::try_from(held).unwrap_or(DEPTH).clamp(1, DEPTH);
        &self.takers[cpu][depth - 1]
    }

    /// The place of a block among those that take mutexes.
    fn site(&self, virt: u64) -> usize {
        let known = |site: &Site| [0, virt].contains(&site.virt.load(Relaxed));
        let index = self.sites.iter().position(known).unwrap_or(SITES - 1);
        self.sites[index].virt.store(virt, Relaxed);
        index
    }

    /// A CPU executes a mark, the last but one instruction of a block; answers whether the window
    /// ended.
    pub fn marked(&self, cpu: usize, mark: Mark, block: &Block, blocks: &[&Block]) -> bool {
        let cpu = cpu.min(CPUS - 1);
        match mark {
            Mark::Begin => {
                self.classes.iter().flatten().for_each(|sum| sum.store(0, Relaxed));
                self.stay.iter().for_each(|sum| sum.store(0, Relaxed));
                blocks.iter().for_each(|block| block.runs.store(0, Relaxed));
                self.held.iter().for_each(|held| held.store(0, Relaxed));
                self.locked.store(0, Relaxed);
                self.sites.iter().for_each(|site| site.locked.store(0, Relaxed));
                self.hypercalls.store(0, Relaxed);
                self.longest_stay.store(0, Relaxed);
                add(&self.windows, 1);
                self.counting.store(true, Relaxed);
            }
            Mark::On => self.counting.store(true, Relaxed),
            Mark::Off | Mark::End => {
                if self.counting.swap(false, Relaxed) {
                    // The block of the mark itself was counted when it started.
                    let own = &self.classes[cpu][block.class as usize];
                    own.store(own.load(Relaxed) - block.instructions, Relaxed);
                    block.runs.store(block.runs.load(Relaxed) - 1, Relaxed);
                }
            }
        }
        mark == Mark::End
    }

    /// The window as text: a line `window N hypercalls H stay S locked L`, for each CPU that did anything
    /// `cpu N guest I hypervisor I ...`, for each block `at CLASS ADDRESS RUNS INSTRUCTIONS`, and for
    /// each that took a mutex `locked ADDRESS INSTRUCTIONS`, what was executed until its end.
    pub fn report(&self, blocks: &[&Block]) -> String {
        let mut text = format!(
            "window {} hypercalls {} stay {} locked {}\n",
            self.windows.load(Relaxed),
            self.hypercalls.load(Relaxed),
            self.longest_stay.load(Relaxed),
            self.locked.load(Relaxed)
        );
        for (cpu, sums) in self.classes.iter().enumerate() {
            if sums.iter().any(|sum| sum.load(Relaxed) > 0) {
                let _ = write!(text, "cpu {cpu}");
                for (class, sum) in Class::ALL.iter().zip(sums) {
                    let _ = write!(text, " {} {}", class.name(), sum.load(Relaxed));
                }
                text.push('\n');
            }
        }
        for block in blocks {
            let runs = block.runs.load(Relaxed);
            if runs > 0 && block.class != Class::User && block.class != Class::Guest {
                let (class, sum) = (block.class.name(), runs * block.instructions);
                let _ = writeln!(text, "at {class} {:x} {runs} {sum}", block.virt);
            }
        }
        for site in &self.sites {
            let (virt, locked) = (site.virt.load(Relaxed), site.locked.load(Relaxed));
            if locked > 0 {
                let _ = writeln!(text, "locked {virt:x} {locked}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(virt: u64, class: Class, instructions: u64) -> Block {
        let (hvc, entry) = (class == Class::Module, Entry::None);
        Block { virt, instructions, class, hvc, entry, runs: AtomicU64::new(0) }
    }

    #[test]
    fn addresses_tell_who_executes() {
        for (virt, phys, class) in [
            (0x4020_0000, 0x4020_0000, Class::Hypervisor),
            (0x8000_0000, 0x1_2345_6000, Class::Guest),
            (0xffff_8000_7a00_1000, 0x9000_0000, Class::Module),
            (0xffff_8000_8001_0000, 0x4401_0000, Class::Kernel),
            (0xffff_8000_8001_0000, 0x9401_0000, Class::Guest),
            (0x40_0000, 0x9000_0000, Class::User),
            (0xaaaa_0040_0000, 0x9000_0000, Class::User),
        ] {
            assert_eq!(Class::of(virt, phys), class, "{virt:#x}");
        }
    }

    #[test]
    fn marks_are_hints() {
        let hint = |number: u32| 0xd503_201f | number << 5;
        let marks = [0x70, 0x71, 0x72, 0x73, 0x74].map(|number| Mark::of(hint(number)));
        let all = [Mark::Begin, Mark::End, Mark::On, Mark::Off].map(Some);
        assert_eq!(marks[..4], all);
        assert_eq!(marks[4], None);
        assert!(is_hvc(0xd400_0002) && is_hvc(0xd400_0022) && !is_hvc(0xd400_0001));
    }

    #[test]
    fn only_what_lies_between_the_marks_counts() {
        let user = block(0x400000, Class::User, 3);
        let hypervisor = block(0x4020_0000, Class::Hypervisor, 40);
        let module = block(0xffff_8000_7a00_1000, Class::Module, 7);
        let (all, sums) = ([&user, &hypervisor, &module], Sums::new());
        sums.executed(0, &module);
        assert!(!sums.marked(0, Mark::Begin, &user, &all));
        for block in [&module, &hypervisor, &hypervisor, &module] {
            sums.executed(1, block);
        }
        sums.executed(0, &user);
        assert!(!sums.marked(0, Mark::Off, &user, &all));
        sums.executed(0, &module);
        assert!(!sums.marked(0, Mark::On, &user, &all));
        sums.executed(0, &user);
        assert!(sums.marked(0, Mark::End, &user, &all));
        let text = sums.report(&all);
        let want = "window 1 hypercalls 2 stay 80 locked 0\n\
            cpu 1 guest 0 hypervisor 80 module 14 kernel 0 user 0\n\
            at hypervisor 40200000 2 80\nat module ffff80007a001000 2 14\n";
        assert_eq!(text, want);
        sums.marked(0, Mark::Begin, &user, &all);
        assert_eq!(sums.report(&all), "window 2 hypercalls 0 stay 0 locked 0\n");
    }

    #[test]
    fn what_runs_with_a_mutex_held_is_counted() {
        let kernel = |entry, instructions| Block {
            entry,
            hvc: false,
            ..block(0xffff_8000_8001_0000, Class::Kernel, instructions)
        };
        let user = block(0x400000, Class::User, 3);
        let (lock, work) = (kernel(Entry::Lock, 10), kernel(Entry::None, 100));
        let (unlock, sums) = (kernel(Entry::Unlock, 20), Sums::new());
        sums.marked(0, Mark::Begin, &user, &[]);
        // An end without a beginning, one inside of another.
        for block in [&unlock, &work, &lock, &work, &lock, &work, &unlock, &work, &unlock, &work] {
            sums.executed(0, block);
        }
        assert_eq!(sums.locked.load(Relaxed), 3 * 100 + 2 * 20 + 10);
        sums.executed(0, &lock);
        sums.executed(0, &user);
        sums.executed(0, &work);
        assert_eq!(sums.locked.load(Relaxed), 3 * 100 + 2 * 20 + 10);
        // All were taken by what runs at the same address.
        let text = sums.report(&[]);
        assert!(text.contains("locked ffff800080010000 350\n"), "{text}");
    }
}
