-- Purpose: rows go in and come out as with heap: every way of loading, every kind of scan.
SET lake.bulk_rows = 10;
CREATE TABLE b_heap (id int, name text, price numeric(10,2), day date);
CREATE TABLE b_lake (id int, name text, price numeric(10,2), day date) USING iceberg;
SELECT am.amname, c.relkind FROM pg_class c JOIN pg_am am ON am.oid = c.relam WHERE c.relname = 'b_lake';

-- nothing in it
SELECT * FROM b_lake;
SELECT count(*), sum(price), min(name) FROM b_lake;
INSERT INTO b_lake SELECT * FROM b_lake;
SELECT count(*) FROM b_lake;

-- single rows are hot; the statement's rows past lake.bulk_rows are cold
INSERT INTO b_heap VALUES (1, 'one', 1.5, '2024-01-01'), (2, NULL, NULL, NULL);
INSERT INTO b_lake VALUES (1, 'one', 1.5, '2024-01-01'), (2, NULL, NULL, NULL);
SELECT * FROM hot_cold('b_lake');
INSERT INTO b_heap SELECT g, 'n' || g % 7, g * 1.25, date '2024-01-01' + g FROM generate_series(3, 500) g;
INSERT INTO b_lake SELECT g, 'n' || g % 7, g * 1.25, date '2024-01-01' + g FROM generate_series(3, 500) g;
SELECT * FROM hot_cold('b_lake');
SELECT twins('SELECT * FROM @b');
SELECT twins('SELECT * FROM @b ORDER BY id', true);

-- INSERT … RETURNING, VALUES past the threshold
INSERT INTO b_heap SELECT g, 'r', 1, NULL FROM generate_series(501, 515) g;
INSERT INTO b_lake SELECT g, 'r', 1, NULL FROM generate_series(501, 515) g RETURNING id, name;
INSERT INTO b_heap VALUES (600,'v',0,NULL),(601,'v',0,NULL),(602,'v',0,NULL),(603,'v',0,NULL),(604,'v',0,NULL),(605,'v',0,NULL),(606,'v',0,NULL),(607,'v',0,NULL),(608,'v',0,NULL),(609,'v',0,NULL),(610,'v',0,NULL),(611,'v',0,NULL);
INSERT INTO b_lake VALUES (600,'v',0,NULL),(601,'v',0,NULL),(602,'v',0,NULL),(603,'v',0,NULL),(604,'v',0,NULL),(605,'v',0,NULL),(606,'v',0,NULL),(607,'v',0,NULL),(608,'v',0,NULL),(609,'v',0,NULL),(610,'v',0,NULL),(611,'v',0,NULL);
SELECT twins('SELECT * FROM @b');

-- INSERT … SELECT from itself doesn't see its own rows
INSERT INTO b_heap SELECT id + 1000, name, price, day FROM b_heap;
INSERT INTO b_lake SELECT id + 1000, name, price, day FROM b_lake;
SELECT count(*) FROM b_lake;
SELECT twins('SELECT * FROM @b');

-- COPY in and out
COPY b_lake (id, name) FROM stdin;
3001	x
3002	\N
3003	tab\there
3004	y
3005	y
3006	y
3007	y
3008	y
3009	y
3010	y
3011	näïve
3012	\\.
3013	
\.
COPY b_heap (id, name) FROM stdin;
3001	x
3002	\N
3003	tab\there
3004	y
3005	y
3006	y
3007	y
3008	y
3009	y
3010	y
3011	näïve
3012	\\.
3013	
\.
SELECT twins('SELECT * FROM @b');
COPY (SELECT * FROM b_lake WHERE id > 3000 ORDER BY id) TO stdout;
COPY b_lake (id, name) FROM stdin (FORMAT csv, HEADER);
id,name
4001,"a,b"
4002,
4003,""
\.
SELECT id, name, name IS NULL AS "null" FROM b_lake WHERE id > 4000 ORDER BY id;
-- COPY t TO writes hot and cold rows
COPY b_lake (id) TO PROGRAM 'wc -l > /dev/null';
-- a bad line loses the whole COPY
SELECT count(*) FROM b_lake;
COPY b_lake (id) FROM stdin;
1
2
3
4
5
6
7
8
9
10
11
12
not a number
\.
SELECT count(*) FROM b_lake;
COPY b_lake (id) FROM stdin (ON_ERROR ignore);
5001
5002
5003
5004
5005
5006
5007
5008
5009
5010
5011
not a number
5012
\.
SELECT count(*) FROM b_lake WHERE id > 5000;
COPY b_lake (id) FROM stdin WHERE id % 2 = 0;
6001
6002
6003
6004
\.
SELECT id FROM b_lake WHERE id > 6000;

