//! Texts of errors without what nobody may see in a log.
//!
//! object_store's errors have URLs in them, whose queries may hold signatures and tokens, and the
//! bodies of answers, some of which repeat the headers of the request.

use super::credentials::Secret;
use std::error::Error as StdError;

/// Enough to tell what is wrong.
const CHARS_MAX: usize = 500;

/// What follows these is a secret.
const CUES: &[&str] = &[
    "authorization:",
    "bearer ",
    "security-token",
    "signature=",
    "sig=",
    "stringtosign",
    "string to sign",
];

/// An error and its causes, outermost first, without those that repeat the ones before.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// What may be shown of an error's text. `secrets` are those of the credential in use.
pub(super) fn redact(text: &str, secrets: &[Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if !secret.expose().is_empty() {
            text = text.replace(secret.expose(), "***");
        }
    }
    let text = without_queries(&without_markup(&text));
    let lower = text.to_ascii_lowercase();
    let end = CUES
        .iter()
        .filter_map(|cue| lower.find(cue))
        .min()
        .unwrap_or(text.len());
    let shown = text.get(..end).unwrap_or_default();
    let words: Vec<&str> = shown.split_whitespace().collect();
    let words = words.join(" ");
    match words.char_indices().nth(CHARS_MAX) {
        None if end == text.len() => words,
        None => format!("{words} …"),
        Some((cut, _)) => format!("{} …", words.get(..cut).unwrap_or_default()),
    }
}

/// Of a body in XML or HTML, code and message only.
fn without_markup(text: &str) -> String {
    let begins = |after: &str| {
        let next = after.chars().next();
        next.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '?' | '!' | '/'))
    };
    let Some((before, body)) = text
        .match_indices('<')
        .map(|(at, _)| text.split_at(at))
        .find(|(_, body)| begins(body.trim_start_matches('<')))
    else {
        return text.to_owned();
    };
    let parts: Vec<&str> = ["Code", "Message"]
        .iter()
        .filter_map(|tag| element(body, tag))
        .collect();
    format!("{before}{}", parts.join(": "))
}

fn element<'a>(body: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{tag}>"))?;
    let (content, _) = rest.split_once(&format!("</{tag}>"))?;
    Some(content)
}

/// Cuts the queries, and users with their passwords, of all URLs.
fn without_queries(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>');
    let mut rest = text;
    while let Some(at) = rest.find(ends) {
        let (word, after) = rest.split_at(at);
        push_word(&mut result, word);
        let mut separator = after.chars();
        result.extend(separator.next());
        rest = separator.as_str();
    }
    push_word(&mut result, rest);
    result
}

fn push_word(result: &mut String, word: &str) {
    let (word, query) = match word.split_once('?') {
        Some((before, query)) if query.contains('=') || word.contains("://") => (before, true),
        _ => (word, false),
    };
    match word.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            result.extend([scheme, "://", host, path]);
        }
        None => result.push_str(word),
    }
    if query {
        result.push_str("?…");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        redact(text, &[Secret::new("s3cr3t")])
    }

    #[test]
    fn urls_keep_neither_queries_nor_users() {
        assert_eq!(
            redacted(
                "Error performing GET https://a.blob.core.windows.net/c/k?sv=1&sig=hush in 3ms - HTTP error"
            ),
            "Error performing GET https://a.blob.core.windows.net/c/k?… in 3ms - HTTP error"
        );
        assert_eq!(
            redacted("source \"/c/k?se=2&sp=hush\" of (http://me:hush@proxy:3128/x)"),
            "source \"/c/k?…\" of (http://proxy:3128/x)"
        );
        assert_eq!(redacted("is it there? a=b"), "is it there? a=b");
        assert_eq!(redacted("s3://b/k is missing"), "s3://b/k is missing");
    }

    #[test]
    fn of_a_body_code_and_message_are_left() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error>\
                    <Code>SignatureDoesNotMatch</Code><Message>The signature\nis wrong.</Message>\
                    <CanonicalRequest>x-amz-security-token:hush</CanonicalRequest></Error>";
        assert_eq!(
            redacted(body),
            "Server returned non-2xx status code: 403 Forbidden: SignatureDoesNotMatch: The signature is wrong."
        );
        assert_eq!(redacted("bad: <html><body>hush</body></html>"), "bad:");
        assert_eq!(redacted("1 < 2"), "1 < 2");
    }

    #[test]
    fn secrets_go_wherever_they_are() {
        assert_eq!(redacted("key s3cr3t is wrong"), "key *** is wrong");
        assert_eq!(
            redacted("{\"header\": \"Authorization: hush\"}"),
            "{\"header\": \" …"
        );
        assert!(!redacted("String to sign used was hush").contains("hush"));
        assert!(!redacted("X-Amz-Security-Token=hush").contains("hush"));
        assert_eq!(redacted(&"ab ".repeat(1000)).chars().count(), CHARS_MAX + 2);
    }
}
