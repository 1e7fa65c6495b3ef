// SPDX-License-Identifier: Apache-2.0
//! crosvm's structured option values: `4,sve=[auto=true]`, `type=file,path=/x,num=1`.

use thiserror::Error;

/// One part of a value: `key=value`, or a bare word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// What stands before the first `=`, or the whole bare word.
    pub key: &'a str,
    /// What stands behind it.
    pub value: Option<&'a str>,
}

/// Why a value could not be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KvError {
    /// A bracket is missing or too many.
    #[error("unbalanced brackets")]
    Brackets,
    /// There is nothing between two commas.
    #[error("an empty part")]
    Empty,
}

/// Splits a value at the commas that are not inside brackets.
pub fn parse(value: &str) -> Result<Vec<Item<'_>>, KvError> {
    let mut items = Vec::new();
    let mut depth = 0_u32;
    let mut start = 0;
    for (at, c) in value.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.checked_sub(1).ok_or(KvError::Brackets)?,
            ',' if depth == 0 => {
                items.push(item(&value[start..at])?);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err(KvError::Brackets);
    }
    items.push(item(&value[start..])?);
    Ok(items)
}

fn item(part: &str) -> Result<Item<'_>, KvError> {
    match part.split_once('=') {
        Some(("", _)) => Err(KvError::Empty),
        Some((key, value)) => Ok(Item { key, value: Some(value) }),
        None if part.is_empty() => Err(KvError::Empty),
        None => Ok(Item { key: part, value: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair<'a>(key: &'a str, value: &'a str) -> Item<'a> {
        Item { key, value: Some(value) }
    }

    #[test]
    fn commas_in_brackets_do_not_split() {
        assert_eq!(
            parse("mem=[start=0x2c000000,size=0x2000000],cam=[start=1]").unwrap(),
            [pair("mem", "[start=0x2c000000,size=0x2000000]"), pair("cam", "[start=1]")]
        );
    }

    #[test]
    fn bare_words_and_equal_signs_in_values() {
        let items = parse("4,path=a=b").unwrap();
        assert_eq!(items, [Item { key: "4", value: None }, pair("path", "a=b")]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "a,,b", "a,", "=x", "a=[b", "a]"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[a-z=,\\[\\]]{0,40}") {
            if let Ok(items) = parse(&text) {
                let joined: Vec<String> = items
                    .iter()
                    .map(|i| i.value.map_or(i.key.to_owned(), |v| format!("{}={v}", i.key)))
                    .collect();
                prop_assert_eq!(joined.join(","), text);
            }
        }
    }
}
