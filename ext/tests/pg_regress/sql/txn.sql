-- Purpose: own writes are seen on every path; subtransactions, two-phase commit, old snapshots.
SET lake.bulk_rows = 10;
CREATE TABLE t_heap (id int, t text);
CREATE TABLE t_lake (id int, t text) USING iceberg;
-- own writes, before commit, with the engine on, off, force; hot, bulk, flushed
BEGIN;
INSERT INTO t_heap SELECT g, 'a' FROM generate_series(1, 40) g;
INSERT INTO t_lake SELECT g, 'a' FROM generate_series(1, 40) g;
SELECT twins('SELECT * FROM @t');
UPDATE t_heap SET t = 'b' WHERE id <= 5;
UPDATE t_lake SET t = 'b' WHERE id <= 5;
SELECT twins('SELECT t, count(*), sum(id) FROM @t GROUP BY t');
DELETE FROM t_heap WHERE id = 6;
DELETE FROM t_lake WHERE id = 6;
SELECT twins('SELECT * FROM @t');
SAVEPOINT one;
INSERT INTO t_heap SELECT g, 'c' FROM generate_series(101, 140) g;
INSERT INTO t_lake SELECT g, 'c' FROM generate_series(101, 140) g;
SELECT twins('SELECT t, count(*), sum(id) FROM @t GROUP BY t');
SELECT id FROM t_lake WHERE ctid = (SELECT ctid FROM t_lake WHERE id = 130);
ROLLBACK TO one;
SELECT twins('SELECT t, count(*), sum(id) FROM @t GROUP BY t');
INSERT INTO t_heap SELECT g, 'd' FROM generate_series(201, 240) g;
INSERT INTO t_lake SELECT g, 'd' FROM generate_series(201, 240) g;
RELEASE one;
SELECT twins('SELECT * FROM @t');
COMMIT;
SELECT twins('SELECT * FROM @t');

-- a whole transaction that is undone
BEGIN;
INSERT INTO t_lake SELECT g, 'gone' FROM generate_series(1, 100) g;
DELETE FROM t_lake WHERE id < 4;
SELECT count(*) FROM t_lake;
ROLLBACK;
SELECT twins('SELECT * FROM @t');
-- by an error in the middle of a load
INSERT INTO t_lake SELECT 1000 / (50 - g), 'gone' FROM generate_series(1, 100) g;
SELECT twins('SELECT * FROM @t');
COPY t_lake FROM PROGRAM 'seq 1 50; exit 3';
SELECT twins('SELECT * FROM @t');
-- by a deferred constraint
CREATE TABLE t_pk (id int PRIMARY KEY);
CREATE TABLE t_fk (id int REFERENCES t_pk DEFERRABLE INITIALLY DEFERRED) USING iceberg;
BEGIN;
INSERT INTO t_fk SELECT generate_series(1, 30);
SELECT count(*) FROM t_fk;
COMMIT;
SELECT count(*) FROM t_fk;
DROP TABLE t_fk, t_pk;

-- deep subtransactions
DO $$
BEGIN
    FOR i IN 1..20 LOOP
        BEGIN
            INSERT INTO t_lake SELECT 10000 + i, 'e' FROM generate_series(1, 15) g;
            IF i % 2 = 0 THEN RAISE EXCEPTION 'undo'; END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT count(*), count(DISTINCT id), min(id), max(id) FROM t_lake WHERE id > 10000;
INSERT INTO t_heap SELECT * FROM t_lake WHERE id > 10000;
SELECT twins('SELECT * FROM @t');

-- command ids: a statement doesn't see what it writes, the next one does
BEGIN;
INSERT INTO t_heap SELECT id + 100000, t FROM t_heap;
INSERT INTO t_lake SELECT id + 100000, t FROM t_lake;
SELECT twins('SELECT * FROM @t');
INSERT INTO t_heap SELECT id + 200000, t FROM t_heap;
INSERT INTO t_lake SELECT id + 200000, t FROM t_lake;
SELECT twins('SELECT count(*), sum(id) FROM @t');
COMMIT;
WITH w AS (INSERT INTO t_lake VALUES (-1, 'w') RETURNING id) SELECT (SELECT count(*) FROM w), (SELECT count(*) FROM t_lake WHERE id = -1);
DELETE FROM t_lake WHERE id = -1;

-- two-phase commit
BEGIN;
INSERT INTO t_lake SELECT g, 'prepared' FROM generate_series(1, 40) g;
PREPARE TRANSACTION 'lake1';
SELECT count(*) FROM t_lake WHERE t = 'prepared';
CALL settle();
SELECT lake.flush('t_lake') > 0 AS flushed;
COMMIT PREPARED 'lake1';
SELECT count(*), sum(id) FROM t_lake WHERE t = 'prepared';
BEGIN;
INSERT INTO t_lake SELECT g, 'never' FROM generate_series(1, 40) g;
PREPARE TRANSACTION 'lake2';
ROLLBACK PREPARED 'lake2';
SELECT count(*) FROM t_lake WHERE t = 'never';
BEGIN;
CREATE TABLE t_two (a int) USING iceberg;
INSERT INTO t_two SELECT generate_series(1, 40);
PREPARE TRANSACTION 'lake3';
COMMIT PREPARED 'lake3';
SELECT count(*), sum(a) FROM t_two;
BEGIN;
CALL settle();
SELECT lake.flush('t_two') AS flushed;
PREPARE TRANSACTION 'lake4';
SELECT count(*), sum(a) FROM t_two;
COMMIT PREPARED 'lake4';
SELECT count(*), sum(a) FROM t_two;
SELECT hot FROM hot_cold('t_two');
BEGIN;
TRUNCATE t_two;
INSERT INTO t_two SELECT generate_series(1, 5);
PREPARE TRANSACTION 'lake5';
COMMIT PREPARED 'lake5';
SELECT count(*), sum(a) FROM t_two;
BEGIN;
DROP TABLE t_two;
PREPARE TRANSACTION 'lake6';
COMMIT PREPARED 'lake6';
SELECT count(*) FROM lake.tables WHERE table_name = 't_two';
-- nothing of these transactions is swept while it may be needed
SELECT lake.sweep() >= 0 AS swept;
SELECT count(*), sum(id) FROM t_lake WHERE t = 'prepared';

-- snapshots
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM t_lake;
INSERT INTO t_lake SELECT g, 'rr' FROM generate_series(1, 30) g;
SELECT count(*) FROM t_lake;
CALL settle();
SELECT lake.flush('t_lake') >= 0 AS flushed;
SELECT count(*) FROM t_lake;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM t_lake WHERE t = 'rr';
INSERT INTO t_lake VALUES (0, 'ser');
COMMIT;
-- an exported snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_export_snapshot() AS snap \gset
SELECT count(*) FROM t_lake;
COMMIT;

-- LOCK, autovacuum-like work inside and outside of transactions
BEGIN;
LOCK TABLE t_lake IN ACCESS EXCLUSIVE MODE;
SELECT count(*) > 0 AS readable FROM t_lake;
COMMIT;
BEGIN;
VACUUM t_lake;
ROLLBACK;
BEGIN;
ANALYZE t_lake;
ROLLBACK;
DROP TABLE t_heap, t_lake;
