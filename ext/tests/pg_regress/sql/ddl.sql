-- Purpose: DDL on tables with cold rows: columns, rewrites, partitions, inheritance, generated columns, triggers, keys, views.
SET lake.bulk_rows = 10;

-- ADD COLUMN: cold rows get the default that the column was added with
CREATE TABLE d_heap (id int, t text);
CREATE TABLE d_lake (id int, t text) USING iceberg;
INSERT INTO d_heap SELECT g, 't' || g FROM generate_series(1, 60) g;
INSERT INTO d_lake SELECT g, 't' || g FROM generate_series(1, 60) g;
ALTER TABLE d_heap ADD COLUMN n int;
ALTER TABLE d_lake ADD COLUMN n int;
ALTER TABLE d_heap ADD COLUMN i int DEFAULT 7, ADD COLUMN s text DEFAULT 'dflt' NOT NULL, ADD COLUMN u numeric DEFAULT 1.10, ADD COLUMN dec numeric(5,2) DEFAULT 2.5, ADD COLUMN dt date DEFAULT '2020-02-29', ADD COLUMN b bool DEFAULT true;
ALTER TABLE d_lake ADD COLUMN i int DEFAULT 7, ADD COLUMN s text DEFAULT 'dflt' NOT NULL, ADD COLUMN u numeric DEFAULT 1.10, ADD COLUMN dec numeric(5,2) DEFAULT 2.5, ADD COLUMN dt date DEFAULT '2020-02-29', ADD COLUMN b bool DEFAULT true;
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT count(*), count(n), sum(i), min(s), sum(dec), max(dt) FROM @d WHERE i = 7 AND s = ''dflt''');
SELECT twins('SELECT count(*) FROM @d WHERE i <> 7 OR i IS NULL OR dec > 3 OR b IS NOT TRUE');
SELECT twins('SELECT i, s, b, count(*) FROM @d GROUP BY 1, 2, 3');
ALTER TABLE d_heap ALTER i SET DEFAULT 8, ALTER s DROP DEFAULT, ALTER s DROP NOT NULL;
ALTER TABLE d_lake ALTER i SET DEFAULT 8, ALTER s DROP DEFAULT, ALTER s DROP NOT NULL;
INSERT INTO d_heap (id) SELECT g FROM generate_series(100, 130) g;
INSERT INTO d_lake (id) SELECT g FROM generate_series(100, 130) g;
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT i, s, count(*) FROM @d GROUP BY 1, 2');
CALL settle();
SELECT lake.flush('d_lake') > 0 AS flushed;
SELECT twins('SELECT * FROM @d');
-- DROP, RENAME, and a new column by the name of a dropped one
ALTER TABLE d_heap DROP COLUMN t;
ALTER TABLE d_lake DROP COLUMN t;
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_heap ADD COLUMN t int;
ALTER TABLE d_lake ADD COLUMN t int;
ALTER TABLE d_heap RENAME n TO "New Name";
ALTER TABLE d_lake RENAME n TO "New Name";
SELECT twins('SELECT * FROM @d');
INSERT INTO d_heap SELECT g, g, g, 's', g, g, NULL, false, g FROM generate_series(200, 230) g;
INSERT INTO d_lake SELECT g, g, g, 's', g, g, NULL, false, g FROM generate_series(200, 230) g;
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT sum(t), sum("New Name"), count(*) FILTER (WHERE b) FROM @d WHERE id > 50');
SELECT lake.publish('d_lake') IS NOT NULL AS published;
ALTER TABLE d_lake ALTER COLUMN id SET NOT NULL;
ALTER TABLE d_lake ALTER COLUMN t SET NOT NULL;
ALTER TABLE d_lake ADD CHECK (id > 0);
ALTER TABLE d_lake ADD CHECK (id > 20);
ALTER TABLE d_lake ADD CONSTRAINT d_later CHECK (id < 1000) NOT VALID;
ALTER TABLE d_lake VALIDATE CONSTRAINT d_later;
INSERT INTO d_lake (id, s) SELECT g, '' FROM generate_series(990, 1010) g;
SELECT count(*) FROM d_lake;
-- a column of every row computed anew
ALTER TABLE d_heap ADD COLUMN g int GENERATED ALWAYS AS (id * 2) STORED;
ALTER TABLE d_lake ADD COLUMN g int GENERATED ALWAYS AS (id * 2) STORED;
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_lake ADD COLUMN ser serial;
SELECT count(DISTINCT ser), min(ser), max(ser) FROM d_lake;
ALTER TABLE d_lake DROP COLUMN ser;
-- no column left
CREATE TABLE d_bare (a int) USING iceberg;
INSERT INTO d_bare SELECT generate_series(1, 30);
ALTER TABLE d_bare DROP COLUMN a;
SELECT count(*) FROM d_bare;
ALTER TABLE d_bare ADD COLUMN b int DEFAULT 3;
SELECT count(*), sum(b) FROM d_bare;
-- no column at first: a file couldn't have the row
CREATE TABLE d_none () USING iceberg;
INSERT INTO d_none DEFAULT VALUES;
CALL settle();
SELECT lake.flush('d_none');
ALTER TABLE d_none ADD COLUMN b int DEFAULT 3;
SELECT b FROM d_none;
DROP TABLE d_heap, d_lake, d_bare, d_none;
-- defaults of every kind of type for cold rows
CREATE TABLE d_heap (id int);
CREATE TABLE d_lake (id int) USING iceberg;
INSERT INTO d_heap SELECT generate_series(1, 30);
INSERT INTO d_lake SELECT generate_series(1, 30);
ALTER TABLE d_heap ADD j jsonb DEFAULT '{"a": [1]}', ADD iv interval DEFAULT '1 day', ADD r int4range DEFAULT '[1,5)', ADD by bytea DEFAULT '\x00ff', ADD u uuid DEFAULT '11111111-1111-1111-1111-111111111111', ADD tz timestamptz DEFAULT '2024-01-01 00:00+00', ADD tm time DEFAULT '12:00', ADD c char(3) DEFAULT 'x', ADD f float4 DEFAULT 1.5, ADD o oid DEFAULT 5;
ALTER TABLE d_lake ADD j jsonb DEFAULT '{"a": [1]}', ADD iv interval DEFAULT '1 day', ADD r int4range DEFAULT '[1,5)', ADD by bytea DEFAULT '\x00ff', ADD u uuid DEFAULT '11111111-1111-1111-1111-111111111111', ADD tz timestamptz DEFAULT '2024-01-01 00:00+00', ADD tm time DEFAULT '12:00', ADD c char(3) DEFAULT 'x', ADD f float4 DEFAULT 1.5, ADD o oid DEFAULT 5;
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT count(*) FROM @d WHERE u = ''11111111-1111-1111-1111-111111111111'' AND tz < ''2025-01-01'' AND c = ''x'' AND f = 1.5 AND by > ''''');
ALTER TABLE d_heap ADD COLUMN a int[] DEFAULT '{1,NULL,3}', ADD COLUMN ta text[] DEFAULT '{a,"b c"}';
ALTER TABLE d_lake ADD COLUMN a int[] DEFAULT '{1,NULL,3}', ADD COLUMN ta text[] DEFAULT '{a,"b c"}';
SELECT twins('SELECT * FROM @d');
SELECT twins('SELECT count(*) FROM @d WHERE a[3] = 3 AND ta[2] = ''b c''');
ALTER TABLE d_lake ADD COLUMN x timestamp DEFAULT 'infinity';
SELECT twins('SELECT * FROM @d');
DROP TABLE d_heap, d_lake;

