-- Purpose: what isn't supported yet is refused with a clear error, never answered wrongly; who may do what.
SET lake.bulk_rows = 10;
CREATE TABLE x_lake (id int, t text) USING iceberg;
INSERT INTO x_lake SELECT g, 't' || g FROM generate_series(1, 30) g;
SELECT * FROM hot_cold('x_lake');

-- where there is an index over ranges of blocks, rows stay hot
CREATE TABLE x_brin (id int) USING iceberg;
CREATE INDEX x_brin_i ON x_brin USING brin (id);
INSERT INTO x_brin SELECT generate_series(1, 30);
CALL settle();
SELECT lake.flush('x_brin');
VACUUM x_brin;
SELECT * FROM hot_cold('x_brin');
DROP TABLE x_brin;
SELECT count(*), sum(id) FROM x_lake;
-- a table with an index
CREATE TABLE x_pk (id int PRIMARY KEY, t text) USING iceberg;
INSERT INTO x_pk SELECT g, 't' FROM generate_series(1, 100) g;
SELECT * FROM hot_cold('x_pk');
CALL settle();
SELECT lake.flush('x_pk');
INSERT INTO x_pk VALUES (5, 'again');
INSERT INTO x_pk VALUES (5, 'again') ON CONFLICT (id) DO UPDATE SET t = excluded.t;
INSERT INTO x_pk VALUES (6, 'ignored') ON CONFLICT DO NOTHING;
SELECT * FROM x_pk WHERE id IN (5, 6) ORDER BY id;
SELECT lake.publish('x_pk') IS NOT NULL AS published;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM x_pk WHERE id = 5;
SELECT * FROM x_pk WHERE id = 5;
SET enable_indexscan = off; SET enable_indexonlyscan = off;
SELECT count(*) FROM x_pk WHERE id < 50;
RESET enable_indexscan; RESET enable_indexonlyscan; RESET enable_seqscan;
CREATE INDEX ON x_pk (t, id);
REINDEX TABLE x_pk;
CLUSTER x_pk USING x_pk_pkey;
VACUUM FULL x_pk;
SELECT count(*), sum(id) FROM x_pk;
ALTER TABLE x_pk DROP CONSTRAINT x_pk_pkey;
DROP INDEX x_pk_t_id_idx;
CALL settle();
SELECT lake.flush('x_pk') > 0 AS flushed;
SELECT count(*), sum(id) FROM x_pk;

-- rewrites of storage
INSERT INTO x_lake VALUES (31, 'hot');
SELECT storage_id AS before FROM lake.tables WHERE table_name = 'x_lake' \gset
VACUUM FULL x_lake;
SELECT count(*), sum(id) FROM x_lake;
SELECT * FROM hot_cold('x_lake');
SELECT storage_id = :before AS same FROM lake.tables WHERE table_name = 'x_lake';
BEGIN;
CLUSTER x_pk USING x_pk_pkey;
ROLLBACK;
CLUSTER x_lake USING nothing;
ALTER TABLE x_lake SET TABLESPACE pg_default;
VACUUM (ANALYZE) x_lake;
VACUUM (FREEZE) x_lake;
SELECT count(*) FROM x_lake;

-- types in place
CREATE TABLE x_types (a numeric(10,2), b varchar(10), c timestamp, d int[]) USING iceberg;
INSERT INTO x_types SELECT g, g, '2024-01-01', ARRAY[g] FROM generate_series(1, 30) g;
ALTER TABLE x_types ALTER a TYPE numeric;
SET timezone = 'UTC';
ALTER TABLE x_types ALTER c TYPE timestamptz;
RESET timezone;
ALTER TABLE x_types ALTER a TYPE numeric(12,2);
ALTER TABLE x_types ALTER b TYPE text;
SELECT count(*), sum(a), max(b), max(c) FROM x_types;
INSERT INTO x_types SELECT 1234567890.12, repeat('w', 20), '2024-01-02', NULL FROM generate_series(1, 12);
SELECT count(*), sum(a), max(b), max(c) FROM x_types;

-- settings
SET lake.engine = maybe;
SET lake.bulk_rows = -2;
SET lake.workers = 3;

-- what isn't an iceberg table
CREATE TABLE x_heap (a int);
CREATE VIEW x_view AS SELECT 1 AS a;
CALL settle();
SELECT lake.flush('x_heap');
SELECT lake.publish('x_heap');
CALL settle();
SELECT lake.flush('x_view');
SELECT lake.publish('x_view');
CALL settle();
SELECT lake.flush('pg_class');
CALL settle();
SELECT lake.flush(0);
CALL settle();
SELECT lake.flush('no_such_table');
CALL settle();
SELECT lake.flush(NULL) IS NULL AS "null";

