//! Blocks of the disk cache that this process reads from the files of their owner, which has said where they are. See
//! `cache/src/place.rs` for why that is safe.

use crate::runtime::blocking;
use bytes::Bytes;
use pg_lake_cache::Places;
use pg_lake_plan::message::{self, WireError};
use pg_lake_plan::store::BLOCK_BYTES;
use std::ops::Range;
use tokio_util::sync::CancellationToken;

/// `None`: a path isn't a text.
pub(crate) fn to_message(places: Places) -> Option<message::Places> {
    let files = places.files.into_iter();
    let blocks = places.blocks.into_iter().map(|place| message::Place {
        block: place.block,
        file: place.file,
        offset: place.offset,
        sums: place.sums.to_vec(),
    });
    Some(message::Places {
        files: files
            .map(|file| file.into_os_string().into_string().ok())
            .collect::<Option<_>>()?,
        blocks: blocks.collect(),
    })
}

fn from_message(places: message::Places) -> Places {
    let blocks = places.blocks.into_iter().map(|place| pg_lake_cache::Place {
        block: place.block,
        file: place.file,
        offset: place.offset,
        sums: place.sums.into(),
    });
    Places {
        blocks: blocks.collect(),
        files: places.files.into_iter().map(Into::into).collect(),
    }
}

/// Reads ranges of a data file of that size, on a thread that may block; it stops soon if this is dropped. `None`: they
/// aren't where they were.
pub(crate) async fn read(
    places: message::Places,
    size: u64,
    ranges: Vec<Range<u64>>,
) -> Result<Option<Vec<Bytes>>, WireError> {
    let dropped = CancellationToken::new();
    let _guard = dropped.clone().drop_guard();
    blocking("reading the disk cache", move || {
        let goes_on = || !dropped.is_cancelled();
        Ok(from_message(places).read(size, BLOCK_BYTES, &ranges, goes_on))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn places() -> Places {
        Places {
            files: vec![PathBuf::from("/cache/shard-00/segment-00000001")],
            blocks: vec![pg_lake_cache::Place {
                block: 7,
                file: 0,
                offset: 3 << 20,
                sums: [1, 2, 3].into(),
            }],
        }
    }

    #[test]
    fn messages_say_the_same() {
        let message = to_message(places()).expect("texts");
        let encoded = pg_lake_plan::encode(&message).expect("encoded");
        let decoded = pg_lake_plan::decode(&encoded).expect("decoded");
        assert_eq!(message, decoded);
        assert_eq!(from_message(decoded), places());
    }

    #[test]
    fn a_path_that_is_no_text_has_no_message() {
        use std::os::unix::ffi::OsStringExt;
        let mut places = places();
        let path = std::ffi::OsString::from_vec(vec![b'/', 0xff]);
        places.files.push(path.into());
        assert_eq!(to_message(places), None);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_read() {
        let message = to_message(places()).expect("texts");
        let read = read(
            message,
            8 << 20,
            vec![Range {
                start: 7 << 20,
                end: 8 << 20,
            }],
        )
        .await;
        assert_eq!(read, Ok(None));
    }
}
