-- Purpose: options partition_by and sort_by: what is accepted, what they do to files, how they follow columns; the same
-- rows as a heap table's, whatever the order.
CREATE FUNCTION l_options(tab regclass) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE(array_to_string(reloptions, ' '), '-') FROM pg_class WHERE oid = tab
$$;
-- Files of a table with the span of some columns in each.
CREATE FUNCTION l_files(tab regclass, columns text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    f record;
    r record;
BEGIN
    FOR f IN SELECT row_start, row_count FROM lake.data_files WHERE "table" = tab ORDER BY row_start LOOP
        EXECUTE format('SELECT count(*) AS n, %s FROM %s WHERE (ctid::text::point)[0]::bigint - 2147483648 BETWEEN %s AND %s',
                       columns, tab, f.row_start / 291, (f.row_start + f.row_count - 1) / 291) INTO r;
        RETURN NEXT r::text;
    END LOOP;
END $$;

-- what is refused
CREATE TABLE l_bad (a int, u uuid, f float8, d date, ts timestamptz, n numeric(2,0), l int[], j json, "Odd" text) USING iceberg WITH (partition_by = 'b');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'a', sort_by = 'a, b');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'ctid');
CREATE TABLE l_bad (a int, "Odd" text) USING iceberg WITH (partition_by = 'Odd');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = '');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'bucket(0, a)');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'bucket(a)');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'void(a)');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'a a');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'a, identity(a)');
CREATE TABLE l_bad (ts timestamp) USING iceberg WITH (partition_by = 'day(ts), hours(ts)');
CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'day(a)');
CREATE TABLE l_bad (d date) USING iceberg WITH (partition_by = 'hour(d)');
CREATE TABLE l_bad (f float8) USING iceberg WITH (partition_by = 'bucket(4, f)');
CREATE TABLE l_bad (d date) USING iceberg WITH (partition_by = 'truncate(4, d)');
CREATE TABLE l_bad (n numeric(2,0)) USING iceberg WITH (partition_by = 'truncate(70, n)');
CREATE TABLE l_bad (n numeric(5,2), m numeric(5,2)) USING iceberg WITH (partition_by = 'n, truncate(10, m)');
CREATE TABLE l_bad (l int[]) USING iceberg WITH (partition_by = 'l');
CREATE TABLE l_bad (u uuid) USING iceberg WITH (partition_by = 'u');
CREATE TABLE l_bad (a int) USING iceberg WITH (sort_by = 'a SIDEWAYS');
CREATE TABLE l_bad (a int) USING iceberg WITH (sort_by = 'a NULLS');
CREATE TABLE l_bad (a int) USING iceberg WITH (sort_by = 'a, a DESC');
CREATE TABLE l_bad (j json) USING iceberg WITH (sort_by = 'j');
CREATE TABLE l_bad (l int[]) USING iceberg WITH (sort_by = 'l');
CREATE TABLE l_bad USING iceberg WITH (partition_by = 'b') AS SELECT 1 AS a;
SELECT sqlstate_of($$CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'b')$$),
       sqlstate_of($$CREATE TABLE l_bad (a int) USING iceberg WITH (partition_by = 'day(a)')$$),
       sqlstate_of($$CREATE TABLE l_bad (a int) USING iceberg WITH (sort_by = 'b')$$);

-- a load
CREATE TABLE l_lake (id int, region text, ts timestamptz, code text COLLATE "C", big text, gone int) USING iceberg
    WITH (partition_by = 'region, day(ts)', sort_by = 'code COLLATE "C"');
CREATE TABLE l_lake (id int, region text, ts timestamptz, code text COLLATE "C", big text, gone int) USING iceberg
    WITH (partition_by = 'region, day(ts)', sort_by = 'code DESC NULLS LAST, id');
CREATE TABLE l_heap (LIKE l_lake);
ALTER TABLE l_lake DROP gone;
ALTER TABLE l_heap DROP gone;
\d+ l_lake
SET TimeZone = 'UTC';
SET lake.bulk_rows = 0;
INSERT INTO l_heap
    SELECT g, CASE g % 3 WHEN 0 THEN 'eu' WHEN 1 THEN 'us' END, timestamptz '2024-03-01 00:00+00' + (g % 48) * interval '1 hour',
           NULLIF('c' || g % 10, 'c5'), CASE WHEN g % 100 = 0 THEN repeat(md5(g::text), 200) END
    FROM generate_series(1, 3000) g;
