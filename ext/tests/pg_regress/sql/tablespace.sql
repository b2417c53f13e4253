-- Purpose: SET TABLESPACE moves hot and cold rows, keeps storage, row numbers and Iceberg table, and is undone by a rollback.
SET lake.bulk_rows = 10;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE lake_one LOCATION '';
CREATE TABLESPACE lake_two LOCATION '';

-- What must stay the same, and where the files are: all in the table's own tablespace.
CREATE FUNCTION files_in(tab regclass, OUT files bigint, OUT tablespace text, OUT elsewhere bigint) LANGUAGE sql AS $$
    SELECT count(d.path),
           min(coalesce(s.spcname::text, 'pg_default')),
           count(d.path) FILTER (WHERE d.path NOT LIKE '%/' ||
               CASE WHEN c.reltablespace = 0 THEN 'base' ELSE 'pg_tblspc/' || c.reltablespace END || '/%')
    FROM pg_class c
    LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
    LEFT JOIN lake.data_files d ON d."table" = c.oid
    WHERE c.oid = tab
$$;
CREATE FUNCTION identity_of(tab regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    EXECUTE format($q$
        SELECT concat_ws(' ', t.storage_id, t.table_uuid, t.snapshot_id,
            (SELECT string_agg(d.row_start || ':' || d.row_count || ':' || d.deleted_rows, ',' ORDER BY d.row_start)
             FROM lake.data_files d WHERE d."table" = t."table"),
            (SELECT md5(string_agg(r.ctid::text || r.id, ',' ORDER BY r.ctid)) FROM %s r))
        FROM lake.tables t WHERE t."table" = %L::regclass$q$, tab, tab) INTO answer;
    RETURN answer;
END $$;

-- bulk-loaded, flushed and hot rows, marks, an index, values out of line
CREATE TABLE s_heap (id int, t text);
CREATE TABLE s_lake (id int, t text) USING iceberg;
INSERT INTO s_heap SELECT g, 'bulk ' || g FROM generate_series(1, 100) g;
INSERT INTO s_lake SELECT g, 'bulk ' || g FROM generate_series(1, 100) g;
CREATE UNIQUE INDEX ON s_heap (id);
CREATE UNIQUE INDEX s_lake_id ON s_lake (id);
INSERT INTO s_heap SELECT g, 'flushed ' || g FROM generate_series(101, 150) g;
INSERT INTO s_lake SELECT g, 'flushed ' || g FROM generate_series(101, 150) g;
CALL settle();
SELECT lake.flush('s_lake');
INSERT INTO s_heap VALUES (201, 'hot'), (202, repeat('long ', 5000));
INSERT INTO s_lake VALUES (201, 'hot'), (202, repeat('long ', 5000));
DELETE FROM s_heap WHERE id % 10 = 1;
DELETE FROM s_lake WHERE id % 10 = 1;
UPDATE s_heap SET t = 'changed' WHERE id % 10 = 2;
UPDATE s_lake SET t = 'changed' WHERE id % 10 = 2;
SELECT lake.publish('s_lake') IS NOT NULL AS published;
SELECT * FROM files_in('s_lake');
SELECT identity_of('s_lake') AS identity \gset
SELECT location, metadata_location FROM lake.tables WHERE table_name = 's_lake' \gset before_

ALTER TABLE s_heap SET TABLESPACE lake_one;
ALTER TABLE s_lake SET TABLESPACE lake_one;
SELECT * FROM files_in('s_lake');
SELECT identity_of('s_lake') = :'identity' AS same;
SELECT location <> :'before_location' AS moved, metadata_location = :'before_metadata_location' AS not_yet_published
FROM lake.tables WHERE table_name = 's_lake';
SELECT twins('SELECT * FROM @s');
SELECT twins('SELECT t, count(*), sum(id) FROM @s GROUP BY t');
SET enable_seqscan = off;
SELECT twins('SELECT * FROM @s WHERE id IN (3, 12, 120, 202)');
RESET enable_seqscan;
-- no work at all
ALTER TABLE s_lake SET TABLESPACE lake_one;
SELECT identity_of('s_lake') = :'identity' AS same;
-- the index is where it was until it is moved itself
ALTER INDEX s_lake_id SET TABLESPACE lake_two;
INSERT INTO s_lake VALUES (3, 'twice');
-- files that come later
INSERT INTO s_heap SELECT g, 'later ' || g FROM generate_series(301, 340) g;
INSERT INTO s_lake SELECT g, 'later ' || g FROM generate_series(301, 340) g;
UPDATE s_heap SET t = 'again' WHERE id % 10 = 3;
UPDATE s_lake SET t = 'again' WHERE id % 10 = 3;
CALL settle();
SELECT lake.flush('s_lake') > 0 AS flushed;
SELECT * FROM files_in('s_lake');
SELECT twins('SELECT * FROM @s');
-- what was published before stays readable, what comes next is at the new place
SELECT lake.publish('s_lake') <> :'before_metadata_location' AS published;
SELECT count(*) FROM lake.snapshots WHERE table_name = 's_lake';
SELECT replace(metadata_location, 'file://', '') LIKE location || '/metadata/%' AS here,
       previous_metadata_location = :'before_metadata_location' AS continued
FROM lake.tables WHERE table_name = 's_lake';
CALL settle();
SELECT lake.sweep() >= 0 AS swept;
SELECT count(*) FROM lake.metadata_snapshots(:'before_metadata_location');
SELECT g.reason, g.publication FROM lake.garbage g JOIN lake.tables t USING (storage_id) WHERE t.table_name = 's_lake';
-- nothing has changed, and nothing is published
SELECT metadata_location FROM lake.tables WHERE table_name = 's_lake' \gset
SELECT lake.publish('s_lake') = :'metadata_location' AS unchanged;

-- a rollback, and one to a savepoint
SELECT identity_of('s_lake') AS identity \gset
BEGIN;
ALTER TABLE s_lake SET TABLESPACE lake_two;
SELECT * FROM files_in('s_lake');
SELECT identity_of('s_lake') = :'identity' AS same;
SELECT twins('SELECT * FROM @s');
INSERT INTO s_lake (id) SELECT generate_series(401, 420);
ROLLBACK;
SELECT * FROM files_in('s_lake');
SELECT identity_of('s_lake') = :'identity' AS same;
SELECT twins('SELECT * FROM @s');
BEGIN;
INSERT INTO s_heap VALUES (501, 'kept');
INSERT INTO s_lake VALUES (501, 'kept');
SAVEPOINT one;
ALTER TABLE s_lake SET TABLESPACE lake_two;
DELETE FROM s_lake WHERE id < 50;
SELECT count(*) FROM s_lake;
ROLLBACK TO one;
SELECT * FROM files_in('s_lake');
SELECT twins('SELECT * FROM @s');
SAVEPOINT two;
ALTER TABLE s_lake SET TABLESPACE pg_default;
RELEASE two;
SELECT twins('SELECT * FROM @s');
COMMIT;
SELECT * FROM files_in('s_lake');
SELECT twins('SELECT * FROM @s');
-- away and back, and published in between
SELECT location FROM lake.tables WHERE table_name = 's_lake' \gset before_
BEGIN;
ALTER TABLE s_lake SET TABLESPACE lake_two;
SELECT lake.publish('s_lake') IS NOT NULL AS published;
DELETE FROM s_lake WHERE id = 4;
DELETE FROM s_heap WHERE id = 4;
ALTER TABLE s_lake SET TABLESPACE pg_default;
SELECT twins('SELECT * FROM @s');
COMMIT;
SELECT * FROM files_in('s_lake');
SELECT location <> :'before_location' AS elsewhere FROM lake.tables WHERE table_name = 's_lake';
CALL settle();
SELECT lake.sweep() >= 0 AS swept;
SELECT twins('SELECT * FROM @s');

-- with rewrites, merges and other changes of the table
ALTER TABLE s_heap ADD COLUMN n int DEFAULT 5, SET TABLESPACE lake_two;
ALTER TABLE s_lake ADD COLUMN n int DEFAULT 5, SET TABLESPACE lake_two;
SELECT twins('SELECT * FROM @s');
SELECT * FROM files_in('s_lake');
SELECT storage_id AS before FROM lake.tables WHERE table_name = 's_lake' \gset
CALL settle();
SELECT lake.merge('s_lake') > 0 AS merged;
VACUUM FULL s_lake;
SELECT twins('SELECT * FROM @s');
CLUSTER s_lake USING s_lake_id;
SELECT storage_id = :before AS same FROM lake.tables WHERE table_name = 's_lake';
SELECT twins('SELECT * FROM @s');
ALTER TABLE s_heap ALTER n TYPE bigint, SET TABLESPACE lake_one;
ALTER TABLE s_lake ALTER n TYPE bigint, SET TABLESPACE lake_one;
SELECT storage_id = :before AS same FROM lake.tables WHERE table_name = 's_lake';
SELECT twins('SELECT * FROM @s');
CALL settle();
SELECT lake.flush('s_lake') > 0 AS flushed;
SELECT * FROM files_in('s_lake');
SELECT twins('SELECT * FROM @s');

-- TRUNCATE of a table that the transaction has moved, in place as heap does it
SELECT storage_id AS before FROM lake.tables WHERE table_name = 's_lake' \gset
BEGIN;
ALTER TABLE s_lake SET TABLESPACE pg_default;
DELETE FROM s_lake WHERE id < 20;
TRUNCATE s_lake;
SELECT count(*) FROM s_lake;
SELECT cold_rows, storage_id = :before AS same FROM lake.tables WHERE table_name = 's_lake';
INSERT INTO s_lake SELECT g FROM generate_series(1, 20) g;
SELECT count(*), sum(id) FROM s_lake;
ROLLBACK;
SELECT storage_id = :before AS same FROM lake.tables WHERE table_name = 's_lake';
SELECT twins('SELECT * FROM @s');
BEGIN;
ALTER TABLE s_heap SET TABLESPACE lake_two;
ALTER TABLE s_lake SET TABLESPACE lake_two;
TRUNCATE s_heap, s_lake;
INSERT INTO s_heap SELECT g FROM generate_series(1, 20) g;
INSERT INTO s_lake SELECT g FROM generate_series(1, 20) g;
COMMIT;
SELECT twins('SELECT * FROM @s');
SELECT twins('SELECT count(*), sum(id) FROM @s WHERE id > 5');
-- the same of one that it has made
BEGIN;
CREATE TABLE s_new (id int) USING iceberg TABLESPACE lake_one;
INSERT INTO s_new SELECT generate_series(1, 30);
DELETE FROM s_new WHERE id > 25;
TRUNCATE s_new;
INSERT INTO s_new SELECT generate_series(1, 12);
COMMIT;
SELECT count(*), sum(id) FROM s_new;
SELECT files, cold_rows FROM lake.tables WHERE table_name = 's_new';

-- created in a tablespace
SET default_tablespace = lake_two;
CREATE TABLE s_there USING iceberg AS SELECT g AS id FROM generate_series(1, 30) g;
RESET default_tablespace;
SELECT * FROM files_in('s_there');
-- partitions go one by one; the parent says where new ones are made
CREATE TABLE s_part (id int) PARTITION BY RANGE (id);
CREATE TABLE s_part_1 PARTITION OF s_part FOR VALUES FROM (0) TO (100) USING iceberg;
INSERT INTO s_part_1 SELECT generate_series(1, 40);
ALTER TABLE s_part SET TABLESPACE lake_one;
CREATE TABLE s_part_2 PARTITION OF s_part FOR VALUES FROM (100) TO (200) USING iceberg;
INSERT INTO s_part_2 SELECT generate_series(101, 140);
ALTER TABLE s_part_1 SET TABLESPACE lake_two;
SELECT count(*), sum(id) FROM s_part;
SELECT p, files_in(p) FROM unnest(ARRAY['s_part_1', 's_part_2']::regclass[]) p;
-- tables that stay hot, and those without a row
CREATE UNLOGGED TABLE s_unlogged (id int) USING iceberg;
CREATE TEMP TABLE s_temp (id int) USING iceberg;
CREATE TABLE s_empty (id int) USING iceberg;
INSERT INTO s_unlogged SELECT generate_series(1, 30);
INSERT INTO s_temp SELECT generate_series(1, 30);
ALTER TABLE s_unlogged SET TABLESPACE lake_one;
ALTER TABLE s_temp SET TABLESPACE lake_one;
ALTER TABLE s_empty SET TABLESPACE lake_one;
SELECT (SELECT count(*) FROM s_unlogged), (SELECT count(*) FROM s_temp), (SELECT count(*) FROM s_empty);
INSERT INTO s_empty SELECT generate_series(1, 30);
SELECT * FROM files_in('s_empty');
-- all of a tablespace, materialized views by a command of their own
CREATE MATERIALIZED VIEW s_view USING iceberg TABLESPACE lake_one AS SELECT g AS id FROM generate_series(1, 30) g;
DROP TABLE s_temp;
ALTER TABLE ALL IN TABLESPACE lake_one SET TABLESPACE lake_two;
ALTER MATERIALIZED VIEW ALL IN TABLESPACE lake_one SET TABLESPACE lake_two;
SELECT p, files_in(p) FROM unnest(ARRAY['s_new', 's_empty', 's_view', 's_part_2']::regclass[]) p;
SELECT (SELECT count(*) FROM s_unlogged), (SELECT count(*) FROM s_new), (SELECT count(*) FROM s_empty),
       (SELECT count(*) FROM s_view), (SELECT count(*) FROM s_part);

-- refused as for heap
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT * FROM s_new;
FETCH 1 FROM c;
ALTER TABLE s_new SET TABLESPACE pg_default;
ROLLBACK;
ALTER TABLE s_new SET TABLESPACE pg_global;
ALTER TABLE s_new SET TABLESPACE nowhere;
ALTER TABLE s_new OWNER TO regress_lake_user;
SET ROLE regress_lake_user;
ALTER TABLE s_new SET TABLESPACE lake_one;
RESET ROLE;
GRANT CREATE ON TABLESPACE lake_one TO regress_lake_user;
SET ROLE regress_lake_user;
ALTER TABLE s_new SET TABLESPACE lake_one;
SELECT count(*), sum(id) FROM s_new;
RESET ROLE;
REVOKE CREATE ON TABLESPACE lake_one FROM regress_lake_user;
-- while tables are there, and after their files have gone
DROP TABLESPACE lake_two;
DROP TABLE s_heap, s_lake, s_new, s_there, s_part, s_unlogged, s_empty;
DROP MATERIALIZED VIEW s_view;
CALL settle();
SELECT lake.sweep('0') >= 0 AS swept;
DROP TABLESPACE lake_one;
DROP TABLESPACE lake_two;
DROP FUNCTION files_in, identity_of;
