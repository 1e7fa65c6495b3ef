// SPDX-License-Identifier: Apache-2.0
//! Windows: stretches of time that are marked for QEMU's plugin, and lines that say what was in them.
//!
//! `##window {"window":N,"id":…,"what":…,"events":…,"ticks":…,"cpu":…}` for each window, numbered as the
//! plugin does; `##value {"id":…,"what":…,"value":…,"unit":…}` for what is no number of instructions.

use gzvm_device_test::guest;
use serde_json::json;

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Which benchmark.
    pub id: &'a str,
    /// What one event is.
    pub what: &'a str,
    /// Number of events in the window.
    pub events: u64,
    /// The CPU whose instructions count; all, if none is given.
    pub cpu: Option<usize>,
}

impl<'a> Row<'a> {
    /// A row for which all CPUs count.
    pub fn new(id: &'a str, what: &'a str, events: u64) -> Self {
        Self { id, what, events, cpu: None }
    }
}

/// Numbers the windows.
pub struct Report {
    windows: u64,
    only: Option<String>,
}

/// The counter, in nanoseconds; with `-icount shift=0` as many instructions, in steps of 16.
fn now() -> u64 {
    let ticks: u64;
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads a register that Linux lets programs read.
    unsafe {
        std::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks)
    };
    #[cfg(not(target_arch = "aarch64"))]
    {
        ticks = 0;
    }
    u64::try_from(u128::from(ticks) * 1_000_000_000 / u128::from(guest::counter_hz())).unwrap_or(0)
}

/// An instruction without effect that the plugin knows; barriers keep it in a block of its own.
macro_rules! mark {
    ($(#[$doc:meta])* $vis:vis $name:ident, $number:literal) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name() {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: instructions without effect on registers and memory.
            unsafe {
                std::arch::asm!("isb", concat!("hint #", $number), "isb")
            };
        }
    };
}

mark!(begin, "0x70");
mark!(end, "0x71");
mark!(
    /// Counts from here on, within a window.
    pub on, "0x72"
);
mark!(
    /// Does not count from here on.
    pub off, "0x73"
);

impl Report {
    /// Nothing measured; only one benchmark is wanted, or all.
    pub fn of(only: Option<String>) -> Self {
        Self { windows: 0, only }
    }

    /// Is this benchmark wanted?
    pub fn wants(&self, id: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == id)
    }

    /// Has what `f` does counted.
    pub fn window<T>(&mut self, row: Row<'_>, f: impl FnOnce() -> T) -> T {
        self.windows += 1;
        let before = now();
        begin();
        let result = f();
        end();
        let ticks = now() - before;
        let Row { id, what, events, cpu } = row;
        let line = json!({
            "window": self.windows, "id": id, "what": what, "events": events, "ticks": ticks,
            "cpu": cpu,
        });
        println!("##window {line}");
        result
    }

    /// The same twice, to show the spread.
    pub fn twice(&mut self, row: Row<'_>, mut f: impl FnMut()) {
        self.window(row, &mut f);
        self.window(row, f);
    }

    /// A number that was read somewhere.
    pub fn value(&mut self, id: &str, what: &str, value: u64, unit: &str) {
        println!("##value {}", json!({"id": id, "what": what, "value": value, "unit": unit}));
    }
}