-- ALTER TYPE with a rewrite
CREATE TABLE d_heap (a int, b text, c numeric(4,2), d timestamp, e bool, f date, g bigint);
CREATE TABLE d_lake (LIKE d_heap) USING iceberg;
INSERT INTO d_heap SELECT g, g, g, timestamp '2024-01-01' + g * interval '1 day', g % 2 = 0, date '2024-01-01' + g, g FROM generate_series(1, 40) g;
INSERT INTO d_lake SELECT * FROM d_heap;
ALTER TABLE d_heap ALTER a TYPE bigint;
ALTER TABLE d_lake ALTER a TYPE bigint;
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_heap ALTER b TYPE int USING b::int;
ALTER TABLE d_lake ALTER b TYPE int USING b::int;
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_heap ALTER c TYPE numeric(8,3);
ALTER TABLE d_lake ALTER c TYPE numeric(8,3);
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_heap ALTER d TYPE timestamptz;
ALTER TABLE d_lake ALTER d TYPE timestamptz;
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_heap ALTER e TYPE int USING e::int, ALTER f TYPE text, ALTER g TYPE smallint;
ALTER TABLE d_lake ALTER e TYPE int USING e::int, ALTER f TYPE text, ALTER g TYPE smallint;
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_heap ALTER c TYPE text USING a || '/' || c;
ALTER TABLE d_lake ALTER c TYPE text USING a || '/' || c;
SELECT twins('SELECT * FROM @d');
-- one that fails leaves the table as it was
ALTER TABLE d_lake ALTER c TYPE int USING c::int;
SELECT twins('SELECT * FROM @d');

