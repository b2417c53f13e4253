//! Compiles the one C file, against the headers of the Postgres that pgrx builds against.

use std::path::Path;
use std::process::Command;

fn main() {
    let file = Path::new("src/pg/copy_state.c");
    println!("cargo:rerun-if-changed={}", file.display());
    println!("cargo:rerun-if-env-changed=PGRX_PG_CONFIG_PATH");
    let pg_config = std::env::var("PGRX_PG_CONFIG_PATH").unwrap_or_else(|_| "pg_config".to_owned());
    let output = Command::new(&pg_config)
        .arg("--includedir-server")
        .output()
        .unwrap_or_else(|error| panic!("{pg_config}: {error}"));
    let headers = String::from_utf8_lossy(&output.stdout);
    cc::Build::new()
        .file(file)
        .include(headers.trim())
        .define("_GNU_SOURCE", None)
        .flag("-fno-strict-aliasing")
        .flag("-fwrapv")
        .warnings(false)
        .compile("lake_copy_state");
}
