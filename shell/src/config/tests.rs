//! Configuration as an operator gives it: files, variables and flags, right and wrong.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::*;

/// The file of event-stream-cluster.md.
const CLUSTER_YAML: &str = "\
cluster:
  node_id: 1

  nodes:
    - id: 1
      host: 10.0.0.1
      client_port: 9000     # Client connections
      cluster_port: 9100    # Inter-node communication

    - id: 2
      host: 10.0.0.2
      client_port: 9000
      cluster_port: 9100

    - id: 3
      host: 10.0.0.3
      client_port: 9000
      cluster_port: 9100

  raft:
    election_timeout_min: 150
    election_timeout_max: 300
    heartbeat_interval: 50
    rpc_timeout: 100

  storage:
    data_dir: /var/lib/eventstream/raft
    wal_sync: true          # fsync after each write
    snapshot_interval: 1000  # Entries between snapshots

network:
  max_connections: 1000
  tcp_nodelay: true
  keepalive: true
";

const SECRET: &str = "quorate-secret-1:amfbcga7eywtio2cjfifoxtfnrzxvamir6lj3jflwk44br6o2xolsylv3u";
const OTHER_SECRET: &str = "quorate-secret-1:r67drthjvwmmlzlr5vlge6qwofsevzkkgp5bierv43rf7uutksvcmgxply";

#[derive(Default)]
struct Given {
    file: Option<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
    flags: Vec<(&'static str, &'static str)>,
}

impl Given {
    fn load(&self) -> Result<Config, Mistakes> {
        let files: BTreeMap<&str, &str> = [
            ("cluster.yaml", self.file.unwrap_or("")),
            ("secret", OTHER_SECRET),
            (
                "typo",
                "quorate-secret-1:r67drthjvwmmlzlr5vlge6qwofsevzkkgp5bierv43rf7uutksvcmgxplx\n",
            ),
            ("empty", "\n"),
        ]
        .into();
        let read = |path: &str| {
            let text = files.get(path).ok_or(io::ErrorKind::NotFound)?;
            Ok((*text).to_owned())
        };
        let mut environment: BTreeMap<String, String> = self
            .variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        if !self.flags.iter().any(|(flag, _)| *flag == "--secret-file") {
            environment
                .entry("QUORATE_SECRET".to_owned())
                .or_insert(SECRET.to_owned());
        }
        load(&Source {
            config_path: self.file.map(|_| "cluster.yaml".to_owned()),
            environment,
            flags: self
                .flags
                .iter()
                .map(|(flag, value)| (*flag, (*value).to_owned()))
                .collect(),
            read: &read,
            host_name: "machine".to_owned(),
            host_address: "192.0.2.7".parse().ok(),
        })
    }

