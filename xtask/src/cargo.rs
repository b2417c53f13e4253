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
    // `cargo run` describes xtask in the environment. Build scripts that ask for such a variable
    // would run again each time that a nested build and a plain one take turns.
    for (name, _) in std::env::vars() {
        let about_xtask = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ];
        if about_xtask.iter().any(|prefix| name.starts_with(prefix)) {
            command = command.unset(&name);
        }
    }
    command = command.unset("LD_LIBRARY_PATH");
    command
        .env("CARGO_TARGET_DIR", paths::target())
        .env("CARGO_TERM_COLOR", "never")
        .cwd(paths::repo())
}

/// The extension's library, as cargo names it.
pub fn lib_file() -> PathBuf {
    paths::target().join("debug").join("libpg_lake.so")
}
