//! What must be there: pairs of a heap table and an iceberg table that get the same rows in the same
//! transactions, a ledger of these transactions, and the sums of what was published.
//!
//! Writers and publications keep each other out by the lock of a table, so that what a publication
//! holds is what the heap tables hold in its transaction. All wait for it first, which leaves no
//! deadlocks between them. A session that has prepared a transaction waits for nothing that somebody
//! may hold who waits for that one, until it has ended it: nobody would see such a deadlock.

use crate::pg::random::Random;
use crate::pg::twins;
use std::collections::BTreeMap;

/// Ids of one writer's transactions, and of its rows.
const RANGE: u64 = 10_000_000;
/// More than `BULK_ROWS`.
const LOAD_ROWS: u64 = 250;
/// What the sessions set `lake.bulk_rows` to.
pub const BULK_ROWS: u64 = 100;

/// The iceberg tables that are published, with their twins.
pub const PUBLISHED: &[(&str, &str)] = &[("h", "t"), ("hb", "b"), ("hc", "c"), ("hp", "p")];
/// Those of them that writers load in bulk and change, each its own rows.
const LOADED: &[(&str, &str)] = &[("hb", "b"), ("hp", "p")];

/// Beside the twins' own: `h` and `t`, which has indexes. `b` is loaded in bulk, `c` truncated or emptied, `p` loaded
/// in bulk, too, with files that are partitioned and sorted.
const TABLES: &str = "
    CREATE TABLE gate ();
    CREATE TABLE ledger (txn bigint);
    CREATE TABLE l (txn bigint) USING iceberg;
    CREATE TABLE hb (id int, n bigint, v text);
    CREATE INDEX ON hb (id);
    CREATE TABLE b (id int, n bigint, v text) USING iceberg WITH (format_version = 3);
    CREATE TABLE hc (id int, n bigint, v text);
    CREATE TABLE c (id int, n bigint, v text) USING iceberg;
    CREATE TABLE hp (id int, n bigint, v text);
    CREATE INDEX ON hp (id);
    CREATE TABLE p (id int, n bigint, v text) USING iceberg
        WITH (partition_by = 'truncate(3, v), bucket(2, id)', sort_by = 'n DESC, id');
    CREATE TABLE published (location text PRIMARY KEY, rows bigint, ids numeric, ns numeric, chars numeric);
    CREATE FUNCTION sums(heap text) RETURNS text LANGUAGE sql
        RETURN format('SELECT count(*), COALESCE(sum(id), 0), COALESCE(sum(n), 0), COALESCE(sum(length(v)), 0) FROM %I', heap);
    CREATE PROCEDURE publish_twins() LANGUAGE plpgsql AS $$
    DECLARE pair record; location text;
    BEGIN
        LOCK TABLE gate IN SHARE MODE;
        FOR pair IN SELECT * FROM (VALUES ('h', 't'), ('hb', 'b'), ('hc', 'c'), ('hp', 'p')) AS p(heap, cold) LOOP
            location := lake.publish(pair.cold::regclass);
            EXECUTE format('INSERT INTO published SELECT %L, s.* FROM (%s) s ON CONFLICT DO NOTHING',
                           location, sums(pair.heap));
        END LOOP;
    END $$;
    CREATE PROCEDURE compare_all(setting text) LANGUAGE plpgsql AS $$
    DECLARE pair record; r record;
    BEGIN
        PERFORM set_config('lake.engine', setting, true);
        FOR pair IN SELECT * FROM (VALUES ('ledger', 'l'), ('hb', 'b'), ('hc', 'c'), ('hp', 'p')) AS p(heap, cold) LOOP
            EXECUTE format('SELECT count(*) AS n, min(x::text) AS one FROM ((TABLE %1$I EXCEPT ALL TABLE %2$I)
                            UNION ALL (TABLE %2$I EXCEPT ALL TABLE %1$I)) x', pair.heap, pair.cold) INTO r;
            IF r.n <> 0 THEN
                RAISE EXCEPTION 'the twins have parted, %, lake.engine = %: % rows, one is %',
                    pair.cold, setting, r.n, r.one;
            END IF;
        END LOOP;
        -- Turns sequential scans off.
        CALL compare(setting);
        SELECT (SELECT sum((SELECT count(*) FROM t WHERE t.v = h.v)) FROM h) AS hashed,
               (SELECT sum(g.n * g.n) FROM (SELECT count(*) AS n FROM h GROUP BY v) g) AS counted INTO r;
        IF r.hashed <> r.counted THEN
            RAISE EXCEPTION 'the twins have parted, by the hash index: %, %', r.hashed, r.counted;
        END IF;
    END $$;
    CALL publish_twins();";

