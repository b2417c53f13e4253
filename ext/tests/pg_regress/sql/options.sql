-- Purpose: table options in WITH (…): what is accepted, where it is kept, what survives, and what it does.
CREATE FUNCTION o_options(tab regclass) RETURNS text LANGUAGE sql AS $$
    SELECT COALESCE(array_to_string(c.reloptions, ' '), '-') || ' | '
        || COALESCE((SELECT format_version::text FROM lake.tables WHERE "table" = tab), '-')
    FROM pg_class c WHERE c.oid = tab
$$;

-- creating
CREATE TABLE o_none (id int, t text) USING iceberg;
CREATE TABLE o_all (id int, t text) USING iceberg WITH (format_version = 3, fillfactor = 70, compression = snappy, target_file_size = '64MB', toast.autovacuum_enabled = off);
CREATE TABLE o_as USING iceberg WITH (compression = 'none', format_version = '3') AS SELECT g AS id FROM generate_series(1, 10) g;
CREATE MATERIALIZED VIEW o_view USING iceberg WITH (compression = gzip) AS SELECT * FROM o_as;
CREATE UNLOGGED TABLE o_unlogged (id int) USING iceberg WITH (format_version = 3);
CREATE TEMP TABLE o_temp (id int) USING iceberg WITH (compression = lz4);
CREATE TABLE o_serial (id serial, t text UNIQUE) USING iceberg WITH (compression = LZ4);
CREATE TABLE IF NOT EXISTS o_all (id int) USING iceberg WITH (compression = none);
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off) CREATE TABLE o_explained USING iceberg WITH (compression = gzip) AS SELECT 1 AS id;
SELECT t, o_options(t) FROM unnest('{o_none,o_all,o_as,o_view,o_unlogged,o_temp,o_serial,o_explained}'::regclass[]) t;
SELECT reloptions FROM pg_class WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'o_all'::regclass);
\d+ o_all
-- by the default access method, as pg_dump writes it, and in a schema's elements
SET default_table_access_method = iceberg;
CREATE TABLE o_default (id int) WITH (compression = 'zstd', format_version = '3');
CREATE SCHEMA o_schema CREATE TABLE one (id int) WITH (compression = none) CREATE TABLE two (id int) WITH (fillfactor = 50);
RESET default_table_access_method;
SELECT t, o_options(t) FROM unnest('{o_default,o_schema.one,o_schema.two}'::regclass[]) t;
-- partitions have them, partitioned tables can't
CREATE TABLE o_parted (id int) PARTITION BY RANGE (id) USING iceberg WITH (compression = none);
CREATE TABLE o_parted (id int) PARTITION BY RANGE (id) USING iceberg;
CREATE TABLE o_part PARTITION OF o_parted FOR VALUES FROM (0) TO (10) WITH (compression = none);
ALTER TABLE o_parted SET (compression = none);
SELECT o_options('o_part');
-- as with the options of heap, LIKE doesn't copy them
CREATE TABLE o_like (LIKE o_all INCLUDING ALL) USING iceberg;
SELECT o_options('o_like');

-- what is refused
CREATE TABLE o_bad (a int) USING iceberg WITH (format_version = 1);
CREATE TABLE o_bad (a int) USING iceberg WITH (format_version = 4);
CREATE TABLE o_bad (a int) USING iceberg WITH (format_version = 'two');
CREATE TABLE o_bad (a int) USING iceberg WITH (compression = 'brotli');
CREATE TABLE o_bad (a int) USING iceberg WITH (compression);
CREATE TABLE o_bad (a int) USING iceberg WITH (target_file_size = '10 apples');
CREATE TABLE o_bad (a int) USING iceberg WITH (target_file_size = 1000);
CREATE TABLE o_bad (a int) USING iceberg WITH (target_file_size = '9GB');
CREATE TABLE o_bad (a int) USING iceberg WITH (compression = none, compression = zstd);
CREATE TABLE o_bad (a int) USING iceberg WITH (partition_by = 'day(a)');
CREATE TABLE o_bad (a int) USING iceberg WITH (sort_by = 'b');
CREATE TABLE o_bad (a int) USING iceberg WITH (toast.compression = none);
CREATE TABLE o_bad (a int) USING iceberg WITH (compression = none, nonsense = 1);
CREATE TABLE o_bad USING iceberg WITH (compression = 'no') AS SELECT 1 AS a;
ALTER TABLE o_none SET (compression = 'no');
ALTER TABLE o_none SET (sort_by = 'nope');
ALTER TABLE o_none RESET (compression = none);
ALTER TABLE o_none SET (nonsense = 1);
-- heap knows none of them
CREATE TABLE o_heap (a int) WITH (format_version = 2);
CREATE TABLE o_heap (a int) WITH (partition_by = 'a');
CREATE TABLE o_heap (a int) WITH (fillfactor = 50);
ALTER TABLE o_heap SET (compression = none);
SELECT sqlstate_of('CREATE TABLE o_bad (a int) USING iceberg WITH (compression = x)'),
       sqlstate_of('CREATE TABLE o_bad (a int) USING iceberg WITH (sort_by = x)'),
       sqlstate_of('ALTER TABLE o_heap SET (target_file_size = 1)');
