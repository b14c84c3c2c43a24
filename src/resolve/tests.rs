//! Settings in, plan or sentence out.

use super::*;

fn machine() -> Machine {
    let ip = |name: &str, ip: &str| Interface {
        name: name.into(),
        ip: ip.parse().unwrap(),
        up: true,
        passing: false,
    };
    Machine {
        cpus: vec![0, 1, 2, 3],
        parallelism: 4,
        interfaces: vec![ip("lo", "127.0.0.1"), ip("lo", "::1"), ip("eth0", "10.0.0.5")],
        has_v6: true,
        random: [0xab; 48],
    }
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::new();
    for (name, text) in pairs {
        let key = Key::ALL.into_iter().find(|key| key.name() == *name).unwrap();
        let said = Said { texts: Vec::new(), place: format!("--{name}") };
        settings.entry(key).or_insert(said).texts.push((*text).to_owned());
    }
    settings
}

fn ok(pairs: &[(&str, &str)]) -> Plan {
    plan(&settings(pairs), &machine()).unwrap()
}

fn sentence(pairs: &[(&str, &str)]) -> String {
    plan(&settings(pairs), &machine()).unwrap_err().to_string()
}

const APP: (&str, &str) = ("app", "prod:0123456789abcdef");

#[test]
fn without_settings_it_runs_on_loopback_with_a_development_app() {
    let plan = ok(&[]);
    assert!(plan.development);
    assert_eq!(plan.apps[0].id, "ab".repeat(16));
    assert_eq!(plan.http.unwrap().to_string(), "127.0.0.1:8080");
    assert!(plan.https.is_none());
    assert_eq!(plan.udp.port, 3478);
    assert_eq!(
        (plan.udp.v4, plan.udp.v6),
        (Some(Ipv4Addr::UNSPECIFIED), Some(Ipv6Addr::UNSPECIFIED))
    );
    assert_eq!(plan.pins.len(), 4);
    assert_eq!(plan.drain, DEFAULT_DRAIN);
    assert_eq!(plan.log, LevelFilter::INFO);
    assert_eq!(plan.addresses.len(), 3, "10.0.0.5, 127.0.0.1, ::1");
    assert!(plan.warnings.is_empty());
}

#[test]
fn an_app_of_ones_own_may_be_reached_from_the_network() {
    let plan = ok(&[APP, ("http", "0.0.0.0:80")]);
    assert!(!plan.development);
    assert_eq!(plan.addresses.len(), 1, "no loopback");
    assert_eq!(plan.warnings.len(), 1, "clear text");
}

#[test]
fn the_development_app_is_not_exposed() {
    for (name, protocol) in [("http", "HTTP"), ("https", "HTTPS")] {
        let error =
            sentence(&[(name, "0.0.0.0:9000"), ("tls-self-signed", "true"), ("https", "[::1]:1")]);
        // With `https` said twice the first counts, as with any setting that takes one value.
        assert_eq!(
            error,
            format!(
                "{protocol} will not listen on 0.0.0.0:9000 for the development app, whose secret \
                 is shown to everyone who opens the demo: give an app of your own with \
                 --app ID:SECRET, or listen on 127.0.0.1"
            )
        );
    }
}

#[test]
fn the_kernels_lack_of_v6_is_no_error() {
    let mut machine = machine();
    machine.has_v6 = false;
    assert_eq!(plan(&settings(&[]), &machine).unwrap().udp.v6, None);
    assert_eq!(plan(&settings(&[("udp", "5000")]), &machine).unwrap().udp.v6, None);
}

#[test]
fn udp_takes_a_port_or_an_address_of_each_family() {
    assert_eq!(ok(&[("udp", "5000")]).udp.v4, Some(Ipv4Addr::UNSPECIFIED));
    let one = ok(&[("udp", "10.0.0.5:5000")]);
    assert_eq!((one.udp.port, one.udp.v6), (5000, None));
    assert_eq!(one.addresses.len(), 1);
    assert_eq!(ok(&[("udp", "10.0.0.5:5000"), ("udp", "[::1]:5000")]).addresses.len(), 2);
}

#[test]
fn a_quota_lowers_the_default_number_of_shards() {
    let mut machine = machine();
    machine.parallelism = 2;
    assert_eq!(plan(&settings(&[]), &machine).unwrap().pins.len(), 2);
    assert_eq!(plan(&settings(&[("shards", "3")]), &machine).unwrap().pins.len(), 3);
}

#[test]
fn shards_follow_the_cpus_that_are_named() {
    let plan = ok(&[("cpus", "1,3"), ("shards", "3")]);
    assert_eq!(plan.pins.iter().map(|pin| pin.cpu).collect::<Vec<_>>(), [1, 3, 1]);
    assert_eq!(plan.warnings.len(), 1, "three shards on two CPUs");
    assert_eq!(ok(&[("cpus", "1,3")]).pins.len(), 2);
}