-- who may
CREATE SCHEMA x_schema;
GRANT USAGE, CREATE ON SCHEMA x_schema TO regress_lake_user;
GRANT SELECT ON x_types TO regress_lake_user;
SET ROLE regress_lake_user;
CALL settle();
SELECT lake.flush('x_lake');
SELECT lake.publish('x_lake');
SELECT lake.sweep();
SELECT lake.announce_database();
SELECT lake.metadata_snapshots('file:///etc/passwd');
SELECT count(*) FROM x_lake;
SELECT count(*) FROM x_types;
INSERT INTO x_types VALUES (1);
SELECT count(*) > 0 AS sees_tables FROM lake.tables;
SELECT count(*) > 0 AS sees_files FROM lake.data_files;
SELECT count(*) >= 0 AS sees FROM lake.iceberg_tables;
SELECT count(*) >= 0 AS sees FROM lake.iceberg_namespace_properties;
SELECT count(*) > 0 AS sees FROM lake.stat_workers;
SELECT count(*) > 0 AS sees FROM lake.stat_streams;
SELECT count(*) FROM lake.snapshots;
SELECT count(*) FROM lake.data_file;
SELECT count(*) FROM lake.storage;
DELETE FROM lake.data_file;
SELECT nextval('lake.storage_id_seq');
-- an ordinary user has full use of an own table
CREATE TABLE x_schema.own (a int, b text) USING iceberg;
INSERT INTO x_schema.own SELECT g, 'b' FROM generate_series(1, 50) g;
COPY x_schema.own FROM stdin;
60	c
\.
SELECT count(*), sum(a) FROM x_schema.own;
CALL settle();
SELECT lake.flush('x_schema.own');
SELECT lake.publish('x_schema.own') IS NOT NULL AS published;
SELECT count(*), sum(a) FROM x_schema.own;
ALTER TABLE x_schema.own ADD COLUMN c int DEFAULT 1;
ANALYZE x_schema.own;
SELECT count(*), sum(c) FROM x_schema.own;
TRUNCATE x_schema.own;
DROP TABLE x_schema.own;
RESET ROLE;
GRANT MAINTAIN ON x_lake TO regress_lake_user;
INSERT INTO x_lake VALUES (5000, 'hot');
SET ROLE regress_lake_user;
CALL settle();
SELECT lake.flush('x_lake') > 0 AS flushed;
SELECT lake.publish('x_lake') IS NOT NULL AS published;
RESET ROLE;

-- column privileges and row-level security hold in the engine
GRANT SELECT (id) ON x_lake TO regress_lake_user;
SET ROLE regress_lake_user;
SELECT sum(id) FROM x_lake;
SELECT max(t) FROM x_lake;
SELECT count(*) FROM x_lake WHERE t = 't20';
RESET ROLE;
GRANT SELECT ON x_lake TO regress_lake_user;
ALTER TABLE x_lake ENABLE ROW LEVEL SECURITY;
SET ROLE regress_lake_user;
SELECT count(*), sum(id) FROM x_lake;
RESET ROLE;
CREATE POLICY x_policy ON x_lake FOR SELECT USING (id BETWEEN 5 AND 25);
SET ROLE regress_lake_user;
SELECT count(*), sum(id), max(t) FROM x_lake;
SELECT count(*) FROM x_lake WHERE id > 20;
RESET ROLE;

-- the catalog and the method can't be pulled from under the tables
DROP EXTENSION pg_lake;
DROP ACCESS METHOD iceberg;
DROP TABLE lake.data_file;

-- read-only transactions read
INSERT INTO x_lake VALUES (7000, 'hot');
BEGIN READ ONLY;
SELECT count(*) FROM x_lake;
INSERT INTO x_lake SELECT g FROM generate_series(1, 30) g;
ROLLBACK;
SELECT sqlstate_of('SET TRANSACTION READ ONLY; SELECT lake.flush(''x_lake'')') AS flush;
SELECT sqlstate_of('SET TRANSACTION READ ONLY; SELECT lake.publish(''x_lake'')') AS publish;
SELECT * FROM hot_cold('x_lake');

DROP SCHEMA x_schema CASCADE;
DROP TABLE x_lake, x_pk, x_types, x_heap;
DROP VIEW x_view;
