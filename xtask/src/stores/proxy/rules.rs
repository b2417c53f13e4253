//! Which requests something happens to, and what.

use crate::pg::random::Random;
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// It is served later.
    Latency(Duration),
    /// The store isn't asked, the answer is an error, after so many seconds to come back.
    Status(u16, Option<u32>),
    /// The connection is reset before the store has heard of it.
    Reset,
    /// The connection ends in the middle of the body: that of the request if it has one, otherwise
    /// that of the response.
    Truncate,
    /// One bit of the body is another one: that of the request if it has one, otherwise that of the
    /// response.
    Flip,
    /// Both bodies take their time, with so many bytes a second.
    Bandwidth(u64),
    /// It shares a network with all others that do, by which so many bytes a second come from the store.
    Network(u64),
    /// Nobody ever answers.
    BlackHole,
    /// The store does it. The client gets a reset.
    LostReply,
    /// Conditions are taken off the request, as if the store didn't know them. Signatures cover them, so
    /// it must be a store that checks none.
    StripConditional,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::Latency(_) => "latency",
            Action::Status(503, _) => "slow down",
            Action::Status(..) => "error",
            Action::Reset => "reset",
            Action::Truncate => "truncate",
            Action::Flip => "flip",
            Action::Bandwidth(_) => "bandwidth",
            Action::Network(_) => "network",
            Action::BlackHole => "black hole",
            Action::LostReply => "lost reply",
            Action::StripConditional => "strip conditional",
        }
    }
}

/// Requests, and an action. All that is said of a request must hold.
#[derive(Clone, Debug)]
pub struct Rule {
    action: Action,
    method: Option<&'static str>,
    path: Option<&'static str>,
    query: Option<&'static str>,
    without: Option<&'static str>,
    skip: u64,
    times: u64,
    chance: u64,
    seen: u64,
    pub(super) hits: u64,
}

/// Of [`Rule::chance`].
const ALWAYS: u64 = 1000;

impl Rule {
    /// For all requests.
    pub fn new(action: Action) -> Rule {
        Rule {
            action,
            method: None,
            path: None,
            query: None,
            without: None,
            skip: 0,
            times: u64::MAX,
            chance: ALWAYS,
            seen: 0,
            hits: 0,
        }
    }

    pub fn method(mut self, method: &'static str) -> Rule {
        self.method = Some(method);
        self
    }

    /// `*` stands for anything. Paths are as they are sent: with the bucket, and encoded.
    pub fn path(mut self, pattern: &'static str) -> Rule {
        self.path = Some(pattern);
        self
    }

    /// What the query contains.
    pub fn query(mut self, part: &'static str) -> Rule {
        self.query = Some(part);
        self
    }

    /// What the query doesn't contain.
    pub fn without(mut self, part: &'static str) -> Rule {
        self.without = Some(part);
        self
    }

    /// Not the first ones.
    pub fn skip(mut self, requests: u64) -> Rule {
        self.skip = requests;
        self
    }

    /// Not more often than that.
    pub fn times(mut self, times: u64) -> Rule {
        self.times = times;
        self
    }

    /// In so many of a thousand cases.
    pub fn chance(mut self, per_mille: u64) -> Rule {
        self.chance = per_mille;
        self
    }

    fn is_about(&self, method: &str, path: &str, query: &str) -> bool {
        self.method.is_none_or(|wanted| wanted == method)
            && self.path.is_none_or(|pattern| matches(pattern, path))
            && self.query.is_none_or(|part| query.contains(part))
            && self.without.is_none_or(|part| !query.contains(part))
    }

    /// Its action, if this request is one that it happens to.
    pub(super) fn decide(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        random: &mut Random,
    ) -> Option<Action> {
        if !self.is_about(method, path, query) {
            return None;
        }
        self.seen += 1;
        let due = self.seen > self.skip && self.hits < self.times;
        if !due || (self.chance < ALWAYS && random.below(ALWAYS) >= self.chance) {
            return None;
        }
        self.hits += 1;
        Some(self.action)
    }
}

/// Whether a text is what a pattern with `*` describes.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(between) = last.replace(part) {
            match rest.split_once(between) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
    }
    match last {
        Some(end) => rest.ends_with(end),
        None => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_describe_paths() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("*", "/a/b", true),
            ("*.parquet", "/lake/x.parquet", true),
            ("*.parquet", "/lake/x.parquet.tmp", false),
            ("/lake/*/data/*.parquet", "/lake/p/1/data/x.parquet", true),
            ("/lake/*/data/*.parquet", "/lake/p/1/x.parquet", false),
            ("*a*", "bab", true),
            ("a*a", "a", false),
            ("*ab*ab", "abab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rules_count() {
        let mut random = Random::new(1);
        let mut rule = Rule::new(Action::Reset)
            .method("PUT")
            .path("*.parquet")
            .query("partNumber=")
            .without("uploads")
            .skip(1)
            .times(2);
        let mut ask = |method, path, query| rule.decide(method, path, query, &mut random);
        assert_eq!(ask("GET", "/b/x.parquet", "partNumber=1"), None);
        assert_eq!(ask("PUT", "/b/x.avro", "partNumber=1"), None);
        assert_eq!(ask("PUT", "/b/x.parquet", ""), None);
        assert_eq!(ask("PUT", "/b/x.parquet", "uploads&partNumber=1"), None);
        let answers: Vec<bool> = (0..4)
            .map(|_| ask("PUT", "/b/x.parquet", "partNumber=1").is_some())
            .collect();
        assert_eq!(answers, [false, true, true, false]);
        assert_eq!(rule.hits, 2);
    }

    #[test]
    fn chances_come_from_the_seed() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            let mut rule = Rule::new(Action::Reset).chance(300);
            (0..1000)
                .map(|_| rule.decide("GET", "/", "", &mut random).is_some())
                .collect::<Vec<bool>>()
        };
        let first = draw(5);
        let hits = first.iter().filter(|hit| **hit).count();
        assert!((200..400).contains(&hits), "{hits} of 1000");
        assert_eq!(first, draw(5));
        assert_ne!(first, draw(7));
    }
}
