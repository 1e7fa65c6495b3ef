// SPDX-License-Identifier: Apache-2.0
//! `docs/troubleshooting.md` is found by error messages, which are its headings: each is one that a
//! program of this tree says.

use crate::source::Source;

const PAGE: &str = "docs/troubleshooting.md";
/// Stands for what differs each time.
const ANYTHING: char = '…';

/// Headings that no source says.
pub fn unsaid(sources: &[Source]) -> Vec<String> {
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else {
        return vec![format!("{PAGE} is missing")];
    };
    let texts: Vec<_> = sources.iter().filter(|source| speaks(&source.path)).map(joined).collect();
    let quotes: Vec<_> = page.text.lines().filter_map(quote).collect();
    if quotes.is_empty() {
        return vec![format!("{PAGE} has no heading that is a message")];
    }
    let unsaid = quotes.into_iter().filter(|quote| !texts.iter().any(|text| says(text, quote)));
    unsaid.map(|quote| format!("{PAGE}: no program says \"{quote}\"")).collect()
}

/// "### `message`".
fn quote(line: &str) -> Option<&str> {
    line.strip_prefix("### `")?.strip_suffix('`')
}

/// Files whose strings people get to see.
fn speaks(path: &str) -> bool {
    let code = [".rs", ".c", ".sh", "init"].iter().any(|end| path.ends_with(end));
    // This check's own tests have messages of their own.
    code && !path.starts_with("tests/harness/src/book/")
}

/// The text with strings that go on in the next line in one piece.
fn joined(source: &Source) -> String {
    let mut text = String::with_capacity(source.text.len());
    let mut rest = source.text.as_str();
    while let Some((before, after)) = rest.split_once("\\\n") {
        text += before;
        rest = after.trim_start();
    }
    text + rest
}

/// Whether one line has all parts of the quotation, in order.
fn says(text: &str, quote: &str) -> bool {
    let parts: Vec<_> = quote.split(ANYTHING).map(str::trim).filter(|p| !p.is_empty()).collect();
    let has = |line: &str| {
        let mut rest = line;
        parts.iter().all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    };
    !parts.is_empty() && text.lines().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(page: &str, code: &str) -> Vec<String> {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        unsaid(&[source(PAGE, page), source("driver/x.rs", code)])
    }

    #[test]
    fn messages_are_found_over_line_ends_and_with_gaps() {
        let code = "    bail!(\"{path}: no memory for {n} \\\n        pages\")";
        assert_eq!(errors("### `…: no memory for … pages`\n", code), Vec::<String>::new());
    }

    #[test]
    fn what_nobody_says_is_named() {
        let error = errors("### `no memory`\n", "say(\"no\\nmemory\")");
        assert_eq!(error, ["docs/troubleshooting.md: no program says \"no memory\""]);
        assert!(!errors("### `…`\n", "anything").is_empty());
        assert!(!errors("## No quotes\n", "").is_empty());
        assert!(unsaid(&[])[0].contains("is missing"));
    }
}