SELECT o_options('o_none');

-- changing
ALTER TABLE o_none SET (compression = gzip);
SELECT o_options('o_none');
ALTER TABLE o_none SET (fillfactor = 60);
SELECT o_options('o_none');
ALTER TABLE o_none SET (target_file_size = '2MB', autovacuum_enabled = off, compression = 'none');
SELECT o_options('o_none');
ALTER TABLE o_none RESET (fillfactor, target_file_size), SET (compression = lz4), RESET (compression), SET (compression = zstd);
SELECT o_options('o_none');
ALTER TABLE o_none SET (fillfactor = 5);
ALTER TABLE o_none SET (compression = none, fillfactor = 5);
SELECT o_options('o_none');
ALTER TABLE o_none RESET (compression, autovacuum_enabled, target_file_size);
SELECT o_options('o_none');
-- what somebody has written into pg_class by hand: as on heap, RESET takes it off
CREATE TABLE o_illegal (id int) USING iceberg;
UPDATE pg_class SET reloptions = '{fillfactor=13,illegal_option=4}' WHERE oid = 'o_illegal'::regclass;
ALTER TABLE o_illegal SET (fillfactor = 14);
ALTER TABLE o_illegal SET (compression = none);
ALTER TABLE o_illegal RESET (fillfactor);
ALTER TABLE o_illegal RESET (illegal_option);
SELECT o_options('o_illegal');
UPDATE pg_class SET reloptions = '{fillfactor=13,illegal_option=4,compression=gzip}' WHERE oid = 'o_illegal'::regclass;
ALTER TABLE o_illegal SET (fillfactor = 14);
ALTER TABLE o_illegal RESET (fillfactor);
ALTER TABLE o_illegal RESET (illegal_option), SET (fillfactor = 15, target_file_size = '2MB');
SELECT o_options('o_illegal');
DROP TABLE o_illegal;
ALTER TABLE IF EXISTS o_missing SET (compression = none);
ALTER TABLE o_missing SET (compression = none);
ALTER MATERIALIZED VIEW o_view SET (compression = none, fillfactor = 90);
SELECT o_options('o_view');
BEGIN;
ALTER TABLE o_all SET (compression = none);
SAVEPOINT s;
ALTER TABLE o_all RESET (compression, fillfactor), SET (format_version = 3);
ROLLBACK TO s;
SELECT o_options('o_all');
ROLLBACK;
SELECT o_options('o_all');
-- no stronger lock than the options of heap take; format_version takes the strongest
BEGIN;
ALTER TABLE o_all SET (compression = lz4);
SELECT mode FROM pg_locks WHERE relation = 'o_all'::regclass AND mode NOT LIKE 'Access%Share%' ORDER BY 1;
ALTER TABLE o_all SET (format_version = 3);
SELECT mode FROM pg_locks WHERE relation = 'o_all'::regclass AND mode LIKE '%Exclusive%' ORDER BY 1;
ROLLBACK;
-- not everybody may
GRANT SELECT ON o_all TO regress_lake_user;
SET ROLE regress_lake_user;
ALTER TABLE o_all SET (compression = none);
RESET ROLE;
SELECT o_options('o_all');

-- what keeps them
ALTER TABLE o_all ADD COLUMN n int DEFAULT 1, ALTER COLUMN id TYPE bigint;
TRUNCATE o_all;
VACUUM FULL o_all;
ALTER TABLE o_all SET UNLOGGED;
SELECT o_options('o_all');
ALTER TABLE o_all SET LOGGED;
SELECT o_options('o_all');
ALTER TABLE o_unlogged SET LOGGED;
SELECT o_options('o_unlogged');
REFRESH MATERIALIZED VIEW o_view;
SELECT o_options('o_view');
ALTER TABLE o_all RENAME TO o_renamed;
ALTER TABLE o_renamed SET SCHEMA o_schema;
SELECT o_options('o_schema.o_renamed');
-- another access method has others
ALTER TABLE o_schema.o_renamed SET ACCESS METHOD heap, SET (compression = none);
ALTER TABLE o_schema.o_renamed SET ACCESS METHOD heap, SET (fillfactor = 80);
SELECT o_options('o_schema.o_renamed');
ALTER TABLE o_schema.o_renamed SET (fillfactor = 81);
ALTER TABLE o_schema.o_renamed SET ACCESS METHOD iceberg, SET (compression = gzip, format_version = 3, fillfactor = 82);
SELECT o_options('o_schema.o_renamed');

-- the format version goes up; down only as long as nothing was published
ALTER TABLE o_none SET (format_version = 3);
ALTER TABLE o_none RESET (format_version);
SELECT o_options('o_none');
INSERT INTO o_none VALUES (1, 'a');
SELECT lake.publish('o_none') IS NOT NULL AS published;
ALTER TABLE o_none SET (format_version = 3);
SELECT lake.publish('o_none') IS NOT NULL AS published;
SELECT o_options('o_none');
ALTER TABLE o_none SET (format_version = 2);
ALTER TABLE o_none RESET (format_version);
SELECT o_options('o_none');
TRUNCATE o_none;
SELECT o_options('o_none');

