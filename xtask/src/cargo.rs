//! Calling cargo from cargo: one target directory, the Postgres to build against.

use crate::paths;
use crate::postgres::Postgres;
use crate::process::Cmd;
use std::path::PathBuf;

/// The cargo that runs us, in the checkout, for anything that may compile the extension.
pub fn command(pg: &Postgres) -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    settled(Cmd::new(cargo)).env("PGRX_PG_CONFIG_PATH", &pg.pg_config)
}

/// Another toolchain's cargo, through rustup.
pub fn toolchain(name: &str) -> Cmd {
    settled(Cmd::new("cargo"))
        .unset("RUSTUP_TOOLCHAIN")
        .unset("RUSTC")
        .unset("RUSTDOC")
        .arg(format!("+{name}"))
}

fn settled(mut command: Cmd) -> Cmd {
    // `cargo run` describes xtask in the environment; a nested build must not see it.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
        "LD_LIBRARY_PATH",
    ] {
        command = command.unset(name);
    }
    command
        .env("CARGO_TARGET_DIR", paths::target())
        .env("CARGO_TERM_COLOR", "never")
        .cwd(paths::repo())
}

/// The extension's library, as cargo names it.
pub fn lib_file() -> PathBuf {
    paths::target().join("debug").join("libpg_lake.so")
}
