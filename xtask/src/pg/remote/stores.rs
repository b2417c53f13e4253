//! The stores and the proxy by themselves, without a server.

use crate::Result;
use crate::pg::{must_be, wait_until};
use crate::stores::proxy::{Action, Proxy, Rule};
use crate::stores::{self, Kind, Store};
use crate::test::Run;
use std::time::Duration;

const KINDS: &[Kind] = &[
    Kind::SeaweedFs,
    Kind::OpenSeaweedFs,
    Kind::MiniStack,
    Kind::Azurite,
    Kind::FakeGcs,
];

/// Each store keeps, lists, changes and loses objects, survives being killed, and can be reached by a
/// proxy.
pub fn programs(run: &mut Run) -> Result<()> {
    for kind in KINDS {
        let store = stores::for_test(run, "programs", *kind)?;
        objects(&store)
            .and_then(|()| proxied(&store))
            .and_then(|()| killed(&store))
            .map_err(|error| format!("{}: {error}", store.name()))?;
    }
    Ok(())
}

fn keys(store: &Store, prefix: &str) -> Result<String> {
    let objects = store.objects(prefix)?;
    let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
    Ok(keys.join(" "))
}

fn objects(store: &Store) -> Result<()> {
    store.put("p/a=1/ü +.parquet", "content")?;
    store.put("p/b", "more")?;
    store.put("q", "")?;
    must_be(&keys(store, "")?, "p/a=1/ü +.parquet p/b q", "objects")?;
    must_be(&keys(store, "p/b")?, "p/b", "objects with a prefix")?;
    let sizes: u64 = store.objects("")?.iter().map(|object| object.size).sum();
    must_be(&sizes.to_string(), "11", "bytes of all objects")?;
    store.flip("p/b", -1)?;
    store.delete("q")?;
    must_be(&keys(store, "")?, "p/a=1/ü +.parquet p/b", "what is left")?;
    must_be(&store.uploads()?.join(" "), "", "unfinished uploads")
}

fn proxied(store: &Store) -> Result<()> {
    let proxy = Proxy::start(store.port(), 1)?;
    let listed = store.objects_at(proxy.port(), "p/")?;
    must_be(&listed.len().to_string(), "2", "objects through a proxy")?;
    must_be(&proxy.requests().len().to_string(), "1", "requests")?;
    for action in [Action::Reset, Action::Truncate, Action::Status(503, None)] {
        proxy.set(vec![Rule::new(action).method("GET")]);
        let name = action.name();
        match store.objects_at(proxy.port(), "p/") {
            Ok(listed) => return Err(format!("{name}: a list of {}", listed.len())),
            Err(_) => must_be(&proxy.hits().to_string(), "1", name)?,
        }
    }
    Ok(())
}

/// All but azurite write at once what they are given.
fn killed(store: &Store) -> Result<()> {
    if store.name() == Kind::Azurite.name() {
        return store.restart();
    }
    let before = keys(store, "")?;
    for _ in 0..2 {
        store.kill9();
        if store.objects("").is_ok() {
            return Err("a store that was killed answers".to_owned());
        }
        store.restart()?;
        wait_until(Duration::from_secs(10), "what it had before", || {
            Ok(keys(store, "")? == before)
        })?;
    }
    Ok(())
}
