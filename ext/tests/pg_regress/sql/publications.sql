-- Purpose: a published iceberg table stays hot and is decoded as heap is; what has cold rows can't be published.
CREATE SCHEMA p_one;
CREATE SCHEMA p_two;
CREATE SCHEMA p_three;
CREATE TABLE p_one.h (id int PRIMARY KEY);
CREATE TABLE p_one.t (id int PRIMARY KEY, t text) USING iceberg;
CREATE TABLE p_one.bare (id int) USING iceberg;
INSERT INTO p_one.t SELECT g, 'hot' FROM generate_series(1, 3) g;

-- never
CREATE PUBLICATION p_all FOR ALL TABLES;
CREATE PUBLICATION p_own FOR TABLES IN SCHEMA lake;
CREATE PUBLICATION p_own FOR TABLE lake.data_file;
SELECT sqlstate_of('CREATE PUBLICATION p_all FOR ALL TABLES'), sqlstate_of('CREATE PUBLICATION p_own FOR TABLE lake.data_file');

-- published: no bulk path, no flush
CREATE PUBLICATION p_table FOR TABLE p_one.h, p_one.t, p_one.bare;
SELECT * FROM pg_publication_tables WHERE pubname LIKE 'p\_%' ORDER BY 1, 2, 3;
SET lake.bulk_rows = 0;
INSERT INTO p_one.bare SELECT generate_series(1, 50);
COPY p_one.bare FROM stdin;
51
52
\.
CALL settle();
VACUUM p_one.t, p_one.bare;
SELECT * FROM hot_cold('p_one.t');
SELECT * FROM hot_cold('p_one.bare');
SELECT lake.flush('p_one.t');
SELECT lake.merge('p_one.t');
SELECT sqlstate_of($$SELECT lake.flush('p_one.bare')$$);
SELECT lake.publish('p_one.t') IS NOT NULL AS published;

-- decoded as heap is; replica identities are Postgres' business
SELECT slot_name FROM pg_create_logical_replication_slot('p_slot', 'pgoutput');
INSERT INTO p_one.t SELECT g, 'new' FROM generate_series(4, 10) g;
INSERT INTO p_one.bare SELECT generate_series(101, 120);
UPDATE p_one.t SET t = 'changed', id = id + 100 WHERE id < 3;
DELETE FROM p_one.t WHERE id > 100;
UPDATE p_one.bare SET id = 0;
DELETE FROM p_one.bare;
SELECT lake.flush('p_one.t');
TRUNCATE p_one.bare;
SELECT chr(get_byte(data, 0)) AS message, count(*)
    FROM pg_logical_slot_get_binary_changes('p_slot', NULL, NULL, 'proto_version', '1', 'publication_names', 'p_table')
    WHERE chr(get_byte(data, 0)) IN ('I', 'U', 'D', 'T') GROUP BY 1 ORDER BY 1;
SELECT pg_drop_replication_slot('p_slot');

-- not published any more, and not again once there are cold rows
ALTER PUBLICATION p_table DROP TABLE p_one.t, p_one.bare;
CALL settle();
SELECT lake.flush('p_one.t');
INSERT INTO p_one.bare SELECT generate_series(1, 50);
SELECT * FROM hot_cold('p_one.t');
SELECT * FROM hot_cold('p_one.bare');
ALTER PUBLICATION p_table ADD TABLE p_one.t;
ALTER PUBLICATION p_table SET TABLE p_one.bare;
ALTER PUBLICATION p_table ADD TABLES IN SCHEMA p_one;
CREATE PUBLICATION p_cold FOR TABLE p_one.h, p_one.t;
CREATE PUBLICATION p_cold FOR TABLES IN SCHEMA p_one WITH (publish = '');
SELECT sqlstate_of('CREATE PUBLICATION p_cold FOR TABLE p_one.t');
ALTER PUBLICATION p_table SET (publish = 'insert');
BEGIN;
TRUNCATE p_one.bare;
ALTER PUBLICATION p_table ADD TABLE p_one.bare;
INSERT INTO p_one.bare SELECT generate_series(1, 50);
SELECT * FROM hot_cold('p_one.bare');
ROLLBACK;
BEGIN;
CREATE TABLE p_loaded USING iceberg AS SELECT 1 AS id;
CREATE PUBLICATION p_cold FOR TABLE p_loaded;
ROLLBACK;
-- what the hint says
ALTER TABLE p_one.bare SET ACCESS METHOD heap;
ALTER PUBLICATION p_table ADD TABLE p_one.bare;
ALTER TABLE p_one.bare SET ACCESS METHOD iceberg;
SELECT * FROM hot_cold('p_one.bare');
ALTER PUBLICATION p_table DROP TABLE p_one.bare;

