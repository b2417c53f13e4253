-- Purpose: composites, enums and domains that change under cold rows.
SET lake.bulk_rows = 10;
CREATE TYPE co AS (x int, y text);
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE k_heap (id int, c co, cs co[], m mood, p positive);
CREATE TABLE k_lake (id int, c co, cs co[], m mood, p positive) USING iceberg;
INSERT INTO k_heap SELECT g, ROW(g, 'y' || g)::co, ARRAY[ROW(g, NULL)::co, NULL], 'sad', g FROM generate_series(1, 30) g;
INSERT INTO k_lake SELECT g, ROW(g, 'y' || g)::co, ARRAY[ROW(g, NULL)::co, NULL], 'sad', g FROM generate_series(1, 30) g;
INSERT INTO k_heap VALUES (31, NULL, NULL, NULL, NULL), (32, ROW(NULL, NULL), '{}', 'ok', 1);
INSERT INTO k_lake VALUES (31, NULL, NULL, NULL, NULL), (32, ROW(NULL, NULL), '{}', 'ok', 1);
CALL settle();
SELECT lake.flush('k_lake') > 0 AS flushed;
SELECT twins('SELECT *, (c).x, c IS NULL, cs[1] FROM @k');
SELECT twins('SELECT count(*), sum((c).x) FROM @k WHERE (c).y LIKE ''y1%'' AND m = ''sad''');
SELECT twins('SELECT m, count(*) FROM @k GROUP BY m ORDER BY m', true);

-- attributes: added ones are null in older rows, kept in newer ones
ALTER TYPE co ADD ATTRIBUTE z int;
INSERT INTO k_heap (id, c) SELECT g, ROW(g, 'new', g * 2)::co FROM generate_series(101, 130) g;
INSERT INTO k_lake (id, c) SELECT g, ROW(g, 'new', g * 2)::co FROM generate_series(101, 130) g;
SELECT twins('SELECT *, (c).z FROM @k');
ALTER TYPE co DROP ATTRIBUTE y;
INSERT INTO k_heap (id, c) SELECT g, ROW(g, g * 3)::co FROM generate_series(201, 230) g;
INSERT INTO k_lake (id, c) SELECT g, ROW(g, g * 3)::co FROM generate_series(201, 230) g;
SELECT twins('SELECT * FROM @k');
ALTER TYPE co RENAME ATTRIBUTE x TO renamed;
SELECT twins('SELECT id, (c).renamed, c FROM @k');
ALTER TYPE co ADD ATTRIBUTE y date;
INSERT INTO k_heap (id, c) SELECT g, ROW(g, g, date '2024-01-01' + g)::co FROM generate_series(301, 330) g;
INSERT INTO k_lake (id, c) SELECT g, ROW(g, g, date '2024-01-01' + g)::co FROM generate_series(301, 330) g;
SELECT twins('SELECT * FROM @k');
CALL settle();
SELECT lake.flush('k_lake') > 0 AS flushed;
SELECT twins('SELECT * FROM @k');
-- another session's view of it
\c -
SET lake.bulk_rows = 10;
SELECT twins('SELECT * FROM @k');
ALTER TYPE co ALTER ATTRIBUTE renamed TYPE bigint;
-- the table can still be altered afterwards
ALTER TABLE k_heap ADD COLUMN extra int DEFAULT 4;
ALTER TABLE k_lake ADD COLUMN extra int DEFAULT 4;
SELECT twins('SELECT * FROM @k');

-- enums: new labels, also between others
ALTER TYPE mood ADD VALUE 'happy';
ALTER TYPE mood ADD VALUE 'meh' BEFORE 'ok';
INSERT INTO k_heap (id, m) SELECT g, (ARRAY['sad', 'meh', 'ok', 'happy'])[g % 4 + 1]::mood FROM generate_series(401, 440) g;
INSERT INTO k_lake (id, m) SELECT g, (ARRAY['sad', 'meh', 'ok', 'happy'])[g % 4 + 1]::mood FROM generate_series(401, 440) g;
SELECT twins('SELECT m, count(*) FROM @k GROUP BY m ORDER BY m', true);
SELECT twins('SELECT count(*) FROM @k WHERE m > ''meh''');
SELECT twins('SELECT min(m), max(m) FROM @k');

-- domains: a check that cold rows violate is refused, a new one holds for new rows
ALTER DOMAIN positive ADD CHECK (VALUE < 20);
ALTER DOMAIN positive ADD CHECK (VALUE < 1000);
INSERT INTO k_lake (id, p) SELECT g, g FROM generate_series(990, 1010) g;
SELECT twins('SELECT count(*), sum(p) FROM @k');
INSERT INTO k_lake (id, p) SELECT 1, -g FROM generate_series(1, 20) g;
-- types in use can't be dropped
DROP TYPE co;
DROP TABLE k_heap, k_lake;
DROP TYPE co;
DROP TYPE mood;
DROP DOMAIN positive;

-- a table's row type, nested composites, a composite that holds a domain and an array
CREATE TABLE k_row (a int, b text);
CREATE DOMAIN k_dom AS numeric(6,2);
CREATE TYPE k_deep AS (r k_row, d k_dom, arr int[], inner_rows k_row[]);
CREATE TABLE k_heap (id int, v k_deep);
CREATE TABLE k_lake (id int, v k_deep) USING iceberg;
INSERT INTO k_heap SELECT g, ROW(ROW(g, 'r')::k_row, g * 1.25, ARRAY[g, NULL, g], ARRAY[ROW(1, 'x')::k_row, ROW(NULL, NULL)::k_row, NULL])::k_deep FROM generate_series(1, 30) g;
INSERT INTO k_heap VALUES (31, ROW(NULL, NULL, NULL, NULL)), (32, NULL), (33, ROW(ROW(NULL, NULL), 0, '{}', '{}'));
INSERT INTO k_lake SELECT * FROM k_heap;
SELECT * FROM hot_cold('k_lake');
SELECT twins('SELECT *, (v).r.a, (v).d, (v).arr[3], (v).inner_rows[1].b, v IS NULL, v IS NOT NULL FROM @k');
CALL settle();
SELECT lake.flush('k_lake');
SELECT twins('SELECT * FROM @k');
SELECT lake.publish('k_lake') IS NOT NULL AS published;
DROP TABLE k_heap, k_lake;
DROP TYPE k_deep; DROP DOMAIN k_dom; DROP TABLE k_row;
