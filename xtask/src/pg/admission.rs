//! Queries that keep rows wait for their turn in the engine, others don't; cursors keep no turn, and no wait is without end.

use super::{must_be, wait_until};
use crate::client::{Client, Reply};
use crate::cluster::{Cluster, DATABASE};
use crate::test::Run;
use crate::{Result, say};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// How soon a session is back that is cancelled while it waits.
const BACK: Duration = Duration::from_secs(1);

const ROWS: usize = 500_000;
/// How often the view `many` has the rows.
const TIMES: usize = 60;

/// The last rows of a sort.
fn sort_of(table: &str, rows: usize) -> String {
    format!(
        "SELECT id, note FROM {table} ORDER BY amount DESC, id OFFSET {}",
        rows - 10
    )
}

pub fn admission(run: &mut Run) -> Result<()> {
    let cluster = run.cluster(
        "admission",
        &[
            ("autovacuum", "off"),
            ("lake.auto_compact", "off"),
            ("lake.flush_interval", "-1"),
            ("lake.flush_rows", "-1"),
            ("lake.publish_interval", "-1"),
            ("lake.engine_queries", "1"),
            ("deadlock_timeout", "300s"),
        ],
    )?;
    load(&cluster)?;
    cursors_keep_no_turn(&cluster)?;
    others_wait(&cluster)?;
    nothing_left(&cluster)?;

    cluster.sql("ALTER SYSTEM SET deadlock_timeout = '200ms'")?;
    cluster.sql("SELECT pg_reload_conf()")?;
    nobody_waits_without_end(&cluster)?;
    nothing_left(&cluster)
}

/// All rows are cold.
fn load(cluster: &Cluster) -> Result<()> {
    cluster.sql(&format!(
        "SET lake.bulk_rows = 0;
         CREATE TABLE big (id int, grp int, amount numeric(15,2), note text) USING iceberg;
         INSERT INTO big SELECT g, g % 1000, g / 100.0, 'note ' || g FROM generate_series(1, {ROWS}) g;
         ANALYZE big;"
    ))?;
    let rows = vec!["SELECT * FROM big"; TIMES].join(" UNION ALL ");
    cluster
        .sql(&format!("CREATE VIEW many AS {rows}"))
        .map(drop)
}

fn connect(cluster: &Cluster) -> Result<Client> {
    let mut client = Client::connect(cluster, DATABASE)?;
    client.rows("SET lake.engine = force; SET statement_timeout = '60s'")?;
    Ok(client)
}

/// A query in a session of its own; the thread says when it ended, and how.
struct Session {
    pid: String,
    thread: JoinHandle<(Instant, Result<Reply>)>,
}

impl Session {
    fn start(cluster: &Cluster, sql: String) -> Result<Session> {
        let mut client = connect(cluster)?;
        let pid = one(&mut client, "SELECT pg_backend_pid()")?;
        let thread = thread::spawn(move || {
            let reply = client.query(&sql);
            (Instant::now(), reply)
        });
        Ok(Session { pid, thread })
    }

    /// A long one, which computes when this returns.
    fn busy(cluster: &Cluster, watch: &mut Client) -> Result<Session> {
        let session = Session::start(cluster, sort_of("many", ROWS * TIMES))?;
        session.until(watch, "state = 'running' AND rows_read > 0")?;
        Ok(session)
    }

    /// Waits until its row in `lake.stat_queries` is like this.
    fn until(&self, watch: &mut Client, condition: &str) -> Result<()> {
        let sql = format!(
            "SELECT count(*) FROM lake.stat_queries WHERE pid = {} AND {condition}",
            self.pid
        );
        wait_until(LIMIT, condition, || Ok(one(watch, &sql)? != "0"))
    }

    fn cancel(&self, watch: &mut Client) -> Result<()> {
        watch
            .rows(&format!("SELECT pg_cancel_backend({})", self.pid))
            .map(drop)
    }

    /// When it ended, and the SQLSTATE or the number of rows.
    fn end(self) -> Result<(Instant, String)> {
        let (ended, reply) = self
            .thread
            .join()
            .map_err(|_| "a session's thread panicked".to_owned())?;
        let said = match reply? {
            Ok(rows) => format!("{} rows", rows.rows.len()),
            Err(error) => error.sqlstate,
        };
        Ok((ended, said))
    }

