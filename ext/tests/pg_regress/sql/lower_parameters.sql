-- Purpose: arrays and patterns that are parameters give what heap gives, nulls and errors included, and are lowered. Each list prints
-- only what differs.
CREATE TABLE p_heap (
    id int, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric(12,2), t text, v varchar(20), c char(5), b bool,
    d date, ts timestamp, tz timestamptz, ti time, u uuid, x bytea, pattern text);
CREATE TABLE p_lake (LIKE p_heap) USING iceberg;
INSERT INTO p_heap SELECT g, g - 10, g * 1000, g * 4000000000, g / 4.0, g / 8.0, g / 4.0, 'text ' || g, 'v' || g, chr(96 + g), g % 2 = 0,
    date '2024-01-01' + g, timestamp '2024-01-01' + g * interval '1 hour', timestamptz '2024-01-01 00:00+00' + g * interval '1 hour',
    time '00:00' + g * interval '1 minute', lpad(g::text, 32, '0')::uuid, decode(lpad(to_hex(g), 2, '0'), 'hex'),
    (ARRAY['text%', '%1_', 'text _', E'text\\%', '%', '', '_%5%', 'TEXT%'])[g % 8 + 1]
    FROM generate_series(1, 20) g;
INSERT INTO p_heap (id, f4, f8, n, t, c, x) VALUES (21, 'NaN', 'NaN', 0, '', '', ''), (22, '-0', '-0', -0.5, '%', '%', '\x00ff'),
    (23, NULL, NULL, NULL, NULL, NULL, NULL), (24, 'Infinity', '-Infinity', 9999999999.99, 'a\', 'ab', '\x'), (25, 0, 0, 1, 'ä€b', 'ä', '\x61');
SET lake.bulk_rows = 0;
INSERT INTO p_lake SELECT * FROM p_heap WHERE id % 3 <> 0;
SET lake.bulk_rows = -1;
INSERT INTO p_lake SELECT * FROM p_heap WHERE id % 3 = 0;
ANALYZE p_heap, p_lake;
-- Runs a prepared statement over both with each of the arguments, by one plan that is lowered, and by a scan.
CREATE FUNCTION p_check(types text, condition text, VARIADIC arguments text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    query text;
    argument text;
    heap text;
    lake text;
    name text;
BEGIN
    PERFORM set_config('plan_cache_mode', 'force_generic_plan', true), set_config('lake.engine', 'force', true);
    FOREACH query IN ARRAY ARRAY['SELECT id, count(*) FROM %s WHERE %s GROUP BY id', 'SELECT id FROM %s WHERE %s'] LOOP
        FOREACH name IN ARRAY ARRAY['p_heap', 'p_lake'] LOOP
            EXECUTE format('PREPARE of_%s(%s) AS ', name, types) || format(query, name, condition);
        END LOOP;
        FOREACH argument IN ARRAY arguments LOOP
            heap := rows_or_error(format('EXECUTE of_p_heap(%s)', argument), false);
            lake := rows_or_error(format('EXECUTE of_p_lake(%s)', argument), false);
            -- What can fail isn't evaluated by a scan.
            CONTINUE WHEN lake = 'SQLSTATE 0A000' AND query NOT LIKE '%count%';
            IF lake IS DISTINCT FROM heap THEN
                RETURN NEXT format('%s with %s: heap %L, lake %L', condition, argument, left(heap, 200), left(lake, 200));
            END IF;
        END LOOP;
        DEALLOCATE of_p_heap;
        DEALLOCATE of_p_lake;
    END LOOP;
END $$;

-- arrays
SELECT p_check('int[]', 'i4 = ANY ($1)', '''{1000,2000,NULL,77}''', '''{}''', 'NULL', '''{NULL}''', '''{5000}''', '''{{1000,2000},{3000,NULL}}''');
SELECT p_check('int[]', 'i4 <> ALL ($1)', '''{1000,2000,77}''', '''{1000,NULL}''', '''{}''', 'NULL', '''{NULL}''', '''[5:6]={1000,2000}''');
SELECT p_check('int[]', 'i4 = ANY ($1) IS NOT TRUE', '''{1000,NULL}''', '''{}''', 'NULL', '''{1000}''');
SELECT p_check('int[]', '(i4 = ANY ($1)) IS NULL', '''{1000,NULL}''', '''{}''', 'NULL', '''{1000}''');
SELECT p_check('int[]', 'i2 = ANY ($1)', '''{1,2,-9,40000,NULL}''', '''{2147483647}''');
SELECT p_check('bigint[]', 'i4 = ANY ($1)', '''{1000,9223372036854775807}''');
SELECT p_check('bigint[]', 'i4 <> ALL ($1)', '''{1000,9223372036854775807}''', '''{9223372036854775807}''', '''{9223372036854775807,NULL}''');
SELECT p_check('smallint[]', 'i8 = ANY ($1)', '''{1,2}''');
SELECT p_check('bigint[]', 'i8 = ANY ($1)', '''{4000000000,8000000000}''');
SELECT p_check('real[]', 'f4 = ANY ($1)', '''{0.25,NaN,-0,Infinity,NULL}''', '''{0}''');
SELECT p_check('float8[]', 'f4 = ANY ($1)', '''{0.25,NaN,0.1,1e300}''', '''{0,-Infinity}''');
SELECT p_check('real[]', 'f8 = ANY ($1)', '''{0.25,NaN,0.1}''', '''{-0,-Infinity}''');
SELECT p_check('float8[]', 'f8 <> ALL ($1)', '''{0.125,NaN}''', '''{0}''', '''{NULL}''');
SELECT p_check('numeric[]', 'n = ANY ($1)', '''{0.25,0.500,1,NaN}''', '''{0.001,Infinity,1e30}''', '''{9999999999.99000000000000000000000000000000000000000,NULL}''');
SELECT p_check('numeric[]', 'n <> ALL ($1)', '''{0.25,1.000}''', '''{0.255}''', '''{NaN,NULL}''');
SELECT p_check('text[]', 't = ANY ($1)', '''{"text 1","text 2",NULL,x}''', '''{""}''', '''{ä€b,%,"a\\"}''');
SELECT p_check('text[]', 't <> ALL ($1)', '''{"text 1",""}''', '''{NULL}''');
SELECT p_check('varchar[]', 'v = ANY ($1)', '''{v1,v20,w}''');
SELECT p_check('text[]', 'v = ANY ($1)', '''{v1,v20,w}''');
SELECT p_check('char(3)[]', 'c = ANY ($1)', '''{a,"b  ",ab,abc}''', '''{"",%}''');
SELECT p_check('text[]', 'c::text = ANY ($1)', '''{a,"b  ",ab}''');
SELECT p_check('bool[]', 'b = ANY ($1)', '''{t}''', '''{f,NULL}''', '''{t,f}''');
SELECT p_check('date[]', 'd = ANY ($1)', '''{2024-01-02,infinity,-infinity,2024-01-05}''');
SELECT p_check('timestamp[]', 'ts = ANY ($1)', '''{2024-01-01 01:00,infinity,2024-01-01 02:00}''');
SELECT p_check('timestamptz[]', 'tz <> ALL ($1)', '''{2024-01-01 01:00+00,infinity,2024-01-01 04:00+02}''');
SELECT p_check('time[]', 'ti = ANY ($1)', '''{00:01,24:00,00:03}''');
SELECT p_check('uuid[]', 'u = ANY ($1)', '''{00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000020}''');
SELECT p_check('bytea[]', 'x = ANY ($1)', '''{"\\x01","\\x00ff","\\x"}''');
-- What is compared may fail, and is then evaluated whatever the array is.
SELECT p_check('int[]', '1000000 / i2 = ANY ($1)', '''{1}''', '''{}''', 'NULL');
SELECT p_check('int[]', 'i2 <> 0 AND 1000 / i2 = ANY ($1)', '''{125,100,NULL}''', '''{}''', 'NULL');
SELECT p_check('int[], text[]', 'i4 = ANY ($1) OR t = ANY ($2)', '''{1000}'', ''{"text 5"}''', 'NULL, ''{"text 5"}''', '''{}'', NULL');
-- More elements than are looked through stay in Postgres.
SELECT p_check('int[]', 'i4 = ANY ($1)', 'string_to_array(repeat(''1000,'', 20000) || ''2000'', '','')::int[]');
SELECT p_check('text[]', 't = ANY ($1)', 'ARRAY[repeat(''x'', 20000000), ''text 1'']');
-- lists of parameters
SELECT p_check('int, int', 'i4 IN ($1, $2)', '1000, 2000', 'NULL, 1000', 'NULL, NULL');
SELECT p_check('int, int', 'i4 NOT IN ($1, $2)', '1000, 2000', 'NULL, 1000');
SELECT p_check('varchar, varchar', 'v IN ($1, $2)', '''v1'', ''v20''', 'NULL, ''v2''');
SELECT p_check('text, text', 't IN ($1, $2, ''text 3'')', '''text 1'', NULL');

-- patterns
SELECT p_check('text', 't LIKE $1', '''text%''', '''%1_''', '''''', '''%''', 'NULL', '''_€b''', '''a\\''', '''text _''');
SELECT p_check('text', 't NOT LIKE $1', '''text%''', '''%1_''', '''''', 'NULL');
SELECT p_check('text', 'c LIKE $1', '''a''', '''a%''', '''a    ''', '''%''');
SELECT p_check('text', 't COLLATE "C" ILIKE $1', '''TEXT%''', '''%1_''', 'NULL', '''TeXt _''');
SELECT p_check('text', 'v COLLATE "C" NOT ILIKE $1', '''V1%''');
SELECT p_check('int', 't LIKE pattern AND id > $1', '0', 'NULL');
SELECT p_check('text', 't NOT LIKE pattern OR t = $1', '''text 1''');
SELECT p_check('text', 'pattern LIKE t || $1', '''%''');
SELECT p_check('text', 't COLLATE "C" ILIKE pattern AND t <> $1', '''text 1''');
SELECT p_check('text', 't LIKE ANY (ARRAY[pattern, $1])', '''%7''', 'NULL');
-- An escape character at the end is an error only where it is reached.
SELECT p_check('text', 't LIKE $1', '''text 1\''', '''zzz\''', '''\''', '''%\''', '''%5\''');
SELECT p_check('text', E't LIKE ''text 1\\'' OR t = $1', '''x''');
SELECT p_check('text', E't LIKE ''zzz\\'' OR t = $1', '''x''');
SELECT p_check('text', E'id < 5 AND t LIKE ''text 9\\'' OR t = $1', '''x''');

-- functions and subqueries
CREATE FUNCTION p_counts(wanted int[], shape text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    heap bigint;
    lake bigint;
BEGIN
    SELECT count(*) INTO heap FROM p_heap WHERE id = ANY (wanted) AND t LIKE shape;
    SELECT count(*) INTO lake FROM p_lake WHERE id = ANY (wanted) AND t LIKE shape;
    RETURN ARRAY[heap, lake];
END $$;
SET plan_cache_mode = force_generic_plan;
SET lake.engine = force;
SELECT array_agg(p_counts(wanted, shape)) AS counts
FROM (VALUES ('{1,2,3}'::int[], '%'), ('{1,2,NULL}', '%1'), ('{}', '%'), (NULL, '%'), ('{1,10,11}', 'text 1_'), ('{1}', NULL)) v(wanted, shape);
RESET lake.engine;
RESET plan_cache_mode;
SELECT twins('SELECT count(*) FROM @p WHERE id = ANY (ARRAY(SELECT id FROM @p WHERE id < 5))');
SELECT twins('SELECT count(*) FROM @p WHERE id <> ALL (ARRAY(SELECT i4 FROM @p WHERE id > 20))');
SELECT twins('SELECT a.g, (SELECT count(*) FROM @p WHERE i4 = ANY (a.g)) FROM (VALUES (''{1000,2000}''::int[]), (NULL), (''{}'')) a(g)');
SELECT twins('SELECT count(*) FROM @p WHERE i4 = ANY (NULL::int[])');
SELECT twins('SELECT count(*) FROM @p WHERE NOT i4 = ANY (''{}''::int[])');
SELECT twins('SELECT count(*) FROM @p WHERE t LIKE (SELECT max(pattern) FROM @p WHERE id = 1)');
-- what could raise an error is computed only where it is asked for
SELECT count(*) FROM p_lake WHERE id < 0 AND i4 = (SELECT 1 / (id - id) FROM p_heap WHERE id = 1);
SELECT count(*) FROM p_lake WHERE id < 0 AND i4 = (SELECT id FROM p_heap);
SELECT count(*) FROM p_lake WHERE id < 0 AND i4 = ANY (ARRAY(SELECT 1 / (id - id) FROM p_heap));
-- Of these an index, a limit or a single group says that they have one row at most; printed are those of which nothing says so.
\pset format unaligned
\pset tuples_only on
CREATE TABLE p_dim (id int PRIMARY KEY, name varchar(20) UNIQUE, kind int, late int UNIQUE DEFERRABLE, a int, b int, UNIQUE (a, b));
CREATE UNIQUE INDEX p_some ON p_dim (kind) WHERE id > 2;
CREATE UNIQUE INDEX p_computed ON p_dim (abs(kind));
INSERT INTO p_dim SELECT g, 'n' || g, g, g, g, g FROM generate_series(1, 5) g;
ANALYZE p_dim;
CREATE FUNCTION p_late(queries text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    query text;
BEGIN
    PERFORM set_config('lake.engine', 'force', true);
    FOREACH query IN ARRAY string_to_array(trim(E'\n' FROM queries), E'\n') LOOP
        IF sqlstate_of(format('EXPLAIN SELECT count(*) FROM p_lake WHERE i4 > (%s)', query)) <> '00000' THEN
            RETURN NEXT query;
        END IF;
    END LOOP;
END $$;
SELECT p_late($$
SELECT id FROM p_dim WHERE id = 2
SELECT id FROM p_dim WHERE 2::bigint = id
SELECT id FROM p_dim WHERE name = 'n2'
SELECT id FROM p_dim WHERE name = 'n2' AND kind > 1
SELECT id FROM p_dim WHERE a = 2 AND b = 2
SELECT id FROM p_dim WHERE kind = 3 AND id > 2
SELECT id FROM (SELECT id FROM p_dim WHERE id = 2 OFFSET 0) d
SELECT d.id FROM p_dim d, p_dim e WHERE d.name = 'n2' AND e.id = 3
SELECT a FROM p_dim WHERE id = 2 GROUP BY a
SELECT DISTINCT 1 FROM p_dim
SELECT id FROM p_dim WHERE id > 2
SELECT id FROM p_dim WHERE name > 'n2'
SELECT id FROM p_dim WHERE late = 2
SELECT id FROM p_dim WHERE kind = 2
SELECT id FROM p_dim WHERE a = 2
SELECT id FROM p_dim WHERE id = kind
SELECT id FROM p_dim WHERE id = 2 OR id = 3
SELECT d.id FROM p_dim d, p_dim e WHERE d.name = 'n2'
$$);
SELECT twins('SELECT count(*), sum(i4) FROM @p WHERE i4 / 1000 = (SELECT id FROM p_dim WHERE name = ''n2'')');
SELECT twins('SELECT count(*) FROM @p WHERE i4 = (SELECT id FROM p_dim WHERE name = ''none'')');
-- A plan is made anew when the index has gone on which it depends.
PREPARE of_dim AS SELECT count(*) FROM p_lake WHERE i4 > (SELECT id FROM p_dim WHERE name = 'n2');
SET lake.engine = force;
EXECUTE of_dim;
ALTER TABLE p_dim DROP CONSTRAINT p_dim_name_key;
SELECT sqlstate_of('EXECUTE of_dim');
RESET lake.engine;
INSERT INTO p_dim VALUES (6, 'n2');
EXECUTE of_dim;
DEALLOCATE of_dim;
DROP FUNCTION p_late;
DROP TABLE p_dim;
\pset format aligned
\pset tuples_only off
DROP FUNCTION p_check, p_counts;
DROP TABLE p_heap, p_lake;
