// SPDX-License-Identifier: Apache-2.0
//! B9: `vm run` until the guest speaks.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::window::{Report, Row};

/// The tool and the guests' configurations, where the harness puts them.
const TOOL: &str = "/usr/bin/vm";
const GUESTS: &str = "/usr/share/gzvm/guests";

/// All of them.
pub fn rows(report: &mut Report) {
    wait_for_random_numbers();
    for _ in 0..2 {
        phases(report, "payload.json", &[("vm run to the payload's first line", "payload: ")]);
        let linux = [
            ("vm run to the console of a Linux guest", "Linux version"),
            ("a Linux guest's console to its first process", "guest: user space reached"),
        ];
        phases(report, "linux.json", &linux);
    }
}

/// Right after the machine's start, whoever asks for random numbers first waits for the kernel to
/// have gathered some.
fn wait_for_random_numbers() {
    let mut byte = [0u8];
    // SAFETY: one byte of a live array.
    let got = unsafe { libc::getrandom(byte.as_mut_ptr().cast(), 1, 0) };
    assert_eq!(got, 1, "getrandom");
}

/// Runs a guest until it has said all of these.
fn phases(report: &mut Report, config: &str, phases: &[(&str, &str)]) {
    let mut command = Command::new(TOOL);
    command.arg("run").arg(format!("{GUESTS}/{config}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = None;
    for (what, said) in phases {
        let found = report.window(Row::new("B9", what, 1), || {
            let (_, lines) = running.get_or_insert_with(|| {
                let mut child = command.spawn().expect("vm run");
                let output = child.stdout.take().expect("a pipe");
                (child, BufReader::new(output).lines())
            });
            lines.any(|line| line.is_ok_and(|line| line.contains(said)))
        });
        assert!(found, "vm run {config} ended without \"{said}\"");
    }
    if let Some((mut child, _)) = running {
        child.kill().expect("a child that was not waited for");
        child.wait().expect("a child");
    }
}