-- access methods and persistence
ALTER TABLE d_lake SET ACCESS METHOD heap;
SELECT twins('SELECT * FROM @d');
SELECT count(*) FROM lake.tables WHERE table_name = 'd_lake';
ALTER TABLE d_lake SET ACCESS METHOD iceberg;
SELECT twins('SELECT * FROM @d');
INSERT INTO d_lake SELECT * FROM d_heap;
INSERT INTO d_heap SELECT * FROM d_heap;
SELECT hot > 0 AS hot, cold > 0 AS cold FROM hot_cold('d_lake');
BEGIN;
ALTER TABLE d_lake SET ACCESS METHOD heap;
SELECT count(*) FROM d_lake;
ROLLBACK;
SELECT twins('SELECT * FROM @d');
ALTER TABLE d_lake SET UNLOGGED;
SELECT twins('SELECT * FROM @d');
SELECT * FROM hot_cold('d_lake');
ALTER TABLE d_lake SET LOGGED;
SELECT twins('SELECT * FROM @d');
CREATE TABLE d_copy (LIKE d_lake INCLUDING ALL) USING iceberg;
INSERT INTO d_copy SELECT * FROM d_lake;
SELECT count(*) FROM (SELECT * FROM d_copy EXCEPT SELECT * FROM d_heap) x;
DROP TABLE d_heap, d_lake, d_copy;

-- partitions
CREATE TABLE d_part (k int, v text, n numeric(10,2)) PARTITION BY RANGE (k);
CREATE TABLE d_part_1 PARTITION OF d_part FOR VALUES FROM (0) TO (100) USING iceberg;
CREATE TABLE d_part_2 PARTITION OF d_part FOR VALUES FROM (100) TO (200) USING iceberg;
CREATE TABLE d_part_3 PARTITION OF d_part FOR VALUES FROM (200) TO (300);
INSERT INTO d_part SELECT g, 'v' || g % 3, g FROM generate_series(0, 299) g;
COPY d_part FROM stdin;
5	copy	1
105	copy	2
205	copy	3
\.
COPY d_part FROM PROGRAM 'for i in $(seq 1 250); do printf "%d\tprog\t4\n" $i; done';
SELECT tableoid::regclass AS part, count(*), sum(n) FROM d_part GROUP BY 1 ORDER BY 1;
SELECT v, count(*), sum(n) FROM d_part GROUP BY v ORDER BY v;
CALL settle();
SELECT lake.flush('d_part');
CALL settle();
SELECT lake.flush('d_part_1') >= 0 AS flushed;
SELECT tableoid::regclass AS part, count(*), sum(n) FROM d_part GROUP BY 1 ORDER BY 1;
SELECT count(*), sum(n) FROM d_part WHERE k BETWEEN 90 AND 210;
EXPLAIN (COSTS OFF) SELECT * FROM d_part WHERE k BETWEEN 90 AND 110;
SELECT * FROM d_part WHERE k = 105 ORDER BY v;
-- rows leave their partition, cold or hot
UPDATE d_part SET k = 150 WHERE k = 50;
INSERT INTO d_part VALUES (60, 'mover', 0);
UPDATE d_part SET k = 160 WHERE v = 'mover';
SELECT tableoid::regclass, k FROM d_part WHERE v = 'mover';
-- changes of type that come through the parent follow the same rules
ALTER TABLE d_part ALTER n TYPE numeric;
ALTER TABLE d_part ALTER n TYPE numeric(12,2);
SELECT count(*), sum(n) FROM d_part;
ALTER TABLE d_part ADD COLUMN extra int DEFAULT 1;
SELECT tableoid::regclass AS part, sum(extra) FROM d_part GROUP BY 1 ORDER BY 1;
-- detach and attach
ALTER TABLE d_part DETACH PARTITION d_part_1;
SELECT count(*) FROM d_part;
ALTER TABLE d_part ATTACH PARTITION d_part_1 FOR VALUES FROM (0) TO (50);
ALTER TABLE d_part ATTACH PARTITION d_part_1 FOR VALUES FROM (0) TO (100);
SELECT count(*) FROM d_part;
CREATE INDEX ON d_part (k);
TRUNCATE d_part;
SELECT count(*) FROM d_part;
DROP TABLE d_part;

