-- Purpose: big values, wide tables, many files, limits, cancellation.
SET lake.bulk_rows = 10;
-- values of more than a ring (1 MB), hot and cold, among small ones
CREATE TABLE l_heap (id int, t text, b bytea);
CREATE TABLE l_lake (id int, t text, b bytea) USING iceberg;
INSERT INTO l_heap SELECT g, CASE WHEN g % 5 = 0 THEN repeat(md5(g::text), 60000) ELSE 'small ' || g END,
    CASE WHEN g % 7 = 0 THEN decode(repeat(md5(g::text), 50000), 'hex') END FROM generate_series(1, 30) g;
ALTER TABLE l_lake ALTER t SET STORAGE EXTERNAL;
INSERT INTO l_lake SELECT * FROM l_heap;
SELECT * FROM hot_cold('l_lake');
SELECT twins('SELECT id, length(t), md5(t), length(b), md5(b) FROM @l');
SELECT twins('SELECT max(length(t)), count(DISTINCT t), max(md5(t)) FROM @l');
SELECT twins('SELECT md5(max(t)), md5(min(t)) FROM @l');
SELECT twins('SELECT id FROM @l WHERE t = repeat(md5(''20''), 60000)');
SELECT twins('SELECT md5(t), count(*) FROM @l GROUP BY t');
SELECT twins('SELECT id, md5(t) FROM @l ORDER BY t, id', true);
CALL settle();
SELECT lake.flush('l_lake');
SELECT twins('SELECT id, md5(t), md5(b) FROM @l');
SELECT lake.publish('l_lake') IS NOT NULL AS published;
INSERT INTO l_heap SELECT g, repeat(chr(64 + g), 20000000), NULL FROM generate_series(1, 3) g;
INSERT INTO l_lake SELECT g, repeat(chr(64 + g), 20000000), NULL FROM generate_series(1, 3) g;
CALL settle();
SELECT lake.flush('l_lake');
SELECT twins('SELECT id, length(t), md5(t) FROM @l');
DROP TABLE l_heap, l_lake;

-- 200 columns, and 1600
SELECT format('CREATE TABLE l_heap (%s)', string_agg(format('c%s %s', i, (ARRAY['int', 'text', 'numeric(10,2)', 'date', 'float8'])[i % 5 + 1]), ', ' ORDER BY i)) FROM generate_series(1, 200) i \gexec
CREATE TABLE l_lake (LIKE l_heap) USING iceberg;
SELECT format('INSERT INTO l_heap SELECT %s FROM generate_series(1, 50) g', string_agg((ARRAY['g', '''t'' || g', 'g * 1.5', 'date ''2020-01-01'' + g', 'g / 3.0::float8'])[i % 5 + 1], ', ' ORDER BY i)) FROM generate_series(1, 200) i \gexec
INSERT INTO l_lake SELECT * FROM l_heap;
INSERT INTO l_lake (c200) VALUES (1);
INSERT INTO l_heap (c200) VALUES (1);
SELECT twins('SELECT * FROM @l');
SELECT twins('SELECT c199, c3, c100 FROM @l WHERE c5 > 20');
CALL settle();
SELECT lake.flush('l_lake');
SELECT twins('SELECT * FROM @l');
DROP TABLE l_heap, l_lake;
SELECT format('CREATE TABLE l_lake (%s) USING iceberg', string_agg(format('c%s int', i), ', ')) FROM generate_series(1, 1600) i \gexec
INSERT INTO l_lake (c1, c1600) SELECT g, -g FROM generate_series(1, 30) g;
SELECT count(*), sum(c1), sum(c1600), sum(c800) FROM l_lake;
CALL settle();
SELECT lake.flush('l_lake');
SELECT count(*), sum(c1), sum(c1600), sum(c800) FROM l_lake;
DROP TABLE l_lake;

-- many small files
CREATE TABLE l_lake (id int, t text) USING iceberg;
SET lake.bulk_rows = 0;
DO $$ BEGIN FOR i IN 1..120 LOOP INSERT INTO l_lake SELECT i, 'f' FROM generate_series(1, 10); END LOOP; END $$;
SELECT count(*), sum(id), (SELECT files FROM lake.tables WHERE table_name = 'l_lake') AS files FROM l_lake;
SELECT count(*) FROM l_lake WHERE id = 77;
SET lake.engine = off;
SELECT count(*), sum(id) FROM l_lake;
RESET lake.engine;
-- more rows than one batch, one row group, one page
INSERT INTO l_lake SELECT g, 'n' || g % 1000 FROM generate_series(1, 300000) g;
SELECT count(*), sum(id), count(DISTINCT t) FROM l_lake;
SET lake.engine = off;
SELECT count(*), sum(id::bigint), count(DISTINCT t) FROM l_lake;
RESET lake.engine;
SELECT count(*) FROM l_lake WHERE ctid = ANY (ARRAY(SELECT ctid FROM l_lake WHERE id % 60000 = 5));
-- no more memory than there is
SET lake.target_file_size = '1MB';
INSERT INTO l_lake SELECT g, md5(g::text) || md5((-g)::text) FROM generate_series(1, 100000) g;
SELECT count(*), count(DISTINCT t) FROM l_lake;
SELECT max(files) > 121 AS many FROM lake.tables WHERE table_name = 'l_lake';
RESET lake.target_file_size;

-- cancelled in the middle: by statement_timeout, on every path; the session goes on
SET statement_timeout = '50ms';
SELECT count(*) FROM l_lake a, l_lake b, l_lake c WHERE a.id + b.id + c.id = 7;
INSERT INTO l_lake SELECT g, repeat('x', 100) FROM generate_series(1, 100000000) g;
SET lake.engine = off;
SELECT sum(length(a.t) + length(b.t)) FROM l_lake a CROSS JOIN l_lake b;
RESET lake.engine;
RESET statement_timeout;
SELECT count(*) FROM l_lake;
-- the engine lets go of them a moment later
DO $$ BEGIN FOR i IN 1..500 LOOP EXIT WHEN NOT EXISTS (SELECT FROM lake.stat_streams WHERE pid = pg_backend_pid() AND state <> 'free'); PERFORM pg_sleep(0.01); END LOOP; END $$;
SELECT count(*) FROM lake.stat_streams WHERE pid = pg_backend_pid() AND state <> 'free';

-- more streams than one session may have: an error that says what to raise, then it goes on
SET lake.stream_timeout = '100ms';
SET lake.engine = off;
DO $$
DECLARE n int := 0;
BEGIN
    FOR i IN 1..2000 LOOP
        EXECUTE format('DECLARE many%s CURSOR FOR SELECT id FROM l_lake', i);
        EXECUTE format('MOVE 5 IN many%s', i);
        n := i;
    END LOOP;
    RAISE NOTICE 'no limit in sight';
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE '% %, after some: %', SQLSTATE, SQLERRM, n > 5;
END $$;
RESET lake.engine;
RESET lake.stream_timeout;
SELECT count(*) FROM l_lake;
DROP TABLE l_lake;
