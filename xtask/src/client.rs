//! A session with a server, by Postgres' own protocol: what psql's text leaves out.
//!
//! That is the types of columns, null beside an empty text, SQLSTATEs; and no process starts for a statement.
//! There is only what tests need of it: trust, the simple query protocol, values as text.

use crate::cluster::{Cluster, SUPERUSER};
use crate::{Context, Result};
use std::fmt;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

/// Version 3.0
const PROTOCOL: i32 = 196_608;
/// Longer messages are taken for garbage.
const MESSAGE_MAX: usize = 1 << 30;

/// A connection. After an error of its own, as opposed to one of a statement, it is of no use any more.
pub struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The type's OID.
    pub oid: u32,
    pub typmod: i32,
}

impl Column {
    /// `real` and `double precision`
    pub fn is_float(&self) -> bool {
        matches!(self.oid, 700 | 701)
    }

    /// The integers, `numeric` and the floats.
    pub fn is_number(&self) -> bool {
        self.is_float() || matches!(self.oid, 20 | 21 | 23 | 1700)
    }
}

/// A value as text; `None` is null.
pub type Value = Option<String>;

/// What a statement has returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
    /// Rows of a `COPY … TO STDOUT`, which are not kept.
    pub copied: u64,
}

impl Rows {
    /// The first column of each row; nothing for null.
    pub fn lines(&self) -> Vec<&str> {
        let first = self.rows.iter().filter_map(|row| row.first());
        first.map(|value| value.as_deref().unwrap_or("")).collect()
    }
}

/// An error of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlError {
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl SqlError {
    /// What `lake.engine = force` says of a query that the engine can't run whole; the detail has the reasons.
    pub fn is_refusal(&self) -> bool {
        self.sqlstate == "0A000" && self.message.contains("wholly by the lake engine")
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sqlstate, self.message)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

/// A statement's rows, or its error.
pub type Reply = std::result::Result<Rows, SqlError>;

impl Client {
    pub fn connect(cluster: &Cluster, database: &str) -> Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", cluster.port)).context("connecting")?;
        stream.set_nodelay(true).context("connecting")?;
        stream
            .set_read_timeout(Some(cluster.limit))
            .context("connecting")?;
        let mut client = Client {
            stream: BufReader::with_capacity(1 << 16, stream),
        };
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", SUPERUSER, "database", database] {
            body.extend(text.as_bytes());
            body.push(0);
        }
        body.extend(b"client_encoding\0UTF8\0\0");
        client.send(&[], &body)?;
        client.reply()?.map_err(|error| error.to_string())?;
        Ok(client)
    }

    /// A session whose tables are in this schema, with this setting of the engine, and no patience for more than a minute.
    pub fn in_schema(
        cluster: &Cluster,
        database: &str,
        schema: &str,
        engine: &str,
    ) -> Result<Client> {
        let mut client = Client::connect(cluster, database)?;
        client.rows(&format!(
            "SET search_path = {schema}; SET lake.engine = {engine}; SET statement_timeout = '60s'"
        ))?;
        Ok(client)
    }

    /// Statements: the last one's rows, or the first error. An `Err` is a connection that is lost.
    pub fn query(&mut self, sql: &str) -> Result<Reply> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(b"Q", &body)?;
        self.reply()
    }

    /// The same where an error is unexpected.
    pub fn rows(&mut self, sql: &str) -> Result<Rows> {
        self.query(sql)?
            .map_err(|error| format!("{error}\n{}", shortened(sql)))
    }

    fn send(&mut self, kind: &[u8], body: &[u8]) -> Result<()> {
        let length = i32::try_from(body.len() + 4).context("a statement's length")?;
        let mut message = kind.to_vec();
        message.extend(length.to_be_bytes());
        message.extend(body);
        let sent = self.stream.get_mut().write_all(&message);
        sent.context("the connection is lost")
    }

    /// Up to the server's being ready for the next one.
    fn reply(&mut self) -> Result<Reply> {
        let mut rows = Rows::default();
        let mut error = None;
        let mut body = Vec::new();
        loop {
            let kind = self.message(&mut body).map_err(|lost| match &error {
                Some(said) => format!("{lost}; the server has said {said}"),
                None => lost,
            })?;
            let mut fields = Fields(&body);
            match kind {
                b'T' => {
                    rows = Rows {
                        columns: fields.columns()?,
                        ..Rows::default()
                    }
                }
                b'D' => rows.rows.push(fields.row()?),
                b'd' => rows.copied += 1,
                b'E' => error = error.or(Some(fields.error()?)),
                b'R' if fields.int()? != 0 => return Err("the server wants a password".to_owned()),
                b'G' | b'W' => return Err("a COPY that wants data".to_owned()),
                b'Z' => return Ok(error.map_or(Ok(rows), Err)),
                // Notices, parameters, the key to cancel with, the ends of results.
                _ => {}
            }
        }
    }

    fn message(&mut self, body: &mut Vec<u8>) -> Result<u8> {
        let mut head = [0; 5];
        self.read(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..MESSAGE_MAX).contains(&length) {
            return Err(format!("a message of {length} bytes"));
        }
        body.resize(length - 4, 0);
        self.read(body)?;
        Ok(kind)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream
            .read_exact(bytes)
            .context("the connection is lost")
    }
}

