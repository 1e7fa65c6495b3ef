// SPDX-License-Identifier: Apache-2.0
//! The bring-up checklist for integrators: a table whose rows are a command, what it prints, and where to
//! look if it does not. Rows with (Q) behind the command are run in QEMU: what stands in backquotes under
//! "expected" must be in the output.

use crate::source::Source;

/// The page with the checklist.
pub const PAGE: &str = "docs/aosp/README.md";
/// Its table's head.
const HEAD: &str = "| command | expected | else |";
/// What makes a command one of root's on a phone: in QEMU everybody is root.
const AS_ROOT: &str = "su root ";
/// Fewer rows than this in QEMU, and the form of the page has changed.
const LEAST: usize = 5;

/// A row of the checklist.
struct Row<'a> {
    command: &'a str,
    in_qemu: bool,
    expected: &'a str,
}

/// Rows that are not what the table promises.
pub fn errors(sources: &[Source]) -> Vec<String> {
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else {
        return vec![format!("{PAGE} is missing")];
    };
    let mut errors = Vec::new();
    for line in rows(&page.text) {
        match row(line) {
            Some(row) if row.in_qemu && quoted(row.expected).is_empty() => {
                errors.push(format!("{PAGE}: {}: nothing in backquotes is expected", row.command));
            }
            Some(_) => (),
            None => errors.push(format!("{PAGE}: no command, or nothing is expected: {line}")),
        }
    }
    let runs = script(&page.text).lines().count();
    if errors.is_empty() && runs < LEAST {
        errors.push(format!("{PAGE}: {runs} lines of the checklist are for QEMU, not {LEAST}"));
    }
    errors
}

/// What QEMU's machine runs: lines "command TAB what it must print".
pub fn script(page: &str) -> String {
    let mut script = String::new();
    for row in rows(page).filter_map(row).filter(|row| row.in_qemu) {
        let command = row.command.replace(AS_ROOT, "").replace("\\|", "|");
        for text in quoted(row.expected) {
            script += &format!("{command}\t{text}\n");
        }
    }
    script
}

/// The lines of the table below its head.
fn rows(page: &str) -> impl Iterator<Item = &str> {
    let table = page.lines().skip_while(|line| *line != HEAD).skip(2);
    table.take_while(|line| line.starts_with('|'))
}

/// "| `command` (Q) | expected | else |"; a bar that is no border has a backslash before it.
fn row(line: &str) -> Option<Row<'_>> {
    let inner = line.strip_prefix("| ")?.strip_suffix('|')?;
    let border = inner.match_indices('|').map(|(at, _)| at);
    let mut borders = border.filter(|&at| !inner[..at].ends_with('\\'));
    let (first, second) = (borders.next()?, borders.next()?);
    let (command, expected) = (inner[..first].trim(), inner[first + 1..second].trim());
    let (command, note) = command.strip_prefix('`')?.split_once('`')?;
    let in_qemu = note.contains("(Q)");
    (!command.is_empty() && !expected.is_empty()).then_some(Row { command, in_qemu, expected })
}

fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &str) -> Source {
        let text = format!("# Kit\n\n{HEAD}\n| --- | --- | --- |\n{rows}\nEnd | here\n");
        Source { path: PAGE.to_owned(), text }
    }

    const GOOD: &str = "| `gzvmctl check` (Q) | `VMs yes`, `protected VMs yes` | says |\n\
        | `su root dmesg \\| grep x` (Q) | `gzvm: x` and `y`, `z` | |\n\
        | `ls -Z` (root) | a label | |\n";

    #[test]
    fn rows_for_qemu_become_a_script() {
        let page = page(GOOD);
        let expected = "gzvmctl check\tVMs yes\ngzvmctl check\tprotected VMs yes\n\
            dmesg \\| grep x\tgzvm: x\ndmesg \\| grep x\ty\ndmesg \\| grep x\tz\n";
        assert_eq!(script(&page.text), expected.replace("\\|", "|"));
        assert_eq!(errors(&[page]), Vec::<String>::new());
    }

    #[test]
    fn rows_that_promise_nothing_are_named() {
        let error = errors(&[page(&format!("{GOOD}| `x` | | |\n"))]);
        assert!(error[0].contains("nothing is expected: | `x`"), "{error:?}");
        let error = errors(&[page(&format!("{GOOD}| look | a | b |\n"))]);
        assert!(error[0].contains("no command"), "{error:?}");
        let error = errors(&[page(&format!("{GOOD}| `x` (Q) | a number | b |\n"))]);
        assert!(error[0].contains("x: nothing in backquotes"), "{error:?}");
        assert!(errors(&[page("| `x` (Q) | `a` | |\n")])[0].contains("1 lines of the checklist"));
        assert!(errors(&[])[0].contains("is missing"));
    }
}