-- inheritance, with children whose columns lie elsewhere
CREATE TABLE d_parent (a int, b text);
CREATE TABLE d_child (c int, b text, a int) USING iceberg;
ALTER TABLE d_child INHERIT d_parent;
INSERT INTO d_child SELECT g, 'child' || g, -g FROM generate_series(1, 40) g;
INSERT INTO d_parent VALUES (1, 'parent');
SELECT count(*), sum(a), min(b), max(b) FROM d_parent;
SELECT count(*) FROM ONLY d_parent;
ALTER TABLE d_parent ALTER a TYPE bigint;
SELECT count(*), sum(a), min(b), max(b) FROM d_parent;
ALTER TABLE d_parent ADD COLUMN d int DEFAULT 9;
SELECT sum(d) FROM d_parent;
DROP TABLE d_parent CASCADE;

-- generated and identity columns, defaults
CREATE TABLE d_gen (id int GENERATED ALWAYS AS IDENTITY, a int, b int GENERATED ALWAYS AS (a * a) STORED, c text DEFAULT 'c', d serial) USING iceberg;
INSERT INTO d_gen (a) SELECT generate_series(1, 50);
SELECT count(DISTINCT id), sum(b), min(c), count(DISTINCT d) FROM d_gen;
COPY d_gen (a) FROM PROGRAM 'seq 51 100';
SELECT count(DISTINCT id), sum(b) = (SELECT sum(g * g) FROM generate_series(1, 100) g) AS squares, min(c), count(DISTINCT d) FROM d_gen;
INSERT INTO d_gen (a) VALUES (100000);
INSERT INTO d_gen (a) SELECT 100000 FROM generate_series(1, 20);
SELECT count(*) FROM d_gen;
DROP TABLE d_gen;
-- NOT NULL and CHECK during a bulk load
CREATE TABLE d_check (a int NOT NULL, b int CHECK (b < 30), c varchar(3)) USING iceberg;
INSERT INTO d_check SELECT nullif(g, 25), 1 FROM generate_series(1, 40) g;
INSERT INTO d_check SELECT g, g FROM generate_series(1, 40) g;
INSERT INTO d_check SELECT g, 1, repeat('x', g / 8) FROM generate_series(1, 40) g;
SELECT count(*) FROM d_check;
DROP TABLE d_check;