impl Drop for Client {
    /// Otherwise the server would log a connection that broke.
    fn drop(&mut self) {
        let _ = self.send(b"X", &[]);
    }
}

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("a message ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<i32> {
        let bytes = self.take(4)?.try_into().context("an integer")?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn short(&mut self) -> Result<i16> {
        let bytes = self.take(2)?.try_into().context("an integer")?;
        Ok(i16::from_be_bytes(bytes))
    }

    /// A text that ends with a zero.
    fn text(&mut self) -> Result<String> {
        let end = self.0.iter().position(|&byte| byte == 0);
        let text = self.take(end.ok_or("a text without an end")?)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn columns(&mut self) -> Result<Vec<Column>> {
        let mut columns = Vec::new();
        for _ in 0..self.short()? {
            let name = self.text()?;
            // The table and its column.
            self.take(6)?;
            let oid = self.int()?.cast_unsigned();
            // The type's length.
            self.take(2)?;
            let typmod = self.int()?;
            // The format.
            self.take(2)?;
            columns.push(Column { name, oid, typmod });
        }
        Ok(columns)
    }

    fn row(&mut self) -> Result<Vec<Value>> {
        let mut row = Vec::new();
        for _ in 0..self.short()? {
            let length = self.int()?;
            row.push(match usize::try_from(length) {
                Ok(length) => Some(String::from_utf8_lossy(self.take(length)?).into_owned()),
                Err(_) => None,
            });
        }
        Ok(row)
    }

    fn error(&mut self) -> Result<SqlError> {
        let mut error = SqlError::default();
        loop {
            let [kind] = self.take(1)? else {
                return Ok(error);
            };
            match kind {
                0 => return Ok(error),
                b'C' => error.sqlstate = self.text()?,
                b'M' => error.message = self.text()?,
                b'D' => error.detail = self.text()?,
                b'H' => error.hint = self.text()?,
                _ => drop(self.text()?),
            }
        }
    }
}

/// The beginning of a statement, for messages.
pub fn shortened(sql: &str) -> String {
    const LENGTH: usize = 2000;
    match sql.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{} …", &sql[..at]),
        None => sql.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read() {
        let mut body = 1_i16.to_be_bytes().to_vec();
        body.extend(b"n\0\0\0\0\0\0\0");
        body.extend(1700_i32.to_be_bytes());
        body.extend(b"\xff\xff");
        body.extend((-1_i32).to_be_bytes());
        body.extend(b"\0\0");
        let columns = Fields(&body).columns().unwrap();
        assert_eq!(columns[0].name, "n");
        assert!(columns[0].is_number() && !columns[0].is_float());
        assert_eq!(columns[0].typmod, -1);

        let mut body = 3_i16.to_be_bytes().to_vec();
        body.extend((-1_i32).to_be_bytes());
        body.extend(0_i32.to_be_bytes());
        body.extend(2_i32.to_be_bytes());
        body.extend("ä".as_bytes());
        let row = Fields(&body).row().unwrap();
        assert_eq!(row, [None, Some(String::new()), Some("ä".to_owned())]);

        let error = Fields(b"SERROR\0C22012\0Mdivision by zero\0HDon't.\0\0").error();
        let error = error.unwrap();
        assert_eq!(error.to_string(), "22012: division by zero");
        assert_eq!(error.hint, "Don't.");
        assert!(Fields(b"\0\x02\0").columns().is_err());
    }
}
