// SPDX-License-Identifier: Apache-2.0
//! What the benchmarks say on the console and what the plugin counted, put together.

use std::collections::BTreeMap;

use anyhow::{bail, Context, Result};
use serde_json::Value;

use super::symbols::Symbols;

/// Who executes, as the plugin names them.
pub const CLASSES: [&str; 5] = ["guest", "hypervisor", "module", "kernel", "user"];

/// One window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Which benchmark.
    pub id: String,
    /// What an event is.
    pub what: String,
    /// Number of events.
    pub events: u64,
    /// Nanoseconds by the counter.
    pub ticks: u64,
    /// Instructions of each of [`CLASSES`], on the CPUs that count.
    pub classes: [u64; CLASSES.len()],
    /// Hypercalls of the host.
    pub hypercalls: u64,
    /// The hypervisor's longest stay, in instructions.
    pub stay: u64,
    /// Instructions of driver and kernel with a mutex held.
    pub locked: u64,
    /// The same by the function that took the mutex, and where in it.
    pub lockers: BTreeMap<String, u64>,
    /// Calls and instructions by class and function, on all CPUs.
    pub functions: BTreeMap<(String, String), (u64, u64)>,
}

impl Window {
    /// Instructions of all but the guest.
    pub fn cost(&self) -> u64 {
        self.classes.iter().skip(1).sum()
    }
}

/// A number that is none of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Which benchmark.
    pub id: String,
    /// What it is.
    pub what: String,
    /// The number.
    pub value: u64,
    /// Its unit.
    pub unit: String,
}

fn text(value: &Value, name: &str) -> Result<String> {
    let field = value.get(name).and_then(Value::as_str);
    Ok(field.with_context(|| format!("no {name} in {value}"))?.to_owned())
}

fn number(value: &Value, name: &str) -> Result<u64> {
    value.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {value}"))
}

/// The lines with this mark, as JSON.
fn marked<'a>(
    console: &'a [String],
    mark: &'a str,
) -> impl Iterator<Item = Result<Value>> + use<'a> {
    let lines = console.iter().filter_map(move |line| line.strip_prefix(mark));
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
}

/// All numbers that are none of windows.
///
/// # Errors
///
/// When a line is malformed.
pub fn values(console: &[String]) -> Result<Vec<Measure>> {
    let measure = |line: Result<Value>| {
        let line = line?;
        let (id, what, unit) = (text(&line, "id")?, text(&line, "what")?, text(&line, "unit")?);
        Ok(Measure { id, what, value: number(&line, "value")?, unit })
    };
    marked(console, "##value ").map(measure).collect()
}

/// All windows, in order.
///
/// # Errors
///
/// When console and plugin do not speak of the same windows.
pub fn join(console: &[String], counts: &str, symbols: &Symbols) -> Result<Vec<Window>> {
    let mut counted =
        counts.split_inclusive("\nwindow ").map(|part| part.trim_end_matches("window "));
    let mut windows = Vec::new();
    for line in marked(console, "##window ") {
        let line = line?;
        let counts = counted.next().unwrap_or_default();
        let counts = counts.strip_prefix("window ").unwrap_or(counts);
        let mut window = Window {
            id: text(&line, "id")?,
            what: text(&line, "what")?,
            events: number(&line, "events")?.max(1),
            ticks: number(&line, "ticks")?,
            ..Window::default()
        };
        let cpu = line.get("cpu").and_then(Value::as_u64);
        let found = fill(&mut window, counts, cpu, symbols)?;
        if found != number(&line, "window")? {
            bail!("window {found} of the plugin is not {line}");
        }
        windows.push(window);
    }
    if counted.next().is_some() {
        bail!("the console has {} windows, the plugin has not", windows.len());
    }
    Ok(windows)
}

/// Plugin and counter have to agree on what calibration costs, where one CPU does it all.
///
/// # Errors
///
/// When they do not: then no number is to be believed.
pub fn check_clock(windows: &[Window]) -> Result<()> {
    for window in windows.iter().filter(|window| window.id == "C") {
        let counted: u64 = window.classes.iter().sum();
        // The counter goes in steps of 16, and reading it takes instructions, too.
        if window.ticks.abs_diff(counted) > 32 + counted / 500 {
            let Window { what, ticks, .. } = window;
            bail!("C {what}: {counted} instructions by QEMU's plugin, {ticks} by the counter");
        }
    }
    Ok(())
}