/// The statements that make the tables.
pub fn tables() -> String {
    format!("{}\n{TABLES}", twins::TABLES)
}

/// The ledger is that of one round; the tables stay small.
pub const BEGIN_ROUND: &str = "
    TRUNCATE ledger, l;
    DO $$ BEGIN
        IF (SELECT count(*) FROM hb) > 10000 THEN TRUNCATE hb, b; END IF;
        IF (SELECT count(*) FROM hp) > 10000 THEN TRUNCATE hp, p; END IF;
    END $$;";

/// A session that changes the twins, and knows what it has sent.
pub struct Writer {
    number: u64,
    transactions: u64,
    /// Rows that it has made.
    rows: u64,
    /// The ids of its last bulk load.
    loaded: (u64, u64),
    random: Random,
}

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
    /// In two phases: it is prepared, and then ended by either.
    Prepare,
}

/// One kind of maintenance, of some tables.
pub fn maintain(function: &str, tables: &[&str]) -> String {
    tables
        .iter()
        .map(|table| format!("SELECT lake.{function}('{table}');\n"))
        .collect()
}

/// What goes over the tables while a transaction is prepared. Nobody locks these against it, as `c` is, or
/// waits for a row with a page of an index pinned, as of `t`.
fn meanwhile() -> String {
    ["flush", "merge", "compact"]
        .map(|function| maintain(function, &["b", "p"]))
        .concat()
        + "SELECT lake.sweep();\n"
}

impl Writer {
    pub fn new(number: u64, random: Random) -> Writer {
        Writer {
            number,
            transactions: 0,
            rows: 0,
            loaded: (0, 0),
            random,
        }
    }

    /// Whether a transaction is one of its own.
    pub fn has_sent(&self, txn: u64) -> bool {
        txn / RANGE == self.number && (1..=self.transactions).contains(&(txn % RANGE))
    }

    /// A transaction that says on stdout how it has ended.
    fn transaction(&mut self, body: &str, end: End) -> String {
        self.transactions += 1;
        let txn = self.number * RANGE + self.transactions;
        let end = match end {
            End::Commit => format!("COMMIT;\n\\echo {COMMITTED} {txn}\n"),
            End::Rollback => format!("ROLLBACK;\n\\echo {UNDONE} {txn}\n"),
            End::Prepare => {
                let (end, said) = *self
                    .random
                    .one_of(&[("COMMIT", COMMITTED), ("ROLLBACK", UNDONE)]);
                format!(
                    "PREPARE TRANSACTION '{txn}';\n\\echo {PREPARED} {txn} {said}\n\
                     {}{end} PREPARED '{txn}';\n\\echo {said} {txn}\n",
                    meanwhile()
                )
            }
        };
        format!(
            "BEGIN;\nLOCK TABLE gate IN ROW EXCLUSIVE MODE;\nINSERT INTO ledger VALUES ({txn});\n\
             INSERT INTO l VALUES ({txn});\n{body}{end}"
        )
    }

    /// A transaction of any kind.
    pub fn any(&mut self) -> String {
        let mut body = String::new();
        for _ in 0..=self.random.below(2) {
            body.push_str(&match self.random.below(9) {
                0 => self.load_any(),
                1 => self.copy(),
                2 => self.change_own(),
                3 => self.undone(),
                4 => self.delete_load(),
                _ => self.few(),
            });
        }
        // Rows of others come after rows of its own, whole tables last.
        if self.random.below(3) > 0 {
            body.push_str(&twins::change(&mut self.random));
        }
        let end = match self.random.below(8) {
            0 => End::Rollback,
            1 => End::Prepare,
            _ => End::Commit,
        };
        if self.random.below(15) == 0 {
            // Nobody could read a table that a prepared transaction has truncated.
            let truncate = end != End::Prepare && self.random.below(2) == 0;
            body.push_str(&if truncate {
                self.replace()
            } else {
                self.empty()
            });
        }
        self.transaction(&body, end)
    }

    /// A bulk load.
    pub fn loads(&mut self) -> String {
        let body = if self.random.below(2) == 0 {
            self.load_any()
        } else {
            self.copy()
        };
        self.transaction(&body, End::Commit)
    }

    /// A bulk load that is rolled back.
    pub fn loads_in_vain(&mut self) -> String {
        let body = self.load_any();
        self.transaction(&body, End::Rollback)
    }