    fn must_end(self, expected: &str, what: &str) -> Result<()> {
        let (_, said) = self.end()?;
        must_be(&said, expected, what)
    }
}

fn one(client: &mut Client, sql: &str) -> Result<String> {
    let rows = client.rows(sql)?;
    let first = rows.lines().first().map(|line| (*line).to_owned());
    first.ok_or_else(|| format!("no row from {sql}"))
}

/// Each of two sessions has a cursor that nobody reads from, and asks for more.
fn cursors_keep_no_turn(cluster: &Cluster) -> Result<()> {
    let mut sessions = [connect(cluster)?, connect(cluster)?];
    for session in &mut sessions {
        session.rows("BEGIN")?;
        session.rows(
            "DECLARE c NO SCROLL CURSOR FOR SELECT id, grp, amount, note FROM big ORDER BY amount, id",
        )?;
        must_be(&one(session, "FETCH 1 FROM c")?, "1", "the first row")?;
    }
    for session in &mut sessions {
        let rows = session.rows(&sort_of("big", ROWS))?;
        must_be(
            &rows.rows.len().to_string(),
            "10",
            "rows beside two cursors",
        )?;
        session.rows("COMMIT")?;
    }
    Ok(())
}

/// Who waits can be seen, cancelled, and begins when there is room; who keeps nothing doesn't wait.
fn others_wait(cluster: &Cluster) -> Result<()> {
    let mut watch = connect(cluster)?;
    watch.rows("SET lake.engine = on")?;
    let busy = Session::busy(cluster, &mut watch)?;

    let cancelled = Session::start(cluster, sort_of("big", ROWS))?;
    cancelled.until(&mut watch, "state = 'queued'")?;
    let count = one(
        &mut connect(cluster)?,
        "SELECT count(id) FROM big WHERE grp <> 7",
    )?;
    must_be(
        &count,
        &(ROWS - ROWS / 1000).to_string(),
        "a count beside it",
    )?;
    let group = one(
        &mut connect(cluster)?,
        "SELECT grp, count(*) FROM big GROUP BY grp ORDER BY grp",
    )?;
    must_be(&group, "0", "the first of a few groups beside it")?;
    let asked = Instant::now();
    cancelled.cancel(&mut watch)?;
    let (ended, said) = cancelled.end()?;
    must_be(&said, "57014", "a cancelled query that waits")?;
    let took = ended.duration_since(asked);
    say(&format!(
        "      back {} ms after its cancellation",
        took.as_millis()
    ));
    if took > BACK {
        return Err("that is too long".to_owned());
    }

    let mut impatient = connect(cluster)?;
    impatient.rows("SET statement_timeout = '300ms'")?;
    match impatient.query(&sort_of("big", ROWS))? {
        Err(error) => must_be(&error.sqlstate, "57014", "a timeout in the queue")?,
        Ok(_) => return Err("a query did not wait".to_owned()),
    }

    let next = Session::start(cluster, sort_of("big", ROWS))?;
    next.until(&mut watch, "state = 'queued'")?;
    busy.cancel(&mut watch)?;
    busy.must_end("57014", "the long query")?;
    next.must_end("10 rows", "the query that waited")
}

fn nobody_waits_without_end(cluster: &Cluster) -> Result<()> {
    let mut watch = connect(cluster)?;
    watch.rows("SET lake.engine = on")?;
    let busy = Session::busy(cluster, &mut watch)?;
    let next = Session::start(cluster, sort_of("big", ROWS))?;
    next.must_end("10 rows", "a query that begins out of turn")?;
    if busy.thread.is_finished() {
        return Err("the long query ended too early".to_owned());
    }
    busy.cancel(&mut watch)?;
    busy.must_end("57014", "the long query")
}

fn nothing_left(cluster: &Cluster) -> Result<()> {
    wait_until(LIMIT, "no request is left", || {
        let left = "SELECT count(*) FROM lake.stat_queries";
        Ok(cluster.sql(left)? == "0")
    })
}