INSERT INTO b_heap SELECT * FROM b_lake WHERE id > 4000;

-- CTAS, SELECT INTO, materialised views
CREATE TABLE b_ctas USING iceberg AS SELECT * FROM b_heap;
SELECT * FROM hot_cold('b_ctas');
SELECT (SELECT count(*) FROM (SELECT * FROM b_ctas EXCEPT ALL SELECT * FROM b_heap) x) AS more,
       (SELECT count(*) FROM (SELECT * FROM b_heap EXCEPT ALL SELECT * FROM b_ctas) x) AS less;
CREATE TABLE b_nodata USING iceberg AS SELECT * FROM b_heap WITH NO DATA;
SELECT count(*) FROM b_nodata;
SET default_table_access_method = iceberg;
SELECT * INTO b_into FROM b_heap WHERE id < 100;
RESET default_table_access_method;
SELECT * FROM hot_cold('b_into');
CREATE MATERIALIZED VIEW b_mv USING iceberg AS SELECT name, count(*) AS n, sum(price) AS s FROM b_heap WHERE id < 40 GROUP BY name;
SELECT * FROM b_mv ORDER BY name;
CREATE MATERIALIZED VIEW b_mv2 USING iceberg AS SELECT id, name FROM b_heap WHERE id <= 100;
SELECT count(*), sum(id) FROM b_mv2;
INSERT INTO b_heap VALUES (7, 'later', 0, NULL);
REFRESH MATERIALIZED VIEW b_mv2;
SELECT count(*), max(name) FROM b_mv2;
REFRESH MATERIALIZED VIEW b_mv2 WITH NO DATA;
SELECT count(*) FROM b_mv2;
DELETE FROM b_heap WHERE name = 'later';

-- temporary and unlogged tables stay hot
CREATE TEMP TABLE b_temp USING iceberg AS SELECT g FROM generate_series(1, 100) g;
CREATE UNLOGGED TABLE b_unlogged USING iceberg AS SELECT g FROM generate_series(1, 100) g;
SELECT * FROM hot_cold('b_temp');
SELECT * FROM hot_cold('b_unlogged');
CALL settle();
SELECT lake.flush('b_temp'), lake.flush('b_unlogged');
SELECT sum(g) FROM b_temp;
SELECT sum(g) FROM b_unlogged;
UPDATE b_unlogged SET g = 0 WHERE g > 50;
SELECT sum(g) FROM b_unlogged;

-- cold rows have stable, distinct row identities; TID scans and TID range scans
SELECT count(DISTINCT ctid) = count(*) AS distinct_tids FROM b_lake;
CREATE TABLE b_tid USING iceberg AS SELECT g AS id FROM generate_series(1, 1000) g;
SELECT * FROM hot_cold('b_tid');
EXPLAIN (COSTS OFF) SELECT id FROM b_tid WHERE ctid = '(0,1)';
SELECT id FROM b_tid WHERE ctid = '(0,3)';
SELECT a.id FROM b_tid a WHERE a.ctid = (SELECT ctid FROM b_tid WHERE id = 777);
SELECT id FROM b_tid WHERE ctid = ANY (ARRAY(SELECT ctid FROM b_tid WHERE id IN (2, 11, 500, 1000))) ORDER BY id;
SELECT id FROM b_tid WHERE ctid = '(4294967294,1)';
SELECT id FROM b_tid WHERE ctid = '(2147483647,1)';
SELECT count(*) FROM b_tid WHERE ctid < '(2147483648,0)';
SELECT count(*) FROM b_tid WHERE ctid >= '(2147483648,0)';
SELECT min(id), max(id), count(*) FROM b_tid WHERE ctid >= (SELECT ctid FROM b_tid WHERE id = 300) AND ctid < (SELECT ctid FROM b_tid WHERE id = 700);
SELECT count(*) FROM b_tid WHERE ctid > (SELECT ctid FROM b_tid WHERE id = 1000);
SELECT count(*) FROM b_tid WHERE ctid <= '(0,0)';
SELECT b.id FROM b_tid a JOIN b_tid b ON b.ctid = a.ctid WHERE a.id BETWEEN 8 AND 13 ORDER BY 1;
SELECT tableoid::regclass, xmax, cmin FROM b_tid WHERE id IN (1, 999);

