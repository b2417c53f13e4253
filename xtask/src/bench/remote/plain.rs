//! A client that only reads objects: ranges of some megabytes, over several connections at once.

use crate::stores::proxy::http::{Length, response_head};
use crate::stores::{BUCKET, Object};
use crate::{Context, Result};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const CONNECTIONS: usize = 8;
const RANGE_BYTES: u64 = 8 << 20;
/// For a socket on which nothing happens.
const LIMIT: Duration = Duration::from_secs(60);

struct Range<'a> {
    key: &'a str,
    start: u64,
    /// The byte behind it.
    end: u64,
}

/// Reads objects of a store that checks no signatures; returns how many bytes that were.
pub fn read(port: u16, objects: &[Object]) -> Result<u64> {
    let queue = Mutex::new(objects.iter().flat_map(ranges));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..CONNECTIONS)
            .map(|_| scope.spawn(|| connection(port, next)))
            .collect();
        readers
            .into_iter()
            .map(|reader| {
                let read = reader.join();
                read.unwrap_or_else(|_| Err("a reader has panicked".to_owned()))
            })
            .sum()
    })
}

fn ranges(object: &Object) -> impl Iterator<Item = Range<'_>> {
    let starts = (0..object.size.div_ceil(RANGE_BYTES)).map(|nth| nth * RANGE_BYTES);
    starts.map(|start| Range {
        key: &object.key,
        start,
        end: object.size.min(start + RANGE_BYTES),
    })
}

/// Reads ranges as long as there are any.
fn connection<'a>(port: u16, next: impl Fn() -> Option<Range<'a>>) -> Result<u64> {
    let stream = TcpStream::connect(("127.0.0.1", port)).context("the store")?;
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(LIMIT)))
        .and_then(|()| stream.set_write_timeout(Some(LIMIT)))
        .context("the store")?;
    let mut stream = BufReader::new(stream);
    let mut buffer = vec![0; RANGE_BYTES as usize];
    let mut bytes = 0;
    while let Some(range) = next() {
        bytes += get(&mut stream, port, &range, &mut buffer)?;
    }
    Ok(bytes)
}

fn get(
    stream: &mut BufReader<TcpStream>,
    port: u16,
    range: &Range<'_>,
    buffer: &mut [u8],
) -> Result<u64> {
    let Range { key, start, end } = *range;
    let request = format!(
        "GET /{BUCKET}/{key} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nRange: bytes={start}-{}\r\n\r\n",
        end - 1
    );
    stream
        .get_mut()
        .write_all(request.as_bytes())
        .context(key)?;
    let head = response_head(stream).context(key)?;
    let wanted = (end - start) as usize;
    let length = head.response_length("GET").context(key)?;
    if head.status() != 206 || length != Length::Bytes(wanted) {
        return Err(format!("{key}: {}, not {wanted} bytes", head.line));
    }
    stream.read_exact(&mut buffer[..wanted]).context(key)?;
    Ok(end - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_an_object() {
        let of = |size| -> Vec<(u64, u64)> {
            let key = "k".to_owned();
            let object = Object { key, size };
            let ranges = ranges(&object).map(|range| (range.start, range.end));
            ranges.collect()
        };
        assert!(of(0).is_empty());
        assert_eq!(of(1), [(0, 1)]);
        assert_eq!(of(RANGE_BYTES), [(0, RANGE_BYTES)]);
        assert_eq!(
            of(RANGE_BYTES + 5),
            [(0, RANGE_BYTES), (RANGE_BYTES, RANGE_BYTES + 5)]
        );
    }
}
