-- Purpose: fragments that are fed from several tables and plans at once: more rows than a ring holds, feeds that the
-- engine leaves, values that can't be fed, cursors, rescans.
SET lake.bulk_rows = 10;
CREATE TABLE fa_heap (id int, k int, n bigint, t text COLLATE "C");
CREATE TABLE fb_heap (LIKE fa_heap);
CREATE TABLE fa_lake (LIKE fa_heap) USING iceberg;
CREATE TABLE fb_lake (LIKE fa_heap) USING iceberg;
INSERT INTO fa_heap SELECT g, g % 5000, g * 1000000007::bigint, repeat(md5(g::text), 4) FROM generate_series(1, 60000) g;
INSERT INTO fb_heap SELECT g, g % 7000, g, repeat(md5((-g)::text), 4) FROM generate_series(1, 60000) g;
INSERT INTO fa_lake SELECT * FROM fa_heap WHERE id <= 10000;
INSERT INTO fb_lake SELECT * FROM fb_heap WHERE id <= 10000;
SET lake.bulk_rows = -1;
INSERT INTO fa_lake SELECT * FROM fa_heap WHERE id > 10000;
INSERT INTO fb_lake SELECT * FROM fb_heap WHERE id > 10000;
CREATE TABLE v (id int, n numeric(10,2), until timestamp);
INSERT INTO v SELECT g, g / 4.0, timestamp '2024-01-01' + g * interval '1 minute' FROM generate_series(1, 50000) g;
ANALYZE fa_heap, fb_heap, fa_lake, fb_lake, v;
SELECT * FROM hot_cold('fa_lake');
SELECT * FROM hot_cold('fb_lake');

-- two feeds, each of many rings
SELECT twins('SELECT count(*), sum(a.n), min(b.t), max(a.t) FROM @fa a JOIN @fb b ON a.id = b.id');
SELECT twins('SELECT a.id, b.id, b.t FROM @fa a JOIN @fb b ON a.id = b.id WHERE a.k < 300');
SELECT twins('SELECT a.k, count(*), count(b.id) FROM @fa a LEFT JOIN @fb b ON a.id = b.id AND b.k < 100 GROUP BY a.k');
SELECT twins('SELECT count(a.id), count(b.id) FROM (SELECT * FROM @fa WHERE k < 50) a FULL JOIN (SELECT * FROM @fb WHERE k < 50) b ON a.id = b.id');
SELECT twins('SELECT count(*) FROM @fa a WHERE EXISTS (SELECT FROM @fb b WHERE b.id = a.id AND b.k < 10)');
SELECT twins('SELECT count(*) FROM @fa a WHERE NOT EXISTS (SELECT FROM @fb b WHERE b.id = a.id AND b.k < 10)');
SELECT twins('SELECT count(*) FROM @fa WHERE id NOT IN (SELECT id FROM @fb WHERE k < 10)');
SELECT twins('SELECT count(*), sum(a.n + b.n + c.n) FROM @fa a JOIN @fb b ON a.id = b.id JOIN @fa c ON c.id = b.id');
SELECT twins('SELECT k, count(*) FROM (SELECT k FROM @fa UNION ALL SELECT k FROM @fb) u GROUP BY k');
-- one side is empty, or nearly
SELECT twins('SELECT count(*) FROM @fa a JOIN @fb b ON a.id = b.id WHERE b.k < 0');
SELECT twins('SELECT count(*) FROM @fa a JOIN @fb b ON a.id = b.id WHERE b.id = 77');

