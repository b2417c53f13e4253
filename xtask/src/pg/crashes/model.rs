//! What must be there: pairs of a heap table and an iceberg table that get the same rows in the same
//! transactions, a ledger of these transactions, and the sums of what was published.
//!
//! Writers and publications keep each other out by the lock of a table, so that what a publication
//! holds is what the heap tables hold in its transaction. All wait for it first, which leaves no
//! deadlocks between them.

use crate::pg::random::Random;
use crate::pg::twins;

/// Ids of one writer's transactions, and of its rows.
const RANGE: u64 = 10_000_000;
/// More than `BULK_ROWS`.
const LOAD_ROWS: u64 = 250;
/// What the sessions set `lake.bulk_rows` to.
pub const BULK_ROWS: u64 = 100;

/// The iceberg tables that are published, with their twins.
pub const PUBLISHED: &[(&str, &str)] = &[("h", "t"), ("hb", "b"), ("hc", "c")];

/// Beside the twins' own: `h` and `t`, which has indexes. `b` is loaded in bulk, `c` truncated.
const TABLES: &str = "
    CREATE TABLE gate ();
    CREATE TABLE ledger (txn bigint);
    CREATE TABLE l (txn bigint) USING iceberg;
    CREATE TABLE hb (id int, n bigint, v text);
    CREATE INDEX ON hb (id);
    CREATE TABLE b (id int, n bigint, v text) USING iceberg WITH (format_version = 3);
    CREATE TABLE hc (id int, n bigint, v text);
    CREATE TABLE c (id int, n bigint, v text) USING iceberg;
    CREATE TABLE published (location text PRIMARY KEY, rows bigint, ids numeric, ns numeric, chars numeric);
    CREATE FUNCTION sums(heap text) RETURNS text LANGUAGE sql
        RETURN format('SELECT count(*), COALESCE(sum(id), 0), COALESCE(sum(n), 0), COALESCE(sum(length(v)), 0) FROM %I', heap);
    CREATE PROCEDURE publish_twins() LANGUAGE plpgsql AS $$
    DECLARE pair record; location text;
    BEGIN
        LOCK TABLE gate IN SHARE MODE;
        FOR pair IN SELECT * FROM (VALUES ('h', 't'), ('hb', 'b'), ('hc', 'c')) AS p(heap, cold) LOOP
            location := lake.publish(pair.cold::regclass);
            EXECUTE format('INSERT INTO published SELECT %L, s.* FROM (%s) s ON CONFLICT DO NOTHING',
                           location, sums(pair.heap));
        END LOOP;
    END $$;
    CREATE PROCEDURE compare_all(setting text) LANGUAGE plpgsql AS $$
    DECLARE pair record; r record;
    BEGIN
        PERFORM set_config('lake.engine', setting, true);
        FOR pair IN SELECT * FROM (VALUES ('ledger', 'l'), ('hb', 'b'), ('hc', 'c')) AS p(heap, cold) LOOP
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
    END $$;";

/// A session that changes the twins, and knows what it has sent.
pub struct Writer {
    number: u64,
    transactions: u64,
    /// Rows of `b` that it has made.
    rows: u64,
    random: Random,
}

impl Writer {
    pub fn new(number: u64, random: Random) -> Writer {
        Writer {
            number,
            transactions: 0,
            rows: 0,
            random,
        }
    }

    /// Whether a transaction is one of its own.
    pub fn has_sent(&self, txn: u64) -> bool {
        txn / RANGE == self.number && (1..=self.transactions).contains(&(txn % RANGE))
    }

    /// A transaction that says on stdout how it has ended.
    fn transaction(&mut self, body: &str, commit: bool) -> String {
        self.transactions += 1;
        let txn = self.number * RANGE + self.transactions;
        let (end, said) = if commit {
            ("COMMIT", COMMITTED)
        } else {
            ("ROLLBACK", UNDONE)
        };
        format!(
            "BEGIN;\nLOCK TABLE gate IN ROW EXCLUSIVE MODE;\nINSERT INTO ledger VALUES ({txn});\n\
             INSERT INTO l VALUES ({txn});\n{body}{end};\n\\echo {said} {txn}\n"
        )
    }

