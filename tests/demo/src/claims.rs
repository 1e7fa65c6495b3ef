// SPDX-License-Identifier: Apache-2.0
//! The demo's claims: what it says happens, and whether it did.

use crate::screen::Screen;

/// What was observed: why a claim held, or why it did not.
pub type Observed = Result<String, String>;

/// A claim with its verdict.
struct Claim {
    /// One word, for reports.
    name: &'static str,
    /// A sentence, for people.
    text: &'static str,
    observed: Observed,
}

/// All claims so far, in order.
pub struct Claims {
    screen: Screen,
    claims: Vec<Claim>,
}

impl Claims {
    /// No claims yet.
    pub fn new(screen: Screen) -> Self {
        Self { screen, claims: Vec::new() }
    }

    /// The screen that verdicts are shown on.
    pub fn screen(&self) -> Screen {
        self.screen
    }

    /// Records a claim and shows its verdict.
    pub fn record(&mut self, name: &'static str, text: &'static str, observed: Observed) {
        let (Ok(details) | Err(details)) = &observed;
        let separator = if details.is_empty() { "" } else { ": " };
        self.screen.verdict(observed.is_ok(), &format!("{text}{separator}{details}"));
        self.claims.push(Claim { name, text, observed });
    }

    /// Shows all of them, and lines for the test harness; returns whether all held.
    pub fn summarize(&self) -> bool {
        let failed: Vec<&str> =
            self.claims.iter().filter(|claim| claim.observed.is_err()).map(|it| it.name).collect();
        for claim in &self.claims {
            self.screen.verdict(claim.observed.is_ok(), claim.text);
        }
        let held = self.claims.len() - failed.len();
        self.screen.note(&format!("{held} of {} claims held", self.claims.len()));
        for claim in &self.claims {
            let verdict = match &claim.observed {
                Ok(_) => "ok".to_owned(),
                Err(why) => format!("failed {}", why.replace('\n', " ")),
            };
            self.screen.marker(&format!("##demo-claim {} {verdict}", claim.name));
        }
        if failed.is_empty() && !self.claims.is_empty() {
            self.screen.marker("##demo-result ok");
        } else {
            self.screen.marker(&format!("##demo-result failed: {}", failed.join(", ")));
        }
        failed.is_empty() && !self.claims.is_empty()
    }
}

/// A claim that holds if `held`, with what was seen in either case.
pub fn observed(held: bool, good: impl Into<String>, bad: impl Into<String>) -> Observed {
    if held {
        Ok(good.into())
    } else {
        Err(bad.into())
    }
}

/// A claim that holds if nothing went wrong.
pub fn attempted(result: anyhow::Result<String>) -> Observed {
    result.map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_claim_fails_the_demo_and_so_does_none() {
        let mut claims = Claims::new(Screen::new());
        assert!(!claims.summarize());
        claims.record("a", "a happens", observed(true, "", ""));
        assert!(claims.summarize());
        claims.record("b", "b happens", observed(false, "it did", "it did not"));
        assert!(!claims.summarize());
    }
}