INSERT INTO l_lake SELECT * FROM l_heap;
SELECT l_files('l_lake', 'min(region), max(region), min(ts)::date, max(ts)::date, bool_or(region IS NULL)');
SELECT twins('SELECT * FROM @l');
-- in the order of the file
SELECT bool_and(code <= before OR before IS NULL AND ctid = first OR code IS NULL) FROM (
    SELECT code, lag(code) OVER w AS before, ctid, first_value(ctid) OVER w AS first
    FROM l_lake WHERE region = 'eu' AND ts < '2024-03-02' WINDOW w AS (ORDER BY ctid)) x;
-- small memory: the sort spills
SET work_mem = '64kB';
INSERT INTO l_lake SELECT id + 10000, region, ts, code, big FROM l_heap;
INSERT INTO l_heap SELECT id + 10000, region, ts, code, big FROM l_heap;
RESET work_mem;
SELECT twins('SELECT * FROM @l');
COPY l_lake FROM stdin (FORMAT csv);
20001,us,2024-03-01 23:59:59+00,c2,
20002,,1969-12-31 23:59:59+00,,x
20003,us,2024-03-01 00:00:00+00,c3,
20004,us,2024-03-02 00:00:00+00,c1,
\.
COPY l_heap FROM stdin (FORMAT csv);
20001,us,2024-03-01 23:59:59+00,c2,
20002,,1969-12-31 23:59:59+00,,x
20003,us,2024-03-01 00:00:00+00,c3,
20004,us,2024-03-02 00:00:00+00,c1,
\.
SELECT twins('SELECT * FROM @l');
BEGIN;
INSERT INTO l_lake SELECT * FROM l_heap;
SAVEPOINT a;
INSERT INTO l_lake SELECT * FROM l_heap;
ROLLBACK TO a;
ROLLBACK;
SELECT twins('SELECT * FROM @l');

-- a flush: rows are found where they went, index entries as well
CREATE TABLE k_lake (id int PRIMARY KEY, b bytea, n numeric(10,2), t text) USING iceberg
    WITH (partition_by = 'bucket(4, id), truncate(1000, n), truncate(1, b)', sort_by = 't, n NULLS FIRST');
CREATE TABLE k_heap (LIKE k_lake INCLUDING INDEXES);
INSERT INTO k_heap SELECT g, decode(lpad(to_hex(g % 3), 2, '0'), 'hex') || '\x01', (g % 21 - 10), CASE WHEN g % 50 > 0 THEN md5(g::text) END
    FROM generate_series(1, 1000) g;
INSERT INTO k_lake SELECT * FROM k_heap;
CALL settle();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM k_lake;
COMMIT;
SELECT lake.flush('k_lake');
SELECT count(*) > 10 AS many FROM lake.data_files WHERE table_name = 'k_lake';
SELECT twins('SELECT * FROM @k');
SET enable_seqscan = off;
SELECT twins('SELECT * FROM @k WHERE id IN (1, 17, 500, 999, 1001)');
RESET enable_seqscan;
UPDATE k_lake SET n = n + 1 WHERE id % 10 = 0;
UPDATE k_heap SET n = n + 1 WHERE id % 10 = 0;
DELETE FROM k_lake WHERE id % 13 = 0;
DELETE FROM k_heap WHERE id % 13 = 0;
INSERT INTO k_lake VALUES (500, NULL, NULL, NULL) ON CONFLICT (id) DO UPDATE SET b = NULL, n = NULL;
INSERT INTO k_heap VALUES (500, NULL, NULL, NULL) ON CONFLICT (id) DO UPDATE SET b = NULL, n = NULL;
SELECT twins('SELECT * FROM @k');
CALL settle();
SELECT lake.flush('k_lake');
SELECT twins('SELECT * FROM @k');
SELECT lake.publish('k_lake') IS NOT NULL AS published;
INSERT INTO k_lake SELECT g, '\x07', g, 'hot' FROM generate_series(2001, 2010) g;
INSERT INTO k_heap SELECT g, '\x07', g, 'hot' FROM generate_series(2001, 2010) g;
SELECT lake.publish('k_lake') IS NOT NULL AS published;
-- the hot image has a file for each partition
SELECT count(*) > 1 AS several FROM lake.hot_image h JOIN lake.tables t ON t.storage_id = h.storage_id WHERE t.table_name = 'k_lake';
SELECT lake.publish('k_lake') = (SELECT metadata_location FROM lake.tables WHERE table_name = 'k_lake') AS unchanged;

