//! Suites that Postgres' own drivers run: SQL regression tests and isolation specs.
//!
//! Both read copies below the state directory: the server's user may not reach the checkout.

use super::driver::{self, Driver};
use super::{Run, Tally};
use crate::process::tail_of;
use crate::{Context, Result, os, paths, say};
use std::fs;
use std::path::Path;

pub fn regress(run: &mut Run) -> Result<Tally> {
    let source = paths::repo().join("ext").join("tests").join("pg_regress");
    with_driver(run, "regress", "pg_regress", &source, "sql")
}

pub fn isolation(run: &mut Run) -> Result<Tally> {
    let source = paths::repo().join("isolation");
    with_driver(run, "isolation", "pg_isolation_regress", &source, "specs")
}

/// The files are `schedule`, `<inputs>/` and `expected/` below `source`.
fn with_driver(
    run: &mut Run,
    suite: &str,
    program: &str,
    source: &Path,
    inputs: &str,
) -> Result<Tally> {
    let mut tally = Tally::default();
    if !source.join("schedule").is_file() {
        tally.skip(suite, "it has no schedule yet");
        return Ok(tally);
    }
    let pg = run.extension()?;
    if let Err(reason) = driver::tool(&pg, program) {
        tally.skip(suite, &reason);
        return Ok(tally);
    }
    let cluster = run.cluster(&format!("{suite}-server"), &[])?;
    let dir = run.work_dir(suite)?;
    os::copy_tree(source, &dir, run.user.as_ref())?;
    for sub in [inputs, "expected", "results"] {
        os::make_dir(&dir.join(sub), run.user.as_ref())?;
    }
    add_twins(&dir, inputs, run)?;
    add_missing_expectations(&dir, run)?;
    let log = run.log(suite);
    let driver = Driver {
        program,
        cluster: &cluster,
        dir: &dir,
        schedule: "schedule",
        libraries: &pg.pkglibdir,
        database: suite,
        options: &["--load-extension=pg_lake"],
        log: &log,
        limit: run.limit(12),
    };
    let report = driver.run()?;
    report.count(program, &mut tally);
    if let Some(diffs) = driver.differences() {
        let kept = run.logs.join(format!("{suite}.diffs"));
        fs::copy(&diffs, &kept).context(diffs.display())?;
        if !run.accept {
            for line in tail_of(&kept, 80).lines() {
                say(&format!("    | {line}"));
            }
            say(&format!("    all differences: {}", kept.display()));
        }
    }
    if tally == Tally::default() {
        tally.skip(suite, "its schedule is empty");
    }
    if run.accept {
        accept(&dir.join("results"), &source.join("expected"))?;
    }
    Ok(tally)
}

/// What a spec says whose steps must do the same to a heap table.
const TWIN: &str = "The expected output is that of the same table in heap.";
const IN_HEAP: &str = "-in-heap";

/// Specs that say so run a second time, on heap, and must give the same output.
fn add_twins(dir: &Path, inputs: &str, run: &Run) -> Result<()> {
    let user = run.user.as_ref();
    let file = dir.join("schedule");
    let mut schedule = fs::read_to_string(&file).context(file.display())?;
    let folder = dir.join(inputs);
    for entry in fs::read_dir(&folder).context(folder.display())? {
        let path = entry.context(folder.display())?.path();
        let text = fs::read_to_string(&path).context(path.display())?;
        let Some(name) = path.file_stem().and_then(|n| n.to_str()) else {
            continue;
        };
        if !text.contains(TWIN) {
            continue;
        }
        let twin = format!("{name}{IN_HEAP}");
        let spec = folder.join(format!("{twin}.spec"));
        os::write_file(&spec, &text.replace("USING iceberg", "USING heap"), user)?;
        let expected = dir.join("expected");
        if let Ok(text) = fs::read_to_string(expected.join(format!("{name}.out"))) {
            os::write_file(&expected.join(format!("{twin}.out")), &text, user)?;
        }
        schedule.push_str(&format!("test: {twin}\n"));
    }
    os::write_file(&file, &schedule, user)
}

/// The drivers give up at the first test that has no expected output: let it differ from an empty
/// one instead, so that `--accept` can fill it.
fn add_missing_expectations(dir: &Path, run: &Run) -> Result<()> {
    let file = dir.join("schedule");
    let schedule = fs::read_to_string(&file).context(file.display())?;
    for line in schedule.lines() {
        let Some(names) = line.trim().strip_prefix("test:") else {
            continue;
        };
        for name in names.split_whitespace() {
            let expected = dir.join("expected").join(format!("{name}.out"));
            if !expected.exists() {
                os::write_file(&expected, "", run.user.as_ref())?;
            }
        }
    }
    Ok(())
}

/// Take the results over as what is expected from now on.
fn accept(results: &Path, expected: &Path) -> Result<()> {
    fs::create_dir_all(expected).context(expected.display())?;
    for entry in fs::read_dir(results).context(results.display())? {
        let path = entry.context(results.display())?.path();
        let Some(name) = path.file_stem().and_then(|n| n.to_str()) else {
            continue;
        };
        if path.extension().is_none_or(|extension| extension != "out") || name.ends_with(IN_HEAP) {
            continue;
        }
        // Heap says what is right.
        let twin = results.join(format!("{name}{IN_HEAP}.out"));
        let from = if twin.is_file() { &twin } else { &path };
        fs::copy(from, expected.join(format!("{name}.out"))).context(from.display())?;
    }
    say(&format!("    results accepted into {}", expected.display()));
    Ok(())
}
