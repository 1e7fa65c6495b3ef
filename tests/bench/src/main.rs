// SPDX-License-Identifier: Apache-2.0
//! Benchmarks of `/dev/gzvm`: takes what VMMs do over loops of events, and marks where each loop
//! begins and ends. `gzvm-bench GROUP [BENCHMARK]`: `one` and `guests` are for a machine with one
//! CPU, `two` and `eight` for those with as many; `guard` is the part that is measured with the
//! tests, for two.
//!
//! `docs/performance.md` says what the rows mean. Output: see [`window`].

mod boot;
mod calibration;
mod cpus;
mod delay;
mod guests;
mod interrupts;
mod life;
mod many;
mod memory;
mod mmio;
mod sizes;
mod window;

use std::process::ExitCode;

use window::Report;

/// Measures one benchmark.
type Rows = fn(&mut Report);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let group = arguments.next().unwrap_or_default();
    let mut report = Report::of(arguments.next());
    let parts: &[(&str, Rows)] = match group.as_str() {
        "one" => &[
            ("C", calibration::rows),
            ("B1", mmio::writes),
            ("B2", mmio::served),
            ("B5", memory::rows),
            ("B6", life::begin),
            ("B7", life::end),
            ("B8", sizes::occupied),
            ("B11", sizes::idle),
        ],
        "two" => &[("B3", interrupts::eventfds), ("B4", interrupts::between_vcpus)],
        "eight" => &[("B10", many::rows)],
        "guests" => &[("B9", boot::rows)],
        "guard" => &[
            ("C", calibration::rows),
            ("B1", mmio::writes),
            ("B2", mmio::served),
            ("B3", interrupts::eventfds),
            ("B5", memory::two_rows),
        ],
        _ => {
            eprintln!("usage: gzvm-bench one|two|eight|guests|guard [BENCHMARK]");
            return ExitCode::from(2);
        }
    };
    // Who measures is on the first CPU.
    cpus::pin(0);
    for (id, rows) in parts {
        if report.wants(id) {
            rows(&mut report);
        }
    }
    ExitCode::SUCCESS
}
