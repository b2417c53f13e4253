//! Execution: the 22 queries of TPC-H beside DuckDB, and what surrounds a query.
//!
//! * `power`: the queries, interleaved with DuckDB's on the same files
//! * `blanks`: the queries' text for a reader to whom the blanks at the end of `char(n)` count
//! * `cores`: two of them for all
//! * `beside`: a small query beside large ones
//! * `figures`: delivery of rows, dispatch, long expressions

mod beside;
mod blanks;
mod cores;
mod figures;
mod power;

use super::Bench;
use crate::Result;

/// Of one server that other benchmarks share.
type Figure = fn(&Bench) -> Result<()>;

const FIGURES: &[(&str, Figure)] = &[
    ("tpch.stream", figures::stream),
    ("tpch.dispatch", figures::dispatch),
    ("tpch.or", figures::many_arms),
    ("tpch.beside", beside::beside),
];

/// The benchmark that has a server of its own.
pub const POWER: &str = "tpch";

pub use power::power;

pub fn figure(name: &str) -> Option<Figure> {
    let mut figures = FIGURES.iter();
    figures
        .find(|(known, _)| *known == name)
        .map(|(_, figure)| *figure)
}