#[test]
fn nonsense_is_one_sentence_that_names_the_setting() {
    for (name, text, reason) in [
        ("http", "8080", "--http is `8080` but must be an address and port such as"),
        ("https", "example.com:443", "--https is `example.com:443` but must be"),
        ("udp", "70000", "--udp is `70000` but must be a port"),
        ("udp", "+1", "--udp is `+1` but must be a port"),
        ("udp-ports", "some", "must be auto, shared or per-shard"),
        ("public-ip", "0.0.0.0", "must be an IPv4 or IPv6 address"),
        ("public-ip", "example.com", "must be an IPv4 or IPv6 address"),
        ("shards", "0", "must be a number from 1 to 255"),
        ("shards", "256", "must be a number from 1 to 255"),
        ("cpus", "0-x", "must be a list of CPUs such as 0-3,6"),
        ("cpus", "7", "may only run on 0-3"),
        ("packet-io", "xdp", "must be auto, ring or mmsg"),
        ("wake-delay", "1001", "must be auto, off, or whole microseconds from 0 to 1000"),
        ("wake-delay", "-1", "must be auto, off, or whole microseconds from 0 to 1000"),
        ("log", "loud\n", "--log is `loud\\n` but must be off, error, warn"),
        ("log", "3", "must be off, error, warn"),
        ("log", "", "must be off, error, warn"),
        ("drain", "1.5", "must be whole seconds from 0 to 3600"),
        ("http", "off", "neither HTTP nor HTTPS would listen"),
        ("https", "127.0.0.1:1", "--https needs a certificate"),
        ("tls-cert", "x", "--tls-cert is for HTTPS, which is off"),
        ("app", "x", "--app must be an id, a colon and a secret"),
        ("admin-secret", "short", "--admin-secret must be at least 16 characters"),
        ("admin-secret", "0123456789 abcdef", "--admin-secret must be letters, digits and"),
    ] {
        let error = plan(&settings(&[(name, text)]), &machine()).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}

#[test]
fn contradictions_are_named() {
    let https = ("https", "127.0.0.1:8443");
    assert_eq!(
        sentence(&[https, ("tls-cert", "x")]),
        "--tls-cert and --tls-key go together: give both"
    );
    let both = sentence(&[https, ("tls-cert", "x"), ("tls-key", "y"), ("tls-self-signed", "true")]);
    assert!(both.contains("leave out --tls-self-signed"), "{both}");
    let same = sentence(&[("https", "127.0.0.1:8080"), ("tls-self-signed", "true")]);
    assert!(same.contains("are both 127.0.0.1:8080"), "{same}");
    let ports = sentence(&[("udp", "10.0.0.5:1"), ("udp", "[::1]:2")]);
    assert!(ports.contains("one IPv4 and one IPv6 address at most, with one port"), "{ports}");
    let overflow = sentence(&[("udp", "65534"), ("udp-ports", "per-shard")]);
    assert!(overflow.contains("do not fit from port 65534 up to 65535"), "{overflow}");
}

#[test]
fn https_may_stand_alone_with_a_made_up_certificate() {
    let plan = ok(&[APP, ("http", "off"), ("https", "0.0.0.0:443"), ("tls-self-signed", "true")]);
    assert!(plan.http.is_none());
    assert!(plan.https.unwrap().identity.files.is_none());
    assert!(plan.warnings.is_empty());
}

#[test]
fn a_plan_in_a_log_shows_no_secret() {
    let admin = ("admin-secret", "0123456789abcdef0");
    assert_eq!(ok(&[admin]).admin.unwrap().expose(), admin.1);
    let debug = format!("{:?}", ok(&[APP, admin]));
    assert!(!debug.contains("0123456789abcdef"), "{debug}");
    let debug = format!("{:?}", settings(&[APP, admin]));
    assert!(!debug.contains("0123456789abcdef"), "{debug}");
}

#[test]
fn a_cluster_needs_a_key_an_address_and_an_app() {
    let path = std::env::temp_dir().join(format!("shardcast-cluster-{}", std::process::id()));
    let key = path.to_str().unwrap();
    let line = format!("shardcast-key-1:01:{}\n", "0123456789abcdef".repeat(4));
    std::fs::write(&path, line).unwrap();
    let (key, address) = (("cluster-key", key), ("cluster", "127.0.0.1:7000"));
    assert!(sentence(&[APP, address]).contains("shardcast keygen"));
    assert!(sentence(&[APP, ("seed", "a:7000")]).contains("shardcast keygen"));
    assert!(sentence(&[APP, key]).contains("give --cluster ADDR:PORT"));
    assert!(sentence(&[key, address]).contains("give --app ID:SECRET"));
    for wrong in ["0.0.0.0:7000", "[::]:7000", "127.0.0.1:0", "127.0.0.1", "localhost:7000"] {
        let said = sentence(&[APP, key, ("cluster", wrong)]);
        assert!(said.contains("not 0.0.0.0 or [::]"), "{said}");
    }
    for wrong in ["node1", ":7000", "node1:0", "::1:7000"] {
        let said = sentence(&[APP, key, address, ("seed", wrong)]);
        assert!(said.contains("as node1:7000"), "{said}");
    }
    let plan = ok(&[APP, key, address, ("seed", "node1:7000"), ("seed", "[::1]:7000")]);
    let cluster = plan.cluster.unwrap();
    assert_eq!(cluster.seeds, ["node1:7000", "[::1]:7000"]);
    assert!(plan.warnings.iter().any(|said| said.contains("chmod 600")), "{:?}", plan.warnings);
    std::fs::write(&path, "nothing").unwrap();
    let said = sentence(&[APP, key, address]);
    assert!(said.contains("line 1") && !said.contains("nothing"), "{said}");
    std::fs::remove_file(&path).unwrap();
    assert!(sentence(&[APP, key, address]).contains("it cannot be read"));
}
