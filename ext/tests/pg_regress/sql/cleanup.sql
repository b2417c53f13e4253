-- Purpose: leaves nothing behind but the database.
SELECT table_name FROM lake.tables ORDER BY 1;
DROP EXTENSION pg_lake;
SELECT nspname FROM pg_namespace WHERE nspname = 'lake';
-- its tables would be published
CREATE PUBLICATION all_tables FOR ALL TABLES;
CREATE EXTENSION pg_lake;
DROP PUBLICATION all_tables;
CREATE EXTENSION pg_lake;
CREATE TABLE again (a int) USING iceberg;
INSERT INTO again VALUES (1);
SELECT lake.flush('again') >= 0 AS flushes;
SELECT sum(a) FROM again;
DROP EXTENSION pg_lake CASCADE;
ALTER SYSTEM RESET autovacuum;
ALTER SYSTEM RESET lake.flush_interval;
ALTER SYSTEM RESET lake.flush_rows;
ALTER SYSTEM RESET lake.auto_compact;
ALTER SYSTEM RESET lake.garbage_retention;
ALTER SYSTEM RESET lake.publish_interval;
SELECT pg_reload_conf();
DROP OWNED BY regress_lake_user;
DROP ROLE regress_lake_user;
