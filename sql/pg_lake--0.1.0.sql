\echo Use "CREATE EXTENSION pg_lake" to load this file. \quit

-- Catalogs. Written by the extension's own code only; see docs/architecture.md.

CREATE SEQUENCE lake.storage_id_seq;
CREATE SEQUENCE lake.intent_id_seq;
-- Blocks of row numbers; the first one is never used.
CREATE SEQUENCE lake.row_block_seq MINVALUE 0 START 0;

CREATE TABLE lake.control (
    system_identifier bigint NOT NULL,
    database oid NOT NULL,
    incarnation text NOT NULL
) USING heap;
INSERT INTO lake.control
SELECT s.system_identifier, d.oid, pg_catalog.gen_random_uuid()::text
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database();

CREATE TABLE lake.storage (
    storage_id bigint NOT NULL,
    tablespace oid NOT NULL,
    relfilenumber oid NOT NULL,
    relid oid NOT NULL,
    directory text NOT NULL,
    table_uuid uuid NOT NULL,
    format_version smallint NOT NULL,
    CONSTRAINT storage_pkey PRIMARY KEY (storage_id),
    CONSTRAINT storage_locator_key UNIQUE (tablespace, relfilenumber)
) USING heap;

CREATE TABLE lake.data_file (
    storage_id bigint NOT NULL,
    row_start bigint NOT NULL,
    row_count bigint NOT NULL,
    path text NOT NULL,
    size bigint NOT NULL,
    split_offsets bytea,
    deleted bytea,
    stats bytea NOT NULL,
    flush_xid bigint,
    forward bytea,
    -- Of a file whose row numbers have gaps: the end of their range, and runs of consecutive ones.
    row_end bigint,
    runs bytea,
    -- Which partition the rows are in, and what they are sorted by; null: none.
    partition bytea,
    sort_order bytea,
    -- Who registered the rows, what their system column xmin shows; a compacted file has several.
    inserted bytea NOT NULL,
    -- Of each block of a file in a store.
    checksums bytea,
    -- What the table's options said when it was written.
    options bytea,
    CONSTRAINT data_file_pkey PRIMARY KEY (storage_id, row_start)
) USING heap;

-- Deleted cold rows, and where the new versions of updated ones are.
CREATE TABLE lake.row_mark (
    storage_id bigint NOT NULL,
    "row" bigint NOT NULL,
    successor tid,
    -- Whether the successor has other values in the columns that foreign keys may refer to.
    key_changed boolean NOT NULL
) USING heap;
CREATE INDEX row_mark_row_idx ON lake.row_mark (storage_id, "row");

-- Files of which a statement has deleted all rows: the range of their numbers.
CREATE TABLE lake.file_mark (
    storage_id bigint NOT NULL,
    row_start bigint NOT NULL,
    row_end bigint NOT NULL
) USING heap;
CREATE INDEX file_mark_row_idx ON lake.file_mark (storage_id, row_start);

-- What row locks of cold rows are held on.
CREATE TABLE lake.anchor (
    storage_id bigint NOT NULL,
    "row" bigint NOT NULL
) USING heap;
CREATE INDEX anchor_row_idx ON lake.anchor (storage_id, "row");

CREATE TABLE lake.intent (
    intent_id bigint NOT NULL,
    owner bigint NOT NULL,
    storage_id bigint NOT NULL,
    directory text NOT NULL,
    prefix text NOT NULL,
    -- When a sweep has removed what there was. Another one looks whether something has come to be there since.
    swept timestamptz
) USING heap;

CREATE TABLE lake.garbage (
    storage_id bigint NOT NULL,
    path text NOT NULL,
    reason text NOT NULL,
    xid bigint NOT NULL,
    since timestamptz NOT NULL,
    -- Of what published snapshots refer to, or have: the number of the last one.
    publication bigint,
    -- Since when the table's metadata are known to retain none of these.
    released timestamptz
) USING heap;

CREATE TABLE lake.publication (
    storage_id bigint NOT NULL,
    metadata_location text NOT NULL,
    previous_metadata_location text,
    snapshot_id bigint NOT NULL,
    published_at timestamptz NOT NULL,
    digest bigint NOT NULL,
    number bigint NOT NULL,
    -- The number of the first snapshot that the metadata retain.
    oldest bigint NOT NULL,
    -- The columns that partition specs in the metadata name.
    partitioned_by bytea NOT NULL,
    -- Number (upper half) and a checksum of the snapshot's data files.
    contents bigint NOT NULL,
    CONSTRAINT publication_pkey PRIMARY KEY (storage_id)
) USING heap;

