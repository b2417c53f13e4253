//! TPC-H's tables with their primary keys: in heap, in iceberg with all rows cold, and what makes some of them hot,
//! deleted or changed again.

use super::TABLES;
use crate::cluster::Cluster;
use crate::pg::wait_until;
use crate::{Result, say};
use std::path::Path;
use std::time::Duration;

/// The schemas.
pub const HEAP: &str = "h";
pub const LAKE: &str = "t";
/// The table that `one_heap_table` takes out of iceberg: most of the queries join it.
pub const HEAP_TABLE: &str = "orders";

/// The same changes to either schema. They leave hot rows, deleted cold rows, and old versions of changed ones.
const CHANGES: &str = "
    SET lake.bulk_rows = -1;
    DELETE FROM lineitem WHERE l_orderkey % 101 = 7;
    UPDATE lineitem SET l_quantity = l_quantity + 1, l_shipdate = l_shipdate + 3 WHERE l_orderkey % 97 = 5;
    DELETE FROM orders WHERE o_orderkey % 113 = 9;
    UPDATE orders SET o_totalprice = o_totalprice + 0.01, o_orderdate = o_orderdate + 1 WHERE o_orderkey % 89 = 3;
    INSERT INTO orders
        SELECT o_orderkey + 1000000000, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority, o_clerk,
               o_shippriority, 'again'
        FROM orders WHERE o_orderkey % 103 = 11;
    INSERT INTO lineitem
        SELECT l_orderkey + 1000000000, l_partkey, l_suppkey, l_linenumber, l_quantity, l_extendedprice, l_discount,
               l_tax, l_returnflag, l_linestatus, l_shipdate, l_commitdate, l_receiptdate, l_shipinstruct, l_shipmode,
               'again'
        FROM lineitem WHERE l_orderkey % 103 = 11;
    DELETE FROM customer WHERE c_custkey % 211 = 1;
    UPDATE customer SET c_acctbal = c_acctbal - 1, c_mktsegment = 'BUILDING' WHERE c_custkey % 53 = 8;
    UPDATE part SET p_size = 15, p_container = 'MED BOX' WHERE p_partkey % 71 = 2;
    DELETE FROM partsupp WHERE ps_partkey % 173 = 6;
    UPDATE partsupp SET ps_availqty = ps_availqty + 1 WHERE ps_partkey % 61 = 4;
    UPDATE supplier SET s_acctbal = s_acctbal + 1 WHERE s_suppkey % 7 = 3;
    DELETE FROM supplier WHERE s_suppkey % 41 = 5;
    INSERT INTO nation VALUES (25, 'ATLANTIS', 3, 'sunk');
    UPDATE nation SET n_comment = 'changed' WHERE n_nationkey % 5 = 2;";

/// Loads the tables into a schema of each of the access methods `heap` and `iceberg` that are named.
pub fn load(cluster: &Cluster, csv: &Path, schemas: &[(&str, &str)]) -> Result<()> {
    for (schema, method) in schemas {
        cluster.sql(&format!("CREATE SCHEMA {schema}"))?;
        for table in TABLES {
            say(&format!("    loading {} into {method}", table.name));
            cluster.sql(&format!(
                "SET lake.bulk_rows = 0; {} {}",
                table.create(schema, method),
                table.copy(schema, csv)
            ))?;
            if *method == "iceberg" {
                make_cold(cluster, &format!("{schema}.{}", table.name))?;
            }
            cluster.sql(&table.add_key(schema))?;
        }
        if *method == "heap" {
            // Without it Q17 and Q20 would take hours, since Postgres runs their subqueries once for each row.
            cluster.sql(&format!(
                "CREATE INDEX ON {schema}.lineitem (l_partkey, l_suppkey)"
            ))?;
        }
        analyze(cluster, schema)?;
    }
    Ok(())
}

/// Flushes until no row is hot: those stay that a snapshot doesn't see.
fn make_cold(cluster: &Cluster, table: &str) -> Result<()> {
    let look = format!(
        "SELECT lake.flush('{table}') >= 0;
         SELECT cold_rows = (SELECT count(*) FROM {table}) FROM lake.tables WHERE \"table\" = '{table}'::regclass;"
    );
    let what = format!("all rows of {table} are cold");
    wait_until(Duration::from_secs(120), &what, || {
        Ok(cluster.sql(&look)?.ends_with("\nt"))
    })
}

fn analyze(cluster: &Cluster, schema: &str) -> Result<()> {
    let names: Vec<String> = TABLES
        .iter()
        .map(|table| format!("{schema}.{}", table.name))
        .collect();
    cluster
        .sql(&format!("ANALYZE {}", names.join(", ")))
        .map(drop)
}

/// Changes the tables of both schemas, and checks what that has left in iceberg.
pub fn change(cluster: &Cluster) -> Result<()> {
    say("    changing both");
    for schema in [HEAP, LAKE] {
        cluster.sql(&format!("SET search_path = {schema}; {CHANGES}"))?;
        analyze(cluster, schema)?;
    }
    for table in ["lineitem", "orders", "customer", "partsupp"] {
        let both = cluster.sql(&format!(
            "SELECT (SELECT sum(deleted_rows) > 0 FROM lake.data_files WHERE \"table\" = '{LAKE}.{table}'::regclass)
                AND (SELECT cold_rows FROM lake.tables WHERE \"table\" = '{LAKE}.{table}'::regclass)
                    < (SELECT count(*) FROM {LAKE}.{table})"
        ))?;
        if both != "t" {
            return Err(format!(
                "{table} has no hot rows, or no deleted cold ones, after the changes"
            ));
        }
    }
    Ok(())
}

/// Replaces a table of the iceberg schema by one in heap.
pub fn one_heap_table(cluster: &Cluster) -> Result<()> {
    let table = TABLES.iter().find(|table| table.name == HEAP_TABLE);
    let table = table.ok_or_else(|| format!("TPC-H has no {HEAP_TABLE}"))?;
    cluster
        .sql(&format!(
            "DROP TABLE {LAKE}.{HEAP_TABLE};
             {}
             INSERT INTO {LAKE}.{HEAP_TABLE} SELECT * FROM {HEAP}.{HEAP_TABLE};
             {}
             ANALYZE {LAKE}.{HEAP_TABLE};",
            table.create(LAKE, "heap"),
            table.add_key(LAKE)
        ))
        .map(drop)
}
