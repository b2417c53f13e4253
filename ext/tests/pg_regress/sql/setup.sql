-- Purpose: what the other files share: helpers, a role, no background flush or publication.
ALTER SYSTEM SET lake.flush_interval = -1;
ALTER SYSTEM SET lake.flush_rows = -1;
ALTER SYSTEM SET lake.publish_interval = -1;
ALTER SYSTEM SET lake.auto_compact = off;
-- What was published stays, unless a test says that it may go.
ALTER SYSTEM SET lake.garbage_retention = '1d';
-- A flush moves what every snapshot sees: none but the test's own may be about.
ALTER SYSTEM SET autovacuum = off;
SELECT pg_reload_conf();

-- The rows of a query as text, one line a row; sorted unless the query's own order counts.
CREATE FUNCTION rows_of(query text, ordered bool DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r record;
    lines text[] := '{}';
BEGIN
    FOR r IN EXECUTE query LOOP
        lines := lines || r::text;
    END LOOP;
    IF NOT ordered THEN
        SELECT array_agg(l ORDER BY l COLLATE "C") INTO lines FROM unnest(lines) l;
    END IF;
    RETURN array_to_string(lines, E'\n');
END $$;

-- The SQLSTATE that a statement ends with.
CREATE FUNCTION sqlstate_of(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN '00000';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

-- A flush moves what every snapshot sees: waits until no background process holds one.
CREATE PROCEDURE settle() SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN
    WHILE EXISTS (SELECT FROM pg_stat_activity
                  WHERE backend_type <> 'client backend' AND datname = current_database() AND backend_xmin IS NOT NULL) LOOP
        PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
    END LOOP;
END $$;

CREATE FUNCTION rows_or_error(query text, ordered bool) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN rows_of(query, ordered);
EXCEPTION WHEN OTHERS THEN
    RETURN 'SQLSTATE ' || SQLSTATE;
END $$;

-- Runs a query over heap table "<name>_heap" and over iceberg table "<name>_lake", of which it says
-- "@name", with each setting of lake.engine. "ok", or what differs. With "force" a query that can't
-- be lowered is refused, which is no difference.
CREATE FUNCTION twins(query text, ordered bool DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    heap text;
    lake text;
    setting text;
    answer text := 'ok';
BEGIN
    heap := rows_or_error(regexp_replace(query, '@(\w+)', '\1_heap', 'g'), ordered);
    FOREACH setting IN ARRAY ARRAY['off', 'on', 'force'] LOOP
        PERFORM set_config('lake.engine', setting, true);
        lake := rows_or_error(regexp_replace(query, '@(\w+)', '\1_lake', 'g'), ordered);
        IF setting = 'force' AND lake = 'SQLSTATE 0A000' THEN
            CONTINUE;
        END IF;
        IF lake IS DISTINCT FROM heap THEN
            answer := format('DIFFERS with lake.engine = %s: heap %L, lake %L', setting, left(heap, 300), left(lake, 300));
            EXIT;
        END IF;
    END LOOP;
    PERFORM set_config('lake.engine', 'on', true);
    RETURN answer;
END $$;

-- Where a table's visible rows are.
CREATE FUNCTION hot_cold(tab regclass, OUT hot bigint, OUT cold bigint) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($q$SELECT count(*) FILTER (WHERE ctid < '(2147483648,0)'), count(*) FILTER (WHERE ctid >= '(2147483648,0)') FROM %s$q$, tab)
    INTO hot, cold;
END $$;

SET client_min_messages = error;
DROP ROLE IF EXISTS regress_lake_user;
RESET client_min_messages;
CREATE ROLE regress_lake_user;