    /// Cold rows that are changed or deleted, some of them in whole files, by a transaction in two phases that
    /// loads others.
    pub fn prepares(&mut self) -> String {
        let load = self.load_any();
        let load = self.transaction(&load, End::Commit);
        let mut body = if self.random.below(2) == 0 {
            self.change_own()
        } else {
            self.delete_load()
        };
        body.push_str(&self.load_any());
        if self.random.below(3) == 0 {
            body.push_str(&self.empty());
        }
        load + &self.transaction(&body, End::Prepare)
    }

    /// Some hot rows, and some changes of rows in a table with indexes.
    pub fn makes_hot_rows(&mut self) -> String {
        let mut script = String::new();
        for _ in 0..4 {
            let body = self.few() + &twins::change(&mut self.random);
            script.push_str(&self.transaction(&body, End::Commit));
        }
        script
    }

    /// Cold rows that are changed in the next transaction.
    pub fn changes_cold_rows(&mut self) -> String {
        let load = self.load_any();
        let change = self.change_own();
        self.transaction(&load, End::Commit) + &self.transaction(&change, End::Commit)
    }

    /// A table whose rows are replaced by others.
    pub fn truncates(&mut self) -> String {
        let body = self.replace();
        self.transaction(&body, End::Commit)
    }

    /// A table with indexes whose rows are written anew, in the order of one of them: they stay the same.
    pub fn clusters(&mut self) -> String {
        self.transaction("CLUSTER t USING t_pkey;\n", End::Commit)
    }

    fn take_ids(&mut self, rows: u64) -> (u64, u64) {
        let first = self.number * RANGE + self.rows + 1;
        self.rows += rows;
        (first, first + rows - 1)
    }

    fn load(&mut self, heap: &str, cold: &str) -> String {
        let (first, last) = self.take_ids(LOAD_ROWS);
        let rows = format!("SELECT g, g * 7, 'row ' || g FROM generate_series({first}, {last}) g");
        format!("INSERT INTO {heap} {rows};\nINSERT INTO {cold} {rows};\n")
    }

    fn load_any(&mut self) -> String {
        let (heap, cold) = *self.random.one_of(LOADED);
        let load = self.load(heap, cold);
        self.loaded = (self.last_id() + 1 - LOAD_ROWS, self.last_id());
        load
    }

    fn last_id(&self) -> u64 {
        self.number * RANGE + self.rows
    }

    fn copy(&mut self) -> String {
        let (heap, cold) = *self.random.one_of(LOADED);
        let (first, last) = self.take_ids(LOAD_ROWS);
        self.loaded = (first, last);
        let mut rows = String::new();
        for id in first..=last {
            rows.push_str(&format!("{id}\t{}\tcopied {id}\n", id * 3));
        }
        format!("COPY {heap} FROM stdin;\n{rows}\\.\nCOPY {cold} FROM stdin;\n{rows}\\.\n")
    }

    /// Too few for a file of their own.
    fn few(&mut self) -> String {
        let (heap, cold) = *self.random.one_of(LOADED);
        let (first, last) = self.take_ids(3);
        let rows = format!("SELECT g, -g, 'few' FROM generate_series({first}, {last}) g");
        format!("INSERT INTO {heap} {rows};\nINSERT INTO {cold} {rows};\n")
    }

    /// Of rows that it made last, hot and cold ones.
    fn change_own(&mut self) -> String {
        let last = self.last_id();
        let from = last - self.random.below(LOAD_ROWS.min(self.rows + 1));
        let to = from + 20;
        let d = self.random.below(1000);
        each_loaded(|table| {
            format!(
                "UPDATE {table} SET n = n + {d}, v = 'up' WHERE id BETWEEN {from} AND {to};\n\
                 DELETE FROM {table} WHERE id BETWEEN {} AND {};\n",
                from + 15,
                to + 15
            )
        })
    }

    /// Deletes what is left of its last load: whole files, unless they were compacted with others.
    fn delete_load(&self) -> String {
        let (first, last) = self.loaded;
        each_loaded(|table| format!("DELETE FROM {table} WHERE id BETWEEN {first} AND {last};\n"))
    }

    /// What a savepoint takes back, and something that stays.
    fn undone(&mut self) -> String {
        let (first, last) = self.take_ids(LOAD_ROWS);
        format!(
            "SAVEPOINT s;\nINSERT INTO b SELECT g, 0, 'never' FROM generate_series({first}, {last}) g;\n\
             DELETE FROM b WHERE id BETWEEN {} AND {last};\nROLLBACK TO SAVEPOINT s;\n{}",
            first.saturating_sub(20),
            self.few()
        )
    }

