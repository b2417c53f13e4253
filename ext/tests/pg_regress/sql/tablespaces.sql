-- Purpose: tablespaces in object stores: their options, what may be in them, and where its files are. No store is asked.
SET allow_in_place_tablespaces = on;

-- options that make no store
CREATE TABLESPACE lake_bad LOCATION '' WITH (bucket = 'lake');
CREATE TABLESPACE lake_bad LOCATION '' WITH (conditional_put = off);
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = ftp, bucket = 'lake');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3);
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'Not a bucket');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = gcs, bucket = 'a..b');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = azure, bucket = 'a_b', account = acme1);
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', prefix = 'a/../b');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', prefix = 'a//b');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', endpoint = 'storage.example.com');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', account = acme1);
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = gcs, bucket = 'lake', region = 'eu-west-1');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = azure, bucket = 'lake');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = azure, bucket = 'lake', account = 'acme.example.com');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', region = 'eu west');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', conditional_put = maybe);
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', bucket = 'other');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', nonsense = 1);
CREATE TABLESPACE lake_bad LOCATION '' WITH (nonsense = 1);
CREATE TABLESPACE lake_bad LOCATION '' WITH (toast.bucket = 'lake');

-- secrets are refused, and not shown
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', access_key_id = 'hunter2');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', secret_access_key = 'hunter2');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = azure, bucket = 'lake', account = acme1, account_key = 'hunter2');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = azure, bucket = 'lake', account = acme1, sas_token = 'hunter2');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = gcs, bucket = 'lake', service_account_key = 'hunter2');
CREATE TABLESPACE lake_bad LOCATION '' WITH (password = 'hunter2');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', endpoint = 'https://me:hunter2@example.com');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', endpoint = 'https://example.com/?sig=hunter2');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake', credential = 'hunter2/+');

-- Postgres' own objections come first
BEGIN;
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake');
ROLLBACK;
CREATE TABLESPACE pg_default LOCATION '' WITH (protocol = s3, bucket = 'lake');
SET ROLE regress_lake_user;
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake');
ALTER TABLESPACE pg_default SET (protocol = s3, bucket = 'lake');
RESET ROLE;
ALTER TABLESPACE lake_bad SET (protocol = s3, bucket = 'lake');
SELECT count(*) FROM pg_tablespace WHERE spcname = 'lake_bad';

-- a plain tablespace, as pg_dumpall creates each
CREATE TABLESPACE lake_store LOCATION '' WITH (seq_page_cost = 2);
CREATE TABLESPACE lake_plain LOCATION '';
ALTER TABLESPACE lake_store SET (bucket = 'lake');
ALTER TABLESPACE lake_store SET (protocol = s3, bucket = 'lake', secret_access_key = 'hunter2');
ALTER TABLESPACE lake_store SET (nonsense = 1);
ALTER TABLESPACE lake_store RESET (nonsense);
ALTER TABLESPACE lake_store RESET (protocol = s3);
ALTER TABLESPACE pg_default SET (protocol = s3, bucket = 'lake');
CREATE TABLE st_heap (id int) TABLESPACE lake_store;
ALTER TABLESPACE lake_store SET (protocol = s3, bucket = 'lake');
DROP TABLE st_heap;
-- its owner may do what Postgres lets him
ALTER TABLESPACE lake_store OWNER TO regress_lake_user;
SET ROLE regress_lake_user;
ALTER TABLESPACE lake_store SET (random_page_cost = 3);
ALTER TABLESPACE lake_store SET (protocol = s3, bucket = 'lake');
RESET ROLE;
SELECT spcoptions FROM pg_tablespace WHERE spcname = 'lake_store';

