//! All faults of a configuration come at once, each with its path; the manual is the defaults; and
//! a secret is never shown.

use std::path::Path;

use kore_gateway::config::{self, Config, ConfigFault, DEFAULTS, Layer, Sources};

pub const GOOD: &str = r#"
[[accounts]]
id = "a1"
contact_center_url = "https://platform.kore.ai"
automation_url = "https://platform.kore.ai/"
bots = ["st-1"]
[[accounts.credentials]]
client_id = "cs-1"
client_secret = { file = "@secret" }
scopes = ["analytics", "chat_history"]
[[clients]]
name = "reporting"
api_key_sha256 = "@digest"
accounts = ["a1"]
bots = ["*"]
routes = ["conversation"]
"#;

pub fn load(layers: &[&str], environment: &[(&str, &str)]) -> Result<Config, Vec<ConfigFault>> {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2-canary\n").unwrap();
    let filled = |text: &&str| {
        Layer::Text(text.replace("@secret", secret.to_str().unwrap()).replace("@digest", &"ab".repeat(32)))
    };
    let sources = Sources {
        layers: layers.iter().map(filled).collect(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    config::load(&sources).map(|(_, config)| config)
}

/// The faults of a good configuration with one text in it replaced.
fn faults(right: &str, wrong: &str) -> Vec<String> {
    assert!(GOOD.contains(right), "{right}");
    load(&[&GOOD.replace(right, wrong)], &[])
        .map(|_| Vec::new())
        .unwrap_or_else(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_minimal_configuration_is_complete_with_the_defaults() {
    let config = load(&[GOOD], &[]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.cache.capacity, 512 << 20);
    assert_eq!(config.accounts[0].quota.bot.len(), 2);
    assert_eq!(config.accounts[0].automation_url, "https://platform.kore.ai");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn later_layers_and_the_environment_lie_over_earlier_ones() {
    let over = "cache.capacity = \"1GiB\"\nserver.max_connections = 5";
    let config = load(&[GOOD, over], &[("KORE_GATEWAY__SERVER__MAX_CONNECTIONS", "7")]).unwrap();
    assert_eq!((config.cache.capacity, config.server.max_connections), (1 << 30, 7));
}

#[test]
fn every_fault_says_in_which_file_and_line_it_is_also_of_a_key_that_is_odd() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let one = file("one.toml", "\n[server]\nlisten = 1\n[\"\"]\n[\"a\\nb\".\"\"]\n[cache]\ncapacity = 7");
    let accounts =
        "[cache]\ncapacity = \"1 GB\"\n[[accounts]]\nid = \"a1\"\n[[accounts.credentials]]\nscopes = []";
    let other = file("other.toml", accounts);
    let sources = Sources {
        layers: vec![Layer::File(one.clone()), Layer::File(other.clone())],
        environment: vec![("KORE_GATEWAY__OPS__LISTEN".to_owned(), "nowhere".to_owned())],
    };
    let faults = config::load(&sources).map(|_| ()).unwrap_err();
    let place = |path: &str| {
        let fault = faults.iter().find(|fault| fault.path == path);
        let told = fault.unwrap_or_else(|| panic!("{path} in {faults:#?}")).to_string();
        assert!(!told.contains('\n'), "{told}");
        told.rsplit_once(" (").map(|(_, place)| place.trim_end_matches(')').to_owned()).unwrap_or_default()
    };
    let (one, other) = (one.display(), other.display());
    assert_eq!(place("server.listen"), format!("{one}, line 3"));
    assert_eq!(place("\"\""), format!("{one}, line 4"));
    assert_eq!(place("\"a\\nb\""), format!("{one}, line 5"));
    assert_eq!(place("cache.capacity"), format!("{other}, line 2"));
    // What is missing is missing from a table.
    assert_eq!(place("accounts[0].automation_url"), format!("{other}, line 3"));
    assert_eq!(place("accounts[0].credentials[0].client_id"), format!("{other}, line 5"));
    assert_eq!(place("ops.listen"), "variable KORE_GATEWAY__OPS__LISTEN");
}

#[test]
fn windows_are_sorted_the_shortest_first() {
    let quota = "[accounts.quota]\nbot = [\"1800/h\", \"60/min\"]\n[[clients]]";
    let config = load(&[&GOOD.replace("[[clients]]", quota)], &[]).unwrap();
    let amounts: Vec<_> = config.accounts[0].quota.bot.iter().map(|rate| rate.amount).collect();
    assert_eq!(amounts, [60, 1800]);
}

#[test]
fn a_base_url_is_taken_as_it_is_spelled_on_the_wire_or_not_at_all() {
    let url = |spelled: &str| load(&[&GOOD.replace("https://platform.kore.ai/", spelled)], &[]);
    for (spelled, read) in [
        ("https://platform.kore.ai/", "https://platform.kore.ai"),
        (" HTTPS://Platform.KORE.ai:443/a b/ ", "https://platform.kore.ai/a%20b"),
        ("https://k\u{f6}re.ai", "https://xn--kre-sna.ai"),
    ] {
        assert_eq!(url(spelled).unwrap().accounts[0].automation_url, read);
    }
    let of_bytes = |count: usize| format!("{:a<count$}", "https://platform.kore.ai/");
    assert_eq!(url(&of_bytes(2048)).unwrap().accounts[0].automation_url.len(), 2048);
    let faults = url(&of_bytes(2049)).unwrap_err();
    assert!(faults[0].to_string().contains("accounts[0].automation_url: is longer than 2048 bytes"));
}

#[test]
fn each_fault_is_named_with_its_path() {
    for (right, wrong, path) in [
        ("id = \"a1\"\n", "", "accounts[0].id: is missing"),
        ("id = \"a1\"\n", "id = 5\n", "accounts[0].id: is an integer"),
        ("id = \"a1\"\n", "id = \"a/1\"\n", "accounts[0].id: is \"a/1\""),
        (
            "https://platform.kore.ai\"",
            "http://platform.kore.ai\"",
            "accounts[0].contact_center_url: is plain http",
        ),
        (
            "https://platform.kore.ai\"",
            "https://u:p@kore.ai\"",
            "accounts[0].contact_center_url: holds a user",
        ),
        ("https://platform.kore.ai\"", "kore.ai\"", "accounts[0].contact_center_url: is no URL"),
        ("bots = [\"st-1\"]", "bots = [\"x\"]", "accounts[0].bots: \"x\" is no bot id"),
        ("scopes = [\"analytics\", ", "scopes = [\"x\", ", "accounts[0].credentials[0].scopes: item 1"),
        (
            "{ file = \"@secret\" }",
            "\"hunter2-canary\"",
            "accounts[0].credentials[0].client_secret: is a string",
        ),
        (
            "{ file = \"@secret\" }",
            "{ file = \"/nowhere\" }",
            "accounts[0].credentials[0].client_secret: cannot read /nowhere",
        ),
        (
            "{ file = \"@secret\" }",
            "{ env = \"NO_SUCH_VARIABLE\" }",
            "accounts[0].credentials[0].client_secret: the environment variable NO_SUCH_VARIABLE is not set",
        ),
        (
            "client_id = \"cs-1\"\n",
            "client_id = \"cs-1\"\njti = true\nlifetime = \"2h\"\n",
            "accounts[0].credentials[0].lifetime: is more than an hour",
        ),
        (
            "client_id = \"cs-1\"\n",
            "client_id = \"cs-1\"\nlifetime = \"30s\"\n",
            "accounts[0].credentials[0].lifetime: is less than a minute",
        ),
        (
            "name = \"reporting\"",
            "name = \"reporting\"\nrate_limit = \"600\"",
            "clients[0].rate_limit: is \"600\"",
        ),
        ("name = \"reporting\"", "name = \"reporting\"\nlane = \"fast\"", "clients[0].lane: is none of"),
        (
            "name = \"reporting\"",
            "name = \"reporting\"\nredact = [\"x\"]",
            "clients[0].redact: \"x\" is no profile of this file",
        ),
        (
            "name = \"reporting\"",
            "nmae = \"reporting\"\nname = \"r\"",
            "clients[0].nmae: unknown key; did you mean `name`?",
        ),
        ("@digest", "abc", "clients[0].api_key_sha256: is no SHA-256"),
        // The digests of nothing, and of the line end that `echo` adds.
        (
            "@digest",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "clients[0].api_key_sha256: is the digest of an empty key",
        ),
        (
            "api_key_sha256 = \"@digest\"",
            "api_keys = [{ sha256 = \"01BA4719C80B6FE911B091A7C05124B64EEECE964E09C058EF8F9805DACA546B\" }]",
            "clients[0].api_keys[0].sha256: is the digest of an empty key",
        ),
        ("@digest", "kg_hunter2", "clients[0].api_key_sha256: is a key in plain, not its digest"),
        ("api_key_sha256 = \"@digest\"\n", "", "clients[0].api_key_sha256: is missing, and so are"),
        (
            "api_key_sha256 = \"@digest\"",
            "api_keys = [{ sha256 = \"hunter2\" }]",
            "clients[0].api_keys[0].sha256: is no SHA-256",
        ),
        (
            "api_key_sha256 = \"@digest\"",
            "api_keys = [{ sha256 = \"@digest\", expires = 2026-12-31 }]",
            "clients[0].api_keys[0].expires: is \"2026-12-31\"; it is a time with its offset",
        ),
        (
            "api_key_sha256 = \"@digest\"",
            "api_key_sha256 = \"@digest\"\napi_keys = [{ sha256 = \"@digest\" }]",
            "clients[0].api_keys[0].sha256: is the key of client reporting too",
        ),
        (
            "name = \"reporting\"",
            "name = \"reporting\"\nfilter_rows = true",
            "clients[0].filter_rows: is true, but this client may see all bots",
        ),
        (
            "[[clients]]",
            "[redaction.x]\nremove = [\"a\"]\n[[clients]]",
            "redaction.x.remove: item 1 is \"a\"; it is a JSON pointer",
        ),
        ("[[clients]]", "[redaction.x]\n[[clients]]", "redaction.x.remove: is missing, and so are"),
        (
            "[[clients]]",
            "[redaction.x]\nkinds = [\"e-mail\"]\n[[clients]]",
            "redaction.x.kinds: item 1 is no kind",
        ),
        ("[[clients]]", "[redaction]\nx = 1\n[[clients]]", "redaction.x: is an integer; it is a table"),
        (
            "[[clients]]",
            "[redaction.x]\nremvoe = [\"/a\"]\n[[clients]]",
            "redaction.x.remvoe: unknown key; did you mean `remove`?",
        ),
        (
            "routes = [\"conversation\"]",
            "routes = [\"conversation\"]\norigins = [\"*\"]",
            "clients[0].origins: item 1 is \"*\", which cannot go with a credential",
        ),
        (
            "routes = [\"conversation\"]",
            "routes = [\"conversation\"]\norigins = [\"null\", \"https://Desk.example.com:443/\"]",
            "clients[0].origins: item 1 is \"null\"; it is an origin, for example \"https://desk.example.com\"; \
             item 2 is \"https://Desk.example.com:443/\"; browsers spell it \"https://desk.example.com\"",
        ),
        (
            "api_key_sha256 = \"@digest\"",
            "oidc = { issuer = \"i\", audience = \"a\", jwks_url = \"http://login.example.com/jwks\" }",
            "clients[0].oidc.jwks_url: is plain http to another machine",
        ),
        (
            "api_key_sha256 = \"@digest\"",
            "oidc = { issuer = \"i\", jwks_url = \"https://login.example.com\" }",
            "clients[0].oidc.audience: is missing",
        ),
        (
            "api_key_sha256 = \"@digest\"",
            "oidc = { issuer = \"i\", audience = \"a\", jwks_url = \"https://u:p@login.example.com\" }",
            "clients[0].oidc.jwks_url: holds a user or a password",
        ),
        (
            "name = \"reporting\"",
            "name = \"reporting\"\nsubject_rate_limit = \"1/s\"",
            "clients[0].subject_rate_limit: is there, but without `oidc`",
        ),
        (
            "[[clients]]",
            "[audit]\nto = \"audit.log\"\n[[clients]]",
            "audit.to: is \"audit.log\"; it is \"off\"",
        ),
        ("[[clients]]", "[audit]\non_failure = \"x\"\n[[clients]]", "audit.on_failure: is none of"),
        ("[[clients]]", "[oidc]\nrefresh = \"0s\"\n[[clients]]", "oidc.refresh: is zero"),
        ("[[clients]]", "[oidc]\nca_file = \"/no/such\"\n[[clients]]", "oidc.ca_file: cannot read /no/such"),
        (
            "[[clients]]",
            "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\", \"::/0\"]\n[[clients]]",
            "server.trusted_proxies: item 2 is \"10.0.0.0/33\"; it is a network, for example \"10.0.0.0/8\", or \
             one address; item 3 is \"::/0\", which is everybody",
        ),
        (
            "[[clients]]",
            "[server]\nproxy_header = \"x-real-ip\"\n[[clients]]",
            "server.proxy_header: is none of \"x-forwarded-for\", \"forwarded\"",
        ),
        ("accounts = [\"a1\"]", "accounts = [\"a2\"]", "clients[0].accounts: \"a2\" is no account"),
        ("bots = [\"*\"]", "bots = [\"st-2\"]", "clients[0].bots: \"st-2\" belongs to none"),
        ("bots = [\"*\"]", "bots = []", "clients[0].bots: is empty"),
        ("[[clients]]", "[accounts.quota]\naccount = []\n[[clients]]", "accounts[0].quota.account: is empty"),
        ("[[clients]]", "[accounts.quota]\nbot = []\n[[clients]]", "accounts[0].quota.bot: is empty"),
        ("routes = [\"conversation\"]", "routes = []", "clients[0].routes: is empty"),
        ("accounts = [\"a1\"]", "accounts = []", "clients[0].accounts: is empty"),
        (
            "scopes = [\"analytics\", \"chat_history\"]",
            "scopes = [\"chat_history\"]",
            "clients[0].routes: \"conversation\" needs the scope \"analytics\"",
        ),
        ("routes = [\"conversation\"]", "routes = [\"all\"]", "clients[0].routes: item 1 is no route"),
        ("[[clients]]", "[cache]\ncapacity = \"1MB\"\n[[clients]]", "cache.capacity: is \"1MB\""),
        (
            "[[clients]]",
            "[cache.conversation]\nsettle = \"15\"\n[[clients]]",
            "cache.conversation.settle: is \"15\"",
        ),
        ("[[clients]]", "[cache.other]\n[[clients]]", "cache.other: unknown key"),
        ("[[clients]]", "[shared]\nx = 1\n[[clients]]", "shared: unknown key"),
        ("[[clients]]", "[server]\nlisten = \"8080\"\n[[clients]]", "server.listen: is \"8080\""),
        ("[[clients]]", "[server]\nheader_timeout = \"0s\"\n[[clients]]", "server.header_timeout: is zero"),
        ("[[clients]]", "[server]\nmax_head = \"100B\"\n[[clients]]", "server.max_head: is less than 512 B"),
        (
            "[[clients]]",
            "[server]\nmax_target = \"1KiB\"\nmax_head = \"512B\"\n[[clients]]",
            "server.max_target: is larger than server.max_head",
        ),
        (
            "[[clients]]",
            "[server]\nmax_fields = 101\n[[clients]]",
            "server.max_fields: is 0 or more than 100",
        ),
        (
            "[[clients]]",
            "[server]\nmax_json_depth = 101\n[[clients]]",
            "server.max_json_depth: is more than 100",
        ),
        (
            "[[clients]]",
            "[ops]\nlisten = \"127.0.0.1:8080\"\n[[clients]]",
            "ops.listen: is the address of server.listen",
        ),
        ("[[clients]]", "[tracing]\nendpoint = \"collector\"\n[[clients]]", "tracing.endpoint: is no URL"),
        (
            "[[clients]]",
            "[tracing]\nendpoint = \"https://u:hunter2@collector\"\n[[clients]]",
            "tracing.endpoint: holds a user or a password",
        ),
        (
            "[[clients]]",
            "[tracing]\nendpoint = \"grpc://collector:4317\"\n[[clients]]",
            "tracing.endpoint: has the scheme \"grpc\"; it is \"off\"",
        ),
        (
            "[[clients]]",
            "[tracing]\nratio = 1.5\n[[clients]]",
            "tracing.ratio: is 1.5; it is a number from 0 to 1",
        ),
        ("[[clients]]", "[tracing]\nratio = nan\n[[clients]]", "tracing.ratio: is NaN"),
        ("[[clients]]", "[tracing]\nratio = \"10%\"\n[[clients]]", "tracing.ratio: is a string"),
        ("[[clients]]", "[tracing]\nqueue = 1000001\n[[clients]]", "tracing.queue: is more than 1000000"),
        ("[[clients]]", "[tracing]\ntimeout = \"0s\"\n[[clients]]", "tracing.timeout: is zero"),
        ("[[clients]]", "[tracing]\nca_file = \"/no/such\"\n[[clients]]", "tracing.ca_file: cannot read"),
        ("[[clients]]", "[log]\nlevel = \"a=b=c\"\n[[clients]]", "log.level: is "),
    ] {
        let found = faults(right, wrong);
        assert!(found.iter().any(|fault| fault.starts_with(path)), "{wrong}: no {path} in {found:#?}");
        assert_eq!(found.len(), 1, "{wrong}: {found:#?}");
        assert!(!found.iter().any(|fault| fault.contains("hunter2")), "{found:?}");
    }
}

#[test]
fn a_bot_leads_to_one_account_and_a_key_to_one_client() {
    let account = GOOD.split("[[clients]]").next().unwrap();
    let again = |id: &str| format!("{GOOD}{}", account.replace("\"a1\"", &format!("\"{id}\"")));
    let texts = |layer: String| -> Vec<String> {
        load(&[&layer], &[]).unwrap_err().iter().map(ToString::to_string).collect()
    };
    let found = texts(again("a2"));
    assert!(
        found.iter().any(|fault| fault.starts_with("accounts[1].bots: st-1 belongs to account a1 too")),
        "{found:?}"
    );
    let found = texts(again("a1"));
    assert!(
        found.iter().any(|fault| fault.starts_with("accounts[1].id: is the id of an earlier")),
        "{found:?}"
    );
    let found = texts(again("a2").replace("[\"st-1\"]", "[\"*\"]"));
    assert!(
        found.iter().any(|fault| fault.starts_with("accounts[1].bots: is [\"*\"] here and in account a1")),
        "{found:?}"
    );
    let client = GOOD.split("[[clients]]").nth(1).unwrap();
    let found = texts(format!("{GOOD}[[clients]]{client}"));
    assert!(found.iter().any(|fault| fault.contains("is the key of client reporting too")), "{found:?}");
    assert!(found.iter().any(|fault| fault.starts_with("clients[1].name")), "{found:?}");
}

#[test]
fn an_issuer_has_one_place_of_keys_and_no_client_is_hidden_behind_another() {
    let rule = |more: &str| {
        format!("oidc = {{ issuer = \"i\", audience = \"a\", jwks_url = \"https://i.example/jwks\"{more} }}")
    };
    let with = |first: &str, second: &str| {
        let (accounts, client) = GOOD.split_once("[[clients]]").unwrap();
        let block = |name: &str, rule: &str| {
            let client = client.replace("api_key_sha256 = \"@digest\"", rule);
            format!("[[clients]]{}", client.replace("\"reporting\"", &format!("\"{name}\"")))
        };
        let layer = format!("{accounts}{}{}", block("first", first), block("second", second));
        load(&[&layer], &[]).map(|_| String::new()).unwrap_or_else(|faults| faults[0].to_string())
    };
    let teams = (rule(", groups = [\"x\"]"), rule(", groups = [\"y\"]"));
    assert_eq!(with(&teams.0, &teams.1), "");
    assert_eq!(with(&teams.0, &rule("")), "");
    assert!(with(&rule(""), &teams.0).starts_with("clients[1].oidc: is met by nobody"));
    assert!(with(&teams.0, &teams.0).starts_with("clients[1].oidc: is met by nobody"));
    let elsewhere = teams.1.replace("i.example", "j.example");
    assert!(
        with(&teams.0, &elsewhere).starts_with("clients[1].oidc: has another jwks_url than client first")
    );
}

#[test]
fn all_faults_come_at_once() {
    let broken = GOOD
        .replace("id = \"a1\"\n", "")
        .replace("routes = [\"conversation\"]", "routes = 5\ncolour = \"red\"")
        .replace("[[clients]]", "[server]\nlisten = 5\nbody_timeout = \"x\"\n[[clients]]");
    let faults = load(&[&broken], &[]).unwrap_err();
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    for path in
        ["accounts[0].id", "clients[0].routes", "clients[0].colour", "server.listen", "server.body_timeout"]
    {
        assert!(paths.contains(&path), "no {path} in {paths:?}");
    }
}

#[test]
fn the_defaults_alone_say_what_is_missing() {
    let faults = load(&[], &[]).unwrap_err();
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["accounts", "clients"]);
}

/// A configuration in words, but for where its secret lies: that is another folder each time.
fn meaning(config: &Config) -> String {
    let file = config.accounts[0].credentials[0].secret_file.clone().unwrap();
    format!("{config:?}").replace(file.to_str().unwrap(), "")
}

/// What `check` prints with nothing left out means what the short file means.
#[test]
fn what_is_in_effect_has_nothing_left_out() {
    let short: toml::Table = GOOD.parse().unwrap();
    let filled = config::filled(short);
    let text = toml::to_string(&filled).unwrap();
    for line in [
        "lifetime = \"1h\"",
        "jti = false",
        "rate_limit = \"600/min\"",
        "lane = \"interactive\"",
        "account = [\"60/min\"]",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    assert_eq!(meaning(&load(&[&text], &[]).unwrap()), meaning(&load(&[GOOD], &[]).unwrap()));
}

/// The examples in the manual are commented out; with the comment signs gone they are a
/// configuration, and it means what the same one means with all defaults left out.
#[test]
fn the_manuals_examples_are_valid_and_show_the_defaults() {
    let examples: String = DEFAULTS
        .lines()
        .skip_while(|line| *line != "# [[accounts]]")
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        .map(|line| format!("{line}\n"))
        .collect();
    let examples = examples
        .replace("{ file = \"/run/secrets/kore\" }", "{ file = \"@secret\" }")
        .replace("\"…\"", "\"@digest\"")
        .replace("\"…2\"", &format!("\"{}\"", "cd".repeat(32)))
        .replacen("{ sha256 = \"@digest\"", &format!("{{ sha256 = \"{}\"", "ef".repeat(32)), 1);
    let config = load(&[&examples], &[]).unwrap();
    let short: String = examples
        .lines()
        .filter(|line| {
            let left_out = [
                "lifetime",
                "jti",
                "claims",
                "rate_limit",
                "lane",
                "weight",
                "api_keys = []",
                "origins = []",
                "redact = []",
                "filter_rows = false",
                "may_refresh = false",
                "[accounts.quota]",
                "account =",
                "bot =",
            ];
            !left_out.iter().any(|left| line.starts_with(left))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(meaning(&config), meaning(&load(&[&short], &[]).unwrap()));
    assert_eq!(config.accounts[0].credentials[0].lifetime.as_secs(), 3600);
}

#[test]
fn the_upstreams_knobs_have_bounds_and_say_so() {
    let upstream = [
        ("fairness.headroom = 51", "upstream.fairness.headroom: is more than 50"),
        ("fairness.reserve = 51", "upstream.fairness.reserve: is more than 50"),
        ("fairness.background_minimum = 101", "upstream.fairness.background_minimum: is 101"),
        ("retry.budget = -1", "upstream.retry.budget: is -1"),
        ("retry.first_wait = \"soon\"", "upstream.retry.first_wait: is \"soon\""),
        ("ca_file = \"/no/such/ca.pem\"", "upstream.ca_file: cannot read /no/such/ca.pem"),
        ("ca_file = \"@secret\"", "holds no certificate"),
    ];
    for (line, fault) in upstream {
        let faults = load(&[GOOD, &format!("[upstream]\n{line}\n")], &[]).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        let told = faults[0].to_string();
        assert!(told.contains(fault) && !told.contains("hunter2"), "{told}");
    }
    let routes = "routes = [\"conversation\"]";
    for (weight, fault) in
        [("1001", "clients[0].weight: is more than 1000"), ("0", "clients[0].weight: is 0")]
    {
        assert!(faults(routes, &format!("{routes}\nweight = {weight}"))[0].starts_with(fault));
    }
    let scopes = "scopes = [\"analytics\", \"chat_history\"]";
    let nobody = faults(scopes, &format!("{scopes}\nclaims = {{ sub = \"x\", abc = \"y\" }}"));
    assert!(nobody[0].starts_with("accounts[0].credentials[0].claims.appId: is missing"), "{nobody:?}");
    assert!(nobody[1].starts_with("accounts[0].credentials[0].claims.abc: unknown key"), "{nobody:?}");
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line_and_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.toml");
    std::fs::write(&file, "[server]\nlisten = hunter2\n").unwrap();
    let sources = Sources {
        layers: vec![Layer::File(file), Layer::File(Path::new("/no/such/file").to_owned())],
        environment: Vec::new(),
    };
    let faults = config::load(&sources).map(|_| ()).unwrap_err();
    assert_eq!(faults.len(), 2);
    assert!(faults[0].problem.contains("line 2"), "{faults:?}");
    assert!(!faults[0].problem.contains("hunter2"), "{faults:?}");
    assert!(faults[1].problem.contains("cannot be read"));
}

/// What of a configuration is refused that comes from a file or a variable of its own.
#[test]
fn a_secret_that_was_saved_otherwise_than_it_was_meant_is_read_as_meant_or_refused_by_the_name_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("held");
    let with = |setting: &str, held: &[u8]| {
        std::fs::write(&file, held).unwrap();
        let reference = format!("{{ file = \"{}\" }}", file.display());
        match setting {
            "ops.token" => load(&[GOOD, &format!("ops.token = {reference}")], &[]),
            _ => load(&[&GOOD.replace("{ file = \"@secret\" }", &reference)], &[]),
        }
    };
    for setting in ["ops.token", "client_secret"] {
        let plain = "hunter2-hunter2-hunter2";
        for good in [
            format!("\u{feff}{plain}"),
            format!("{plain}\r\n"),
            format!("\u{feff}{plain}\r\n"),
            format!("{plain}\n"),
        ] {
            let config = with(setting, good.as_bytes()).unwrap();
            let held = match setting {
                "ops.token" => config.ops.token.as_ref().unwrap(),
                _ => &config.accounts[0].credentials[0].client_secret,
            };
            assert_eq!(secrecy::ExposeSecret::expose_secret(held), plain, "{setting}");
        }
        let utf16: Vec<u8> = format!("\u{feff}{plain}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        for wrong in
            [format!("{plain}\nmore\n").as_bytes(), format!("{plain}\tmore").as_bytes(), b"\n", &utf16]
        {
            let faults = with(setting, wrong).map(|_| ()).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            let problem = &faults[0].problem;
            assert!(faults[0].path.ends_with(setting), "{faults:?}");
            assert!(problem.contains(file.to_str().unwrap()) && !problem.contains("hunter2"), "{problem}");
        }
    }
    let short = with("ops.token", b"fifteen-letters").map(|_| ()).unwrap_err();
    assert!(short[0].problem.contains("shorter than 16 bytes"), "{short:?}");
}

#[test]
fn a_level_that_is_none_is_a_fault_and_not_a_filter_that_lets_nothing_through() {
    let level = |level: &str| load(&[GOOD], &[("KORE_GATEWAY__LOG__LEVEL", level)]).map(|_| ());
    for good in ["warn", "INFO", "off", "info,kore_gateway::upstream=debug"] {
        assert_eq!(level(good), Ok(()), "{good}");
    }
    for wrong in ["warning", "verbose", "info,kore_gateway=warning"] {
        let faults = level(wrong).unwrap_err();
        assert_eq!(faults[0].path, "log.level");
        assert!(faults[0].problem.contains("error, warn, info"), "{faults:?}");
    }
}
