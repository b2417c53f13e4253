//! What crosses a ring: the typed plan of a fragment, requests and replies, and the layout of a batch of rows.
//!
//! This crate knows neither Postgres nor DataFusion nor Arrow. `ext` builds these values from
//! Postgres' structures and `bgworker` turns them into physical operators.
//!
//! * [`types`]: the logical types and how each is laid out on the wire
//! * [`ir`]: fragments: plan nodes; [`expr`]: expressions; [`function`]: what they call
//! * [`settle`]: numerics whose scale execution decides; [`lists`]: arrays that are parameters
//! * [`batch`]: columns of rows in one frame; [`columns`]: frames that are put together from others
//! * [`lateness`]: results that the engine may find out late not to be exact, by what `bounds` says of expressions
//! * [`layout`]: partition transforms and sort orders
//! * [`message`]: requests, replies, errors and their frame kinds
//! * [`rows`]: which row numbers the rows of a file have
//! * [`store`]: object stores, and locations

pub mod batch;
mod bounds;
pub mod columns;
pub mod expr;
#[cfg(test)]
mod expr_of;
pub mod function;
pub mod ir;
pub mod lateness;
pub mod layout;
pub mod lists;
pub mod message;
pub mod project_set;
pub mod recursion;
pub mod rows;
pub mod settle;
pub mod store;
pub mod types;

/// Raised whenever a message or the IR changes shape: both sides of a ring must agree.
pub const PROTOCOL_VERSION: u16 = 11;

/// Serialises a message (postcard).
pub fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_allocvec(value)
}

/// Reads a message; trailing bytes and truncated input are errors.
pub fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(postcard::Error::DeserializeUnexpectedEnd)
    }
}
