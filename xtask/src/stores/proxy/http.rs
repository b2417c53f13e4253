//! As much of HTTP/1.1 as a proxy between an object store and its client needs, or a client without one.
//!
//! Bodies are read whole: those of stores have a known length and are some megabytes. A request's last
//! byte stays in the kernel until the request is answered, since closing a socket with unread bytes is
//! what makes Linux send a reset.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read};
use std::net::TcpStream;

const HEAD_MAX: usize = 64 << 10;
const BODY_MAX: usize = 512 << 20;
/// Read at once.
const PIECE: usize = 64 << 10;

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// The first line and the headers of a message.
#[derive(Clone, Debug)]
pub struct Head {
    pub line: String,
    pub headers: Vec<(String, String)>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    None,
    Bytes(usize),
    Chunked,
    /// Up to the end of the connection; responses only.
    ToEnd,
}

impl Head {
    pub fn parse(bytes: &[u8]) -> io::Result<Head> {
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("a head is not UTF-8"))?;
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let line = lines.next().ok_or_else(|| malformed("an empty head"))?;
        let mut headers = Vec::new();
        for header in lines {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| malformed("a header without a colon"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Head {
            line: line.to_owned(),
            headers,
        })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn has(&self, name: &str, word: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }

    pub fn remove(&mut self, name: &str) {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// A word of the first line: method, target and version, or version, status and reason.
    pub fn word(&self, nth: usize) -> &str {
        self.line.splitn(3, ' ').nth(nth).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// Whether the connection ends with this message.
    pub fn closes(&self) -> bool {
        self.has("connection", "close") || self.line.contains("HTTP/1.0")
    }

    fn declared(&self) -> io::Result<Option<Length>> {
        if self.has("transfer-encoding", "chunked") {
            return Ok(Some(Length::Chunked));
        }
        let Some(length) = self.get("content-length") else {
            return Ok(None);
        };
        match length.parse() {
            Ok(length) if length <= BODY_MAX => Ok(Some(Length::Bytes(length))),
            _ => Err(malformed("a body's length")),
        }
    }

    pub fn request_length(&self) -> io::Result<Length> {
        Ok(self.declared()?.unwrap_or(Length::None))
    }

    pub fn response_length(&self, method: &str) -> io::Result<Length> {
        if method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Ok(Length::None);
        }
        Ok(self.declared()?.unwrap_or(Length::ToEnd))
    }

    /// The message's bytes with a body of a known length. What is between neighbours only, and not
    /// from end to end, is left out.
    pub fn encode(&self, length: Option<usize>) -> Vec<u8> {
        const BETWEEN_NEIGHBOURS: &[&str] = &[
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "expect",
        ];
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            let replaced = length.is_some() && lower == "content-length";
            if !replaced && !BETWEEN_NEIGHBOURS.contains(&lower.as_str()) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if let Some(length) = length {
            text.push_str(&format!("Content-Length: {length}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// A client's requests.
pub struct Incoming<'a> {
    stream: &'a TcpStream,
    /// The last byte that was looked at is still in the kernel.
    unread: bool,
}

impl Incoming<'_> {
    pub fn new(stream: &TcpStream) -> Incoming<'_> {
        Incoming {
            stream,
            unread: false,
        }
    }

    /// The next request's head; `None` at the connection's end.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        match self.until(b"\r\n\r\n")? {
            bytes if bytes.is_empty() => Ok(None),
            bytes => Head::parse(&bytes).map(Some),
        }
    }

    /// The body; `pause` is called after each piece of it, with its length.
    pub fn body(&mut self, length: Length, mut pause: impl FnMut(usize)) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match length {
            Length::None | Length::ToEnd => {}
            Length::Bytes(length) => self.exact(length, &mut body, &mut pause)?,
            Length::Chunked => loop {
                let line = self.until(b"\r\n")?;
                let size = chunk_size(&line)?;
                if size == 0 {
                    while !matches!(self.until(b"\r\n")?.as_slice(), b"" | b"\r\n") {}
                    break;
                }
                if body.len() + size > BODY_MAX {
                    return Err(malformed("a body's length"));
                }
                self.exact(size, &mut body, &mut pause)?;
                self.until(b"\r\n")?;
            },
        }
        Ok(body)
    }

    /// Takes the last byte out of the kernel, too: closing the socket is no reset any more.
    pub fn settle(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unread) {
            self.stream.read_exact(&mut [0])?;
        }
        Ok(())
    }

    /// Bytes up to a mark, with it; empty at the connection's end.
    fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        self.settle()?;
        let mut window = [0; 4096];
        let mut found = Vec::new();
        loop {
            let seen = self.stream.peek(&mut window)?;
            if seen == 0 {
                if found.is_empty() {
                    return Ok(found);
                }
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let before = found.len();
            found.extend_from_slice(&window[..seen]);
            let from = before.saturating_sub(mark.len() - 1);
            let at = found[from..].windows(mark.len()).position(|w| w == mark);
            if let Some(at) = at {
                found.truncate(from + at + mark.len());
                let last = found.len() - before - 1;
                self.stream.read_exact(&mut window[..last])?;
                self.unread = true;
                return Ok(found);
            }
            self.stream.read_exact(&mut window[..seen])?;
            if found.len() > HEAD_MAX {
                return Err(malformed("a head without an end"));
            }
        }
    }