    fn replace(&mut self) -> String {
        format!("TRUNCATE hc, c;\n{}", self.load("hc", "c"))
    }

    /// The same by deleting all rows, and with them whole files.
    fn empty(&mut self) -> String {
        format!(
            "LOCK TABLE hc IN SHARE ROW EXCLUSIVE MODE;\nDELETE FROM hc;\nDELETE FROM c;\n{}",
            self.load("hc", "c")
        )
    }
}

/// What is to be done to each table that is loaded, the heaps first.
fn each_loaded(script: impl Fn(&str) -> String) -> String {
    let heaps = LOADED.iter().map(|(heap, _)| script(heap));
    heaps
        .chain(LOADED.iter().map(|(_, cold)| script(cold)))
        .collect()
}

const COMMITTED: &str = "committed";
const UNDONE: &str = "undone";
/// And then one of the above, for what comes next.
const PREPARED: &str = "prepared";

/// What sessions have heard of their transactions.
#[derive(Default)]
pub struct Heard {
    pub committed: Vec<u64>,
    pub undone: Vec<u64>,
    /// Each with whether its session goes on to commit it.
    pub prepared: BTreeMap<u64, bool>,
}

impl Heard {
    /// Adds what a session has said on stdout.
    pub fn add(&mut self, stdout: &str) {
        for line in stdout.lines() {
            let mut words = line.split(' ');
            let said = words.next();
            let Some(txn) = words.next().and_then(|txn| txn.parse().ok()) else {
                continue;
            };
            match (said, words.next()) {
                (Some(COMMITTED), None) => self.end(txn, true),
                (Some(UNDONE), None) => self.end(txn, false),
                (Some(PREPARED), Some(COMMITTED)) => {
                    self.prepared.insert(txn, true);
                }
                (Some(PREPARED), Some(UNDONE)) => {
                    self.prepared.insert(txn, false);
                }
                _ => {}
            }
        }
    }

    pub fn end(&mut self, txn: u64, committed: bool) {
        if committed {
            self.committed.push(txn);
        } else {
            self.undone.push(txn);
        }
    }

    pub fn has_ended(&self, txn: u64) -> bool {
        self.committed.contains(&txn) || self.undone.contains(&txn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_known_and_what_was_heard_is_read() {
        let mut writer = Writer::new(2, Random::new(1));
        let script = writer.loads() + &writer.loads_in_vain();
        assert!(writer.has_sent(20_000_001) && writer.has_sent(20_000_002));
        assert!(!writer.has_sent(20_000_003) && !writer.has_sent(20_000_000));
        assert!(script.contains("COMMIT;\n\\echo committed 20000001\n"));
        let mut heard = Heard::default();
        heard.add("5\ncommitted 20000001\n\nundone 20000002\ncommitted");
        assert_eq!(heard.committed, [20_000_001]);
        assert_eq!(heard.undone, [20_000_002]);
    }

    #[test]
    fn a_prepared_transaction_is_to_end_as_its_session_has_said() {
        let mut heard = Heard::default();
        heard.add("prepared 7 committed\n3\nprepared 8 undone\nundone 8\nprepared 9 commi");
        assert_eq!(heard.prepared, BTreeMap::from([(7, true), (8, false)]));
        assert!(heard.has_ended(8) && !heard.has_ended(7));
        heard.end(7, true);
        assert_eq!(heard.committed, [7]);

        let script = Writer::new(1, Random::new(1)).prepares();
        let prepared = "PREPARE TRANSACTION '10000002';\n\\echo prepared 10000002 ";
        let (_, rest) = script.split_once(prepared).expect("it is prepared");
        let said = rest.lines().next().expect("how it ends");
        let end = match said {
            COMMITTED => "COMMIT PREPARED '10000002';",
            _ => "ROLLBACK PREPARED '10000002';",
        };
        assert!(rest.ends_with(&format!("{end}\n\\echo {said} 10000002\n")));
    }

    #[test]
    fn a_load_is_deleted_by_its_ids() {
        let mut writer = Writer::new(1, Random::new(1));
        writer.loads();
        writer.makes_hot_rows();
        let delete = writer.delete_load();
        assert_eq!(delete.lines().count(), 4);
        assert!(delete.starts_with("DELETE FROM hb WHERE id BETWEEN 10000001 AND 10000250;\n"));
        assert!(delete.contains("DELETE FROM p WHERE id BETWEEN 10000001 AND 10000250;\n"));
    }
}
