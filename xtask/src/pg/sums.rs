//! The main promise: one answer, whoever asks, whatever happened to the server in between.

use crate::Result;
use crate::cluster::Cluster;
use crate::python::Python;
use crate::say;
use crate::test::Run;
use crate::tpch::{self, READERS, TABLES};

pub fn sums_everywhere(run: &mut Run) -> Result<()> {
    run.python()?;
    let csv = tpch::csv(run.python()?, "0.01")?;
    let mut cluster = run.cluster("sums_everywhere", &[])?;
    let python = run.python()?;
    let mut script = String::from("CREATE SCHEMA h; CREATE SCHEMA t;\n");
    for table in TABLES {
        for (schema, method) in [("h", "heap"), ("t", "iceberg")] {
            script.push_str(&table.create(schema, method));
            script.push_str(&table.copy(schema, &csv));
            script.push('\n');
        }
    }
    script.push_str("ANALYZE;");
    cluster.sql(&script)?;
    agree(&cluster, python, "after COPY")?;

    // The iceberg tables first: both copy from the heap.
    for schema in ["t", "h"] {
        cluster.sql(&format!(
            "INSERT INTO {schema}.nation VALUES (25, 'ATLANTIS', 3, 'sunk'), (26, 'MU', 2, NULL);
             INSERT INTO {schema}.region VALUES (5, 'OCEAN', NULL);
             INSERT INTO {schema}.lineitem
               SELECT * FROM h.lineitem WHERE l_orderkey < 1000 AND l_linenumber < 3;"
        ))?;
    }
    agree(&cluster, python, "after INSERTs")?;

    for table in TABLES {
        cluster.sql(&format!("SELECT lake.flush('t.{}')", table.name))?;
    }
    agree(&cluster, python, "after a flush")?;

    // Cold rows by now.
    for schema in ["t", "h"] {
        cluster.sql(&format!(
            "DELETE FROM {schema}.lineitem WHERE l_linenumber = 4;
             UPDATE {schema}.lineitem SET l_quantity = l_quantity + 1 WHERE l_orderkey % 7 = 0;
             DELETE FROM {schema}.supplier;
             UPDATE {schema}.nation SET n_name = 'LEMURIA' WHERE n_nationkey = 26;
             MERGE INTO {schema}.orders o USING h.customer c ON o.o_custkey = c.c_custkey AND c.c_nationkey = 3
               WHEN MATCHED AND o.o_totalprice < 100000 THEN DELETE
               WHEN MATCHED THEN UPDATE SET o_totalprice = o_totalprice - 1;"
        ))?;
    }
    agree(
        &cluster,
        python,
        "after UPDATE, DELETE and MERGE of cold rows",
    )?;

    for table in TABLES {
        cluster.sql(&format!("SELECT lake.merge('t.{}')", table.name))?;
    }
    cluster.sql(
        "DELETE FROM t.part WHERE p_partkey % 3 = 0; DELETE FROM h.part WHERE p_partkey % 3 = 0;",
    )?;
    agree(&cluster, python, "after a merge and more deletions")?;

    cluster.sql(
        "BEGIN;
         DELETE FROM t.partsupp;
         UPDATE t.customer SET c_acctbal = 0;
         INSERT INTO t.orders SELECT * FROM h.orders;
         INSERT INTO t.region VALUES (6, 'NOWHERE', 'never');
         SAVEPOINT a;
         INSERT INTO t.lineitem SELECT * FROM h.lineitem;
         ROLLBACK TO a;
         ROLLBACK;",
    )?;
    agree(&cluster, python, "after a rollback")?;

    for schema in ["t", "h"] {
        cluster.sql(&format!(
            "INSERT INTO {schema}.region VALUES (7, 'HOT', 'not flushed')"
        ))?;
    }
    cluster.restart()?;
    agree(&cluster, python, "after a restart")?;

    cluster.sql("SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION '';")?;
    for table in TABLES {
        cluster.sql(&format!(
            "ALTER TABLE t.{} SET TABLESPACE elsewhere",
            table.name
        ))?;
    }
    agree(&cluster, python, "after SET TABLESPACE")?;

    for schema in ["t", "h"] {
        cluster.sql(&format!(
            "INSERT INTO {schema}.customer SELECT * FROM h.customer WHERE c_custkey <= 700"
        ))?;
    }
    cluster.kill9()?;
    cluster.start()?;
    agree(&cluster, python, "after kill -9")
}

fn agree(cluster: &Cluster, python: &Python, when: &str) -> Result<()> {
    say(&format!("      sums {when}"));
    let expected = tpch::sums(cluster, "h", "")?;
    let compare = |who: &str, found: Vec<String>| -> Result<()> {
        let different = tpch::differences(&expected, &found);
        if different.is_empty() {
            Ok(())
        } else {
            Err(format!("{when}, {who}:\n{}", different.join("\n")))
        }
    };
    for engine in ["on", "off"] {
        let found = tpch::sums(cluster, "t", &format!("SET lake.engine = {engine};"))?;
        compare(&format!("lake.engine = {engine}"), found)?;
    }
    forced(cluster, &expected).map_err(|error| format!("{when}, lake.engine = force: {error}"))?;
    let metadata = tpch::publish(cluster, "t")?;
    for reader in READERS {
        let found = tpch::outside_sums(python, cluster, reader, "t", &metadata)?;
        compare(reader, found)?;
    }
    Ok(())
}

/// With `force`, a query is either lowered whole, with the same answer, or refused with a reason.
fn forced(cluster: &Cluster, expected: &[String]) -> Result<()> {
    for (table, line) in TABLES.iter().zip(expected) {
        let sql = format!(
            "\\set VERBOSITY verbose\nSET lake.engine = force;\n{}",
            table.sums("t")
        );
        match cluster.sql(&sql) {
            Ok(row) => {
                let found = format!("{}\t{row}", table.name);
                if found != *line {
                    return Err(format!("expected {line}\n   found {found}"));
                }
            }
            // feature_not_supported
            Err(error) if error.contains("0A000") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
