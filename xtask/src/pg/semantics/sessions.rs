//! The three sessions that run each query: on heap, on iceberg as far as the engine can, and by the engine alone.

use super::data::{HEAP, LAKE};
use crate::Result;
use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::pg::wait_until;
use std::time::Duration;

/// Of iceberg's two sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    On,
    Force,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Engine::On => "on",
            Engine::Force => "force",
        }
    }
}

pub struct Sessions<'a> {
    cluster: &'a Cluster,
    database: &'a str,
    time_zone: &'static str,
    heap: Client,
    on: Client,
    force: Client,
    /// What the planner of the iceberg sessions does without.
    planner: &'static str,
}

impl<'a> Sessions<'a> {
    pub fn open(
        cluster: &'a Cluster,
        database: &'a str,
        time_zone: &'static str,
    ) -> Result<Sessions<'a>> {
        let open = |schema, engine| connect(cluster, database, time_zone, schema, engine);
        Ok(Sessions {
            cluster,
            database,
            time_zone,
            heap: open(HEAP, "off")?,
            on: open(LAKE, "on")?,
            force: open(LAKE, "force")?,
            planner: "",
        })
    }

    /// After a connection was lost: the server may be recovering.
    pub fn open_again(&mut self) -> Result<()> {
        wait_until(Duration::from_secs(60), "a connection", || {
            let planner = self.planner;
            *self = Sessions::open(self.cluster, self.database, self.time_zone)?;
            self.set_planner(planner)?;
            Ok(true)
        })
    }

    /// Settings that make the planner choose otherwise than on heap; empty: none.
    pub fn set_planner(&mut self, settings: &'static str) -> Result<()> {
        for client in [&mut self.on, &mut self.force] {
            client.rows(&format!(
                "RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_nestloop; RESET enable_hashagg;
                 {settings}"
            ))?;
        }
        self.planner = settings;
        Ok(())
    }

    /// How to do the same by hand.
    pub fn described(&self, engine: Engine) -> String {
        format!(
            "SET search_path = {LAKE}; SET lake.engine = {}; SET TimeZone = '{}'; {}",
            engine.name(),
            self.time_zone,
            self.planner
        )
    }

    pub fn on_heap(&mut self, sql: &str) -> Result<Reply> {
        self.heap.query(sql)
    }

    pub fn on_lake(&mut self, engine: Engine, sql: &str) -> Result<Reply> {
        match engine {
            Engine::On => self.on.query(sql),
            Engine::Force => self.force.query(sql),
        }
    }

    pub fn plan(&mut self, sql: &str) -> Result<Reply> {
        self.on.query(&format!("EXPLAIN (COSTS OFF) {sql}"))
    }
}

fn connect(
    cluster: &Cluster,
    database: &str,
    time_zone: &str,
    schema: &str,
    engine: &str,
) -> Result<Client> {
    let mut client = Client::connect(cluster, database)?;
    client.rows(&format!(
        "SET search_path = {schema}; SET lake.engine = {engine}; SET TimeZone = '{time_zone}';
         SET statement_timeout = '10 s'; SET jit = off;"
    ))?;
    Ok(client)
}