-- rescans
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; SET enable_memoize = off;
SELECT v.x, count(*), sum(b.id) FROM (VALUES (1), (2), (3)) v(x) JOIN b_tid b ON b.id % 3 = v.x - 1 GROUP BY 1 ORDER BY 1;
SELECT v.x, (SELECT count(*) FROM b_tid b WHERE b.id < v.x) FROM (VALUES (1), (12), (900)) v(x);
SELECT v.x, l.* FROM (VALUES (5), (995)) v(x), LATERAL (SELECT id FROM b_tid WHERE id >= v.x ORDER BY id LIMIT 2) l ORDER BY 1, 2;
SELECT count(*) FROM b_tid a JOIN b_tid b ON a.id = b.id AND b.id % 100 = 0;
RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_material; RESET enable_memoize;
SELECT count(*) FROM b_tid a WHERE EXISTS (SELECT 1 FROM b_tid b WHERE b.id = a.id + 1);

-- TABLESAMPLE
SELECT count(*) FROM b_tid TABLESAMPLE SYSTEM (100);
SELECT count(*) FROM b_tid TABLESAMPLE BERNOULLI (100);
SELECT count(*) FROM b_tid TABLESAMPLE BERNOULLI (0);
SELECT count(*) BETWEEN 350 AND 650 AS about_half FROM b_tid TABLESAMPLE BERNOULLI (50) REPEATABLE (1);
SELECT (SELECT sum(id) FROM b_tid TABLESAMPLE BERNOULLI (20) REPEATABLE (7)) = (SELECT sum(id) FROM b_tid TABLESAMPLE BERNOULLI (20) REPEATABLE (7)) AS repeatable;
SELECT count(*) = count(DISTINCT id) AS no_row_twice FROM b_tid TABLESAMPLE BERNOULLI (90) REPEATABLE (3);