    fn loads(&self) -> Config {
        self.load().unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    fn mistakes(&self) -> Vec<String> {
        let mistakes = self.load().expect_err("expected mistakes").0;
        mistakes.iter().map(Mistake::to_string).collect()
    }
}

fn file(text: &'static str) -> Given {
    Given {
        file: Some(text),
        ..Given::default()
    }
}

fn flags(flags: &[(&'static str, &'static str)]) -> Given {
    Given {
        flags: flags.to_vec(),
        ..Given::default()
    }
}

fn origin_of(config: &Config, key: &str) -> String {
    let line = config.effective.iter().find(|line| line.key == key);
    line.unwrap_or_else(|| panic!("{key} is in force"))
        .origin
        .to_string()
}

#[test]
fn the_documented_file_gives_the_documented_cluster() {
    let mut given = file(CLUSTER_YAML);
    given.flags = vec![("--node-id", "2"), ("--insecure", "true")];
    let config = given.loads();
    assert_eq!(config.node_name.as_str(), "2");
    let Formation::Static(nodes) = &config.formation else {
        panic!("expected a static list");
    };
    assert_eq!(nodes.len(), 3);
    assert_eq!(nodes[2].cluster_address, "10.0.0.3:9100");
    assert_eq!(nodes[2].client_address, "10.0.0.3:9000");
    let listening: Vec<String> = config.client_listen.iter().map(Listen::address).collect();
    assert_eq!(listening, ["10.0.0.2:9000", "10.0.0.2:8080"]);
    assert_eq!(config.cluster_listen.address(), "10.0.0.2:9100");
    assert_eq!(config.cluster_address, "10.0.0.2:9100");
    assert_eq!(config.raft.election_timeout_min, Duration::from_millis(150));
    assert_eq!(config.raft.rpc_timeout, Duration::from_millis(100));
    assert_eq!(
        config.storage.data_dir.to_str(),
        Some("/var/lib/eventstream/raft")
    );
    assert_eq!(config.storage.snapshot_interval, 1000);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_documented_flags_found_a_cluster_and_join_it() {
    let first = flags(&[
        ("--node-id", "node1"),
        ("--host", "0.0.0.0"),
        ("--port", "8001"),
        ("--raft-port", "4321"),
        ("--data-dir", "/var/lib/flybrowser"),
        ("--insecure", "true"),
    ])
    .loads();
    assert_eq!(first.formation, Formation::First);
    assert_eq!(first.client_listen.len(), 1);
    assert_eq!(
        first.client_address, "192.0.2.7:8001",
        "peers cannot reach 0.0.0.0"
    );
    assert_eq!(first.cluster_address, "192.0.2.7:4321");

    let mut second = flags(&[("--node-id", "node2"), ("--port", "8002")]);
    second.variables = vec![
        ("QUORATE_PEERS", "node1:4321, node2:4322,node1:4321"),
        ("QUORATE_RAFT_PORT", "4322"),
        ("QUORATE_DATA_DIR", "/data"),
    ];
    let second = second.loads();
    assert_eq!(
        second.formation,
        Formation::Join(vec!["node1:4321".to_owned(), "node2:4322".to_owned()])
    );
    assert_eq!(second.cluster_listen.address(), "127.0.0.1:4322");
    assert_eq!(
        second.warnings.len(),
        1,
        "it listens where node1 cannot reach it: {:?}",
        second.warnings
    );
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let mut given =
        file("cluster:\n  raft:\n    heartbeat_interval: 40\n    rpc_timeout: 90\n  name: fromfile\n");
    given.variables = vec![
        ("QUORATE_HEARTBEAT_INTERVAL", "41"),
        ("QUORATE_RPC_TIMEOUT", "91"),
    ];
    given.flags = vec![("--heartbeat-interval", "42")];
    let config = given.loads();
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(42));
    assert_eq!(config.raft.rpc_timeout, Duration::from_millis(91));
    assert_eq!(config.cluster_name, "fromfile");
    assert_eq!(
        origin_of(&config, "cluster.raft.heartbeat_interval"),
        "--heartbeat-interval"
    );
    assert_eq!(
        origin_of(&config, "cluster.raft.rpc_timeout"),
        "QUORATE_RPC_TIMEOUT"
    );
    assert_eq!(origin_of(&config, "cluster.name"), "cluster.yaml:5: cluster.name");
    assert_eq!(origin_of(&config, "limits.key_bytes"), "default");
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_places() {
    let mut given = file(
        "cluster:
  node_id: 4
  nodes:
    - id: 1
      host: a
    - id: 1
      host: b
      cluster_prot: 1
    - id: 3
      host: a
    - host: c
  raft:
    election_timeout_min: soon
    heartbeat_intervall: 50
    heartbeat_interval: 500
  storage: big
network:
  keepalive: perhaps
  data_dir: x
",
    );
    given.flags = vec![("--port", "80000"), ("--insecure", "true")];
    given.variables = vec![("QUORATE_KEY_BYTES", "lots")];
    let mistakes = given.mistakes();
    let expected = [
        "cluster.yaml:14: cluster.raft.heartbeat_intervall: unknown key; did you mean \
         `cluster.raft.heartbeat_interval`?",
        "cluster.yaml:16: cluster.storage: expected a section with keys of its own",
        "cluster.yaml:19: network.data_dir: unknown key here; did you mean `cluster.storage.data_dir`?",
        "cluster.yaml:8: cluster.nodes[1].cluster_prot: unknown key; did you mean `cluster_port`?",
        "cluster.yaml:11: cluster.nodes[3]: `id` is missing",
        "cluster.yaml:6: cluster.nodes[1]: the id 1 is already that of cluster.yaml:4: cluster.nodes[0]",
        "cluster.yaml:9: cluster.nodes[2]: the cluster address a:9100 is already that of cluster.yaml:4: \
         cluster.nodes[0]",
        "cluster.yaml:9: cluster.nodes[2]: the client address a:9000 is already that of cluster.yaml:4: \
         cluster.nodes[0]",
        "cluster.yaml:2: cluster.node_id: node 4 is not in cluster.nodes, which lists 1, 1, 3",
        "--port: expected a number from 1 to 65535, found `80000`",
        "cluster.yaml:18: network.keepalive: expected true or false, found `perhaps`",
        "cluster.yaml:13: cluster.raft.election_timeout_min: expected a time from 10 to",
        "cluster.yaml:15: cluster.raft.heartbeat_interval: the heartbeat interval (500 ms) must be shorter than",
        "QUORATE_KEY_BYTES: expected a size from",
    ];
    for part in expected {
        assert!(
            mistakes.iter().any(|mistake| mistake.starts_with(part)),
            "missing: {part}\nin: {mistakes:#?}"
        );
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
}

#[test]
fn one_election_timeout_means_a_range_up_to_twice_it() {
    let raft = flags(&[("--election-timeout", "1000"), ("--heartbeat-interval", "100")])
        .loads()
        .raft;
    assert_eq!(raft.election_timeout_min, Duration::from_millis(1000));
    assert_eq!(raft.election_timeout_max, Duration::from_millis(2000));

    let mut over_file = file(CLUSTER_YAML);
    over_file.flags = vec![("--election-timeout", "400"), ("--insecure", "true")];
    let config = over_file.loads();
    assert_eq!(config.raft.election_timeout_min, Duration::from_millis(400));
    assert_eq!(config.raft.election_timeout_max, Duration::from_millis(800));
    assert_eq!(
        origin_of(&config, "cluster.raft.election_timeout_max"),
        "--election-timeout"
    );

    let twice = flags(&[("--election-timeout", "400"), ("--election-timeout-min", "300")]).mistakes();
    assert!(
        twice[0].starts_with("--election-timeout-min: one value"),
        "{twice:?}"
    );
}

#[test]
fn contradictions_between_values_are_mistakes() {
    let reversed = flags(&[
        ("--election-timeout-min", "300"),
        ("--election-timeout-max", "200"),
    ])
    .mistakes();
    assert!(
        reversed[0].starts_with("--election-timeout-max: election_timeout_max (200 ms)"),
        "{reversed:?}"
    );
    let wait = flags(&[("--request-timeout", "1s"), ("--leader-wait", "2s")]).mistakes();
    assert!(
        wait[0].starts_with("--leader-wait: the wait for a leader (2000 ms)"),
        "{wait:?}"
    );
    let mut both = file(CLUSTER_YAML);
    both.flags = vec![("--peers", "a:1"), ("--insecure", "true")];
    assert!(
        both.mistakes()[0].starts_with("--peers: peers to join"),
        "{:?}",
        both.mistakes()
    );
}

#[test]
fn an_even_number_of_voters_warns() {
    let config = file(
        "cluster:\n  node_id: a\n  nodes: [{id: a, host: 127.0.0.1, cluster_port: 1}, {id: b, host: 127.0.0.1, \
         client_port: 2}]\n",
    )
    .loads();
    assert!(
        config.warnings[0].contains("2 voters, an even number"),
        "{:?}",
        config.warnings
    );
    assert_eq!(
        config.client_listen.len(),
        1,
        "8080 cannot be had twice on one machine"
    );
}

#[test]
fn clear_text_beyond_loopback_is_refused_unless_it_is_accepted() {
    let mistakes = flags(&[("--host", "0.0.0.0")]).mistakes();
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].starts_with("--host: clients would be served at 0.0.0.0"),
        "{mistakes:?}"
    );
    for host in ["127.0.0.1", "::1", "localhost", "127.3.2.1"] {
        flags(&[("--host", host)]).loads();
    }
    flags(&[("--host", "0.0.0.0"), ("--insecure", "true")]).loads();
}

#[test]
fn the_secret_comes_from_a_file_or_a_variable_and_is_never_shown() {
    let config = flags(&[("--secret-file", "secret")]).loads();
    assert_eq!(config.secret.reveal(), OTHER_SECRET);
    assert!(!format!("{config:?}").contains(OTHER_SECRET));
    assert_eq!(flags(&[]).loads().secret.reveal(), SECRET);
    let mut flag_wins = flags(&[("--secret-file", "secret")]);
    flag_wins.variables = vec![("QUORATE_SECRET", SECRET)];
    assert_eq!(flag_wins.loads().secret.reveal(), OTHER_SECRET);

    let mut none = flags(&[]);
    none.variables = vec![("QUORATE_SECRET", " ")];
    assert!(
        none.mistakes()[0].contains("quorate secret new"),
        "{:?}",
        none.mistakes()
    );
    assert!(flags(&[("--secret-file", "empty")]).mistakes()[0].contains("empty: it is empty"));
    assert!(
        flags(&[("--secret-file", "missing")]).mistakes()[0].starts_with("--secret-file: missing: it cannot")
    );
}

#[test]
fn a_mistyped_secret_is_a_mistake_beside_the_others() {
    let mut variable = flags(&[("--port", "x")]);
    variable.variables = vec![("QUORATE_SECRET", "foo")];
    let mistakes = variable.mistakes();
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(
        mistakes[1].starts_with("QUORATE_SECRET: a cluster secret begins with"),
        "{mistakes:?}"
    );
    let file = flags(&[("--secret-file", "typo")]).mistakes();
    assert!(
        file[0].starts_with("--secret-file: typo: the cluster secret was mistyped"),
        "{file:?}"
    );
}

#[test]
fn an_unknown_log_level_is_a_mistake_and_not_silence() {
    for (text, meant) in [
        ("noisy", None),
        ("inof", Some("info")),
        ("info,quorate::transport=debgu", Some("debug")),
        ("quorate::transport", None),
        ("", None),
    ] {
        let given = file(Box::leak(format!("log:\n  level: '{text}'\n").into_boxed_str()));
        let mistakes = given.mistakes();
        assert!(
            mistakes[0].starts_with("cluster.yaml:2: log.level: expected error, warn, info"),
            "{mistakes:?}"
        );
        let hint = meant.map_or("did you mean".to_owned(), |word| {
            format!("did you mean `{word}`?")
        });
        assert_eq!(mistakes[0].contains(&hint), meant.is_some(), "{mistakes:?}");
    }
    for (text, filter) in [
        ("WARNING", "warn"),
        ("info, quorate::transport=Debug", "info,quorate::transport=debug"),
        ("off", "off"),
    ] {
        assert_eq!(flags(&[("--log-level", text)]).loads().log.level, filter);
    }
}

#[test]
fn peers_that_are_the_node_itself_warn_at_once() {
    let warnings = |peers| {
        let given = flags(&[("--peers", peers), ("--raft-port", "4400")]);
        given.loads().warnings
    };
    for peers in ["127.0.0.1:4400", "localhost:4400,127.0.0.1:4400"] {
        let found = warnings(peers);
        assert!(
            found.iter().any(|text| text.contains("nobody to join")),
            "{found:?}"
        );
    }
    for peers in ["127.0.0.1:4401", "127.0.0.1:4400,127.0.0.1:4401"] {
        assert_eq!(warnings(peers), [""; 0]);
    }
}

#[test]
fn variables_that_mean_nothing_warn_but_those_of_kubernetes_do_not() {
    let given = Given {
        variables: vec![
            ("QUORATE_HEARTBEAT_INTERVALL", "50"),
            ("QUORATE_SERVICE_HOST", "10.96.0.1"),
            ("QUORATE_PORT", "tcp://10.96.0.1:80"),
            ("QUORATE_PORT_80_TCP_PROTO", "tcp"),
            ("QUORATE_ENDPOINT", "127.0.0.1:8000"),
            ("QUORATE_NODE_ID", ""),
        ],
        ..Given::default()
    };
    let config = given.loads();
    assert_eq!(
        config.warnings,
        ["QUORATE_HEARTBEAT_INTERVALL is set and means nothing; did you mean QUORATE_HEARTBEAT_INTERVAL?"]
    );
    assert_eq!(config.node_name.as_str(), "machine");
}

/// Two nodes with data and a witness.
const WITNESS_YAML: &str = "\
cluster:
  nodes:
    - {id: 1, host: 127.0.0.1, client_port: 9001, cluster_port: 9101}
    - {id: 2, host: 127.0.0.1, client_port: 9002, cluster_port: 9102}
    - {id: 3, host: 127.0.0.1, client_port: 9003, cluster_port: 9103, witness: true}
";

#[test]
fn a_founder_is_the_witness_that_the_list_says() {
    let given = |id| Given {
        file: Some(WITNESS_YAML),
        flags: vec![("--node-id", id)],
        ..Given::default()
    };
    assert!(!given("1").loads().witness);
    let third = given("3").loads();
    assert!(third.witness);
    let Formation::Static(nodes) = third.formation else {
        panic!("{:?}", third.formation);
    };
    let witnesses: Vec<bool> = nodes.iter().map(|node| node.witness).collect();
    assert_eq!(witnesses, [false, false, true]);
    let mut contradicting = given("1");
    contradicting.flags.push(("--witness", "true"));
    let mistakes = contradicting.mistakes().join("; ");
    assert!(
        mistakes.contains("the list of nodes says otherwise"),
        "{mistakes}"
    );
}

#[test]
fn too_many_witnesses_and_a_witness_alone_are_mistakes() {
    let two = Given {
        variables: vec![(
            "QUORATE_NODES",
            "[{id: 1, host: a, witness: yes}, {id: 2, host: b, witness: yes}, {id: 3, host: c}]",
        )],
        flags: vec![("--node-id", "1"), ("--insecure", "true")],
        ..Given::default()
    };
    let mistakes = two.mistakes().join("; ");
    assert!(mistakes.contains("2 of 3 nodes are witnesses"), "{mistakes}");
    let alone = Given {
        flags: vec![("--witness", "true")],
        ..Given::default()
    };
    let mistakes = alone.mistakes().join("; ");
    assert!(mistakes.contains("cannot found a cluster alone"), "{mistakes}");
    let joins = Given {
        flags: vec![("--witness", "true"), ("--peers", "127.0.0.1:4321")],
        ..Given::default()
    };
    assert!(joins.loads().witness);
}

#[test]
fn learner_joins_a_cluster_and_founds_none() {
    let flags = |more: &[(&'static str, &'static str)]| Given {
        flags: [&[("--learner", "true")], more].concat(),
        ..Given::default()
    };
    assert!(flags(&[("--peers", "127.0.0.1:4321")]).loads().learner);
    let alone = flags(&[]).mistakes().join("; ");
    assert!(alone.contains("a learner founds no cluster"), "{alone}");
    let both = flags(&[("--peers", "127.0.0.1:4321"), ("--witness", "true")])
        .mistakes()
        .join("; ");
    assert!(both.contains("never votes and a witness does"), "{both}");
}

#[test]
fn nodes_can_be_listed_in_a_variable() {
    let given = Given {
        variables: vec![
            (
                "QUORATE_NODES",
                "[{id: a, host: 127.0.0.1}, {id: b, host: 127.0.0.2}, {id: c, host: 127.0.0.3}]",
            ),
            ("QUORATE_NODE_ID", "c"),
        ],
        ..Given::default()
    };
    let config = given.loads();
    assert!(matches!(config.formation, Formation::Static(nodes) if nodes.len() == 3));
}

#[test]
fn the_printed_configuration_is_a_file_that_gives_the_same_configuration() {
    let mut given = file(CLUSTER_YAML);
    given.flags = vec![("--insecure", "true"), ("--cluster-name", "site-7")];
    let config = given.loads();
    let printed = config.print();
    assert!(printed.contains("  name: site-7"), "{printed}");
    assert!(printed.contains("# --cluster-name"), "{printed}");
    assert!(printed.contains("    heartbeat_interval: 50 "), "{printed}");
    assert!(printed.contains("# cluster.yaml:23"), "{printed}");
    let again = file(Box::leak(printed.clone().into_boxed_str())).loads();
    let values = |config: &Config| -> std::collections::BTreeMap<&str, String> {
        let lines = config.effective.iter();
        lines.map(|line| (line.key, line.value.clone())).collect()
    };
    assert_eq!(values(&again), values(&config));
    assert_eq!(again.formation, config.formation);
}

#[test]
fn every_setting_can_be_given_in_every_way() {
    for setting in settings::SETTINGS {
        assert!(setting.variable.starts_with("QUORATE_"), "{}", setting.key);
        let doubles = settings::SETTINGS
            .iter()
            .filter(|other| {
                other.variable == setting.variable || (other.flag.is_some() && other.flag == setting.flag)
            })
            .count();
        assert_eq!(doubles, 1, "{} shares its variable or flag", setting.key);
    }
}

#[test]
fn the_snapshot_rate_is_bounded_below_and_zero_is_no_limit() {
    let rate = |text| flags(&[("--snapshot-rate", text)]).loads().storage.snapshot_rate;
    assert_eq!(flags(&[]).loads().storage.snapshot_rate, 64 << 20);
    assert_eq!(rate("1MiB"), 1 << 20);
    assert_eq!(rate("64KiB"), 64 << 10);
    assert_eq!(rate("0"), 0);
    let mistakes = flags(&[("--snapshot-rate", "65535")]).mistakes();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].contains("--snapshot-rate"), "{mistakes:?}");
    assert!(mistakes[0].contains("65535 bytes a second"), "{mistakes:?}");
}

#[test]
fn a_missing_file_and_a_broken_one_are_named() {
    let broken = file("cluster: [1, 2\n").mistakes();
    assert!(broken[0].starts_with("cluster.yaml:"), "{broken:?}");
    let missing = load(&Source {
        config_path: Some("elsewhere.yaml".to_owned()),
        environment: [("QUORATE_SECRET".to_owned(), SECRET.to_owned())].into(),
        flags: Vec::new(),
        read: &|_| Err(io::ErrorKind::NotFound.into()),
        host_name: String::new(),
        host_address: None,
    })
    .expect_err("there is no such file");
    assert!(
        missing
            .to_string()
            .contains("elsewhere.yaml: the configuration file cannot be read"),
        "{missing}"
    );
}

#[test]
fn a_port_in_use_names_the_port_and_the_flag() {
    let listen = flags(&[("--port", "8001")]).loads().client_listen[0].clone();
    let sentence = listen.explain(&io::ErrorKind::AddrInUse.into());
    assert_eq!(
        sentence,
        "127.0.0.1:8001 is in use by another process: port 8001 (from --port); choose another with --port"
    );
}
