-- Purpose: every type (but xml, which not every server has) comes back bit-identical, hot and cold; what Iceberg can't hold is refused by name.
SET lake.unstorable_values = error;
SET lake.bulk_rows = -1;
CREATE TYPE y_enum AS ENUM ('red', 'green', 'Blue "x"');
CREATE TYPE y_comp AS (a int, "B c" text, n numeric(8,3));
CREATE DOMAIN y_dom AS varchar(5) CHECK (VALUE <> 'bad');
CREATE TYPE y_range AS RANGE (subtype = float8);

-- Checks one type: the values go hot, then cold, by flush, and by a bulk load; each time they must
-- be those of a heap twin, as text and in their binary form. NULLs and mixed order included.
CREATE FUNCTION check_type(type text, VARIADIC vals text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    step text;
    wrong bigint;
    v text;
    send text := (SELECT t.typsend::regproc::text FROM pg_type t WHERE t.oid = type::regtype);
BEGIN
    EXECUTE format('CREATE TABLE y_heap (id int, v %s)', type);
    EXECUTE format('CREATE TABLE y_lake (id int, v %s) USING iceberg', type);
    FOR i IN 1..array_length(vals, 1) LOOP
        EXECUTE format('INSERT INTO y_heap SELECT %s + g * 1000, %L::%s FROM generate_series(0, 2) g', i, vals[i], type);
    END LOOP;
    INSERT INTO y_heap SELECT 900 + g * 1000, NULL FROM generate_series(0, 2) g;
    INSERT INTO y_lake SELECT * FROM y_heap WHERE id < 1000;
    FOREACH step IN ARRAY ARRAY['hot', 'flushed', 'bulk', 'mixed'] LOOP
        CASE step
            WHEN 'hot' THEN NULL;
            WHEN 'flushed' THEN NULL;
            WHEN 'bulk' THEN
                PERFORM set_config('lake.bulk_rows', '0', true);
                INSERT INTO y_lake SELECT * FROM y_heap WHERE id BETWEEN 1000 AND 1999;
            WHEN 'mixed' THEN
                PERFORM set_config('lake.bulk_rows', '-1', true);
                INSERT INTO y_lake SELECT * FROM y_heap WHERE id >= 2000;
        END CASE;
        EXECUTE format($q$SELECT count(*) FROM y_heap h FULL JOIN y_lake l USING (id) WHERE id < %s AND
                (h.v IS NULL <> (l.v IS NULL) OR h.v::text IS DISTINCT FROM l.v::text %s OR h.id IS NULL OR l.id IS NULL)$q$,
            CASE step WHEN 'hot' THEN 1000 WHEN 'flushed' THEN 1000 WHEN 'bulk' THEN 2000 ELSE 3000 END,
            CASE WHEN send <> '-' THEN format('OR %1$s(h.v::%2$s) IS DISTINCT FROM %1$s(l.v::%2$s)', send, CASE send WHEN 'textsend' THEN 'text' WHEN 'enum_send' THEN 'y_enum' ELSE type END) ELSE '' END)
        INTO wrong;
        IF wrong > 0 THEN
            EXECUTE 'SELECT string_agg(format(''%s: %s <> %s'', id, h.v, l.v), ''; '') FROM y_heap h JOIN y_lake l USING (id) WHERE h.v::text IS DISTINCT FROM l.v::text' INTO v;
            DROP TABLE y_heap, y_lake;
            RETURN format('%s: %s values DIFFER: %s', step, wrong, v);
        END IF;
    END LOOP;
    EXECUTE 'SELECT count(*) FROM y_lake WHERE ctid >= ''(2147483648,0)''' INTO wrong;
    IF wrong <> array_length(vals, 1) + 1 THEN RETURN 'not cold: ' || wrong; END IF;
    DROP TABLE y_heap, y_lake;
    RETURN 'ok';
END $$;
-- the same for rows that a flush has moved, in a transaction of its own
CREATE PROCEDURE check_flushed(type text, vals text[], INOUT result text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    send text := (SELECT t.typsend::regproc::text FROM pg_type t WHERE t.oid = type::regtype);
    wrong bigint;
BEGIN
    EXECUTE format('CREATE TABLE y_heap (id int, v %s)', type);
    EXECUTE format('CREATE TABLE y_lake (id int, v %s) USING iceberg', type);
    FOR i IN 1..array_length(vals, 1) LOOP
        EXECUTE format('INSERT INTO y_heap SELECT %s, %L::%s', i, vals[i], type);
    END LOOP;
    INSERT INTO y_heap VALUES (900, NULL);
    INSERT INTO y_lake SELECT * FROM y_heap;
    COMMIT;
    CALL settle();
    IF lake.flush('y_lake') <> array_length(vals, 1) + 1 THEN result := 'not flushed'; END IF;
    EXECUTE format($q$SELECT count(*) FROM y_heap h FULL JOIN y_lake l USING (id) WHERE
            h.v IS NULL <> (l.v IS NULL) OR h.v::text IS DISTINCT FROM l.v::text %s OR h.id IS NULL OR l.id IS NULL$q$,
        CASE WHEN send <> '-' THEN format('OR %1$s(h.v::%2$s) IS DISTINCT FROM %1$s(l.v::%2$s)', send, CASE send WHEN 'textsend' THEN 'text' WHEN 'enum_send' THEN 'y_enum' ELSE type END) ELSE '' END)
    INTO wrong;
    PERFORM lake.publish('y_lake');
    DROP TABLE y_heap, y_lake;
    result := coalesce(result, CASE WHEN wrong = 0 THEN 'ok' ELSE wrong || ' values DIFFER' END);
END $$;

CREATE TABLE y_cases (n serial, type text, vals text[]);
INSERT INTO y_cases (type, vals) VALUES
    ('bool', '{t,f}'),
    ('int2', '{0,-32768,32767}'),
    ('int4', '{0,-2147483648,2147483647}'),
    ('int8', '{0,-9223372036854775808,9223372036854775807}'),
    ('float4', '{0,-0,1.1,-1e-45,3.4028235e38,NaN,Infinity,-Infinity}'),
    ('float8', '{0,-0,1.1,5e-324,1.7976931348623157e308,NaN,Infinity,-Infinity,0.1}'),
    ('numeric(10,2)', '{0,0.00,-99999999.99,99999999.99,1.5,0.01}'),
    ('numeric(38,0)', '{0,99999999999999999999999999999999999999,-99999999999999999999999999999999999999,10000}'),
    ('numeric(38,38)', '{0,0.99999999999999999999999999999999999999,-0.00000000000000000000000000000000000001}'),
    ('numeric(18,18)', '{0,0.1,0.000000000000000001}'),
    ('numeric(9,4)', '{0,10000,12345.6789,-0.0001}'),
    ('numeric(19,5)', '{0,10000,12345678901234.56789}'),
    ('numeric', '{0,0.00,1.10,NaN,Infinity,-Infinity,1e100,-1e-100,123456789012345678901234567890123456789012345.67890}'),
    ('numeric(50,10)', '{0,NaN,1234567890123456789012345678901234567890.0123456789}'),
    ('numeric(5,-2)', '{0,12300,-99900}'),
    ('numeric(3,5)', '{0,0.00123}'),
    ('text', ARRAY['', 'a', 'ä€𐍈', E'line\nbreak\ttab', '\x', 'NULL', '"q"', repeat('long', 3000)]),
    ('varchar', ARRAY['', 'a', ' trailing  ']),
    ('varchar(5)', ARRAY['', 'äöü', 'abcde']),
    ('char(5)', ARRAY['', 'a', 'ä ö', 'abcde']),
    ('char', ARRAY['', 'x']),
    ('"char"', ARRAY['a', '', E'\\377', 'Z']),
    ('name', ARRAY['', 'pg_class', repeat('n', 63)]),
    ('bytea', ARRAY['', '\x00', '\xdeadbeef', '\x' || repeat('ff00', 5000)]),
    ('date', '{2024-02-29,0001-01-01,4713-01-01 BC,5874897-12-31,1970-01-01,1969-12-31}'),
    ('time', '{00:00,23:59:59.999999,12:34:56.000001}'),
    ('time(0)', '{12:34:56}'),
    ('timetz', '{00:00+00,23:59:59.999999-15:59,24:00:00+15:59}'),
    ('timestamp', '{1970-01-01,4713-01-01 BC,2024-02-29 23:59:59.999999,1969-12-31 23:59:59.999999,9999-12-31,0001-01-01}'),
    ('timestamptz', '{1970-01-01 00:00+00,4713-01-02 00:00+00 BC,2024-02-29 23:59:59.999999+05:30,9999-12-31 00:00+00}'),
    ('interval', ARRAY['0', '1 year -2 mons 3 days -04:05:06.789', '-178000000 years', 'infinity', '-infinity', '30 days', '1 mon']),
    ('uuid', '{00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'),
    ('json', ARRAY['{"b":1,  "a":1, "a":2}', 'null', '"\u00e4"', ' 1 ']),
    ('jsonb', ARRAY['{"b":1, "a":{"x":[1,2,null]}}', 'null', '1.10', '""', '[]']),
    ('jsonpath', ARRAY['$.a[*] ? (@ > 1)']),
    ('money', '{0,1.50,-92233720368547758.08}'),
    ('oid', '{0,1259,4294967295}'),
    ('regclass', '{pg_class,-}'),
    ('regtype', '{int4,text[]}'),
    ('regproc', '{now}'),
    ('regnamespace', '{pg_catalog}'),
    ('xid', '{0,4294967295}'),
    ('xid8', '{0,18446744073709551615}'),
    ('cid', '{0,4294967295}'),
    ('tid', ARRAY['(0,1)', '(4294967295,65535)']),
    ('pg_lsn', '{0/0,FFFFFFFF/FFFFFFFF}'),
    ('pg_snapshot', ARRAY['10:20:10,14,15']),
    ('inet', '{0.0.0.0/0,192.168.0.1/24,::1,2001:db8::/32}'),
    ('cidr', '{10.0.0.0/8,2001:db8::/32}'),
    ('macaddr', '{08:00:2b:01:02:03}'),
    ('macaddr8', '{08:00:2b:01:02:03:04:05}'),
    ('bit(5)', '{00000,10110}'),
    ('varbit', ARRAY['', '1', '101100111000']),
    ('point', ARRAY['(1.5,-2)', '(NaN,Infinity)', '(0.1,1e-300)']),
    ('line', ARRAY['{1,-1,0.1}']),
    ('lseg', ARRAY['[(0,0),(1,1)]']),
    ('box', ARRAY['(1,1),(0,0)']),
    ('path', ARRAY['((0,0),(1,1))', '[(0,0),(1,1)]']),
    ('polygon', ARRAY['((0,0),(1,1),(1,0))']),
    ('circle', ARRAY['<(0.1,0.2),3>']),
    ('tsvector', ARRAY['''a'':1A ''b'':2,3', '', 'it''''s']),
    ('tsquery', ARRAY['''a'' & !( ''b'' | ''c'':*A )', '''a'' <2> ''b''']),
    ('int4range', ARRAY['empty', '[1,5)', '(,)', '[3,]']),
    ('numrange', ARRAY['[1.10,2.200]', 'empty']),
    ('tsrange', ARRAY['["2024-01-01 00:00",infinity)']),
    ('tstzrange', ARRAY['["2024-01-01 00:00+00",)']),
    ('daterange', ARRAY['[2024-01-01,2024-02-01)']),
    ('y_range', ARRAY['[0.1,1e300)']),
    ('int4multirange', ARRAY['{}', '{[1,3),[5,7)}']),
    ('datemultirange', ARRAY['{[2024-01-01,2024-02-01)}']),
    ('y_enum', ARRAY['red', 'Blue "x"']),
    ('y_dom', ARRAY['', 'good']),
    ('y_comp', ARRAY['(1,"a ""b""",1.500)', '(,,)', '(1,,)', '(,"",0)']),
    ('refcursor', ARRAY['c1']),
    ('pg_node_tree', NULL),
    ('aclitem', ARRAY['=r/postgres']),
    ('int2vector', ARRAY['', '1 2 3']),
    ('oidvector', ARRAY['', '1 2 3']),
    ('int4[]', ARRAY['{}', '{1,NULL,3}', '{NULL}']),
    ('int8[]', ARRAY['{}', '{9223372036854775807}']),
    ('text[]', ARRAY['{}', '{"",NULL,"NULL","a,b","{}"}']),
    ('varchar(3)[]', ARRAY['{abc}']),
    ('numeric(6,2)[]', ARRAY['{1.50,NULL}']),
    ('numeric[]', ARRAY['{1.50,NULL,NaN}']),
    ('bool[]', ARRAY['{t,f,NULL}']),
    ('float8[]', ARRAY['{0,-0,NaN,Infinity}']),
    ('bytea[]', ARRAY['{"\\x00",NULL,""}']),
    ('uuid[]', ARRAY['{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}']),
    ('timestamptz[]', ARRAY['{2024-01-01 00:00+00}']),
    ('date[]', ARRAY['{2024-01-01,NULL}']),
    ('jsonb[]', ARRAY['{"{\"a\":1}",NULL}']),
    ('interval[]', ARRAY['{1 day}']),
    ('y_enum[]', ARRAY['{red,NULL}']),
    ('y_comp[]', ARRAY['{"(1,x,1.500)",NULL,"(,,)"}', '{}']),
    ('y_dom[]', ARRAY['{a,b}']),
    ('int4[][]', ARRAY['{{1,2},{3,4}}', '{}', '[0:1]={1,2}', '{1,2}']),
    ('text[][]', ARRAY['{{a,NULL},{"x y",""}}', '[5:5][7:8]={{a,b}}']),
    ('int4range[]', ARRAY['{"[1,5)",empty}']);
DELETE FROM y_cases WHERE vals IS NULL;
SELECT type, check_type(type, VARIADIC vals) FROM y_cases ORDER BY n;
DO $$
DECLARE
    c record;
    r text;
BEGIN
    FOR c IN SELECT * FROM y_cases ORDER BY n LOOP
        CALL check_flushed(c.type, c.vals, r);
        IF r <> 'ok' THEN RAISE NOTICE 'flushed %: %', c.type, r; END IF;
        r := NULL;
    END LOOP;
END $$;
-- what is stored doesn't depend on the session's settings
SET datestyle = 'German, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'; SET extra_float_digits = -10;
SET bytea_output = 'escape'; SET lc_monetary = 'C'; SET quote_all_identifiers = on;
SELECT type, check_type(type, VARIADIC vals) FROM y_cases WHERE type IN ('interval', 'timetz', 'tstzrange', 'point', 'bytea', 'bytea[]', 'date', 'timestamptz', 'circle', 'interval[]', 'money', 'regclass') ORDER BY n;
CREATE TABLE y_settings (i interval, r tstzrange, p point, m money, c regclass, b bytea[], ds date[]) USING iceberg;
SET lake.bulk_rows = 0;
INSERT INTO y_settings SELECT '1 year 2 days -3 hours', '["2024-01-02 00:00+00",)', '(0.1,0.3)', 1.5, 'pg_class', '{"\\x00ff"}', '{2024-01-02}';
RESET datestyle; RESET intervalstyle; RESET timezone; RESET extra_float_digits; RESET bytea_output; RESET lc_monetary; RESET quote_all_identifiers;
SELECT * FROM y_settings;
DROP TABLE y_settings;

-- values that are refused, on each way in, before anything is written
CREATE TABLE y_bad (n numeric(10,2), d date, tm time, ts timestamp, tz timestamptz, a int[], c y_comp, na numeric(10,2)[]) USING iceberg;
SET lake.bulk_rows = -1;
INSERT INTO y_bad (n) VALUES ('NaN');
INSERT INTO y_bad (d) VALUES ('infinity');
INSERT INTO y_bad (d) VALUES ('-infinity');
INSERT INTO y_bad (tm) VALUES ('24:00');
INSERT INTO y_bad (ts) VALUES ('infinity');
INSERT INTO y_bad (ts) VALUES ('-infinity');
INSERT INTO y_bad (ts) VALUES ('294276-12-31 23:59:59.999999');
INSERT INTO y_bad (ts) VALUES ('294247-01-10 04:00:54.775807');
INSERT INTO y_bad (ts) VALUES ('294247-01-10 04:00:54.775808');
INSERT INTO y_bad (tz) VALUES ('infinity');
INSERT INTO y_bad (tz) VALUES ('-infinity');
INSERT INTO y_bad (tz) VALUES ('294276-12-31 00:00+00');
INSERT INTO y_bad (a) VALUES ('{{1,2},{3,4}}');
INSERT INTO y_bad (a) VALUES ('[0:1]={1,2}');
INSERT INTO y_bad (c) VALUES (ROW(1, 'x', 'NaN'));
INSERT INTO y_bad (na) VALUES ('{1,NaN}');
SELECT count(*), max(ts) FROM y_bad;
UPDATE y_bad SET n = 'NaN';
UPDATE y_bad SET tz = 'infinity';
INSERT INTO y_bad (n) VALUES (1) RETURNING n;
UPDATE y_bad SET n = 'NaN' WHERE n = 1;
SET lake.bulk_rows = 10;
INSERT INTO y_bad (d) SELECT CASE WHEN g = 30 THEN 'infinity' ELSE '2024-01-01' END::date FROM generate_series(1, 40) g;
INSERT INTO y_bad (n) SELECT CASE WHEN g = 30 THEN 'NaN' ELSE '1' END::numeric FROM generate_series(1, 40) g;
CREATE TABLE y_bad_as USING iceberg AS SELECT CASE WHEN g = 30 THEN 'infinity' ELSE '2024-01-01' END::timestamp AS t FROM generate_series(1, 40) g;
SELECT count(*) FROM y_bad;
-- from heap by a rewrite
CREATE TABLE y_rewrite (d date);
INSERT INTO y_rewrite VALUES ('2024-01-01'), ('infinity');
ALTER TABLE y_rewrite SET ACCESS METHOD iceberg;
SELECT count(*) FROM y_rewrite;
-- pseudo-types, and what temporary tables may hold
CREATE TABLE y_pseudo (a anyelement) USING iceberg;
CREATE TEMP TABLE y_temp (d date, n numeric(4,1)) USING iceberg;
INSERT INTO y_temp VALUES ('infinity', 'NaN');
SELECT * FROM y_temp;
DROP TABLE y_temp, y_bad, y_rewrite, y_cases;
DROP FUNCTION check_type;
DROP PROCEDURE check_flushed;
DROP TYPE y_enum, y_comp, y_range;
DROP DOMAIN y_dom;
