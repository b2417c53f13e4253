//! An iceberg table and a heap table that get the same changes in the same transactions, under
//! maintenance that never stops and a server that is killed: they are equal at every moment.

use super::random::Random;
use super::wait_until;
use crate::Result;
use crate::cluster::{Cluster, DATABASE, answer};
use crate::process::Running;
use crate::test::Run;
use std::time::Duration;

const WRITERS: usize = 3;
/// More than a session gets to before the server is killed.
const STATEMENTS: usize = 4000;
const IDS: u64 = 600;

/// What a writer says when the iceberg table doesn't have exactly the row that the heap table has,
/// or another one with its key.
pub const LOST: [&str; 2] = ["the twins have parted", "t_pkey"];

pub const TABLES: &str = "
    CREATE SEQUENCE ops;
    CREATE TABLE h (id int PRIMARY KEY, n bigint, v text);
    CREATE EXTENSION amcheck;
    CREATE TABLE t (id int, n bigint, v text) USING iceberg;
    INSERT INTO h SELECT g, g, 'v' || g FROM generate_series(1, 600) g;
    SET lake.bulk_rows = 0;
    INSERT INTO t SELECT g, g, 'v' || g FROM generate_series(1, 400) g;
    RESET lake.bulk_rows;
    INSERT INTO t SELECT g, g, 'v' || g FROM generate_series(401, 600) g;
    ALTER TABLE t ADD PRIMARY KEY (id);
    CREATE INDEX t_n ON t (n) INCLUDE (v) WHERE n % 3 = 0;
    CREATE INDEX t_v ON t USING hash (v);
    -- Of these everything is deleted now and then, or everything up to some number.
    CREATE TABLE side_h (n bigint, v int);
    CREATE TABLE side_t (n bigint, v int) USING iceberg;
    CREATE FUNCTION parted(what text, id int, rows bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF rows <> 1 THEN
            RAISE EXCEPTION 'the twins have parted: % of row %: % rows', what, id, rows;
        END IF;
    END $$;
    -- The heap row's lock makes the transactions on one row come one after another.
    CREATE PROCEDURE change(what text, i int, d int) LANGUAGE plpgsql AS $$
    DECLARE rows bigint; gone bigint;
    BEGIN
        PERFORM nextval('ops');
        IF what = 'update' THEN
            UPDATE h SET n = n + d, v = left(v, 20) || d WHERE id = i;
            IF FOUND THEN
                UPDATE t SET n = n + d, v = left(v, 20) || d WHERE id = i;
                GET DIAGNOSTICS rows = ROW_COUNT;
                PERFORM parted(what, i, rows);
            END IF;
        ELSIF what = 'delete' THEN
            DELETE FROM h WHERE id = i;
            IF FOUND THEN
                DELETE FROM t WHERE id = i;
                GET DIAGNOSTICS rows = ROW_COUNT;
                PERFORM parted(what, i, rows);
            END IF;
        ELSIF what = 'insert' THEN
            INSERT INTO h VALUES (i, d, 'new') ON CONFLICT DO NOTHING;
            IF FOUND THEN
                INSERT INTO t VALUES (i, d, 'new');
            END IF;
        ELSIF what = 'upsert' THEN
            PERFORM FROM h WHERE id = i FOR UPDATE;
            INSERT INTO h VALUES (i, d, 'up') ON CONFLICT (id) DO UPDATE SET n = h.n + 1, v = 'ups' || d;
            INSERT INTO t VALUES (i, d, 'up') ON CONFLICT (id) DO UPDATE SET n = t.n + 1, v = 'ups' || d;
        ELSIF what = 'rekey' THEN
            BEGIN
                UPDATE h SET id = d WHERE id = i;
            EXCEPTION WHEN unique_violation OR deadlock_detected THEN
                RETURN;
            END;
            IF FOUND THEN
                UPDATE t SET id = d WHERE id = i;
                GET DIAGNOSTICS rows = ROW_COUNT;
                PERFORM parted(what, i, rows);
            END IF;
        ELSIF what = 'fill' THEN
            INSERT INTO side_h SELECT d, g FROM generate_series(1, 20) g;
            INSERT INTO side_t SELECT d, g FROM generate_series(1, 20) g;
        ELSIF what = 'wipe' THEN
            -- Who fills or wipes the tables meanwhile does it before or after both.
            LOCK TABLE side_h IN SHARE ROW EXCLUSIVE MODE;
            BEGIN
                DELETE FROM side_t WHERE v % 2 = i % 2;
                DELETE FROM side_t;
                RAISE EXCEPTION USING ERRCODE = 'LK001';
            EXCEPTION WHEN SQLSTATE 'LK001' THEN
                NULL;
            END;
            IF i % 4 = 0 THEN
                UPDATE side_h SET v = -v WHERE n % 7 = 0;
                UPDATE side_t SET v = -v WHERE n % 7 = 0;
                DELETE FROM side_h;
                GET DIAGNOSTICS gone = ROW_COUNT;
                DELETE FROM side_t;
            ELSE
                DELETE FROM side_h WHERE n <= d;
                GET DIAGNOSTICS gone = ROW_COUNT;
                DELETE FROM side_t WHERE n <= d;
            END IF;
            GET DIAGNOSTICS rows = ROW_COUNT;
            PERFORM parted(what, i, 1 + rows - gone);
        ELSIF what = 'lock' THEN
            PERFORM FROM h WHERE id = i FOR UPDATE;
            IF FOUND THEN
                PERFORM FROM t WHERE id = i FOR NO KEY UPDATE;
                GET DIAGNOSTICS rows = ROW_COUNT;
                PERFORM parted(what, i, rows);
            END IF;
        ELSE
            PERFORM FROM h WHERE id = i FOR UPDATE;
            IF FOUND THEN
                BEGIN
                    UPDATE t SET n = -1 WHERE id = i;
                    DELETE FROM t WHERE id = i;
                    RAISE EXCEPTION USING ERRCODE = 'LK001';
                EXCEPTION WHEN SQLSTATE 'LK001' THEN
                    NULL;
                END;
                UPDATE h SET n = n - d WHERE id = i;
                UPDATE t SET n = n - d WHERE id = i;
                GET DIAGNOSTICS rows = ROW_COUNT;
                PERFORM parted(what, i, rows);
            END IF;
        END IF;
    END $$;
    CREATE PROCEDURE compare(setting text) LANGUAGE plpgsql AS $$
    DECLARE r record;
    BEGIN
        PERFORM set_config('lake.engine', setting, true);
        SELECT count(*) AS n, min(x::text) AS one INTO r
        FROM ((TABLE h EXCEPT ALL TABLE t) UNION ALL (TABLE t EXCEPT ALL TABLE h)) x;
        IF r.n <> 0 THEN
            RAISE EXCEPTION 'the twins have parted, lake.engine = %: % rows, one is %', setting, r.n, r.one;
        END IF;
        SELECT count(*) AS n, min(x::text) AS one INTO r
        FROM ((TABLE side_h EXCEPT ALL TABLE side_t) UNION ALL (TABLE side_t EXCEPT ALL TABLE side_h)) x;
        IF r.n <> 0 THEN
            RAISE EXCEPTION 'the twins have parted, side tables, lake.engine = %: % rows, one is %', setting, r.n, r.one;
        END IF;
        -- By the indexes. A version may be found by a stale entry only, or by none.
        PERFORM set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
                set_config('enable_mergejoin', 'off', true);
        SELECT count(*) AS n, min(h.id) AS one INTO r
        FROM h LEFT JOIN t ON t.id = h.id AND t.n = h.n AND t.v = h.v WHERE t.id IS NULL;
        IF r.n <> 0 THEN
            RAISE EXCEPTION 'the twins have parted, by key: % rows, one is %', r.n, r.one;
        END IF;
        SELECT (SELECT count(*) FROM h WHERE n % 3 = 0) AS h, (SELECT count(*) FROM t WHERE n % 3 = 0) AS t INTO r;
        IF r.h <> r.t THEN
            RAISE EXCEPTION 'the twins have parted, by the partial index: %, %', r.h, r.t;
        END IF;
        PERFORM bt_index_check(i, heapallindexed => true) FROM unnest('{t_pkey,t_n}'::regclass[]) i;
    END $$;";

/// A change of a random row of both tables.
pub fn change(random: &mut Random) -> String {
    let what = random.one_of(&[
        "update", "update", "update", "delete", "insert", "insert", "upsert", "rekey", "lock",
        "undo",
    ]);
    let (id, d) = (random.below(IDS) + 1, random.below(IDS) + 1);
    format!("CALL change('{what}', {id}, {d});\n")
}

/// Changes, each in a transaction of its own; some of them are of whole files, in tables of their own.
fn script(random: &mut Random, statements: usize) -> String {
    (0..statements)
        .map(|_| match random.below(13) {
            n @ 10.. => {
                let what = if n == 12 { "wipe" } else { "fill" };
                let (id, d) = (random.below(IDS) + 1, random.below(IDS) + 1);
                format!("CALL change('{what}', {id}, {d});\n")
            }
            _ => change(random),
        })
        .collect()
}

pub fn twins(run: &mut Run) -> Result<()> {
    let mut random = Random::from_environment();
    let mut cluster = run.cluster(
        "twins",
        &[("lake.flush_rows", "50"), ("lake.publish_interval", "1")],
    )?;
    cluster.sql(TABLES)?;
    compare(&cluster, "loaded")?;
    let rounds = if run.long { 20 } else { 3 };
    for round in 1..=rounds {
        let sessions = load(&cluster, &mut random)?;
        let until = ops(&cluster)? + 200 + random.below(600);
        wait_until(Duration::from_secs(120), "changes", || {
            Ok(ops(&cluster)? >= until)
        })?;
        cluster.kill9()?;
        for (who, session) in sessions {
            if let Err(error) = answer(session.wait()?)
                && LOST.iter().any(|lost| error.contains(lost))
            {
                return Err(format!("{who}, before kill {round}: {error}"));
            }
        }
        cluster.start()?;
        compare(&cluster, &format!("after kill {round}"))?;
    }
    // Once to the end.
    let writers: Vec<Running> = (0..WRITERS)
        .map(|_| start(&cluster, script(&mut random, 150)))
        .collect::<Result<_>>()?;
    for writer in writers {
        answer(writer.wait()?)?;
    }
    cluster.sql(
        "SELECT lake.flush('t'); SELECT lake.merge('t');
         SELECT lake.flush('side_t'); SELECT lake.merge('side_t'); SELECT lake.sweep();",
    )?;
    compare(&cluster, "in the end")
}

/// Numbers that sequences hand out are logged ahead: it never goes back by more than a crash's gap.
fn ops(cluster: &Cluster) -> Result<u64> {
    let text = cluster.sql("SELECT last_value FROM ops")?;
    text.parse().map_err(|_| format!("not a number: {text:?}"))
}

fn compare(cluster: &Cluster, when: &str) -> Result<()> {
    cluster
        .sql("CALL compare('on'); CALL compare('off');")
        .map(drop)
        .map_err(|error| format!("{when}: {error}"))
}

fn start(cluster: &Cluster, script: String) -> Result<Running> {
    cluster.psql(DATABASE).stdin(script).start()
}

/// Writers, maintenance and readers, none of which comes to its end.
fn load(cluster: &Cluster, random: &mut Random) -> Result<Vec<(&'static str, Running)>> {
    let mut sessions = Vec::new();
    for _ in 0..WRITERS {
        sessions.push(("a writer", start(cluster, script(random, STATEMENTS))?));
    }
    let maintenance = "SELECT lake.flush('t');\nSELECT lake.merge('t');\nSELECT lake.compact('t');\n\
                       SELECT lake.flush('side_t');\nSELECT lake.merge('side_t');\nSELECT lake.compact('side_t');\n\
                       VACUUM t, side_t, lake.row_mark, lake.file_mark, lake.anchor;\n\
                       SELECT lake.publish('t');\nSELECT lake.sweep();\n";
    sessions.push((
        "maintenance",
        start(cluster, maintenance.repeat(STATEMENTS))?,
    ));
    let reader = "CALL compare('on');\nCALL compare('off');\n";
    sessions.push(("a reader", start(cluster, reader.repeat(STATEMENTS))?));
    Ok(sessions)
}