-- triggers see every row as with heap
CREATE TABLE d_log (what text, n bigint);
CREATE FUNCTION d_log_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO d_log VALUES (TG_WHEN || ' ' || TG_OP || ' ' || TG_LEVEL, NEW.a); RETURN NEW; END $$;
CREATE FUNCTION d_log_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO d_log VALUES (TG_WHEN || ' ' || TG_OP || ' ' || TG_LEVEL, (SELECT count(*) FROM d_trig)); RETURN NULL; END $$;
CREATE FUNCTION d_log_table() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO d_log SELECT 'transition table', count(*) FROM added; RETURN NULL; END $$;
CREATE TABLE d_trig (a int) USING iceberg;
CREATE TRIGGER d1 AFTER INSERT ON d_trig FOR EACH STATEMENT EXECUTE FUNCTION d_log_statement();
INSERT INTO d_trig SELECT generate_series(1, 25);
SELECT * FROM d_log; TRUNCATE d_log;
DROP TRIGGER d1 ON d_trig;
CREATE TRIGGER d2 BEFORE INSERT ON d_trig FOR EACH STATEMENT EXECUTE FUNCTION d_log_statement();
INSERT INTO d_trig SELECT generate_series(26, 50);
SELECT * FROM d_log; TRUNCATE d_log;
DROP TRIGGER d2 ON d_trig;
CREATE TRIGGER d3 BEFORE INSERT ON d_trig FOR EACH ROW EXECUTE FUNCTION d_log_row();
INSERT INTO d_trig SELECT generate_series(51, 75);
SELECT what, count(*), sum(n) FROM d_log GROUP BY 1; TRUNCATE d_log;
DROP TRIGGER d3 ON d_trig;
CREATE TRIGGER d4 AFTER INSERT ON d_trig FOR EACH ROW EXECUTE FUNCTION d_log_row();
COPY d_trig FROM PROGRAM 'seq 76 100';
SELECT what, count(*), sum(n) FROM d_log GROUP BY 1; TRUNCATE d_log;
DROP TRIGGER d4 ON d_trig;
CREATE TRIGGER d5 AFTER INSERT ON d_trig REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION d_log_table();
COPY d_trig FROM PROGRAM 'seq 101 125';
SELECT * FROM d_log; TRUNCATE d_log;
DROP TRIGGER d5 ON d_trig;
INSERT INTO d_trig SELECT generate_series(126, 150);
SELECT count(*), sum(a) FROM d_trig;
SELECT hot, cold FROM hot_cold('d_trig');
DROP TABLE d_trig, d_log;
DROP FUNCTION d_log_row, d_log_statement, d_log_table;
-- rules
CREATE TABLE d_rule (a int) USING iceberg;
CREATE TABLE d_rule_to (a int) USING iceberg;
CREATE RULE r AS ON INSERT TO d_rule DO ALSO INSERT INTO d_rule_to VALUES (NEW.a);
INSERT INTO d_rule SELECT generate_series(1, 30);
SELECT (SELECT count(*) FROM d_rule), (SELECT count(*) FROM d_rule_to);
DROP TABLE d_rule, d_rule_to;

-- foreign keys from an iceberg table
CREATE TABLE d_pk (id int PRIMARY KEY);
INSERT INTO d_pk SELECT generate_series(1, 100);
CREATE TABLE d_fk (id int, pk int REFERENCES d_pk) USING iceberg;
INSERT INTO d_fk SELECT g, g FROM generate_series(1, 50) g;
INSERT INTO d_fk SELECT g, g FROM generate_series(90, 110) g;
SELECT * FROM hot_cold('d_fk');
DELETE FROM d_pk WHERE id = 20;
DELETE FROM d_pk WHERE id = 80;
CALL settle();
SELECT lake.flush('d_fk');
SELECT sqlstate_of('DELETE FROM d_pk WHERE id = 20') <> '00000' AS refused;
DELETE FROM d_pk WHERE id = 81;
INSERT INTO d_fk VALUES (1000, 1000);
CREATE TABLE d_fk_later (id int, pk int) USING iceberg;
INSERT INTO d_fk_later SELECT g, g FROM generate_series(1, 50) g;
ALTER TABLE d_fk_later ADD FOREIGN KEY (pk) REFERENCES d_pk;
DELETE FROM d_pk WHERE id = 90;
INSERT INTO d_fk_later SELECT g, g FROM generate_series(60, 80) g;
CREATE TABLE d_fk_bad (pk int) USING iceberg;
INSERT INTO d_fk_bad SELECT generate_series(1, 105);
ALTER TABLE d_fk_bad ADD FOREIGN KEY (pk) REFERENCES d_pk;
SELECT count(*), sum(pk) FROM d_fk;
DROP TABLE d_fk, d_fk_later, d_fk_bad, d_pk;