-- Files of hot rows that retained Iceberg snapshots refer to.
CREATE TABLE lake.hot_image (
    storage_id bigint NOT NULL,
    path text NOT NULL,
    CONSTRAINT hot_image_pkey PRIMARY KEY (storage_id, path)
) USING heap;

-- Values of columns that files from before ADD COLUMN … DEFAULT don't have, where pg_attribute doesn't know them any more.
CREATE TABLE lake.missing_value (
    storage_id bigint NOT NULL,
    attnum smallint NOT NULL,
    value bytea NOT NULL,
    CONSTRAINT missing_value_pkey PRIMARY KEY (storage_id, attnum)
) USING heap;

-- The access method.

CREATE FUNCTION lake.iceberg_am_handler(internal) RETURNS table_am_handler
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'iceberg_am_handler';
CREATE ACCESS METHOD iceberg TYPE TABLE HANDLER lake.iceberg_am_handler;
COMMENT ON ACCESS METHOD iceberg IS 'hot rows in a heap, cold rows in the Parquet files of an Iceberg table';

-- Maintenance.

CREATE FUNCTION lake.flush(regclass) RETURNS bigint
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'flush_wrapper';
COMMENT ON FUNCTION lake.flush(regclass) IS 'moves settled hot rows to Parquet; returns their number';

CREATE FUNCTION lake.merge(regclass) RETURNS bigint
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'merge_wrapper';
COMMENT ON FUNCTION lake.merge(regclass) IS 'puts deletions of cold rows into their files'' lists and drops files without a row; returns the number of deletions';

CREATE FUNCTION lake.compact(regclass) RETURNS bigint
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'compact_wrapper';
COMMENT ON FUNCTION lake.compact(regclass) IS 'puts small files into one and leaves out deleted rows; returns the number of files that were replaced';

CREATE FUNCTION lake.publish(regclass) RETURNS text
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'publish_wrapper';
COMMENT ON FUNCTION lake.publish(regclass) IS 'publishes the table''s state as an Iceberg snapshot; returns the metadata location';