-- columns that are named
ALTER TABLE l_lake RENAME region TO "Area";
ALTER TABLE l_lake RENAME code TO kode;
SELECT l_options('l_lake');
ALTER TABLE l_lake RENAME "Area" TO region;
ALTER TABLE l_lake RENAME kode TO code;
ALTER TABLE l_lake RENAME big TO huge;
ALTER TABLE l_lake RENAME huge TO big;
SELECT l_options('l_lake');
ALTER TABLE l_lake DROP region;
ALTER TABLE l_lake DROP code;
ALTER TABLE l_lake ALTER region TYPE varchar(10);
ALTER TABLE l_lake ALTER region TYPE int USING 1;
ALTER TABLE l_lake ALTER code TYPE json USING to_json(code);
ALTER TABLE l_lake ALTER region SET STATISTICS 10;
SELECT twins('SELECT id, region, ts, code FROM @l');
BEGIN;
ALTER TABLE l_lake RESET (partition_by, sort_by);
ALTER TABLE l_lake DROP region, DROP code;
SELECT l_options('l_lake');
ROLLBACK;
SELECT l_options('l_lake');
-- other specs for new files; old ones stay
ALTER TABLE l_lake SET (partition_by = 'months(ts)', compression = none), RESET (sort_by);
SELECT l_options('l_lake');
INSERT INTO l_lake SELECT * FROM l_heap WHERE id <= 100;
INSERT INTO l_heap SELECT * FROM l_heap WHERE id <= 100;
SELECT lake.publish('l_lake') IS NOT NULL AS published;
ALTER TABLE l_lake ADD ts_month int;
ALTER TABLE l_heap ADD ts_month int;
SELECT lake.publish('l_lake') IS NOT NULL AS published;
ALTER TABLE l_lake RESET (partition_by);
-- a spec that is published names the column
ALTER TABLE l_lake DROP ts;
ALTER TABLE l_lake SET ACCESS METHOD heap;
ALTER TABLE l_lake SET ACCESS METHOD iceberg;
ALTER TABLE l_lake DROP ts;
ALTER TABLE l_heap DROP ts;
DELETE FROM l_lake WHERE id % 5 = 0;
DELETE FROM l_heap WHERE id % 5 = 0;
SELECT lake.publish('l_lake') IS NOT NULL AS published;
SELECT twins('SELECT * FROM @l');

-- whole schemas and types go with their tables
CREATE SCHEMA l_schema;
CREATE TYPE l_schema.mood AS ENUM ('happy', 'sad');
CREATE TABLE l_schema.people (id int, m l_schema.mood) USING iceberg WITH (partition_by = 'm');
INSERT INTO l_schema.people SELECT g, (ARRAY['happy', 'sad'])[1 + g % 2]::l_schema.mood FROM generate_series(1, 100) g;
SELECT count(*) FROM lake.data_files WHERE schema_name = 'l_schema';
DROP TYPE l_schema.mood CASCADE;
DROP SCHEMA l_schema CASCADE;
-- children follow their parent's names
CREATE TABLE l_parent (a int, b text) PARTITION BY RANGE (a) USING iceberg;
CREATE TABLE l_child PARTITION OF l_parent FOR VALUES FROM (0) TO (10) WITH (sort_by = 'b DESC');
ALTER TABLE l_parent RENAME b TO "B side";
SELECT l_options('l_child');
ALTER TABLE l_parent DROP "B side";

RESET lake.bulk_rows;
RESET TimeZone;
DROP TABLE l_lake, l_heap, k_lake, k_heap, l_parent;
DROP FUNCTION l_options, l_files;