/// Takes the plugin's text for one window; answers the window's number.
fn fill(window: &mut Window, counts: &str, cpu: Option<u64>, symbols: &Symbols) -> Result<u64> {
    let mut lines = counts.lines();
    let head: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [number, "hypercalls", hypercalls, "stay", stay, "locked", locked] = head[..] else {
        bail!("the plugin's file is malformed: {head:?}");
    };
    (window.hypercalls, window.stay) = (hypercalls.parse()?, stay.parse()?);
    window.locked = locked.parse()?;
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["cpu", number, "guest", guest, _, hypervisor, _, module, _, kernel, _, user] => {
                let number: u64 = number.parse()?;
                if cpu.is_none_or(|cpu| cpu == number) {
                    let sums = [guest, hypervisor, module, kernel, user];
                    for (sum, more) in window.classes.iter_mut().zip(sums) {
                        *sum += more.parse::<u64>()?;
                    }
                }
            }
            ["at", class, address, runs, instructions] => {
                let address = u64::from_str_radix(address, 16)?;
                let (name, first) = symbols.name(address).unwrap_or(("?", false));
                let key = (class.to_owned(), name.to_owned());
                let (calls, sum) = window.functions.entry(key).or_default();
                *calls += if first { runs.parse::<u64>()? } else { 0 };
                *sum += instructions.parse::<u64>()?;
            }
            ["locked", address, instructions] => {
                let address = u64::from_str_radix(address, 16)?;
                let name = symbols.place(address).unwrap_or_else(|| format!("{address:#x}"));
                *window.lockers.entry(name).or_default() += instructions.parse::<u64>()?;
            }
            _ => bail!("the plugin's file is malformed: {line}"),
        }
    }
    Ok(number.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: &str = "window 1 hypercalls 2 stay 80 locked 6\n\
        cpu 0 guest 1 hypervisor 80 module 14 kernel 20 user 5\n\
        cpu 1 guest 0 hypervisor 8 module 0 kernel 0 user 0\n\
        at module ffff80007a001000 2 14\n\
        locked ffff80007a001000 6\n\
        window 2 hypercalls 0 stay 0 locked 0\n\
        cpu 0 guest 0 hypervisor 0 module 0 kernel 0 user 7\n";

    fn console() -> Vec<String> {
        let line = |number: u32, cpu: &str| {
            format!(
                r#"##window {{"window":{number},"id":"B1","what":"w","events":2,"ticks":9{cpu}}}"#
            )
        };
        vec![line(1, r#","cpu":0"#), "noise".to_owned(), line(2, "")]
    }

    #[test]
    fn console_and_plugin_are_joined() {
        let windows = join(&console(), COUNTS, &Symbols::default()).unwrap();
        assert_eq!(windows[0].classes, [1, 80, 14, 20, 5], "CPU 0 alone");
        assert_eq!((windows[0].hypercalls, windows[0].stay, windows[0].locked), (2, 80, 6));
        assert_eq!(windows[0].cost(), 119);
        assert_eq!(windows[0].lockers["0xffff80007a001000"], 6);
        assert_eq!(windows[0].functions.values().copied().collect::<Vec<_>>(), [(0, 14)]);
        assert_eq!(windows[1].classes, [0, 0, 0, 0, 7]);
    }

    #[test]
    fn windows_that_do_not_match_are_errors() {
        let two = COUNTS.rfind("window 2").unwrap();
        assert!(join(&console(), &COUNTS[..two], &Symbols::default()).is_err());
        assert!(join(&console()[..1], COUNTS, &Symbols::default()).is_err());
        assert!(
            join(&console(), &COUNTS.replace("window 2", "window 3"), &Symbols::default()).is_err()
        );
        assert!(join(&[], COUNTS, &Symbols::default()).is_err());
        assert!(join(&[], "", &Symbols::default()).unwrap().is_empty(), "not each has windows");
    }

    #[test]
    fn calibration_shows_whether_all_was_counted() {
        let window = |ticks, counted| Window {
            id: "C".to_owned(),
            ticks,
            classes: [counted, 0, 0, 0, 0],
            ..Window::default()
        };
        check_clock(&[window(10_048, 10_000), window(16, 4)]).unwrap();
        let error = check_clock(&[window(11_000, 10_000)]).unwrap_err().to_string();
        assert!(error.contains("10000 instructions by QEMU's plugin, 11000"), "{error}");
        check_clock(&[Window { id: "B11".to_owned(), ..window(11_000, 10_000) }]).unwrap();
    }

    #[test]
    fn other_numbers_are_read() {
        let line = r#"##value {"id":"B8","what":"per VM","value":7,"unit":"bytes"}"#.to_owned();
        let found = values(&[line]).unwrap();
        assert_eq!((found[0].value, found[0].unit.as_str()), (7, "bytes"));
        assert!(values(&["##value {}".to_owned()]).is_err());
    }
}