CREATE FUNCTION lake.sweep(retention interval DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sweep_wrapper';
COMMENT ON FUNCTION lake.sweep(interval) IS 'removes files that nobody needs any more; returns their number';
REVOKE EXECUTE ON FUNCTION lake.sweep(interval) FROM PUBLIC;

CREATE FUNCTION lake.check(
    regclass, OUT severity text, OUT kind text, OUT object text, OUT detail text
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'check_wrapper';
COMMENT ON FUNCTION lake.check(regclass) IS 'compares catalog, files and published metadata of a table; changes nothing';

CREATE FUNCTION lake.check_database(
    OUT "table" regclass, OUT severity text, OUT kind text, OUT object text, OUT detail text
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'check_database_wrapper';
COMMENT ON FUNCTION lake.check_database() IS 'the same for all tables, and for what is of no table';
REVOKE EXECUTE ON FUNCTION lake.check_database() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lake.check_database() TO pg_monitor;

CREATE FUNCTION lake.cache_warm(regclass) RETURNS bigint
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cache_warm_wrapper';
COMMENT ON FUNCTION lake.cache_warm(regclass) IS 'reads the table''s files into the disk cache; returns how many bytes of them are there';

CREATE FUNCTION lake.cache_evict(regclass) RETURNS bigint
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cache_evict_wrapper';
COMMENT ON FUNCTION lake.cache_evict(regclass) IS 'takes the table''s files out of the disk cache; returns how many bytes that were';

CREATE FUNCTION lake.announce_database() RETURNS void
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'announce_database_wrapper';
REVOKE EXECUTE ON FUNCTION lake.announce_database() FROM PUBLIC;

-- Statistics.

CREATE FUNCTION lake.stat_workers_fn(
    OUT slot int, OUT kind text, OUT pid int, OUT incarnation bigint, OUT tasks bigint,
    OUT requests bigint, OUT errors bigint, OUT rows_out bigint, OUT bytes_in bigint,
    OUT bytes_out bigint, OUT memory_bytes bigint, OUT memory_peak bigint
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stat_workers_wrapper';
CREATE VIEW lake.stat_workers AS SELECT * FROM lake.stat_workers_fn();

CREATE FUNCTION lake.stat_streams_fn(
    OUT stream int, OUT state text, OUT pid int, OUT worker int, OUT generation bigint,
    OUT bytes_written bigint, OUT bytes_read bigint, OUT queued_bytes bigint, OUT cancelled boolean
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stat_streams_wrapper';
CREATE VIEW lake.stat_streams AS SELECT * FROM lake.stat_streams_fn();

CREATE FUNCTION lake.stat_cache_fn(
    OUT shard int, OUT worker int, OUT capacity bigint, OUT bytes bigint, OUT blocks bigint, OUT hits bigint,
    OUT misses bigint, OUT bytes_from_cache bigint, OUT bytes_from_store bigint, OUT evictions bigint,
    OUT corrupt_blocks bigint, OUT in_flight bigint, OUT latency_p50_us bigint, OUT latency_p99_us bigint, OUT off text
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stat_cache_wrapper';
CREATE VIEW lake.stat_cache AS SELECT * FROM lake.stat_cache_fn();

CREATE FUNCTION lake.stat_cache_reset() RETURNS void
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stat_cache_reset_wrapper';
COMMENT ON FUNCTION lake.stat_cache_reset() IS 'counts in lake.stat_cache begin at 0 again';
REVOKE EXECUTE ON FUNCTION lake.stat_cache_reset() FROM PUBLIC;

CREATE FUNCTION lake.stat_progress_fn(
    OUT pid int, OUT datid oid, OUT relid oid, OUT command text, OUT phase text, OUT rows_total bigint,
    OUT rows_done bigint, OUT files_done bigint, OUT bytes_done bigint, OUT started timestamptz
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stat_progress_wrapper';
CREATE VIEW lake.stat_progress AS
SELECT p.pid, p.datid, d.datname, p.relid, p.command, p.phase, p.rows_total, p.rows_done, p.files_done,
       p.bytes_done, p.started
FROM lake.stat_progress_fn() p
LEFT JOIN pg_catalog.pg_database d ON d.oid = p.datid;

CREATE FUNCTION lake.stat_queries_fn(
    OUT pid int, OUT datid oid, OUT query_start timestamptz, OUT state text, OUT rows_read bigint,
    OUT rows_delivered bigint, OUT row_groups_done bigint, OUT row_groups_total bigint, OUT memory_bytes bigint,
    OUT memory_peak bigint, OUT spilled_bytes bigint, OUT spilled_files bigint
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stat_queries_wrapper';
CREATE VIEW lake.stat_queries AS
SELECT q.pid, q.datid, d.datname, q.query_start, q.state, q.rows_read, q.rows_delivered, q.row_groups_done,
       q.row_groups_total, q.memory_bytes, q.memory_peak, q.spilled_bytes, q.spilled_files
FROM lake.stat_queries_fn() q
LEFT JOIN pg_catalog.pg_database d ON d.oid = q.datid;

CREATE FUNCTION lake.stat_garbage_fn(
    OUT reason text, OUT entries bigint, OUT since timestamptz, OUT removable bigint, OUT removable_from timestamptz
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stat_garbage_wrapper';
CREATE VIEW lake.stat_garbage AS SELECT * FROM lake.stat_garbage_fn();

CREATE FUNCTION lake.metadata_snapshots(
    metadata_location text, OUT snapshot_id bigint, OUT parent_id bigint, OUT sequence_number bigint,
    OUT committed_at timestamptz, OUT operation text, OUT summary jsonb
) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'metadata_snapshots_wrapper';
REVOKE EXECUTE ON FUNCTION lake.metadata_snapshots(text) FROM PUBLIC;

-- What there is.

CREATE FUNCTION lake.object_location(path text) RETURNS text
    LANGUAGE c STRICT STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'object_location_wrapper';
COMMENT ON FUNCTION lake.object_location(text) IS 'the URL of a path of the catalog whose tablespace is in an object store, or null';

CREATE VIEW lake.tables AS
SELECT n.nspname AS schema_name,
       c.relname AS table_name,
       c.oid::regclass AS "table",
       s.storage_id,
       s.table_uuid,
       s.format_version,
       COALESCE(lake.object_location(s.directory),
                CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
                     THEN pg_catalog.current_setting('data_directory') || '/' END || s.directory) AS location,
       f.files,
       f.cold_rows,
       f.cold_bytes,
       p.metadata_location,
       p.previous_metadata_location,
       p.snapshot_id,
       p.published_at
FROM lake.storage s
JOIN pg_catalog.pg_class c
  ON c.relfilenode = s.relfilenumber
 AND COALESCE(NULLIF(c.reltablespace, 0), (SELECT d.dattablespace FROM pg_catalog.pg_database d
                                           WHERE d.datname = pg_catalog.current_database())) = s.tablespace
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS files,
           COALESCE(pg_catalog.sum(d.row_count - COALESCE(pg_catalog.length(d.deleted), 0) / 4)
                    FILTER (WHERE k.row_start IS NULL), 0)::bigint
           - (SELECT pg_catalog.count(*) FROM lake.row_mark m
              WHERE m.storage_id = s.storage_id
                AND NOT EXISTS (SELECT FROM lake.file_mark k WHERE k.storage_id = m.storage_id
                                AND m."row" >= k.row_start AND m."row" < k.row_end)) AS cold_rows,
           COALESCE(pg_catalog.sum(d.size), 0)::bigint AS cold_bytes
    FROM lake.data_file d LEFT JOIN lake.file_mark k ON k.storage_id = d.storage_id AND k.row_start = d.row_start
    WHERE d.storage_id = s.storage_id
) f
LEFT JOIN lake.publication p ON p.storage_id = s.storage_id;

CREATE VIEW lake.data_files AS
SELECT t.schema_name, t.table_name, t."table",
       COALESCE(lake.object_location(d.path),
                CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
                     THEN pg_catalog.current_setting('data_directory') || '/' END || d.path) AS path,
       d.row_start, d.row_count, d.size,
       CASE WHEN k.row_start IS NOT NULL THEN d.row_count
            ELSE COALESCE(pg_catalog.length(d.deleted), 0) / 4
            + (SELECT pg_catalog.count(*) FROM lake.row_mark m
               WHERE m.storage_id = d.storage_id AND m."row" >= d.row_start AND m."row" < COALESCE(d.row_end, d.row_start + d.row_count))
       END AS deleted_rows
FROM lake.data_file d JOIN lake.tables t ON t.storage_id = d.storage_id
LEFT JOIN lake.file_mark k ON k.storage_id = d.storage_id AND k.row_start = d.row_start;

CREATE VIEW lake.snapshots AS
SELECT t.schema_name, t.table_name, t."table", s.*,
       s.snapshot_id = t.snapshot_id AS is_current
FROM lake.tables t
CROSS JOIN LATERAL lake.metadata_snapshots(t.metadata_location) s
WHERE t.metadata_location IS NOT NULL;

-- The tables of Iceberg's JDBC catalog: an outside engine's SQL catalog finds the published tables here.

CREATE VIEW lake.iceberg_tables AS
SELECT pg_catalog.current_database()::varchar(255) AS catalog_name,
       t.schema_name::varchar(255) AS table_namespace,
       t.table_name::varchar(255) AS table_name,
       t.metadata_location::varchar(1000) AS metadata_location,
       t.previous_metadata_location::varchar(1000) AS previous_metadata_location,
       'TABLE'::varchar(5) AS iceberg_type
FROM lake.tables t
WHERE t.metadata_location IS NOT NULL;

CREATE VIEW lake.iceberg_namespace_properties AS
SELECT DISTINCT pg_catalog.current_database()::varchar(255) AS catalog_name,
       t.schema_name::varchar(255) AS namespace,
       'exists'::varchar(255) AS property_key,
       'true'::varchar(1000) AS property_value
FROM lake.tables t
WHERE t.metadata_location IS NOT NULL;

GRANT USAGE ON SCHEMA lake TO PUBLIC;
GRANT SELECT ON lake.stat_workers, lake.stat_streams, lake.stat_cache, lake.stat_progress, lake.stat_queries, lake.stat_garbage,
    lake.tables, lake.data_files, lake.iceberg_tables, lake.iceberg_namespace_properties TO PUBLIC;

SELECT lake.announce_database();
