//! All that a registry has.

use super::{Error, Workload, list};
use crate::source::{self, Options, Store};

/// Every tag of every repository of `host`, or of those below `prefix`.
///
/// # Errors
/// If the registry can't be reached, doesn't give its catalogue away, or has too much to list.
pub fn workloads(
    host: &str,
    prefix: &str,
    options: &Options,
    store: &Store,
) -> Result<Vec<Workload>, Error> {
    let names = source::catalog(host, prefix, options, store)?;
    let from = format!("catalog:{host}");
    Ok(names.iter().map(|name| list::of_reference(name, &from)).collect())
}
