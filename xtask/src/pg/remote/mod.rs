//! Tables whose files are in an object store, and what becomes of them when the network or a process
//! fails.
//!
//! * `rig`: a server with a tablespace in a store, an iceberg table there and its twin in heap
//! * `settled`: whether the bucket has what the catalogs name, and nothing else
//! * `session`: statements that may fail, and how; cancelling
//! * `stores`: the programs that everything here runs on, by themselves
//! * `surface`: everything that SQL does with such tables, in each kind of store
//! * `reads`: what is read from a store, how often, and what if it is damaged
//! * `targets`: requests that a statement makes for certain
//! * `matrix`: each fault of each of them
//! * `chaos`: faults by chance, killed stores, killed servers
//! * `network`: who has connections to the store, and how fast a cancel gets through
//! * `secrets`: where a secret must not be seen

mod chaos;
pub mod matrix;
mod network;
mod reads;
mod rig;
mod secrets;
mod session;
mod settled;
mod stores;
pub mod surface;
mod targets;

use super::{Scenario, scenarios};
use crate::Result;
use crate::test::{Run, Tally};

const STORES: &[(&str, Scenario)] = &[
    ("programs", stores::programs),
    ("store_smoke", surface::smoke),
    ("seaweedfs", surface::seaweedfs),
    ("ministack", surface::ministack),
    ("azurite", surface::azurite),
    ("fake_gcs", surface::fake_gcs),
    ("unconditional", surface::unconditional),
    ("dropped_database", surface::dropped_database),
    ("other_database", surface::other_database),
    ("listed_once", surface::listed_once),
    ("cached_reads", reads::cached_reads),
    ("damaged_metadata", reads::damaged_metadata),
    ("damaged_object", reads::damaged_object),
    ("copied_within", reads::copied_within),
    ("no_network", network::no_network),
    ("secrets", secrets::secrets),
];

const FAULTS: &[(&str, Scenario)] = &[
    ("fault_smoke", matrix::smoke),
    ("fault_matrix", matrix::matrix),
    ("fault_random", chaos::random),
    ("store_killed", chaos::store_killed),
    ("server_killed", chaos::server_killed),
    ("parts_left", chaos::parts_left),
    ("late_write", chaos::late_write),
];

pub fn stores(run: &mut Run) -> Result<Tally> {
    let limit = run.limit(30);
    scenarios(run, "stores", STORES, limit)
}

pub fn faults(run: &mut Run) -> Result<Tally> {
    let limit = run.limit(45);
    scenarios(run, "faults", FAULTS, limit)
}