-- event triggers: at the end of CREATE, the table has its options; ALTER by a trigger in between
CREATE FUNCTION o_trigger() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN
    IF tg_event = 'ddl_command_start' THEN
        BEGIN
            CREATE TABLE o_inner (id int) USING iceberg WITH (compression = gzip);
            RAISE EXCEPTION 'undone';
        EXCEPTION WHEN raise_exception THEN
            CREATE TABLE IF NOT EXISTS o_schema.o_outer (id int) USING iceberg WITH (compression = lz4);
        END;
    ELSE
        FOR r IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
            RAISE NOTICE '% %: %', r.command_tag, r.object_identity, o_options(r.objid);
        END LOOP;
    END IF;
END $$;
SET client_min_messages = warning;
CREATE EVENT TRIGGER o_start ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS') EXECUTE FUNCTION o_trigger();
CREATE EVENT TRIGGER o_end ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS') EXECUTE FUNCTION o_trigger();
RESET client_min_messages;
CREATE TABLE o_outer USING iceberg WITH (compression = none) AS SELECT 1 AS id;
DROP EVENT TRIGGER o_start;
DROP EVENT TRIGGER o_end;
SELECT t, o_options(t) FROM unnest('{o_outer,o_schema.o_outer}'::regclass[]) t;

-- what they do: compression, in every way of writing
SET lake.bulk_rows = 0;
DO $$
DECLARE c text;
BEGIN
    FOREACH c IN ARRAY ARRAY['zstd', 'snappy', 'lz4', 'gzip', 'none'] LOOP
        EXECUTE format('CREATE TABLE o_size_%s USING iceberg WITH (compression = %1$s) AS
                        SELECT g AS id, repeat(md5(g::text), 8) AS t FROM generate_series(1, 20000) g', c);
    END LOOP;
END $$;
CREATE FUNCTION o_size(tab regclass) RETURNS numeric LANGUAGE sql AS $$ SELECT cold_bytes::numeric FROM lake.tables WHERE "table" = tab $$;
SELECT c, o_size(('o_size_' || c)::regclass) < o_size('o_size_none') / 2 AS small FROM unnest(ARRAY['zstd', 'snappy', 'lz4', 'gzip', 'none']) c;
SELECT o_size('o_size_gzip') < o_size('o_size_lz4') AS gzip_is_smaller;
SELECT count(*), count(DISTINCT md5) FROM (
    SELECT md5(string_agg(id || t, ',' ORDER BY id)) FROM o_size_zstd UNION ALL
    SELECT md5(string_agg(id || t, ',' ORDER BY id)) FROM o_size_snappy UNION ALL
    SELECT md5(string_agg(id || t, ',' ORDER BY id)) FROM o_size_lz4 UNION ALL
    SELECT md5(string_agg(id || t, ',' ORDER BY id)) FROM o_size_gzip UNION ALL
    SELECT md5(string_agg(id || t, ',' ORDER BY id)) FROM o_size_none) x;
SET lake.compression = none;
CREATE TABLE o_setting USING iceberg AS SELECT * FROM o_size_zstd;
SELECT o_size('o_setting') > o_size('o_size_none') / 2 AS by_the_setting;
INSERT INTO o_size_zstd SELECT * FROM o_size_none;
SELECT o_size('o_size_zstd') < o_size('o_size_none') AS by_the_option;
SET lake.bulk_rows = -1;
CREATE TABLE o_flushed (id int, t text) USING iceberg WITH (compression = zstd);
INSERT INTO o_flushed SELECT * FROM o_size_none;
CALL settle();
SELECT lake.flush('o_flushed');
SELECT o_size('o_flushed') < o_size('o_size_none') / 2 AS by_the_option;
RESET lake.compression;
SET lake.bulk_rows = 0;
-- and the size of files
CREATE TABLE o_files (id int, t text) USING iceberg WITH (target_file_size = 1048576, compression = none);
INSERT INTO o_files SELECT g, md5(g::text) || md5((-g)::text) FROM generate_series(1, 100000) g;
SELECT files > 3 AS many FROM lake.tables WHERE table_name = 'o_files';
ALTER TABLE o_files RESET (target_file_size);
TRUNCATE o_files;
INSERT INTO o_files SELECT g, md5(g::text) || md5((-g)::text) FROM generate_series(1, 100000) g;
SELECT files FROM lake.tables WHERE table_name = 'o_files';
RESET lake.bulk_rows;

SET client_min_messages = warning;
DROP SCHEMA o_schema CASCADE;
DROP MATERIALIZED VIEW o_view;
DROP TABLE o_none, o_as, o_unlogged, o_temp, o_serial, o_explained, o_default, o_parted, o_like, o_heap, o_outer,
    o_size_zstd, o_size_snappy, o_size_lz4, o_size_gzip, o_size_none, o_setting, o_flushed, o_files;
DROP FUNCTION o_trigger, o_size, o_options;