-- From here on it is in a store that nobody asks.
UPDATE pg_tablespace SET spcoptions = $${seq_page_cost=2,protocol='s3',bucket='lake-test',prefix='one'}$$
WHERE spcname = 'lake_store';
SET ROLE regress_lake_user;
ALTER TABLESPACE lake_store SET (random_page_cost = 4);
ALTER TABLESPACE lake_store SET (seq_page_cost = 'much');
ALTER TABLESPACE lake_store SET (credential = 'other');
ALTER TABLESPACE lake_store RESET (credential);
RESET ROLE;
SELECT spcoptions FROM pg_tablespace WHERE spcname = 'lake_store';
-- as pg_dumpall writes them
SELECT array_to_string(spcoptions, ', ') FROM pg_tablespace WHERE spcname = 'lake_store';
BEGIN;
ALTER TABLESPACE lake_store RESET (random_page_cost);
SELECT spcoptions FROM pg_tablespace WHERE spcname = 'lake_store';
ROLLBACK;
SELECT spcoptions FROM pg_tablespace WHERE spcname = 'lake_store';
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake-test');
CREATE TABLESPACE lake_bad LOCATION '' WITH (protocol = s3, bucket = 'lake-test', prefix = '/one/two/', endpoint = 'http://127.0.0.1:1');
ALTER TABLESPACE lake_plain SET (protocol = s3, bucket = 'lake-test', prefix = 'one');

-- where a file is
SELECT lake.object_location(format('pg_tblspc/%s/PG_17/5/lake/c0/7/data/1.parquet', oid)),
       lake.object_location(format('pg_tblspc/%s/PG_17/5/lake/c0/7/', oid)),
       lake.object_location(format('pg_tblspc/%s/PG_17/5/16400', oid))
FROM pg_tablespace WHERE spcname = 'lake_store';
SELECT lake.object_location('base/5/lake/c0/7/data/1.parquet'), lake.object_location('nonsense');
SELECT lake.metadata_snapshots('s3://lake-test/two/metadata/1.metadata.json');

-- iceberg tables may be there, with what belongs to them
CREATE TABLE st_plain (id int, t text);
CREATE INDEX st_plain_id ON st_plain (id);
CREATE TABLE st_lake (id int, t text) USING iceberg TABLESPACE lake_store;
CREATE UNIQUE INDEX st_lake_id ON st_lake (id) TABLESPACE lake_store;
INSERT INTO st_lake VALUES (1, 'hot'), (2, repeat('long ', 5000));
UPDATE st_lake SET t = 'changed' WHERE id = 1;
SELECT id, left(t, 7) FROM st_lake ORDER BY id;
SET ROLE regress_lake_user;
SELECT location ~ '^s3://lake-test/one/[0-9a-f-]{36}/\d+$' AS in_the_store FROM lake.tables WHERE table_name = 'st_lake';
RESET ROLE;
REINDEX (TABLESPACE lake_store) INDEX st_lake_id;
REINDEX (TABLESPACE lake_store) TABLE st_lake;
VACUUM FULL st_lake;
CLUSTER st_lake USING st_lake_id;
SELECT c.relname, s.spcname FROM pg_class c LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
WHERE c.relname IN ('st_lake', 'st_lake_id') ORDER BY 1;
SET default_tablespace = lake_store;
CREATE TABLE st_serial (id serial PRIMARY KEY, t text) USING iceberg;
CREATE MATERIALIZED VIEW st_view USING iceberg AS SELECT 1 AS id WITH NO DATA;
CREATE VIEW st_simple AS SELECT 1 AS id;
-- partitioned tables, whose partitions are looked at themselves
CREATE TABLE st_part (id int) PARTITION BY RANGE (id) USING iceberg;
CREATE TABLE st_part_1 PARTITION OF st_part FOR VALUES FROM (0) TO (10);
CREATE INDEX st_part_id ON st_part (id);
CREATE TABLE st_any (id int) PARTITION BY RANGE (id);
CREATE TABLE st_any_1 PARTITION OF st_any FOR VALUES FROM (0) TO (10) USING iceberg;
CREATE TABLE st_any_2 PARTITION OF st_any FOR VALUES FROM (10) TO (20) USING heap;
CREATE TABLE st_bad (id int) PARTITION BY RANGE (id) USING heap;
ALTER TABLE st_part SET ACCESS METHOD heap;
RESET default_tablespace;
SELECT c.relname, s.spcname FROM pg_class c LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
WHERE c.relname LIKE 'st\_%' AND c.reltablespace <> 0 ORDER BY 1;