-- ANALYZE and estimates
ANALYZE b_tid;
SELECT reltuples FROM pg_class WHERE relname = 'b_tid';
SELECT n_distinct, null_frac FROM pg_stats WHERE tablename = 'b_tid';
CREATE FUNCTION estimated(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE j json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO j;
    RETURN j -> 0 -> 'Plan' ->> 'Plan Rows';
END $$;
SET lake.engine = off;
SELECT estimated('SELECT * FROM b_tid') BETWEEN 900 AND 1300 AS good;
SELECT estimated('SELECT * FROM b_tid WHERE id < 500') BETWEEN 450 AND 700 AS good;
RESET lake.engine;
SELECT estimated('SELECT * FROM b_tid') BETWEEN 900 AND 1300 AS good;
VACUUM b_tid;
SELECT estimated('SELECT * FROM b_tid') BETWEEN 900 AND 1300 AS good;
SELECT pg_table_size('b_tid') > 0 AS has_size;

-- EXPLAIN
EXPLAIN (COSTS OFF) INSERT INTO b_tid SELECT id FROM b_tid;
SET lake.engine = off;
EXPLAIN (COSTS OFF) SELECT * FROM b_tid WHERE id = 5;
RESET lake.engine;
EXPLAIN (COSTS OFF, VERBOSE) SELECT id FROM b_tid WHERE id = 5;

-- joins, set operations, windows over both halves
SELECT twins('SELECT a.id, b.name FROM @b a JOIN @b b ON a.id = b.id + 1000');
SELECT twins('SELECT id, sum(price) OVER (PARTITION BY name ORDER BY id) FROM @b');
SELECT twins('SELECT name FROM @b UNION SELECT name || ''x'' FROM @b');
SELECT twins('SELECT DISTINCT name FROM @b');
SELECT twins('SELECT b.*, b FROM @b b WHERE id % 50 = 1');
SELECT twins('WITH w AS MATERIALIZED (SELECT * FROM @b WHERE price > 100) SELECT count(*), sum(price) FROM w');

-- TRUNCATE, ROLLBACK, DROP
BEGIN;
TRUNCATE b_tid;
SELECT count(*) FROM b_tid;
INSERT INTO b_tid SELECT generate_series(1, 20);
SELECT count(*) FROM b_tid;
ROLLBACK;
SELECT count(*), sum(id) FROM b_tid;
TRUNCATE b_tid;
SELECT count(*) FROM b_tid;
SELECT estimated('SELECT * FROM b_tid') < 5000 AS estimate_forgets;
INSERT INTO b_tid SELECT generate_series(1, 20);
SELECT sum(id) FROM b_tid;
BEGIN;
INSERT INTO b_tid SELECT generate_series(1, 2000);
SELECT count(*) FROM b_tid;
ROLLBACK;
SELECT sum(id) FROM b_tid;
BEGIN;
CREATE TABLE b_gone USING iceberg AS SELECT generate_series(1, 100) AS g;
SELECT count(*) FROM b_gone;
TRUNCATE b_gone;
SELECT count(*) FROM b_gone;
INSERT INTO b_gone SELECT generate_series(1, 50);
SELECT count(*) FROM b_gone;
ROLLBACK;
SELECT count(*) FROM lake.tables WHERE table_name = 'b_gone';
BEGIN;
DROP TABLE b_tid;
ROLLBACK;
SELECT sum(id) FROM b_tid;
DROP TABLE b_tid;
SELECT * FROM b_tid;
SELECT count(*) FROM lake.tables WHERE table_name = 'b_tid';

-- savepoints around bulk loads
CREATE TABLE b_sp (i int) USING iceberg;
BEGIN;
INSERT INTO b_sp SELECT generate_series(1, 30);
SAVEPOINT a;
INSERT INTO b_sp SELECT generate_series(101, 130);
SELECT count(*) FROM b_sp;
ROLLBACK TO a;
SELECT count(*) FROM b_sp;
INSERT INTO b_sp SELECT generate_series(201, 230);
RELEASE a;
SAVEPOINT b;
SAVEPOINT c;
INSERT INTO b_sp SELECT generate_series(301, 330);
RELEASE c;
SELECT count(*) FROM b_sp;
ROLLBACK TO b;
COMMIT;
SELECT count(*), min(i), max(i), sum(i) FROM b_sp;
-- a failed bulk load inside a block with an exception handler
DO $$
BEGIN
    BEGIN
        INSERT INTO b_sp SELECT 100 / (50 - g) FROM generate_series(1, 60) g;
    EXCEPTION WHEN division_by_zero THEN
        RAISE NOTICE 'caught';
    END;
    INSERT INTO b_sp SELECT g FROM generate_series(1001, 1030) g;
END $$;
SELECT count(*), max(i) FROM b_sp;
-- functions that are run for each row of a bulk load
CREATE FUNCTION b_quiet(x int) RETURNS int STABLE LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
    SELECT count(*) INTO n FROM pg_class;
    PERFORM 1 / (x - x);
    RETURN x;
EXCEPTION WHEN division_by_zero THEN
    RETURN x;
END $$;
TRUNCATE b_sp;
INSERT INTO b_sp SELECT b_quiet(g) FROM generate_series(1, 100) g;
SELECT count(*), sum(i) FROM b_sp;
CREATE FUNCTION b_check(x int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN b_quiet(x) = x; END $$;
CREATE TABLE b_checked (i int CHECK (b_check(i))) USING iceberg;
INSERT INTO b_checked SELECT generate_series(1, 100);
SELECT count(*), sum(i) FROM b_checked;
CREATE DOMAIN b_domain AS int CHECK (b_check(VALUE));
CREATE TABLE b_defaults (i int, j int DEFAULT b_quiet(3), k b_domain DEFAULT 4) USING iceberg;
COPY b_defaults (i) FROM PROGRAM 'seq 1 2500';
SELECT count(*), sum(i), sum(j), sum(k) FROM b_defaults;
-- a query inside of a statement that loads: sees what heap's would see
CREATE FUNCTION b_count() RETURNS bigint VOLATILE LANGUAGE sql AS 'SELECT count(*) FROM b_sp';
CREATE TABLE b_sp_heap (i int);
CREATE FUNCTION b_count_heap() RETURNS bigint VOLATILE LANGUAGE sql AS 'SELECT count(*) FROM b_sp_heap';
TRUNCATE b_sp;
INSERT INTO b_sp SELECT b_count() FROM generate_series(1, 40);
INSERT INTO b_sp_heap SELECT b_count_heap() FROM generate_series(1, 40);
SELECT count(*), min(i), max(i), (SELECT max(i) FROM b_sp_heap) AS heap_max FROM b_sp;

-- several targets in one statement
CREATE TABLE b_two (i int) USING iceberg;
WITH x AS (INSERT INTO b_two SELECT generate_series(1, 50) RETURNING i) INSERT INTO b_sp SELECT i FROM x;
SELECT (SELECT count(*) FROM b_two), (SELECT count(*) FROM b_sp);

-- a table without columns
CREATE TABLE b_none () USING iceberg;
INSERT INTO b_none SELECT FROM generate_series(1, 30);
SELECT count(*) FROM b_none;
SELECT FROM b_none LIMIT 2;
CALL settle();
SELECT lake.flush('b_none');
SELECT count(*) FROM b_none;

DROP TABLE b_heap, b_lake CASCADE;
DROP TABLE b_ctas, b_nodata, b_into, b_temp, b_unlogged, b_sp, b_sp_heap, b_checked, b_defaults, b_two, b_none;
DROP DOMAIN b_domain;
DROP FUNCTION b_quiet, b_check, b_count, b_count_heap, estimated;
