-- Purpose: what the engine finds out to be Postgres' to compute in the last of many rows gets heap's answer all the same, and what
-- can't end so is sent as it comes.
SET lake.bulk_rows = 10;
CREATE TABLE late_heap (id int, g int, m numeric(12,2), n numeric(30,0), w numeric(38,0), f float8, i interval);
INSERT INTO late_heap
SELECT id, (id + 1) / 2, id / 100.0, CASE WHEN id < 100000 THEN id ELSE 123456789012345678901234567890 END,
       CASE WHEN id < 99999 THEN id ELSE 90000000000000000000000000000000000000 END,
       CASE id % 3 WHEN 0 THEN 0.0 WHEN 1 THEN '-0'::float8 ELSE 0.0 END, CASE WHEN id < 100000 THEN interval '1 day' ELSE '24:00' END
FROM generate_series(1, 100000) id;
CREATE TABLE late_lake (LIKE late_heap) USING iceberg;
INSERT INTO late_lake SELECT * FROM late_heap ORDER BY id;
-- The last row is hot, and fed.
CREATE TABLE fed_heap (LIKE late_heap);
INSERT INTO fed_heap SELECT * FROM late_heap;
CREATE TABLE fed_lake (LIKE late_heap) USING iceberg;
INSERT INTO fed_lake SELECT * FROM late_heap WHERE id <= 90000 ORDER BY id;
SET lake.bulk_rows = -1;
INSERT INTO fed_lake SELECT * FROM late_heap WHERE id > 90000 ORDER BY id;
ANALYZE late_heap, late_lake, fed_heap, fed_lake;
SELECT * FROM hot_cold('late_lake');
SELECT * FROM hot_cold('fed_lake');

-- Whether the rows are heap's, and who has computed them.
CREATE FUNCTION late_check(query text) RETURNS text LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
    of_lake text := regexp_replace(query, '@(\w+)', '\1_lake', 'g');
    line text;
    differences bigint;
    who text := 'not lowered';
BEGIN
    DROP TABLE IF EXISTS pg_temp.from_heap, pg_temp.from_lake;
    EXECUTE 'CREATE TEMP TABLE from_heap AS ' || regexp_replace(query, '@(\w+)', '\1_heap', 'g');
    EXECUTE 'CREATE TEMP TABLE from_lake AS ' || of_lake;
    EXECUTE 'SELECT count(*) FROM (SELECT h::text FROM from_heap h EXCEPT ALL SELECT l::text FROM from_lake l) d' INTO differences;
    IF differences = 0 THEN
        EXECUTE 'SELECT (SELECT count(*) FROM from_lake) - (SELECT count(*) FROM from_heap)' INTO differences;
    END IF;
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || of_lake LOOP
        who := CASE
            WHEN line ~ 'Run by Postgres: ' THEN trim(line)
            WHEN who ~ '^Run' THEN who
            WHEN line ~ 'HoldExec' THEN 'engine, held'
            WHEN line ~ '^ *Engine: ' AND who = 'not lowered' THEN 'engine'
            ELSE who END;
    END LOOP;
    RETURN CASE differences WHEN 0 THEN 'ok' ELSE 'DIFFERS' END || ', ' || who;
END $$;

