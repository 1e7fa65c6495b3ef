// SPDX-License-Identifier: Apache-2.0
//! The README's picture of the demo, drawn from the log of a real `make run`: its headings, its verdicts without
//! the repetition at the end, and of what guests say the first lines. A check compares the claims in it with the demo's own.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use anyhow::{bail, Context, Result};

use crate::project::Project;
use crate::source::Source;

/// The picture.
const PICTURE: &str = "docs/demo.svg";
/// Where the demo's claims are.
const DEMO: &str = "tests/demo/src/";
/// The demo's first and last lines.
const FIRST: &str = "=== 1. ";
const LAST: &str = " claims held";
/// The heading below which all verdicts are repeated.
const SUMMARY: &str = ". Summary ===";
/// How a verdict that is good begins.
const GOOD: &str = "  [ ok ] ";
/// How a line of a guest begins.
const QUOTE: &str = "  | ";
/// Of what each guest says, so many lines are shown, and of each so many characters.
const QUOTED: usize = 3;
const WIDTH: usize = 112;
/// Sizes in pixels: a line, a character, the border.
const LINE: usize = 17;
const CHARACTER: f64 = 7.23;
const BORDER: usize = 16;

/// Draws it from what the last `run` printed.
///
/// # Errors
///
/// When there is no such log, or the demo did not hold all its claims.
pub fn draw(project: &Project) -> Result<()> {
    let log = project.log("demo");
    let text = fs::read_to_string(&log).context("run the demo first: make run")?;
    let lines = shown(&text);
    if !lines.last().is_some_and(|line| line.contains(LAST)) || !complete(&lines) {
        bail!("{}: not all claims of the demo held: make run", log.display());
    }
    let picture = project.top.join(PICTURE);
    fs::write(&picture, svg(&lines)).with_context(|| format!("cannot write {PICTURE}"))?;
    println!("{}", picture.display());
    Ok(())
}

/// "16 of 16 claims held".
fn complete(lines: &[String]) -> bool {
    let Some(total) = lines.iter().rev().find_map(|line| line.trim().strip_suffix(LAST)) else {
        return false;
    };
    total.split_once(" of ").is_some_and(|(held, all)| held == all)
}

/// The lines that the picture has.
fn shown(log: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let (mut quoted, mut repeats) = (0, false);
    let lines = log.lines().map(|line| plain(line.trim_end()));
    for line in lines.skip_while(|line| !line.starts_with(FIRST)) {
        let is_quote = line.starts_with(QUOTE);
        quoted = if is_quote { quoted + 1 } else { 0 };
        repeats |= line.ends_with(SUMMARY);
        let again = repeats && line.starts_with(GOOD);
        if line.is_empty() || line.starts_with("##") || again || quoted > QUOTED + 1 {
            continue;
        }
        if quoted > QUOTED {
            shown.push(format!("{QUOTE}..."));
        } else if is_quote || [GOOD, "  ", "==="].iter().any(|start| line.starts_with(start)) {
            shown.push(cut(&line));
        }
        if line.ends_with(LAST) {
            break;
        }
    }
    shown
}

/// A line as far as it fits.
fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

/// A line without what colours a terminal.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        text += before;
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    text + rest
}

fn svg(lines: &[String]) -> String {
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    // CAST: a few hundred characters.
    let width = (longest as f64 * CHARACTER).ceil() as usize + 2 * BORDER;
    let height = lines.len() * LINE + 2 * BORDER;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"12\" fill=\"#d0d0d0\">\n\
         <!-- SPDX-License-Identifier: Apache-2.0 -->\n\
         <title>What make run prints</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16181d\"/>\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let y = BORDER + index * LINE + LINE - 5;
        // Writing to a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{BORDER}\" y=\"{y}\" xml:space=\"preserve\">{}</text>",
            coloured(line)
        );
    }
    svg + "</svg>\n"
}

