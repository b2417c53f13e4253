-- Purpose: an expensive plan gives way to one for the engine if that is cheaper; cheap ones, and those of statements that lock, stay.
SET lake.bulk_rows = 10;
CREATE TABLE p_heap (id int, k int, n numeric(12,2));
CREATE TABLE p_lake (id int, k int, n numeric(12,2)) USING iceberg;
INSERT INTO p_heap SELECT g, g % 1000, g % 77 FROM generate_series(1, 400000) g;
INSERT INTO p_lake SELECT * FROM p_heap;
CREATE UNIQUE INDEX p_heap_id ON p_heap (id);
CREATE UNIQUE INDEX p_lake_id ON p_lake (id);
ANALYZE p_heap, p_lake;
-- What a plan has of indexes, subplans and the engine.
CREATE FUNCTION used(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    plan text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        plan := plan || line || E'\n';
    END LOOP;
    RETURN concat_ws(', ', CASE WHEN plan ~ 'Index|Bitmap' THEN 'index' END, CASE WHEN plan ~ 'SubPlan' THEN 'subplan' END,
                     CASE WHEN plan ~ '\(Lake\)' THEN 'engine' END);
END $$;
-- few rows
SELECT used('SELECT * FROM p_lake WHERE id = 77');
SELECT used('SELECT sum(n) FROM p_lake WHERE id <= 100');
SELECT twins('SELECT * FROM @p WHERE id = 77');
-- many rows
SELECT used('SELECT count(*), sum(n) FROM p_lake WHERE id <= 80000');
SELECT twins('SELECT count(*), sum(n) FROM @p WHERE id <= 80000');
SELECT twins('SELECT k, count(*), sum(n) FROM @p WHERE id BETWEEN 1000 AND 81000 GROUP BY k');
SELECT used('WITH w AS MATERIALIZED (SELECT count(*) AS c FROM p_lake WHERE id <= 80000) SELECT c FROM w');
SELECT used('SELECT (SELECT count(*) FROM p_lake WHERE id <= 80000)');
-- as the settings say
SET enable_seqscan = off;
SELECT used('SELECT count(*), sum(n) FROM p_lake WHERE id <= 80000');
RESET enable_seqscan;
SET lake.engine = off;
SELECT used('SELECT count(*), sum(n) FROM p_lake WHERE id <= 80000');
SET lake.engine = force;
SELECT used('SELECT * FROM p_lake WHERE id = 77');
SELECT * FROM p_lake WHERE id = 77;
RESET lake.engine;
-- statements that write and read
CREATE TABLE p_sums (k int, s numeric);
SELECT used('INSERT INTO p_sums SELECT k, sum(n) FROM p_lake WHERE id <= 80000 GROUP BY k');
INSERT INTO p_sums SELECT k, sum(n) FROM p_lake WHERE id <= 80000 GROUP BY k;
SELECT count(*), sum(s) = (SELECT sum(n) FROM p_heap WHERE id <= 80000) AS same FROM p_sums;
SELECT used('CREATE TABLE p_new AS SELECT k, sum(n) FROM p_lake WHERE id <= 80000 GROUP BY k');
-- rows that are locked may have to be looked at again, alone
SELECT used('SELECT k, n FROM p_lake WHERE id <= 80000 FOR UPDATE');
SELECT used('UPDATE p_lake SET n = 0 WHERE id <= 80000');
-- an error while planning again: the function is called by each planning, and fails the second time
CREATE SEQUENCE p_calls;
CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1 / (2 - nextval(''p_calls'')); END';
SELECT sqlstate_of('SELECT count(*) FROM p_lake WHERE id <= 80000 AND k > fails()');
SELECT used('SELECT * FROM p_lake WHERE id = 77');
SELECT last_value FROM p_calls;
DROP TABLE p_heap, p_lake, p_sums;
DROP FUNCTION used, fails;
DROP SEQUENCE p_calls;