-- views, also updatable ones
CREATE TABLE d_base (a int, b text) USING iceberg;
CREATE VIEW d_view AS SELECT a, b FROM d_base WHERE a < 100 WITH CHECK OPTION;
INSERT INTO d_view SELECT g, 'v' FROM generate_series(1, 50) g;
INSERT INTO d_view SELECT g, 'v' FROM generate_series(80, 120) g;
SELECT count(*), sum(a) FROM d_view;
UPDATE d_view SET b = 'w' WHERE a = 3;
UPDATE d_view SET b = 'w' WHERE a = 40;
SELECT b, count(*) FROM d_view GROUP BY b ORDER BY b;
DROP VIEW d_view;
-- functions in SQL and PL/pgSQL that load
CREATE FUNCTION d_load(n int) RETURNS bigint LANGUAGE sql AS 'INSERT INTO d_base SELECT g, ''f'' FROM generate_series(1, n) g; SELECT count(*) FROM d_base';
SELECT d_load(40);
CREATE FUNCTION d_load_loop() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..3 LOOP
        INSERT INTO d_base SELECT g, 'p' FROM generate_series(1, 20) g;
    END LOOP;
    RETURN (SELECT count(*) FROM d_base);
END $$;
SELECT d_load_loop();
SELECT b, count(*) FROM d_base GROUP BY b ORDER BY b;
DROP FUNCTION d_load, d_load_loop;
DROP TABLE d_base;

-- defaults of columns that came later, for cold rows, after rewrites of the hot ones
SET lake.bulk_rows = 0;
CREATE TABLE w_heap (id int);
CREATE TABLE w_lake (id int) USING iceberg;
INSERT INTO w_heap SELECT generate_series(1, 20);
INSERT INTO w_lake SELECT generate_series(1, 20);
ALTER TABLE w_heap ADD n int DEFAULT 7, ADD a text[] DEFAULT '{x,y}', ADD z int;
ALTER TABLE w_lake ADD n int DEFAULT 7, ADD a text[] DEFAULT '{x,y}', ADD z int;
CREATE INDEX w_heap_n ON w_heap (n, id);
CREATE INDEX w_lake_n ON w_lake (n, id);
VACUUM FULL w_heap;
VACUUM FULL w_lake;
SELECT twins('SELECT * FROM @w');
ALTER TABLE w_heap ADD d date DEFAULT '2024-02-29';
ALTER TABLE w_lake ADD d date DEFAULT '2024-02-29';
INSERT INTO w_heap (id) VALUES (21);
INSERT INTO w_lake (id) VALUES (21);
BEGIN;
CLUSTER w_lake USING w_lake_n;
SELECT twins('SELECT * FROM @w');
ROLLBACK;
SELECT twins('SELECT * FROM @w');
CLUSTER w_lake USING w_lake_n;
SELECT twins('SELECT * FROM @w');
SET enable_seqscan = off;
SELECT twins('SELECT id, n FROM @w WHERE n = 7');
RESET enable_seqscan;
INSERT INTO w_heap (id) VALUES (22);
INSERT INTO w_lake (id) VALUES (22);
CALL settle();
SELECT lake.flush('w_lake') + lake.compact('w_lake') > 0 AS compacted;
SELECT lake.compact('w_lake') >= 0 AS compacted;
SELECT twins('SELECT * FROM @w');
ALTER TABLE w_heap ALTER n TYPE bigint USING n * 2;
ALTER TABLE w_lake ALTER n TYPE bigint USING n * 2;
SELECT twins('SELECT * FROM @w');
DROP TABLE w_heap, w_lake;
RESET lake.bulk_rows;
