//! Every setting: its key in the file, its environment variable and its flag.

/// One setting of `quorate serve`.
pub struct Setting {
    /// The key in the configuration file, with its sections.
    pub key: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The flag.
    pub flag: Option<&'static str>,
}

const fn setting(key: &'static str, variable: &'static str, flag: &'static str) -> Setting {
    Setting {
        key,
        variable,
        flag: Some(flag),
    }
}

/// All settings, in the order in which the effective configuration is printed.
pub static SETTINGS: &[Setting] = &[
    setting("cluster.name", "QUORATE_CLUSTER_NAME", "--cluster-name"),
    setting("cluster.node_id", "QUORATE_NODE_ID", "--node-id"),
    setting("cluster.secret_file", "QUORATE_SECRET_FILE", "--secret-file"),
    Setting {
        key: "cluster.nodes",
        variable: "QUORATE_NODES",
        flag: None,
    },
    setting("cluster.peers", "QUORATE_PEERS", "--peers"),
    setting("cluster.witness", "QUORATE_WITNESS", "--witness"),
    setting("cluster.learner", "QUORATE_LEARNER", "--learner"),
    setting(
        "cluster.raft.election_timeout",
        "QUORATE_ELECTION_TIMEOUT",
        "--election-timeout",
    ),
    setting(
        "cluster.raft.election_timeout_min",
        "QUORATE_ELECTION_TIMEOUT_MIN",
        "--election-timeout-min",
    ),
    setting(
        "cluster.raft.election_timeout_max",
        "QUORATE_ELECTION_TIMEOUT_MAX",
        "--election-timeout-max",
    ),
    setting(
        "cluster.raft.heartbeat_interval",
        "QUORATE_HEARTBEAT_INTERVAL",
        "--heartbeat-interval",
    ),
    setting("cluster.raft.rpc_timeout", "QUORATE_RPC_TIMEOUT", "--rpc-timeout"),
    setting("cluster.raft.lease_reads", "QUORATE_LEASE_READS", "--lease-reads"),
    setting(
        "cluster.raft.clock_drift_ppm",
        "QUORATE_CLOCK_DRIFT_PPM",
        "--clock-drift-ppm",
    ),
    setting("cluster.storage.data_dir", "QUORATE_DATA_DIR", "--data-dir"),
    setting("cluster.storage.wal_sync", "QUORATE_WAL_SYNC", "--wal-sync"),
    setting(
        "cluster.storage.snapshot_interval",
        "QUORATE_SNAPSHOT_INTERVAL",
        "--snapshot-interval",
    ),
    setting(
        "cluster.storage.snapshot_rate",
        "QUORATE_SNAPSHOT_RATE",
        "--snapshot-rate",
    ),
    setting(
        "cluster.storage.history_age",
        "QUORATE_HISTORY_AGE",
        "--history-age",
    ),
    setting(
        "cluster.storage.history_revisions",
        "QUORATE_HISTORY_REVISIONS",
        "--history-revisions",
    ),
    setting(
        "cluster.storage.requests_age",
        "QUORATE_REQUESTS_AGE",
        "--requests-age",
    ),
    setting("network.host", "QUORATE_HOST", "--host"),
    setting(
        "network.advertise_host",
        "QUORATE_ADVERTISE_HOST",
        "--advertise-host",
    ),
    // Not QUORATE_PORT: Kubernetes sets that to a URL in every pod beside a service called `quorate`.
    setting("network.client_port", "QUORATE_CLIENT_PORT", "--port"),
    setting("network.http_port", "QUORATE_HTTP_PORT", "--http-port"),
    setting("network.cluster_port", "QUORATE_RAFT_PORT", "--raft-port"),
    setting("network.insecure", "QUORATE_INSECURE", "--insecure"),
    setting(
        "network.max_connections",
        "QUORATE_MAX_CONNECTIONS",
        "--max-connections",
    ),
    setting("network.max_watchers", "QUORATE_MAX_WATCHERS", "--max-watchers"),
    setting("network.quic", "QUORATE_QUIC", "--quic"),
    setting("network.tcp_nodelay", "QUORATE_TCP_NODELAY", "--tcp-nodelay"),
    setting("network.keepalive", "QUORATE_KEEPALIVE", "--keepalive"),
    setting("limits.key_bytes", "QUORATE_KEY_BYTES", "--key-bytes"),
    setting("limits.value_bytes", "QUORATE_VALUE_BYTES", "--value-bytes"),
    setting("limits.body_bytes", "QUORATE_BODY_BYTES", "--body-bytes"),
    setting(
        "limits.transaction_bytes",
        "QUORATE_TRANSACTION_BYTES",
        "--transaction-bytes",
    ),
    setting("limits.state_bytes", "QUORATE_STATE_BYTES", "--state-bytes"),
    setting("timeouts.request", "QUORATE_REQUEST_TIMEOUT", "--request-timeout"),
    setting("timeouts.leader_wait", "QUORATE_LEADER_WAIT", "--leader-wait"),
    setting(
        "timeouts.shutdown",
        "QUORATE_SHUTDOWN_TIMEOUT",
        "--shutdown-timeout",
    ),
    setting(
        "timeouts.session_grace",
        "QUORATE_SESSION_GRACE",
        "--session-grace",
    ),
    setting("log.level", "QUORATE_LOG", "--log-level"),
    setting("log.format", "QUORATE_LOG_FORMAT", "--log-format"),
];

/// Variables that other commands or the loader itself read.
pub(super) const OTHER_VARIABLES: &[&str] = &[
    "QUORATE_CONFIG",
    "QUORATE_ENDPOINT",
    "QUORATE_PROTOCOL",
    "QUORATE_SECRET",
];

/// The setting with `key`.
pub(super) fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting with `flag`.
pub(super) fn by_flag(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag == Some(flag))
}