/// A line in the colours that a terminal shows.
fn coloured(line: &str) -> String {
    let paint = |colour: &str, text: &str| format!("<tspan fill=\"{colour}\">{text}</tspan>");
    let text = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if text.starts_with("===") {
        paint("#4fc1d9", &text)
    } else if let Some(claim) = text.strip_prefix(GOOD) {
        format!("{}{claim}", paint("#62c073", GOOD))
    } else if text.starts_with(QUOTE) {
        paint("#8a8f99", &text)
    } else {
        text
    }
}

/// Claims of the demo that the picture does not have, and what it shows that is none.
pub fn stale(sources: &[Source]) -> Vec<String> {
    let Some(picture) = sources.iter().find(|source| source.path == PICTURE) else {
        return vec![format!("{PICTURE} is missing: make run, then cargo xtask picture")];
    };
    let demo = sources.iter().filter(|source| source.path.starts_with(DEMO));
    let code: String = demo.filter_map(|source| source.text.split("#[cfg(test)]").next()).collect();
    let drawn = picture.text.lines().filter(|line| line.contains(GOOD.trim()));
    let drawn: BTreeSet<_> = drawn.filter_map(claim).collect();
    let mut errors: Vec<_> = drawn
        .iter()
        .filter(|claim| !code.contains(&format!("\"{claim}\"")))
        .map(|claim| format!("{PICTURE} shows the claim \"{claim}\", which the demo does not make"))
        .collect();
    // Some calls have the name on a line of its own, so that names are counted, not texts compared.
    let made = code.matches("claims.record(").count();
    let summary = format!("{} of {} claims held", drawn.len(), drawn.len());
    if drawn.len() != made || !picture.text.contains(&summary) {
        errors.push(format!("{PICTURE} has {} claims, the demo {made}", drawn.len()));
    }
    if !errors.is_empty() {
        errors.push("draw it again: make run, then cargo xtask picture".to_owned());
    }
    errors
}

/// The claim of a verdict in the picture: its details follow behind a colon.
fn claim(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("</tspan>")?;
    let text = rest.strip_suffix("</text>")?.replace("&lt;", "<").replace("&gt;", ">");
    let text = text.replace("&amp;", "&");
    Some(text.split_once(": ").map_or(&*text, |(claim, _)| claim).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "qemu-system-aarch64 -M virt\n\n\x1b[1;36m=== 1. Host ===\x1b[0m\n\
        \x20 [ ok ] a happens: saw <it>\n  | one\n  | two\n  | three\n  | four\n  | five\n\
        \x20 [ ok ] b happens\n\n=== 2. Summary ===\n  [ ok ] a happens\n  [ ok ] b happens\n\
        \x20 2 of 2 claims held\n##demo-claim a ok\nreboot: Power down\n";

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    const CODE: &str = "self.claims.record(\"a\", \"a happens\", x); \
        claims.record(\"b\", \"b happens\", y); fn record() {}";

    #[test]
    fn the_picture_has_headings_verdicts_and_the_first_lines_of_guests() {
        let lines = shown(LOG);
        let expected = [
            "=== 1. Host ===",
            "  [ ok ] a happens: saw <it>",
            "  | one",
            "  | two",
            "  | three",
            "  | ...",
            "  [ ok ] b happens",
            "=== 2. Summary ===",
            "  2 of 2 claims held",
        ];
        assert_eq!(lines, expected);
        assert!(complete(&lines));
        assert!(!complete(&shown(&LOG.replace("2 of 2", "1 of 2"))));
    }

    #[test]
    fn a_picture_of_another_demo_is_stale() {
        let picture = svg(&shown(LOG));
        let check = |picture: &str, code: &str| {
            stale(&[source(PICTURE, picture), source("tests/demo/src/x.rs", code)])
        };
        assert_eq!(check(&picture, CODE), Vec::<String>::new());
        let error = check(&picture, &CODE.replace("b happens", "c happens"));
        assert!(error[0].contains("\"b happens\", which the demo does not make"), "{error:?}");
        let error = check(&picture, &format!("{CODE} claims.record(\"c\", \"c happens\", z)"));
        assert!(error[0].contains("2 claims, the demo 3"), "{error:?}");
        assert!(stale(&[])[0].contains("is missing"));
    }
}
