//! What a check reports.

use std::collections::HashSet;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Rows can't be read, or are about to be lost, here or by readers of what is published.
    Error,
    /// Something is in a wrong state that does no harm yet, or takes space for nothing.
    Warning,
    /// Left over, and harmless.
    Notice,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        }
    }
}

/// One difference.
pub struct Problem {
    pub severity: Severity,
    pub kind: &'static str,
    /// What it is about: a path relative to the data directory, as a rule.
    pub object: String,
    /// A sentence.
    pub detail: String,
}

/// Those of one look.
#[derive(Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn add(
        &mut self,
        severity: Severity,
        kind: &'static str,
        object: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.0.push(Problem {
            severity,
            kind,
            object: object.into(),
            detail: detail.into(),
        });
    }

    pub fn error(&mut self, kind: &'static str, object: &str, detail: impl Into<String>) {
        self.add(Severity::Error, kind, object, detail);
    }

    pub fn warning(&mut self, kind: &'static str, object: &str, detail: impl Into<String>) {
        self.add(Severity::Warning, kind, object, detail);
    }

    pub fn notice(&mut self, kind: &'static str, object: &str, detail: impl Into<String>) {
        self.add(Severity::Notice, kind, object, detail);
    }
}

/// The problems that two looks find. While others write, a single one may catch them halfway; what it
/// finds then is over by the second.
pub fn confirmed(mut look: impl FnMut() -> Problems) -> Vec<Problem> {
    let first = look().0;
    if first.is_empty() {
        return first;
    }
    crate::pg::check_for_interrupts();
    let first: HashSet<_> = first
        .iter()
        .map(|problem| (problem.kind, problem.object.clone()))
        .collect();
    let mut found = look().0;
    found.retain(|problem| first.contains(&(problem.kind, problem.object.clone())));
    found.sort_by_cached_key(|problem| (problem.severity, problem.kind, problem.object.clone()));
    found
}
