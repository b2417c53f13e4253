-- Purpose: a bulk load that takes whole batches from the engine stores what it would store row by row.
SET lake.bulk_rows = 100;
-- Runs a statement: whether batches were taken.
CREATE FUNCTION batched(stmt text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    line text;
    found bool := false;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || stmt LOOP
        found := found OR line LIKE '%Rows Written in Batches: %';
    END LOOP;
    RETURN found;
END $$;
CREATE FUNCTION contents(tab regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    EXECUTE format('SELECT count(*) || '' rows, '' || coalesce(sum(hashtextextended(whole::text, 0)), 0) FROM %s whole', tab) INTO answer;
    RETURN answer;
END $$;
CREATE FUNCTION same(a regclass, b regclass) RETURNS bool LANGUAGE sql AS 'SELECT contents(a) = contents(b)';
CREATE FUNCTION counted(stmt text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    rows bigint;
BEGIN
    EXECUTE stmt;
    GET DIAGNOSTICS rows = ROW_COUNT;
    RETURN rows;
END $$;
CREATE TYPE ib_pair AS (a int, b text);
CREATE TABLE ib_source (id int, gap int, bo bool, i2 smallint, i8 bigint, f4 real, f8 float8, num numeric(10,2), any_num numeric, d date, t time,
    ts timestamp, tz timestamptz, txt varchar(20), fixed char(5), bin bytea, u uuid, doc jsonb, span interval, o oid, n name,
    ints int[], texts text[], pair ib_pair) USING iceberg;
INSERT INTO ib_source SELECT g, nullif(g, 50000), g % 3 = 0, g % 30000, g::bigint << 31, g / 7.0, g / 3.0, g * 1.01 - 300, g * 1.000001, date '1000-01-01' + g,
    time '00:00:01' + g * interval '1 second', timestamp '0044-03-15 BC' + g * interval '1 hour', timestamptz '2020-01-01 00:00:00+00' + g * interval '1 minute',
    CASE WHEN g % 5 > 0 THEN 'text ' || g END, 'c' || g % 100, decode(lpad(to_hex(g), 8, '0'), 'hex'), md5(g::text)::uuid,
    jsonb_build_object('k', g), g * interval '1 minute', g, 'name ' || g, CASE WHEN g % 7 > 0 THEN ARRAY[g, NULL, -g] ELSE '{}' END,
    ARRAY['a' || g, 'b'], CASE WHEN g % 11 > 0 THEN ROW(g, 'p' || g)::ib_pair END FROM generate_series(1, 60000) g;
SELECT * FROM hot_cold('ib_source');

-- every type; the same rows as heap takes
CREATE TABLE ib_heap (LIKE ib_source) USING heap;
INSERT INTO ib_heap SELECT * FROM ib_source;
CREATE TABLE ib_copy (LIKE ib_source) USING iceberg;
SELECT batched($$INSERT INTO ib_copy SELECT * FROM ib_source$$);
SELECT same('ib_copy', 'ib_heap');
SELECT * FROM hot_cold('ib_copy');
BEGIN;
CREATE TABLE ib_stats (LIKE ib_source) USING iceberg;
SELECT counted('INSERT INTO ib_stats SELECT * FROM ib_source');
SELECT n_tup_ins FROM pg_stat_xact_user_tables WHERE relname = 'ib_stats';
ROLLBACK;
-- the same table: the statement doesn't see what it writes
BEGIN;
SELECT batched($$INSERT INTO ib_copy SELECT * FROM ib_copy$$);
SELECT count(*) FROM ib_copy;
SAVEPOINT s;
SELECT batched($$INSERT INTO ib_copy SELECT * FROM ib_source$$);
SELECT count(*) FROM ib_copy;
ROLLBACK TO s;
SELECT count(*) FROM ib_copy;
ROLLBACK;
SELECT same('ib_copy', 'ib_heap');

-- without the engine; nothing; few rows
CREATE TABLE ib_few (LIKE ib_source) USING iceberg;
SET lake.engine = off;
SELECT batched($$INSERT INTO ib_few SELECT * FROM ib_source$$);
SELECT same('ib_few', 'ib_heap');
RESET lake.engine;
TRUNCATE ib_few;
SELECT batched($$INSERT INTO ib_few SELECT * FROM ib_source WHERE id < 0$$);
SELECT * FROM hot_cold('ib_few');
SELECT batched($$INSERT INTO ib_few SELECT * FROM ib_source WHERE id > 59900$$);
SELECT * FROM hot_cold('ib_few');

-- columns in another order and of wider types, defaults and constants
CREATE TABLE ib_some (gone int, at date DEFAULT '2001-02-03', note text DEFAULT 'none', num numeric(12,2), id int, txt varchar(30), kind int, made timestamptz DEFAULT now()) USING iceberg;
ALTER TABLE ib_some DROP COLUMN gone;
SELECT batched($$INSERT INTO ib_some (txt, id, kind, num) SELECT txt, id, 7, num FROM ib_source WHERE id > 10$$);
SELECT count(*), count(DISTINCT made) AS made, min(at) = '2001-02-03' AND max(at) = min(at) AS at, min(note) || max(note) AS note, min(kind) + max(kind) AS kind
FROM ib_some;
SELECT count(*) FROM (SELECT id, num, txt FROM ib_some EXCEPT SELECT id, num, txt FROM ib_heap) d;
TRUNCATE ib_some;
PREPARE pick(int, text) AS INSERT INTO ib_some (id, note) SELECT id, $2 FROM ib_source WHERE id > $1;
SET plan_cache_mode = force_generic_plan;
SELECT batched($$EXECUTE pick(100, 'first')$$);
SELECT batched($$EXECUTE pick(59990, 'few')$$);
SELECT batched($$EXECUTE pick(100, NULL)$$);
SELECT note, count(*), count(num) AS nums FROM ib_some GROUP BY note ORDER BY note;
DEALLOCATE pick;
RESET plan_cache_mode;

-- what a fragment returns; what Postgres computes goes row by row
CREATE TABLE ib_sums (id int, n bigint, total bigint, note text) USING iceberg;
SELECT batched($$INSERT INTO ib_sums SELECT id, count(*), sum(gap) FROM ib_source GROUP BY id$$);
SELECT count(*), sum(n) AS n, sum(total) AS total, count(note) AS notes FROM ib_sums;
TRUNCATE ib_sums;
SELECT batched($$INSERT INTO ib_sums SELECT id, i8 % 1000, length(txt), reverse(txt) FROM ib_source$$);
SELECT count(*) FROM ib_sums;

-- constraints, with the error that heap gives
CREATE TABLE ib_strict (id int NOT NULL, note text) USING iceberg;
INSERT INTO ib_strict SELECT gap, txt FROM ib_source;
SELECT * FROM hot_cold('ib_strict');
SELECT batched($$INSERT INTO ib_strict SELECT gap, txt FROM ib_source WHERE id <> 50000$$);
CREATE TABLE ib_checked (id int CHECK (id <> 50000)) USING iceberg;
SELECT batched($$INSERT INTO ib_checked SELECT id FROM ib_source WHERE id <> 50000$$);
INSERT INTO ib_checked SELECT id FROM ib_source;
SELECT * FROM hot_cold('ib_checked');
CREATE TABLE ib_computed (id int, twice int GENERATED ALWAYS AS (id * 2) STORED) USING iceberg;
SELECT batched($$INSERT INTO ib_computed SELECT id FROM ib_source$$);
SELECT count(*) FROM ib_computed WHERE twice = id * 2;
CREATE TABLE ib_numbered (n int GENERATED ALWAYS AS IDENTITY, id int) USING iceberg;
SELECT batched($$INSERT INTO ib_numbered (id) SELECT id FROM ib_source$$);
SELECT * FROM hot_cold('ib_numbered');
CREATE TABLE ib_watched (id int) USING iceberg;
CREATE FUNCTION ib_seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''% rows'', (SELECT count(*) FROM new_rows); RETURN NULL; END';
CREATE TRIGGER seen AFTER INSERT ON ib_watched REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION ib_seen();
SELECT batched($$INSERT INTO ib_watched SELECT id FROM ib_source$$);

-- partitioned and sorted tables are sorted first; partitions of Postgres have their constraints
CREATE TABLE ib_files (LIKE ib_source) USING iceberg WITH (partition_by = 'bucket(4, id)', sort_by = 'id');
SELECT batched($$INSERT INTO ib_files SELECT * FROM ib_source$$);
SELECT same('ib_files', 'ib_heap');
CREATE TABLE ib_parent (id int) PARTITION BY RANGE (id);
CREATE TABLE ib_low PARTITION OF ib_parent FOR VALUES FROM (0) TO (30000) USING iceberg;
CREATE TABLE ib_high PARTITION OF ib_parent FOR VALUES FROM (30000) TO (70000) USING iceberg;
SELECT batched($$INSERT INTO ib_parent SELECT id FROM ib_source$$);
SELECT batched($$INSERT INTO ib_low SELECT id FROM ib_source WHERE id < 30000$$);
SELECT tableoid::regclass, count(*) FROM ib_parent GROUP BY 1 ORDER BY tableoid::regclass::text;

-- a value that Iceberg can't hold stays hot, in the source and in the copy
TRUNCATE ib_few;
INSERT INTO ib_source (id, d) VALUES (60001, 'infinity');
SELECT batched($$INSERT INTO ib_few SELECT * FROM ib_source$$);
SELECT same('ib_few', 'ib_source');
SELECT id, ctid < '(2147483648,0)' AS hot FROM ib_few WHERE d = 'infinity';
DELETE FROM ib_source WHERE id = 60001;

-- other commands
CREATE TABLE ib_made USING iceberg AS SELECT * FROM ib_source;
SELECT same('ib_made', 'ib_heap');
SELECT * FROM hot_cold('ib_made');
CREATE MATERIALIZED VIEW ib_view USING iceberg AS SELECT id AS number, txt, num FROM ib_source WHERE id > 1000;
SELECT count(*), sum(number) AS sum FROM ib_view;
REFRESH MATERIALIZED VIEW ib_view;
SELECT count(*), sum(number) AS sum FROM ib_view;
SELECT * FROM hot_cold('ib_view');
SELECT counted('CREATE TABLE ib_counted USING iceberg AS SELECT id, txt FROM ib_source');
-- what a volatile function returns differs from row to row, also where it is in a prepared statement or in a view
PREPARE drawn AS SELECT id, random() AS draw FROM ib_source;
CREATE TABLE ib_drawn USING iceberg AS EXECUTE drawn;
SELECT count(*), count(DISTINCT draw) > 59000 AS differ FROM ib_drawn;
DROP TABLE ib_drawn;
DEALLOCATE drawn;
CREATE VIEW ib_draws AS SELECT id, random() AS draw FROM ib_source;
CREATE TABLE ib_drawn USING iceberg AS SELECT * FROM ib_draws;
SELECT count(*), count(DISTINCT draw) > 59000 AS differ FROM ib_drawn;
DROP TABLE ib_drawn;
CREATE MATERIALIZED VIEW ib_drawn USING iceberg AS SELECT * FROM ib_draws;
SELECT count(*), count(DISTINCT draw) > 59000 AS differ FROM ib_drawn;
DROP MATERIALIZED VIEW ib_drawn;
DROP VIEW ib_draws;
-- no column of the source
CREATE TABLE ib_ones USING iceberg AS SELECT 1 AS one, 'x' AS note FROM ib_source;
SELECT count(*), sum(one) AS sum, min(note) || max(note) AS note FROM ib_ones;
-- what cidr has printed isn't the text of inet
CREATE TABLE ib_net (net cidr) USING iceberg;
INSERT INTO ib_net SELECT '10.0.0.1/32' FROM generate_series(1, 20000);
ALTER TABLE ib_net ALTER net TYPE inet;
CREATE TABLE ib_addresses (net inet) USING iceberg;
SELECT batched($$INSERT INTO ib_addresses SELECT net FROM ib_net$$);
SELECT net, count(*) FROM ib_addresses GROUP BY net;
BEGIN READ ONLY;
INSERT INTO ib_copy SELECT * FROM ib_source;
ROLLBACK;
GRANT SELECT ON ib_source TO regress_lake_user;
SET ROLE regress_lake_user;
INSERT INTO ib_copy SELECT * FROM ib_source;
RESET ROLE;
SELECT same('ib_copy', 'ib_heap');

RESET lake.bulk_rows;
DROP MATERIALIZED VIEW ib_view;
DROP TABLE ib_source, ib_heap, ib_copy, ib_few, ib_some, ib_sums, ib_strict, ib_checked, ib_computed, ib_numbered, ib_watched, ib_files, ib_parent, ib_made,
    ib_counted, ib_ones, ib_net, ib_addresses;
DROP TYPE ib_pair;
DROP FUNCTION batched, same, contents, counted, ib_seen;