-- heap tables, functions, CTEs and VALUES
SELECT twins('SELECT count(*), sum(f.n) FROM @fa a JOIN fb_heap f ON f.id = a.id');
SELECT twins('SELECT count(*), sum(a.n) FROM @fa a JOIN generate_series(1, 60000, 7) g ON g = a.id');
SELECT twins('SELECT count(*) FROM @fa a JOIN (VALUES (1), (50000), (50000), (NULL)) w(id) ON w.id = a.id');
SELECT twins('WITH c AS MATERIALIZED (SELECT id, k FROM fb_heap WHERE k < 500)
              SELECT count(*), sum(c.id) FROM @fa a JOIN c ON c.id = a.id JOIN c d ON d.id = a.id');
SELECT twins('WITH c AS MATERIALIZED (SELECT id FROM @fb WHERE k < 500)
              SELECT (SELECT count(*) FROM c), (SELECT count(*) FROM @fa a JOIN c ON c.id = a.id)');

-- LIMIT: feeds that nobody reads to their end
SELECT twins('SELECT count(*) FROM (SELECT a.id FROM @fa a JOIN @fb b ON a.k = b.k LIMIT 100) q');
SELECT twins('SELECT a.id, b.id FROM @fa a JOIN fb_heap b ON a.id = b.id ORDER BY a.id DESC LIMIT 5', true);
SELECT twins('SELECT count(*) FROM (SELECT id FROM @fa UNION ALL (SELECT id FROM @fb LIMIT 10)) q');

-- a value at the end of a feed that the engine can't be given, with results before it that take a file
SET work_mem = '64kB';
SELECT twins('SELECT a.id, v.n, v.until FROM @fa a JOIN v ON v.id = a.id WHERE a.k < 2000');
INSERT INTO v VALUES (50001, 1, 'infinity'), (50002, 'NaN', '-infinity'), (NULL, NULL, NULL);
SELECT twins('SELECT a.id, v.n, v.until FROM @fa a JOIN v ON v.id = a.id WHERE a.k < 2000');
SELECT twins('SELECT count(*), max(v.until), max(v.n) FROM @fa a JOIN v ON v.id = a.id');
-- what an initplan within the fed plan has found out still counts
SELECT twins('SELECT count(*), max(w.until) FROM @fa a
              JOIN (SELECT id, until FROM v WHERE id > (SELECT min(id) + 10 FROM v WHERE n > 3) OFFSET 0) w ON w.id = a.id');
-- nor may a CTE's rows go with the feed that read them first
SELECT twins('WITH c AS MATERIALIZED (SELECT id, until FROM v WHERE id % 3 = 0 OR id > 50000)
              SELECT count(*), max(c.until), (SELECT count(*) FROM c) FROM @fa a JOIN c ON c.id = a.id');
RESET work_mem;

-- rescans, with parameters and without
SELECT twins('SELECT p, (SELECT count(*) FROM @fa a JOIN fb_heap b ON a.id = b.id WHERE a.k = p + b.k - b.k) FROM generate_series(1, 3) p');
SELECT twins('SELECT p, q.* FROM generate_series(1, 3) p, LATERAL (SELECT count(*), sum(b.n) FROM @fa a JOIN @fb b ON a.id = b.id WHERE b.k < p) q');

-- errors of a fed plan are its own
SELECT sqlstate_of('SELECT count(*) FROM fa_lake a JOIN (SELECT id, 1 / (id - 40000) AS x FROM fb_heap OFFSET 0) b ON a.id = b.id AND b.x >= 0');
DO $$
BEGIN
    FOR i IN 1..20 LOOP
        PERFORM sqlstate_of('SELECT count(*) FROM fa_lake a JOIN (SELECT id, 1 / (id - 50) AS x FROM fb_heap OFFSET 0) b ON a.id = b.id AND b.x >= 0');
    END LOOP;
END $$;

-- cursors in the middle of their feeds, two at once, with changes meanwhile
BEGIN;
DECLARE c CURSOR FOR SELECT a.id = b.id AS same FROM fa_lake a JOIN fb_heap b ON a.id = b.id;
DECLARE d CURSOR FOR SELECT a.id = b.id AS same FROM fa_lake a JOIN fb_lake b ON a.id = b.id;
FETCH 2 FROM c;
FETCH 2 FROM d;
DELETE FROM fb_heap WHERE id > 100;
DELETE FROM fb_lake WHERE id > 100;
FETCH 2 FROM c;
MOVE ALL IN c;
MOVE ALL IN d;
SELECT count(*) FROM fa_lake a JOIN fb_lake b ON a.id = b.id;
CLOSE c;
ROLLBACK;
BEGIN;
DECLARE s SCROLL CURSOR FOR SELECT a.id FROM fa_lake a JOIN fb_lake b ON a.id = b.id ORDER BY a.id;
FETCH 2 FROM s;
FETCH LAST FROM s;
FETCH FIRST FROM s;
DECLARE h CURSOR WITH HOLD FOR SELECT a.id FROM fa_lake a JOIN fb_heap b ON a.id = b.id WHERE a.id < 5 ORDER BY a.id;
COMMIT;
FETCH ALL FROM h;
CLOSE h;
-- the engine lets go of the streams a moment later
DO $$ BEGIN FOR i IN 1..500 LOOP EXIT WHEN NOT EXISTS (SELECT FROM lake.stat_streams WHERE pid = pg_backend_pid() AND state <> 'free'); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT count(*) FROM lake.stat_streams WHERE pid = pg_backend_pid() AND state <> 'free';

-- as a tree, and as a list
EXPLAIN (COSTS OFF) SELECT count(*) FROM fa_lake a JOIN fb_heap b ON a.id = b.id JOIN fb_lake c ON c.id = b.id;
DO $$
DECLARE j json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) SELECT count(*) FROM fa_lake a JOIN fb_lake b ON a.id = b.id' INTO j;
    RAISE NOTICE '%', json_typeof(j -> 0 -> 'Plan' -> 'Engine');
END $$;
DROP TABLE fa_heap, fb_heap, fa_lake, fb_lake, v;