    /// A transaction of any kind.
    pub fn any(&mut self) -> String {
        let mut body = String::new();
        for _ in 0..=self.random.below(2) {
            body.push_str(&match self.random.below(8) {
                0 => self.load("hb", "b"),
                1 => self.copy(),
                2 => self.change_own(),
                3 => self.undone(),
                _ => self.few(),
            });
        }
        // Rows of others come after rows of its own, whole tables last.
        if self.random.below(3) > 0 {
            body.push_str(&twins::change(&mut self.random));
        }
        if self.random.below(15) == 0 {
            body.push_str(&self.replace());
        }
        let commit = self.random.below(8) > 0;
        self.transaction(&body, commit)
    }

    /// A bulk load.
    pub fn loads(&mut self) -> String {
        let body = if self.random.below(2) == 0 {
            self.load("hb", "b")
        } else {
            self.copy()
        };
        self.transaction(&body, true)
    }

    /// A bulk load that is rolled back.
    pub fn loads_in_vain(&mut self) -> String {
        let body = self.load("hb", "b");
        self.transaction(&body, false)
    }

    /// Some hot rows, and some changes of rows in a table with indexes.
    pub fn makes_hot_rows(&mut self) -> String {
        let mut script = String::new();
        for _ in 0..4 {
            let body = self.few() + &twins::change(&mut self.random);
            script.push_str(&self.transaction(&body, true));
        }
        script
    }

    /// Cold rows that are changed in the next transaction.
    pub fn changes_cold_rows(&mut self) -> String {
        let load = self.load("hb", "b");
        let change = self.change_own();
        self.transaction(&load, true) + &self.transaction(&change, true)
    }

    /// A table whose rows are replaced by others.
    pub fn truncates(&mut self) -> String {
        let body = self.replace();
        self.transaction(&body, true)
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

    fn copy(&mut self) -> String {
        let (first, last) = self.take_ids(LOAD_ROWS);
        let mut rows = String::new();
        for id in first..=last {
            rows.push_str(&format!("{id}\t{}\tcopied {id}\n", id * 3));
        }
        format!("COPY hb FROM stdin;\n{rows}\\.\nCOPY b FROM stdin;\n{rows}\\.\n")
    }

    /// Too few for a file of their own.
    fn few(&mut self) -> String {
        let (first, last) = self.take_ids(3);
        let rows = format!("SELECT g, -g, 'few' FROM generate_series({first}, {last}) g");
        format!("INSERT INTO hb {rows};\nINSERT INTO b {rows};\n")
    }

    /// Of rows that it made last, hot and cold ones.
    fn change_own(&mut self) -> String {
        let last = self.number * RANGE + self.rows;
        let from = last - self.random.below(LOAD_ROWS.min(self.rows + 1));
        let to = from + 20;
        let d = self.random.below(1000);
        ["hb", "b"]
            .map(|table| {
                format!(
                    "UPDATE {table} SET n = n + {d}, v = 'up' WHERE id BETWEEN {from} AND {to};\n\
                     DELETE FROM {table} WHERE id BETWEEN {} AND {};\n",
                    from + 15,
                    to + 15
                )
            })
            .concat()
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
}

const COMMITTED: &str = "committed";
const UNDONE: &str = "undone";

/// What sessions have heard of their transactions.
#[derive(Default)]
pub struct Heard {
    pub committed: Vec<u64>,
    pub undone: Vec<u64>,
}

impl Heard {
    /// Adds what a session has said on stdout.
    pub fn add(&mut self, stdout: &str) {
        for line in stdout.lines() {
            match line.split_once(' ') {
                Some((COMMITTED, txn)) => self.committed.extend(txn.parse::<u64>()),
                Some((UNDONE, txn)) => self.undone.extend(txn.parse::<u64>()),
                _ => {}
            }
        }
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
}
