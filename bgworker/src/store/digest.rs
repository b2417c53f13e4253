//! The digest of what is sent, and what a store says of the digest of what it has got.
//!
//! MD5 is what stores know: they compare a body with its `Content-MD5`, and the entity tag of an object, or of a part
//! of one, is the MD5 of its content. Not everywhere, an encrypted object has another one; that is found out once by
//! reading an object back. This is about damage on the way, nothing of it about security.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5 as Hasher};
use pg_lake_plan::store::Checksums;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// Both sums are taken of so many bytes before they leave the processor's cache.
const PIECE: usize = 64 << 10;

/// Shown as entity tags have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Md5([u8; 16]);

impl Md5 {
    pub fn of(bytes: &[u8]) -> Md5 {
        Md5(Hasher::digest(bytes).into())
    }

    /// As `Content-MD5` has it.
    pub fn base64(self) -> String {
        BASE64_STANDARD.encode(self.0)
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The entity tag of an object that was put together from parts.
pub(super) fn joined(parts: &[Md5]) -> String {
    let mut md5 = Hasher::new();
    parts.iter().for_each(|part| md5.update(part.0));
    format!("{}-{}", Md5(md5.finalize().into()), parts.len())
}

/// What is to be in a store.
#[derive(Clone)]
pub(super) struct Content {
    pub bytes: Bytes,
    pub md5: Md5,
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Content {
        let md5 = Md5::of(&bytes);
        Content { bytes, md5 }
    }
}

impl Content {
    /// With the checksums of its blocks, in one pass.
    pub fn with_checksums(bytes: Bytes) -> (Content, Vec<u32>) {
        let mut md5 = Hasher::new();
        let mut checksums = Checksums::default();
        for piece in bytes.chunks(PIECE) {
            md5.update(piece);
            checksums.update(piece);
        }
        let md5 = Md5(md5.finalize().into());
        (Content { bytes, md5 }, checksums.finish())
    }
}

/// What an entity tag says of the content that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// The store has something else, or its tags are no digests.
    Doubtful,
    /// The tag is none that could be a digest, or the store's are known not to be.
    Silent,
}

/// What is known of the entity tags of a store. It can change: a bucket may be encrypted from some day on.
#[derive(Debug, Default)]
pub(super) struct ETags(AtomicU8);

/// None was a digest, and one was not that of the content that the store had.
const OPAQUE: u8 = 1;
/// The last that could be one was a digest. Numbers above count those since then that were not, although the store had
/// the content.
const DIGESTS: u8 = 2;
/// So many of these, and tags are digests no more. A single one may have been damaged itself, on its way back.
const EXCEPTIONS_MAX: u8 = 3;

impl ETags {
    /// `expected` is the tag that the content has where tags are digests.
    pub fn judge(&self, e_tag: Option<&str>, expected: &str) -> Verdict {
        let tag = e_tag.unwrap_or_default().trim_matches('"');
        if !is_digest(tag) || tag.contains('-') != expected.contains('-') {
            return Verdict::Silent;
        }
        if tag.eq_ignore_ascii_case(expected) {
            self.0.store(DIGESTS, Ordering::Relaxed);
            return Verdict::Right;
        }
        match self.0.load(Ordering::Relaxed) {
            OPAQUE => Verdict::Silent,
            _ => Verdict::Doubtful,
        }
    }

    pub fn are_digests(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= DIGESTS
    }

    /// A tag was another one than that of the content, and the store has the content.
    pub fn found_opaque(&self) {
        let next = |known: u8| match known {
            0 | OPAQUE => OPAQUE,
            known if known + 1 >= DIGESTS + EXCEPTIONS_MAX => OPAQUE,
            known => known + 1,
        };
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
                Some(next(known))
            });
    }
}

/// Whether a tag, without its quotation marks, looks like a digest, or like one with the number of parts.
fn is_digest(tag: &str) -> bool {
    let (digest, parts) = tag.split_once('-').unwrap_or((tag, "1"));
    digest.len() == 32
        && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        && parts.parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::store::{BLOCK_BYTES, checksum};

    const ABCD: &str = "e2fc714c4727ee9395f324cd2e7f331f";
    const OTHER: &str = "9a0364b9e99bb480dd25e1f0284c8555";

    #[test]
    fn both_sums_are_of_all_bytes() {
        let bytes: Bytes = (0..BLOCK_BYTES + 7).map(|n| (n % 251) as u8).collect();
        let (content, checksums) = Content::with_checksums(bytes.clone());
        let blocks = bytes.chunks(BLOCK_BYTES as usize).map(checksum);
        assert_eq!(checksums, blocks.collect::<Vec<u32>>());
        assert_eq!(content.md5, Content::from(bytes.clone()).md5);
        assert!(content.bytes == bytes);
        let (nothing, checksums) = Content::with_checksums(Bytes::new());
        let of_nothing = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(nothing.md5.to_string(), of_nothing);
        assert_eq!(checksums, [0; 0]);
        assert_eq!(Md5::of(b"abcd").to_string(), ABCD);
        assert_eq!(Md5::of(b"abcd").base64(), "4vxxTEcn7pOV8yTNLn8zHw==");
    }

    #[test]
    fn a_tag_that_is_no_digest_says_nothing() {
        let e_tags = ETags::default();
        let joined = joined(&[Md5::of(b"abcd")]);
        for (tag, expected) in [
            (None, ABCD),
            (Some(""), ABCD),
            (Some("\"0x8DCABCDEF\""), ABCD),
            (Some("\"CJ7Bpq/qh4sDEAE=\""), ABCD),
            (Some(joined.as_str()), ABCD),
            (Some(ABCD), joined.as_str()),
        ] {
            assert_eq!(e_tags.judge(tag, expected), Verdict::Silent, "{tag:?}");
        }
        assert!(!e_tags.are_digests());
    }

    #[test]
    fn what_tags_are_is_learnt() {
        let e_tags = ETags::default();
        let (right, wrong) = (format!("\"{ABCD}\""), format!("\"{OTHER}\""));
        assert_eq!(e_tags.judge(Some(&wrong), ABCD), Verdict::Doubtful);
        e_tags.found_opaque();
        assert_eq!(e_tags.judge(Some(&wrong), ABCD), Verdict::Silent);
        assert_eq!(e_tags.judge(Some(&right), ABCD), Verdict::Right);
        assert!(e_tags.are_digests());
        e_tags.found_opaque();
        assert_eq!(e_tags.judge(Some(&wrong), ABCD), Verdict::Doubtful);
        let upper = ABCD.to_ascii_uppercase();
        assert_eq!(e_tags.judge(Some(&upper), ABCD), Verdict::Right);
        // That counts from the last digest.
        for _ in 1..EXCEPTIONS_MAX {
            e_tags.found_opaque();
            assert!(e_tags.are_digests());
            assert_eq!(e_tags.judge(Some(&wrong), ABCD), Verdict::Doubtful);
        }
        e_tags.found_opaque();
        assert!(!e_tags.are_digests());
        assert_eq!(e_tags.judge(Some(&wrong), ABCD), Verdict::Silent);
        assert_eq!(e_tags.judge(Some(&right), ABCD), Verdict::Right);
        assert_eq!(e_tags.judge(Some(&wrong), ABCD), Verdict::Doubtful);
    }
}