    fn exact(
        &mut self,
        length: usize,
        body: &mut Vec<u8>,
        pause: &mut impl FnMut(usize),
    ) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.settle()?;
        let end = body.len() + length;
        let mut piece = vec![0; PIECE];
        while body.len() < end - 1 {
            let wanted = (end - 1 - body.len()).min(PIECE);
            let got = self.stream.read(&mut piece[..wanted])?;
            if got == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            body.extend_from_slice(&piece[..got]);
            pause(got);
        }
        if self.stream.peek(&mut piece[..1])? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        body.push(piece[0]);
        self.unread = true;
        Ok(())
    }
}

fn chunk_size(line: &[u8]) -> io::Result<usize> {
    let text = String::from_utf8_lossy(line);
    let digits = text.split(';').next().unwrap_or_default().trim();
    match usize::from_str_radix(digits, 16) {
        Ok(size) if size <= BODY_MAX => Ok(size),
        _ => Err(malformed("a chunk's size")),
    }
}

/// A store's answer to one request: its head, and its body as it is without chunks.
pub fn response(
    stream: &mut BufReader<TcpStream>,
    method: &str,
) -> io::Result<(Head, Option<Vec<u8>>)> {
    let head = response_head(stream)?;
    let body = match head.response_length(method)? {
        Length::None => None,
        Length::Bytes(length) => {
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            Some(body)
        }
        Length::ToEnd => {
            let mut body = Vec::new();
            stream.take(BODY_MAX as u64).read_to_end(&mut body)?;
            Some(body)
        }
        Length::Chunked => Some(chunks(stream)?),
    };
    Ok((head, body))
}

/// The head of an answer; its body comes next.
pub fn response_head(stream: &mut BufReader<TcpStream>) -> io::Result<Head> {
    loop {
        let head = Head::parse(&lines_to_empty(stream)?)?;
        // 100 Continue and the like precede the answer.
        if !(100..200).contains(&head.status()) {
            return Ok(head);
        }
    }
}

fn chunks(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        stream.take(HEAD_MAX as u64).read_until(b'\n', &mut line)?;
        let size = chunk_size(&line)?;
        if size == 0 {
            lines_to_empty(stream)?;
            return Ok(body);
        }
        let start = body.len();
        if start + size > BODY_MAX {
            return Err(malformed("a body's length"));
        }
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..])?;
        stream.read_exact(&mut [0; 2])?;
    }
}

/// Lines up to an empty one.
fn lines_to_empty(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        stream.take(HEAD_MAX as u64).read_until(b'\n', &mut bytes)?;
        match bytes.get(before..) {
            Some(b"\r\n") => return Ok(bytes),
            Some(line) if line.ends_with(b"\n") && bytes.len() < HEAD_MAX => {}
            _ => return Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_and_written() {
        let head = Head::parse(
            b"PUT /b/k?x=1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nIf-None-Match: *\r\n\
              Expect: 100-continue\r\ncontent-length: 3\r\n\r\n",
        )
        .expect("a head");
        assert_eq!((head.word(0), head.word(1)), ("PUT", "/b/k?x=1"));
        assert_eq!(head.get("HOST"), Some("127.0.0.1:1"));
        assert_eq!(head.request_length().expect("a length"), Length::Bytes(3));
        assert!(!head.closes());
        let encoded = String::from_utf8(head.encode(Some(7))).expect("text");
        assert_eq!(
            encoded,
            "PUT /b/k?x=1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nIf-None-Match: *\r\n\
             Content-Length: 7\r\n\r\n"
        );
        assert!(Head::parse(b"\r\n").is_err());
        assert!(Head::parse(b"GET / HTTP/1.1\r\nno colon\r\n\r\n").is_err());
    }

    #[test]
    fn lengths_follow_from_status_and_method() {
        let head = |text: &str| Head::parse(text.as_bytes()).expect("a head");
        let found = head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(
            found.response_length("GET").expect("known"),
            Length::Bytes(5)
        );
        assert_eq!(found.response_length("HEAD").expect("known"), Length::None);
        let chunked = head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(
            chunked.response_length("GET").expect("known"),
            Length::Chunked
        );
        let deleted = head("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(
            deleted.response_length("DELETE").expect("known"),
            Length::None
        );
        assert_eq!(
            head("HTTP/1.0 200 OK\r\n\r\n")
                .response_length("GET")
                .expect("known"),
            Length::ToEnd
        );
        assert!(
            head("PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n")
                .request_length()
                .is_err()
        );
        assert_eq!(chunk_size(b"1f;ext=1\r\n").expect("a size"), 31);
        assert!(chunk_size(b"\r\n").is_err());
    }
}
