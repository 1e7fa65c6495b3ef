// SPDX-License-Identifier: Apache-2.0
//! Both forms of a report.

use super::{Answer, Line, Report};
use serde_json::{json, Value};
use std::fmt::Write;

/// Makes a word stand out: the word, and whether it is good (`None`: neither).
pub type Paint<'a> = &'a dyn Fn(&str, Option<bool>) -> String;

/// Columns for the names.
const WIDTH: usize = 22;

impl Report {
    /// For people: a line for each fact, and below it what to do about it.
    pub fn text(&self, paint: Paint<'_>) -> String {
        let mut text = String::new();
        for line in &self.lines {
            print(&mut text, line.name, &line.answer, &line.detail, paint);
            if let (false, Some(remedy)) = (line.answer == Answer::Yes, &line.remedy) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{:WIDTH$}   {remedy}", "");
            }
        }
        for (name, answer) in [("VMs", &self.vms), ("protected VMs", &self.protected_vms)] {
            print(&mut text, name, answer, "", paint);
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let lines: Vec<_> = self.lines.iter().map(json_line).collect();
        json!({
            "checks": lines,
            "vms": self.vms.word(),
            "protected_vms": self.protected_vms.word(),
        })
    }
}

fn print(text: &mut String, name: &str, answer: &Answer, detail: &str, paint: Paint<'_>) {
    let good = match answer {
        Answer::Yes => Some(true),
        Answer::No => Some(false),
        Answer::Unknown(_) => None,
    };
    let mut rest = String::new();
    if let Answer::Unknown(why) = answer {
        rest = format!(" ({why})");
    }
    if !detail.is_empty() {
        rest = format!("{rest}: {detail}");
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name:WIDTH$} {}{rest}", paint(answer.word(), good));
}

fn json_line(line: &Line) -> Value {
    let why = match &line.answer {
        Answer::Unknown(why) => Some(why),
        _ => None,
    };
    let remedy = line.remedy.as_ref().filter(|_| line.answer != Answer::Yes);
    json!({
        "name": line.name,
        "answer": line.answer.word(),
        "why": why,
        "detail": line.detail,
        "remedy": remedy,
    })
}
