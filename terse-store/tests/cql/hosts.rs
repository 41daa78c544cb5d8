//! Where the cluster of the tests is.

/// The nodes that `TERSE_CQL` names.
pub(crate) fn hosts() -> Vec<String> {
    let Ok(cluster) = std::env::var("TERSE_CQL") else {
        panic!("TERSE_CQL names no cluster: `cargo xtask test` starts one and sets it");
    };
    let hosts = cluster.strip_prefix("cql://").expect("TERSE_CQL is cql://host:port,…");
    hosts.trim_end_matches('/').split(',').map(str::to_owned).collect()
}