-- everything else may not, whichever way it comes
CREATE TABLE st_bad (id int) USING heap TABLESPACE lake_store;
CREATE TABLE st_bad USING heap TABLESPACE lake_store AS SELECT 1 AS id;
CREATE MATERIALIZED VIEW st_bad USING heap TABLESPACE lake_store AS SELECT 1 AS id;
CREATE UNLOGGED TABLE st_bad (id int) USING iceberg TABLESPACE lake_store;
CREATE TEMP TABLE st_bad (id int) USING iceberg TABLESPACE lake_store;
CREATE INDEX st_bad ON st_plain (id) TABLESPACE lake_store;
SET default_tablespace = lake_store;
CREATE TABLE st_bad (id int) USING heap;
CREATE INDEX st_bad ON st_plain (id);
RESET default_tablespace;
SET temp_tablespaces = lake_store;
CREATE TEMP TABLE st_bad (id int) USING heap;
RESET temp_tablespaces;
ALTER TABLE st_plain SET TABLESPACE lake_store;
ALTER INDEX st_plain_id SET TABLESPACE lake_store;
ALTER TABLE st_lake SET ACCESS METHOD heap;
ALTER TABLE st_lake SET UNLOGGED;
ALTER TABLE st_plain SET TABLESPACE lake_plain;
ALTER TABLE ALL IN TABLESPACE lake_plain SET TABLESPACE lake_store;
ALTER TABLE st_plain SET TABLESPACE pg_default;
REINDEX (TABLESPACE lake_store) TABLE st_plain;
REINDEX (TABLESPACE lake_store) INDEX st_plain_id;
REINDEX (TABLESPACE lake_store, CONCURRENTLY) TABLE st_plain;
REINDEX (TABLESPACE lake_store) SCHEMA public;
CREATE DATABASE st_bad TABLESPACE lake_store;
ALTER DATABASE postgres SET TABLESPACE lake_store;
-- unless it becomes an iceberg table on the way
ALTER TABLE st_plain SET ACCESS METHOD iceberg, SET TABLESPACE lake_store;
CREATE UNLOGGED TABLE st_logged (id int) USING iceberg;
ALTER TABLE st_logged SET LOGGED, SET TABLESPACE lake_store;
SELECT table_name, location LIKE 's3://lake-test/one/%' AS in_the_store FROM lake.tables
WHERE table_name IN ('st_plain', 'st_logged') ORDER BY 1;
ALTER TABLE st_plain SET ACCESS METHOD heap, SET TABLESPACE pg_default;

-- a store's place is for ever, as long as something is in it
ALTER TABLESPACE lake_store SET (bucket = 'other');
ALTER TABLESPACE lake_store SET (prefix = '');
ALTER TABLESPACE lake_store SET (protocol = gcs);
ALTER TABLESPACE lake_store RESET (protocol, bucket, prefix);
ALTER TABLESPACE lake_store RESET (protocol);
ALTER TABLESPACE lake_store SET (region = 'eu west');
-- a name isn't part of it
ALTER TABLESPACE lake_store RENAME TO lake_renamed;
SELECT location LIKE 's3://lake-test/one/%' AS in_the_store FROM lake.tables WHERE table_name = 'st_lake';
ALTER TABLESPACE lake_renamed RENAME TO lake_store;
-- what somebody has written by hand
UPDATE pg_tablespace SET spcoptions = '{protocol=s3,bucket=Lake}' WHERE spcname = 'lake_store';
SELECT location FROM lake.tables WHERE table_name = 'st_lake';
UPDATE pg_tablespace SET spcoptions = NULL WHERE spcname = 'lake_store';
SELECT location LIKE '%/pg_tblspc/%' AS local FROM lake.tables WHERE table_name = 'st_lake';

SET client_min_messages = warning;
DROP TABLE st_plain, st_lake, st_serial, st_part, st_any, st_logged;
DROP MATERIALIZED VIEW st_view;
DROP VIEW st_simple;
CALL settle();
SELECT lake.sweep() >= 0 AS swept;
DROP TABLESPACE lake_store;
DROP TABLESPACE lake_plain;
