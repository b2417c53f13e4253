-- Purpose: option bloom_filter_columns: what is accepted, how it follows columns, and the row groups that filters leave
-- out, whichever way they were written; the same rows as a heap table's.
CREATE FUNCTION b_options(tab regclass) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE(array_to_string(reloptions, ' '), '-') FROM pg_class WHERE oid = tab
$$;
-- Whether filters leave out row groups that haven't a key between theirs. Now and then one looks as if it had.
CREATE FUNCTION b_filters(tab regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    found int := 0;
BEGIN
    FOR i IN 1..20 LOOP
        FOR line IN EXECUTE format('EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT id FROM %s WHERE key = %s', tab, i * 1000 + 5) LOOP
            IF line ~ 'Row Groups Pruned by Bloom Filters: [1-9]' THEN found := found + 1; END IF;
        END LOOP;
    END LOOP;
    RETURN CASE WHEN found = 0 THEN 'none' WHEN found > 15 THEN 'asked' ELSE found::text END;
END $$;

-- what is refused
CREATE TABLE b_bad (a int) USING iceberg WITH (bloom_filter_columns = 'b');
CREATE TABLE b_bad (a int, "Odd" text) USING iceberg WITH (bloom_filter_columns = 'a, Odd');
CREATE TABLE b_bad (a int) USING iceberg WITH (bloom_filter_columns = '');
CREATE TABLE b_bad (a int) USING iceberg WITH (bloom_filter_columns = 'a DESC');
CREATE TABLE b_bad (a int) USING iceberg WITH (bloom_filter_columns = 'bucket(4, a)');
CREATE TABLE b_bad (a int) USING iceberg WITH (bloom_filter_columns = 'a, a');
CREATE TABLE b_bad (a float8) USING iceberg WITH (bloom_filter_columns = 'a');
CREATE TABLE b_bad (a numeric) USING iceberg WITH (bloom_filter_columns = 'a');
CREATE TABLE b_bad (a char(4)) USING iceberg WITH (bloom_filter_columns = 'a');
CREATE TABLE b_bad (a json) USING iceberg WITH (bloom_filter_columns = 'a');
CREATE TABLE b_bad (a int[]) USING iceberg WITH (bloom_filter_columns = 'a');
CREATE TABLE b_bad (a bool) USING iceberg WITH (bloom_filter_columns = 'a');
-- a server without ICU has no such collations
DO $$ BEGIN
    CREATE COLLATION b_any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;
CREATE FUNCTION b_refused(statement text) RETURNS bool LANGUAGE sql AS $$
    SELECT sqlstate_of(statement) = '22023' OR NOT EXISTS (SELECT FROM pg_collation WHERE collname = 'b_any_case')
$$;
SELECT b_refused($$CREATE TABLE b_bad (a text COLLATE b_any_case) USING iceberg WITH (bloom_filter_columns = 'a')$$);

-- bulk loads: each file has keys of the whole range
CREATE TABLE b_heap (id int, key bigint, small int2, d date, ts timestamptz, u uuid, code varchar(20), b bytea, n numeric(10,2), "Odd" text);
CREATE TABLE b_lake (LIKE b_heap) USING iceberg WITH (bloom_filter_columns = 'key, small,d, ts, u, code, b, n, "Odd"');
INSERT INTO b_heap
    SELECT g, g * 10, g % 4 * 100 - 150, date '1970-01-01' + (g % 900 - 450), timestamptz '2024-01-01 00:00+00' + g * interval '1 minute',
           md5(g::text)::uuid, 'c' || g % 5000, decode(md5(g::text), 'hex'), g / -100.0, CASE WHEN g % 3 > 0 THEN 'odd ' || g END
    FROM generate_series(1, 20000) g;
SET lake.bulk_rows = 0;
INSERT INTO b_lake SELECT * FROM b_heap WHERE id % 4 = 0;
INSERT INTO b_lake SELECT * FROM b_heap WHERE id % 4 = 1;
INSERT INTO b_lake SELECT * FROM b_heap WHERE id % 4 = 2;
INSERT INTO b_lake SELECT * FROM b_heap WHERE id % 4 = 3;
SELECT b_filters('b_lake');
SELECT twins('SELECT * FROM @b WHERE key = 5000');
SELECT twins('SELECT id FROM @b WHERE key = 5005');
SELECT twins('SELECT id FROM @b WHERE key IN (10, 15, 20, 199990, 200000)');
SELECT twins('SELECT id, key FROM @b WHERE key = ANY (''{700,705,NULL}''::bigint[])');
SELECT twins('SELECT count(*) FROM @b WHERE small = -150');
SELECT twins('SELECT id FROM @b WHERE small = -50 AND key < 300');
SELECT twins('SELECT id FROM @b WHERE d = ''1969-12-31'' AND id < 3000');
SELECT twins('SELECT id FROM @b WHERE ts = ''2024-01-01 12:00+00''');
SELECT twins('SELECT id FROM @b WHERE u = md5(''77'')::uuid');
SELECT twins('SELECT id FROM @b WHERE u IN (md5(''77'')::uuid, md5(''-'')::uuid, md5(''19999'')::uuid)');
SELECT twins('SELECT id FROM @b WHERE u > md5(''77'')::uuid AND u < ''ff000000-0000-0000-0000-000000000000'' AND id < 100');
SELECT twins('SELECT id FROM @b WHERE code = ''c77''');
SELECT twins('SELECT id FROM @b WHERE code IN (''c0'', ''c'', ''c4999'', NULL)');
SELECT twins('SELECT id FROM @b WHERE b = decode(md5(''4''), ''hex'')');
SELECT twins('SELECT id FROM @b WHERE n = -77.7');
SELECT twins('SELECT id FROM @b WHERE n = 77.701');
SELECT twins('SELECT id FROM @b WHERE "Odd" = ''odd 500'' OR "Odd" = ''odd 501''');
SELECT twins('SELECT count(*) FROM @b WHERE "Odd" IS NULL AND small = 50');
SELECT twins('SELECT id FROM @b WHERE 100 / (id - 30000) > 5 AND key = 5005');
SELECT twins('SELECT l.id FROM @b l JOIN (VALUES (5000::bigint), (5005), (NULL)) k (key) USING (key)');
SELECT twins('SELECT l.id FROM @b l WHERE code IN (SELECT code FROM @b WHERE id BETWEEN 10 AND 12)');
SELECT twins('SELECT count(*), count(k.id) FROM @b l LEFT JOIN (SELECT * FROM @b WHERE id < 5) k ON k.key = l.key + 10');
SET plan_cache_mode = force_generic_plan;
PREPARE b_one (bigint) AS SELECT id FROM b_lake WHERE key = $1;
EXECUTE b_one (770);
RESET plan_cache_mode;
-- in all formats
CREATE FUNCTION b_shown(format text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    line text;
    shown bool := false;
BEGIN
    FOR i IN 1..5 LOOP
        FOR line IN EXECUTE format('EXPLAIN (ANALYZE, FORMAT %s) SELECT id FROM b_lake WHERE key = %s', format, i * 1000 + 5) LOOP
            shown := shown OR line ~ 'Row.Groups.Pruned.by.Bloom.Filters';
        END LOOP;
    END LOOP;
    RETURN shown;
END $$;
SELECT f, b_shown(f) FROM unnest('{text,json,yaml,xml}'::text[]) f;

-- other ways of writing
CALL settle();
SELECT lake.compact('b_lake') > 0 AS compacted;
SELECT b_filters('b_lake');
SELECT twins('SELECT * FROM @b WHERE key = 5000');
SELECT twins('SELECT id FROM @b WHERE u = md5(''77'')::uuid');
CREATE INDEX b_id ON b_lake (id);
CLUSTER b_lake USING b_id;
DROP INDEX b_id;
SELECT b_filters('b_lake');
VACUUM FULL b_lake;
SELECT b_filters('b_lake');
SELECT twins('SELECT * FROM @b WHERE key = 5000');
SELECT twins('SELECT id FROM @b WHERE u = md5(''77'')::uuid');
SET lake.bulk_rows = -1;
CREATE TABLE b_flushed (LIKE b_heap) USING iceberg WITH (bloom_filter_columns = 'key');
INSERT INTO b_flushed SELECT * FROM b_heap;
CALL settle();
SELECT lake.flush('b_flushed') AS flushed;
SELECT b_filters('b_flushed');
-- from the next file on
SET lake.bulk_rows = 0;
CREATE TABLE b_later (LIKE b_heap) USING iceberg;
INSERT INTO b_later SELECT * FROM b_heap;
SELECT b_filters('b_later');
ALTER TABLE b_later SET (bloom_filter_columns = 'key');
INSERT INTO b_later SELECT * FROM b_heap;
SELECT b_filters('b_later');
ALTER TABLE b_later RESET (bloom_filter_columns);
TRUNCATE b_later;
INSERT INTO b_later SELECT * FROM b_heap;
SELECT b_filters('b_later');
-- VACUUM FULL writes files anew that aren't as the options say, or have deleted rows, and no others
CREATE FUNCTION b_first(tab regclass) RETURNS bigint LANGUAGE sql AS $$
    SELECT min(row_start) FROM lake.data_files WHERE "table" = tab
$$;
ALTER TABLE b_later SET (bloom_filter_columns = 'key');
SELECT b_filters('b_later');
CREATE INDEX b_later_id ON b_later (id);
VACUUM FULL b_later;
SELECT b_filters('b_later');
SELECT b_first('b_later') AS first \gset
VACUUM FULL b_later;
SELECT b_first('b_later') = :first AS stays;
DELETE FROM b_later WHERE id = 7;
VACUUM FULL b_later;
SELECT b_first('b_later') > :first AS anew;
SELECT count(*), sum(row_count) AS rows, sum(deleted_rows) AS deleted FROM lake.data_files WHERE table_name = 'b_later';
SELECT count(*), count(DISTINCT id), sum(id) FROM b_later;
SET enable_seqscan = off;
SELECT id FROM b_later WHERE id IN (6, 7, 8) ORDER BY id;
RESET enable_seqscan;
ALTER TABLE b_later SET (sort_by = 'id DESC', compression = none);
VACUUM FULL b_later;
SELECT b_filters('b_later');
SELECT b_first('b_later') AS first \gset
VACUUM FULL b_later;
SELECT b_first('b_later') = :first AS stays;
SELECT id FROM b_later ORDER BY ctid LIMIT 2;
-- files that were written before a column changed keep their filters
CREATE TABLE b_changed (id int, code text, name text, n numeric(6,2), k int) USING iceberg WITH (bloom_filter_columns = 'code, name, n, k');
INSERT INTO b_changed VALUES (1, 'a', 'x', 1.5, 10), (2, 'a ', 'y', -2.25, 20), (3, NULL, 'z', NULL, NULL);
ALTER TABLE b_changed ALTER n TYPE numeric(12,2);
SELECT id FROM b_changed WHERE n IN (1.50, 12345678.25, -2.250) ORDER BY id;
ALTER TABLE b_changed RENAME k TO key;
SELECT id FROM b_changed WHERE key = 20::bigint;
ALTER TABLE b_changed ALTER key TYPE bigint;
SELECT id FROM b_changed WHERE key = ANY ('{20,NULL,99999999999}'::bigint[]);
SELECT count(*) FROM b_changed WHERE key = ANY ('{}'::bigint[]);
ALTER TABLE b_changed RESET (bloom_filter_columns);
ALTER TABLE b_changed DROP key, ADD key bigint DEFAULT 7;
SELECT count(*) FROM b_changed WHERE key = 7;
ALTER TABLE b_changed ALTER code TYPE bpchar;
SELECT id FROM b_changed WHERE code = 'a   ' ORDER BY id;
SELECT id FROM b_changed WHERE code IN ('a   ', 'b') ORDER BY id;
CREATE FUNCTION b_any_case_finds() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_collation WHERE collname = 'b_any_case') THEN RETURN true; END IF;
    ALTER TABLE b_changed ALTER name TYPE text COLLATE b_any_case;
    RETURN (SELECT count(*) FROM b_changed WHERE name = 'X') = 1 AND (SELECT count(*) FROM b_changed WHERE name IN ('Y', 'Z')) = 2;
END $$;
SELECT b_any_case_finds();
RESET lake.bulk_rows;

-- columns that are named, and what is published
CREATE FUNCTION b_published(tab regclass) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT key || ' = ' || value
    FROM lake.tables, jsonb_each_text(pg_read_file(replace(metadata_location, 'file://', ''))::jsonb -> 'properties')
    WHERE "table" = tab AND key LIKE '%bloom%' ORDER BY key COLLATE "C"
$$;
ALTER TABLE b_flushed SET (bloom_filter_columns = 'key, "Odd"');
SELECT lake.publish('b_flushed') IS NOT NULL AS published;
SELECT b_published('b_flushed');
ALTER TABLE b_flushed RENAME "Odd" TO even;
ALTER TABLE b_flushed RENAME key TO "Key";
SELECT b_options('b_flushed');
SELECT lake.publish('b_flushed') IS NOT NULL AS published;
SELECT b_published('b_flushed');
ALTER TABLE b_flushed RENAME "Key" TO key;
SELECT b_filters('b_flushed');
ALTER TABLE b_flushed DROP even;
ALTER TABLE b_flushed ALTER key TYPE float8;
ALTER TABLE b_flushed ALTER even TYPE char(30);
SELECT b_refused('ALTER TABLE b_flushed ALTER even TYPE text COLLATE b_any_case');
ALTER TABLE b_flushed ALTER even TYPE text COLLATE "C";
ALTER TABLE b_flushed SET (bloom_filter_columns = 'nope');
SELECT b_options('b_flushed');
ALTER TABLE b_flushed RESET (bloom_filter_columns);
ALTER TABLE b_flushed DROP even;
SELECT lake.publish('b_flushed') IS NOT NULL AS published;
SELECT b_published('b_flushed');

DEALLOCATE b_one;
SET client_min_messages = warning;
DROP TABLE b_lake, b_heap, b_flushed, b_later, b_changed;
DROP FUNCTION b_options, b_filters, b_first, b_refused, b_shown, b_published, b_any_case_finds;
DROP COLLATION IF EXISTS b_any_case;
RESET client_min_messages;