-- schemas, whatever they publish
CREATE PUBLICATION p_schema FOR TABLES IN SCHEMA p_two WITH (publish = '');
CREATE TABLE p_two.t USING iceberg AS SELECT g AS id FROM generate_series(1, 50) g;
CREATE MATERIALIZED VIEW p_two.v USING iceberg AS SELECT g AS id FROM generate_series(1, 50) g;
CREATE UNLOGGED TABLE p_two.u USING iceberg AS SELECT g AS id FROM generate_series(1, 50) g;
SELECT * FROM hot_cold('p_two.t');
SELECT * FROM hot_cold('p_two.v');
SELECT lake.flush('p_two.t');
SELECT lake.flush('p_two.v');
ALTER TABLE p_two.u SET LOGGED;
SELECT lake.flush('p_two.u');
ALTER TABLE p_one.t SET SCHEMA p_two;
ALTER TABLE p_one.bare SET SCHEMA p_two;
SELECT lake.flush('p_two.bare');
DROP PUBLICATION p_schema;
CALL settle();
SELECT lake.flush('p_two.t');

-- partitions: by a root, and by a root's schema
CREATE TABLE p_parted (id int) PARTITION BY RANGE (id);
CREATE TABLE p_part PARTITION OF p_parted FOR VALUES FROM (0) TO (10) USING iceberg;
CREATE PUBLICATION p_parted FOR TABLE p_parted WITH (publish_via_partition_root = true);
INSERT INTO p_parted SELECT generate_series(0, 9);
SELECT * FROM hot_cold('p_part');
SELECT lake.flush('p_part');
ALTER PUBLICATION p_parted SET (publish_via_partition_root = false);
INSERT INTO p_part SELECT generate_series(0, 9);
SELECT * FROM hot_cold('p_part');
SELECT lake.flush('p_part');
CREATE TABLE p_cold USING iceberg AS SELECT g AS id FROM generate_series(10, 19) g;
SELECT * FROM hot_cold('p_cold');
ALTER TABLE p_parted ATTACH PARTITION p_cold FOR VALUES FROM (10) TO (20);
CREATE TABLE p_mid (id int) PARTITION BY RANGE (id);
ALTER TABLE p_mid ATTACH PARTITION p_cold FOR VALUES FROM (10) TO (20);
ALTER TABLE p_parted ATTACH PARTITION p_mid FOR VALUES FROM (10) TO (20);
DROP PUBLICATION p_parted;
ALTER TABLE p_parted ATTACH PARTITION p_mid FOR VALUES FROM (10) TO (20);
CREATE PUBLICATION p_parted FOR TABLE p_parted;
CREATE PUBLICATION p_schema FOR TABLES IN SCHEMA p_three;
ALTER TABLE p_parted SET SCHEMA p_three;
ALTER TABLE p_cold SET ACCESS METHOD heap;
ALTER TABLE p_parted SET SCHEMA p_three;
ALTER TABLE p_cold SET ACCESS METHOD iceberg;
INSERT INTO p_three.p_parted SELECT generate_series(0, 19);
SELECT * FROM hot_cold('p_cold');
SELECT lake.flush('p_cold');
RESET lake.bulk_rows;

SELECT pubname FROM pg_publication ORDER BY 1;
DROP PUBLICATION p_table, p_schema;
SET client_min_messages = warning;
DROP TABLE p_three.p_parted;
DROP SCHEMA p_one, p_two, p_three CASCADE;
