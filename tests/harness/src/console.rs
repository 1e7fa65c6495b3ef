// SPDX-License-Identifier: Apache-2.0
//! What a serial console says about the health of the machine behind it.

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The run has failed, but the machine goes on.
    Continues,
    /// The machine is dying: what follows is its last words.
    Dies,
}

/// Starts of kernel messages, or parts where the text begins with something variable.
const KERNEL: &[(&str, Defect)] = &[
    ("Kernel panic - not syncing", Defect::Dies),
    ("Internal error: ", Defect::Dies),
    ("Unable to handle kernel ", Defect::Dies),
    ("kernel BUG at ", Defect::Dies),
    ("Bad mode in ", Defect::Dies),
    ("watchdog: BUG: soft lockup", Defect::Dies),
    ("BUG: ", Defect::Continues),
    ("[ BUG: ", Defect::Continues),
    ("WARNING: ", Defect::Continues),
    ("rcu: INFO: ", Defect::Continues),
    ("INFO: task ", Defect::Continues),
    ("INFO: trying to register non-static key", Defect::Continues),
    ("INFO: possible ", Defect::Continues),
    ("INFO: rcu_", Defect::Continues),
    ("DEBUG_LOCKS_WARN_ON", Defect::Continues),
    ("UBSAN: ", Defect::Continues),
    ("kmemleak: ", Defect::Continues),
    ("rust_kernel: panicked at", Defect::Dies),
    ("Rebooting in ", Defect::Dies),
];

/// Starts of refhyp's lines, which have no time stamp.
const REFHYP: &[&str] = &["refhyp: panic", "refhyp: fatal", "refhyp: unexpected exception"];

/// The text of a kernel message: what follows the time stamp, wherever that is in the line (the
/// console is shared with user space, whose line may be cut by the kernel's).
pub fn kernel_text(line: &str) -> Option<&str> {
    let mut rest = line;
    while let Some(start) = rest.find('[') {
        let inside = &rest[start + 1..];
        if let Some((stamp, text)) = inside.split_once("] ") {
            let stamp = stamp.trim_start();
            let parts = stamp.split_once('.');
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if parts.is_some_and(|(secs, micros)| digits(secs) && digits(micros)) {
                return Some(text);
            }
        }
        rest = inside;
    }
    None
}

/// The defect that a line of a console reports, if any.
pub fn defect(line: &str) -> Option<Defect> {
    if REFHYP.iter().any(|start| line.starts_with(start)) {
        return Some(Defect::Dies);
    }
    let text = kernel_text(line)?;
    let known = KERNEL.iter().find(|(start, _)| text.starts_with(start));
    known.map(|(_, defect)| *defect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defects_are_found() {
        for (line, want) in [
            ("[    1.5] Kernel panic - not syncing: x", Defect::Dies),
            ("[   12.345678] Internal error: Oops: 0000000096000004 [#1] SMP", Defect::Dies),
            ("[    3.141592] Unable to handle kernel NULL pointer dereference", Defect::Dies),
            ("[   61.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 26s!", Defect::Dies),
            (
                "[    2.000000] BUG: sleeping function called from invalid context",
                Defect::Continues,
            ),
            ("[    2.000000] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2", Defect::Continues),
            ("[    2.1] WARNING: possible circular locking dependency detected", Defect::Continues),
            ("[    6.657413] [ BUG: Invalid wait context ]", Defect::Continues),
            ("[    2.1] rcu: INFO: rcu_preempt self-detected stall on CPU", Defect::Continues),
            ("[    2.1] INFO: task init:1 blocked for more than 120 seconds.", Defect::Continues),
            ("test a::b ... [    2.1] BUG: workqueue lockup", Defect::Continues),
            ("refhyp: panic: index out of bounds", Defect::Dies),
        ] {
            assert_eq!(defect(line), Some(want), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_not_defects() {
        for line in [
            "",
            "[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x411fd070]",
            "[    0.1] Kernel command line: panic=-1 oops=panic",
            "test prints_a_warning ... ok",
            "WARNING: only user space says so",
            "refhyp: EL2, 64 MiB reserved",
            "[ not a stamp ] BUG: x",
            "[1.2",
        ] {
            assert_eq!(defect(line), None, "{line}");
        }
    }

    #[test]
    fn the_text_follows_the_first_stamp() {
        assert_eq!(kernel_text("[    1.25] a [b] c"), Some("a [b] c"));
        assert_eq!(kernel_text("x [y] [  0.000001] z"), Some("z"));
        assert_eq!(kernel_text("no stamp"), None);
    }
}
