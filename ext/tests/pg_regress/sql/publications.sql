-- Purpose: publications of logical replication never cover iceberg tables.
CREATE SCHEMA p_heap;
CREATE SCHEMA p_lake;
CREATE TABLE p_heap.h (id int PRIMARY KEY);
CREATE TABLE p_lake.t (id int) USING iceberg;

-- publications
CREATE PUBLICATION p_all FOR ALL TABLES;
CREATE PUBLICATION p_table FOR TABLE p_heap.h, p_lake.t;
CREATE PUBLICATION p_schema FOR TABLES IN SCHEMA p_lake;
CREATE PUBLICATION p_schema FOR TABLES IN SCHEMA lake;
CREATE PUBLICATION p_schema FOR TABLE lake.data_file;
CREATE PUBLICATION p_schema FOR TABLES IN SCHEMA p_heap;
CREATE PUBLICATION p_table FOR TABLE p_heap.h;
ALTER PUBLICATION p_table ADD TABLE p_lake.t;
ALTER PUBLICATION p_table SET TABLE p_lake.t;
ALTER PUBLICATION p_table ADD TABLES IN SCHEMA p_lake;
ALTER PUBLICATION p_table SET (publish = 'insert');
SELECT * FROM pg_publication_tables WHERE pubname LIKE 'p\_%' ORDER BY 1, 2, 3;

-- tables
CREATE TABLE p_heap.t (id int) USING iceberg;
CREATE TABLE p_heap.t (id int) USING iceberg WITH (compression = none);
CREATE TABLE p_heap.t USING iceberg AS SELECT 1 AS id;
ALTER TABLE p_lake.t SET SCHEMA p_heap;
ALTER TABLE p_heap.h DROP CONSTRAINT h_pkey, SET ACCESS METHOD iceberg;
CREATE MATERIALIZED VIEW p_heap.v USING iceberg AS SELECT 1 AS id;
CREATE UNLOGGED TABLE p_heap.u (id int) USING iceberg;
ALTER TABLE p_heap.u SET LOGGED;
CREATE TEMP TABLE p_temp (id int) USING iceberg;

-- partitions
CREATE TABLE p_parted (id int) PARTITION BY RANGE (id);
CREATE PUBLICATION p_parted FOR TABLE p_parted;
CREATE TABLE p_part PARTITION OF p_parted FOR VALUES FROM (0) TO (10) USING iceberg;
CREATE TABLE p_part (id int) USING iceberg;
ALTER TABLE p_parted ATTACH PARTITION p_part FOR VALUES FROM (0) TO (10);
CREATE TABLE p_mid (id int) PARTITION BY RANGE (id);
ALTER TABLE p_mid ATTACH PARTITION p_part FOR VALUES FROM (0) TO (10);
ALTER TABLE p_parted ATTACH PARTITION p_mid FOR VALUES FROM (0) TO (10);
DROP PUBLICATION p_parted;
ALTER TABLE p_parted ATTACH PARTITION p_mid FOR VALUES FROM (0) TO (10);
CREATE PUBLICATION p_parted FOR TABLE p_parted;
CREATE PUBLICATION p_parted FOR TABLE p_parted WITH (publish_via_partition_root = true);

SELECT sqlstate_of('CREATE PUBLICATION p_all FOR ALL TABLES'), sqlstate_of('CREATE TABLE p_heap.t (id int) USING iceberg');
SELECT pubname FROM pg_publication ORDER BY 1;
DROP PUBLICATION p_table, p_schema;
SET client_min_messages = warning;
DROP TABLE p_parted, p_temp;
DROP SCHEMA p_heap, p_lake CASCADE;
