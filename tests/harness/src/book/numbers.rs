// SPDX-License-Identifier: Apache-2.0
//! `docs/abi.md` has the ABI's numbers for readers: rows "| `name` | `value` | ...". Each is what
//! `driver/abi` says, and nothing that has a number there is missing.

use std::collections::BTreeMap;

use crate::source::Source;

const PAGE: &str = "docs/abi.md";
/// Files of `driver/abi` whose constants the page has.
const FILES: [&str; 4] = ["uapi", "hvc", "guest", "cap"];
/// Differences between the page and the ABI.
pub fn wrong(sources: &[Source]) -> Vec<String> {
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else {
        return vec![format!("{PAGE} is missing")];
    };
    let abi = calls(sources);
    if FILES.iter().any(|file| !abi.keys().any(|name| name.starts_with(file))) {
        return vec!["a file of driver/abi has no calls, or its form has changed".to_owned()];
    }
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    let mut errors = Vec::new();
    for line in page.text.lines() {
        let Some((name, value)) = row(line) else { continue };
        rows.insert(name, value);
        match abi.get(name) {
            Some(&has) if has == value => (),
            Some(has) => errors.push(format!("{PAGE}: {name} is {has:#x}, not {value:#x}")),
            None => errors.push(format!("{PAGE}: driver/abi has no {name}")),
        }
    }
    let missing = abi.keys().filter(|name| !rows.contains_key(name.as_str()));
    errors.extend(missing.map(|name| format!("{PAGE} has no {name}")));
    errors
}

/// "| `uapi::CREATE_VM` | `0x01` | ...".
fn row(line: &str) -> Option<(&str, u64)> {
    let mut cells = line.strip_prefix("| `")?.split('|');
    let name = cells.next()?.trim().strip_suffix('`')?;
    let value = cells.next()?.trim().strip_prefix('`')?.strip_suffix('`')?;
    Some((name, number(value)?))
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim().replace('_', "");
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// All calls by `file::NAME`: ioctl numbers, indices of hypercalls, ids of guests' calls, capabilities.
fn calls(sources: &[Source]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for file in FILES {
        let path = format!("driver/abi/src/{file}.rs");
        let Some(source) = sources.iter().find(|source| source.path == path) else { continue };
        for line in source.text.lines() {
            if let Some((name, value)) = call(file, line) {
                found.insert(format!("{file}::{name}"), value);
            }
        }
    }
    found
}

fn call<'a>(file: &str, line: &'a str) -> Option<(&'a str, u64)> {
    if file == "hvc" {
        // A line of `functions!`.
        let (name, value) = line.strip_prefix("    ")?.strip_suffix(',')?.split_once(" = ")?;
        let upper = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        return Some((name, number(value)?)).filter(|_| upper);
    }
    let (name, value) = line.strip_prefix("pub const ")?.strip_suffix(';')?.split_once(": ")?;
    let (kind, value) = value.split_once(" = ")?;
    match file {
        "uapi" => {
            let (_, rest) = value.strip_prefix("ioc(")?.split_once(", ")?;
            Some((name, number(rest.split(',').next()?)?))
        }
        // Ids of calls; answers are signed, arguments small.
        "guest" => Some((name, number(value)?)).filter(|_| kind == "u32"),
        _ => Some((name, number(value)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(page: &str) -> Vec<String> {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        wrong(&[
            source(PAGE, page),
            source("driver/abi/src/uapi.rs", "pub const RUN: u32 = ioc(DIR_NONE, 0x80, 0);\n"),
            source("driver/abi/src/hvc.rs", "functions! {\n    PROBE = 12,\n    x = 1,\n}\n"),
            source(
                "driver/abi/src/guest.rs",
                "pub const PTP: u32 = 0x8600_0001;\npub const OK: i64 = 0;\n",
            ),
            source("driver/abi/src/cap.rs", "pub const VM_GPA_SIZE: u64 = 0xa5;\n"),
        ])
    }

    const GOOD: &str = "| call | number |\n| --- | --- |\n| `uapi::RUN` | `0x80` | x |\n\
        | `hvc::PROBE` | `12` | x |\n| `guest::PTP` | `0x8600_0001` | x |\n| `cap::VM_GPA_SIZE` | `0xa5` | x |\n";

    #[test]
    fn a_true_page_has_no_errors() {
        assert_eq!(errors(GOOD), Vec::<String>::new());
    }

    #[test]
    fn wrong_missing_and_extra_rows_are_named() {
        assert_eq!(
            errors(&GOOD.replace("0x80", "0x81")),
            ["docs/abi.md: uapi::RUN is 0x80, not 0x81"]
        );
        assert_eq!(
            errors(&GOOD.replace("| `hvc::PROBE`", "| PROBE")),
            ["docs/abi.md has no hvc::PROBE"]
        );
        let more = format!("{GOOD}| `hvc::GONE` | `6` | x |\n");
        assert_eq!(errors(&more), ["docs/abi.md: driver/abi has no hvc::GONE"]);
        assert!(wrong(&[])[0].contains("is missing"));
    }
}