-- a projection, a filter, a condition of a join
SELECT late_check('SELECT a.id, a.n * a.n AS p FROM @late a JOIN @late b ON b.id = a.id');
SELECT late_check('SELECT id, p FROM (SELECT id, n * n AS p FROM @late) s LIMIT 1000000');
SELECT late_check('SELECT a.id, b.m FROM @late a JOIN @late b ON b.id = a.id WHERE a.n * a.n > 100');
SELECT late_check('SELECT a.id, b.m FROM @late a JOIN @late b ON b.id = a.id AND a.n * b.n > a.id');
SELECT late_check('SELECT a.id, b.m FROM @late a LEFT JOIN @late b ON b.id = a.id AND a.n * b.n > a.id');
SELECT late_check('SELECT a.id FROM @late a WHERE EXISTS (SELECT FROM @late b WHERE b.id = a.id AND a.n * b.n > a.id)');
-- UNION ALL
SELECT late_check('SELECT * FROM (SELECT id, n FROM @late UNION ALL SELECT id, n * n FROM @late) u LIMIT 1000000');
SELECT late_check('SELECT u.id, u.n, a.m FROM (SELECT id, n FROM @late UNION ALL SELECT id, n * n FROM @late) u JOIN @late a ON a.id = u.id');
SELECT late_check('SELECT * FROM (SELECT id, f FROM @late UNION ALL SELECT 0, min(f) FROM @late UNION ALL SELECT 1, max(f) FROM @late) u LIMIT 1000000');
SELECT late_check('SELECT * FROM (SELECT g, NULL::interval AS i FROM @late UNION ALL SELECT 0, i FROM @late GROUP BY i) u LIMIT 1000000');
-- windows
SELECT late_check('SELECT id, sum(w) OVER (ORDER BY id) AS s FROM @late');
SELECT late_check('SELECT id, sum(n * n) OVER (PARTITION BY g) AS s FROM @late');
SELECT late_check('SELECT id, n * n AS p, row_number() OVER (ORDER BY id) AS r FROM @late');
-- groups
SELECT late_check('SELECT g, sum(w) AS s FROM @late GROUP BY g');
SELECT late_check('SELECT g, s * s AS p FROM (SELECT g, max(n) AS s FROM @late GROUP BY g) q LIMIT 1000000');
SELECT late_check('SELECT g, sum(w) AS s FROM (SELECT * FROM @late ORDER BY g OFFSET 0) q GROUP BY g');
SELECT late_check('SELECT g, i, count(*) FROM @late GROUP BY g, i');
-- sorts
SELECT late_check('SELECT id, n * n AS p FROM @late ORDER BY p DESC');
SELECT late_check('SELECT id, p * p AS q FROM (SELECT id, n AS p FROM @late ORDER BY id LIMIT 1000000) s');

-- what was fed is computed again
SELECT late_check('SELECT a.id, a.n * a.n AS p FROM @fed a JOIN @fed b ON b.id = a.id');
SELECT late_check('SELECT a.id, a.n * h.n AS p FROM @late a JOIN fed_heap h ON h.id = a.id WHERE h.g > 30000 AND a.n * h.n > 5');
SELECT late_check('WITH c AS MATERIALIZED (SELECT id, n FROM fed_heap WHERE id > 50000)
                   SELECT a.id, (SELECT count(*) FROM c) AS k FROM @fed a JOIN c ON c.id = a.id WHERE a.n * c.n > 5');

-- values that are exact, of the same plans: those that may not be are held, others aren't
SELECT late_check('SELECT a.id, a.n * a.n AS p FROM @late a JOIN @late b ON b.id = a.id WHERE a.id < 90000 AND b.n * a.n > 5');
SELECT late_check('SELECT a.id, a.m * b.m AS p FROM @late a JOIN @late b ON b.id = a.id AND a.m * b.m > 5');
SELECT late_check('SELECT a.id, a.m * (1 - b.m) AS p FROM @late a JOIN @late b ON b.id = a.id WHERE a.m + b.m < 700');
SELECT late_check('SELECT id, sum(m * m) OVER (ORDER BY id) AS s FROM @late');
SELECT late_check('SELECT g, sum(m * m) AS s, count(*) FROM @late GROUP BY g');
SELECT late_check('SELECT * FROM (SELECT id, m FROM @late UNION ALL SELECT id, m FROM @late) u LIMIT 1000000');

-- a cursor's first row comes with all the others
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT a.id, b.m FROM late_lake a JOIN late_lake b ON b.id = a.id AND a.n * b.n > 0;
MOVE 5 IN c;
MOVE ALL IN c;
ROLLBACK;

-- a LIMIT that the engine doesn't know isn't waited for
SET plan_cache_mode = force_generic_plan;
PREPARE few_of(bigint) AS SELECT a.n * b.n > 0 AS p FROM late_lake a JOIN late_lake b ON b.id = a.id AND a.n * b.n > 0 LIMIT $1;
EXPLAIN (COSTS OFF) EXECUTE few_of(2);
EXECUTE few_of(2);
DEALLOCATE few_of;
PREPARE few_of(bigint) AS SELECT a.m > 0 AS p FROM late_lake a JOIN late_lake b ON b.id = a.id AND a.m * b.m > 0 LIMIT $1;
EXPLAIN (COSTS OFF) EXECUTE few_of(2);
EXECUTE few_of(2);
DEALLOCATE few_of;
RESET plan_cache_mode;

-- what is held is in the query's memory and files
SET temp_file_limit = '64MB';
SELECT late_check('SELECT a.id, b.m FROM @late a JOIN @late b ON b.id = a.id AND a.n * b.n > a.id');
RESET temp_file_limit;
DROP FUNCTION late_check;
DROP TABLE late_heap, late_lake, fed_heap, fed_lake;
