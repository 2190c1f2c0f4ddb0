//! One wrong thing is one fault: what only follows from it is not reported, and what is wrong beside it is.

use crate::configuration::{GOOD, load};

/// Replaced in a good configuration, and all the paths that are at fault then.
type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);

const SCOPES: &str = "scopes = [\"analytics\", \"chat_history\"]";
const KEY: &str = "api_key_sha256 = \"@digest\"";
const CLIENT: &str = "[[clients]]\nname = \"reporting\"";
const ROUTES: &str = "routes = [\"conversation\"]";
const ALL_ROUTES: &str = "routes = [\"conversation\", \"interaction_details\", \"conversation_details\"]";
const CREDENTIAL: &str = "[[accounts.credentials]]";

fn faults(changes: &[(&str, &str)]) -> Vec<String> {
    let text = changes.iter().fold(GOOD.to_owned(), |text, (right, wrong)| {
        assert!(text.contains(right), "{right} is not in {text}");
        text.replacen(right, wrong, 1)
    });
    load(&[&text], &[]).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn check(cases: &[Case]) {
    for (changes, expected) in cases {
        let found = faults(changes);
        let paths: Vec<_> = found.iter().filter_map(|fault| fault.split(": ").next()).collect();
        assert_eq!(paths, *expected, "{changes:?}: {found:#?}");
    }
}

#[test]
fn what_is_wrong_in_an_account_is_no_fault_of_its_clients() {
    check(&[
        (
            &[(SCOPES, "scopes = [\"x\", \"y\"]"), (ROUTES, ALL_ROUTES)],
            &["accounts[0].credentials[0].scopes"],
        ),
        (&[(SCOPES, "scopes = []"), (ROUTES, ALL_ROUTES)], &["accounts[0].credentials[0].scopes"]),
        (&[(SCOPES, "")], &["accounts[0].credentials[0].scopes"]),
        (&[(SCOPES, "scops = [\"analytics\"]")], &["accounts[0].credentials[0].scops"]),
        (&[("id = \"a1\"", "id = 5")], &["accounts[0].id"]),
        (&[("id = \"a1\"", "id = \"a/1\"")], &["accounts[0].id"]),
        (&[("id = \"a1\"", "")], &["accounts[0].id"]),
        (&[("id = \"a1\"", "idd = \"a1\"")], &["accounts[0].idd"]),
        (&[("bots = [\"st-1\"]", "bots = []"), ("[\"*\"]", "[\"st-1\"]")], &["accounts[0].bots"]),
        (&[("bots = [\"st-1\"]", "bots = 5"), ("[\"*\"]", "[\"st-1\"]")], &["accounts[0].bots"]),
        (&[("bots = [\"st-1\"]", "bots = [\"x\"]"), ("[\"*\"]", "[\"st-1\"]")], &["accounts[0].bots"]),
        (&[("[[accounts]]", "[[acounts]]"), (CREDENTIAL, "[[acounts.credentials]]")], &["acounts"]),
        (
            &[(CREDENTIAL, "credentials = 5\n[accounts.unknown]")],
            &["accounts[0].credentials", "accounts[0].unknown"],
        ),
        (
            &[(CREDENTIAL, "credentials = [5]\n[accounts.unknown]")],
            &["accounts[0].credentials[0]", "accounts[0].unknown"],
        ),
        (&[(CREDENTIAL, "[[accounts.credential]]")], &["accounts[0].credential"]),
        (
            &[("{ file = \"@secret\" }", "5"), (ROUTES, ALL_ROUTES)],
            &["accounts[0].credentials[0].client_secret"],
        ),
    ]);
}

#[test]
fn a_client_of_an_unknown_account_is_not_asked_for_its_bots_and_scopes() {
    check(&[
        (
            &[("accounts = [\"a1\"]", "accounts = [\"a2\"]"), ("[\"*\"]", "[\"st-2\"]")],
            &["clients[0].accounts"],
        ),
        (&[("accounts = [\"a1\"]", "accounts = []"), ("[\"*\"]", "[\"st-2\"]")], &["clients[0].accounts"]),
        (
            &[("accounts = [\"a1\"]", "acounts = [\"a1\"]"), ("[\"*\"]", "[\"st-2\"]")],
            &["clients[0].acounts"],
        ),
        (&[(ROUTES, "routes = [\"all\"]")], &["clients[0].routes"]),
        (&[("bots = [\"*\"]", "bots = [\"x\", \"st-1\"]")], &["clients[0].bots"]),
    ]);
}

#[test]
fn a_key_has_one_fault_and_what_is_below_it_none() {
    check(&[
        (&[(CLIENT, "[clients]\nx = 1")], &["clients"]),
        (&[(CLIENT, "[[clinets]]\nname = \"reporting\"")], &["clinets"]),
        (&[("name = \"reporting\"", "nmae = \"reporting\"")], &["clients[0].nmae"]),
        (&[(KEY, "api_key_sha265 = \"@digest\"")], &["clients[0].api_key_sha265"]),
        (&[(KEY, "api_kyes = [{ sha256 = \"@digest\" }]")], &["clients[0].api_kyes"]),
        (&[(KEY, "api_keys = 5")], &["clients[0].api_keys"]),
        (&[(KEY, "oidc = 5\nsubject_rate_limit = \"1/s\"")], &["clients[0].oidc"]),
        (&[(CREDENTIAL, "[[accounts.credentials]]\nclaims = 5")], &["accounts[0].credentials[0].claims"]),
        (
            &[(CREDENTIAL, "[[accounts.credentials]]\nclaims = { appid = \"x\" }")],
            &["accounts[0].credentials[0].claims.appid"],
        ),
        (&[(CREDENTIAL, "[[accounts.credentials]]\nlifetime = 5")], &["accounts[0].credentials[0].lifetime"]),
        (&[(CREDENTIAL, "quota = { bot = 5 }\n[[accounts.credentials]]")], &["accounts[0].quota.bot"]),
        (&[(CLIENT, "[server]\ntls = 5\n[[clients]]\nname = \"r\"")], &["server.tls"]),
        (
            &[(CLIENT, "[server.tls]\ncert = 5\nkey = \"/no\"\n[[clients]]\nname = \"r\"")],
            &["server.tls.cert"],
        ),
        (
            &[(CLIENT, "[server.tls]\nrefresh = \"x\"\ncret = \"/no\"\n[[clients]]\nname = \"r\"")],
            &["server.tls.key", "server.tls.refresh", "server.tls.cret"],
        ),
        (&[(CLIENT, "[server]\nmax_head = 5\n[[clients]]\nname = \"r\"")], &["server.max_head"]),
        (&[(CLIENT, "[server]\nidle_timeout = 5\n[[clients]]\nname = \"r\"")], &["server.idle_timeout"]),
        (&[(CLIENT, "[audit]\nto = \"\"\n[[clients]]\nname = \"r\"")], &["audit.to"]),
        (
            &[(CLIENT, "[log]\nlevel = \"\"\naccess_to = 5\n[[clients]]\nname = \"r\"")],
            &["log.level", "log.access_to"],
        ),
        (&[(CLIENT, "[tracing]\nendpoint = \"\"\n[[clients]]\nname = \"r\"")], &["tracing.endpoint"]),
        (&[(CLIENT, "[ops]\ntoken = 5\nhosts = 5\n[[clients]]\nname = \"r\"")], &["ops.token", "ops.hosts"]),
        (
            &[(CLIENT, "[redaction.x]\nkinds = 5\n[[clients]]\nname = \"r\"\nredact = [\"x\"]")],
            &["redaction.x.kinds"],
        ),
        (&[(CLIENT, "[redaction]\nx = 5\n[[clients]]\nname = \"r\"\nredact = [\"x\"]")], &["redaction.x"]),
        (
            &[(CLIENT, "[upstream]\nallow_plain_http = 5\n[[clients]]\nname = \"r\""), ("https", "http")],
            &["upstream.allow_plain_http"],
        ),
    ]);
    for table in [
        "server",
        "ops",
        "log",
        "tracing",
        "reload",
        "audit",
        "upstream",
        "limits",
        "cache",
        "redaction",
        "oidc",
    ] {
        let found = load(&[&format!("{table} = 5\n{GOOD}")], &[]).map(|_| ()).unwrap_err();
        assert_eq!(found.iter().map(|fault| &*fault.path).collect::<Vec<_>>(), [table], "{found:#?}");
    }
}

#[test]
fn half_a_rule_hides_no_client_and_has_no_other_place_of_keys() {
    let rule = |members: &str| format!("oidc = {{ issuer = \"i\", {members} }}");
    let good = rule("audience = \"a\", jwks_url = \"https://i.example/jwks\"");
    for (members, path) in [
        ("audience = \"a\", jwks_url = \"https://i.example/jwks\", groups = 5", "groups"),
        ("audience = \"a\", jwks_url = \"http://i.example/jwks\"", "jwks_url"),
        ("audienec = \"a\", jwks_url = \"https://i.example/jwks\"", "audienec"),
    ] {
        let (accounts, client) = GOOD.split_once("[[clients]]").unwrap();
        let block = |rule: &str, name: &str| {
            format!("[[clients]]{}", client.replace(KEY, rule).replace("reporting", name))
        };
        let (wrong, good) = (block(&rule(members), "wrong"), block(&good, "good"));
        for (text, place) in [(format!("{wrong}{good}"), 0), (format!("{good}{wrong}"), 1)] {
            let found = load(&[&format!("{accounts}{text}")], &[]).map(|_| ()).unwrap_err();
            let paths: Vec<_> = found.iter().map(|fault| fault.path.clone()).collect();
            assert_eq!(paths, [format!("clients[{place}].oidc.{path}")], "{found:#?}");
        }
    }
}

#[test]
fn what_is_wrong_beside_another_fault_is_told_as_well() {
    check(&[
        (
            &[(SCOPES, "scopes = [\"analytics\"]"), (ROUTES, ALL_ROUTES), ("{ file = \"@secret\" }", "5")],
            &["accounts[0].credentials[0].client_secret", "clients[0].routes"],
        ),
        (
            &[("id = \"a1\"", "id = \"a1\"\ncolour = 1"), ("accounts = [\"a1\"]", "accounts = [\"a2\"]")],
            &["accounts[0].colour", "clients[0].accounts"],
        ),
        (
            &[("https://platform.kore.ai\"", "x\""), ("[\"*\"]", "[\"st-2\"]"), (ROUTES, "routes = []")],
            &["accounts[0].contact_center_url", "clients[0].bots", "clients[0].routes"],
        ),
    ]);
    let several = faults(&[
        ("bots = [\"*\"]", "bots = [\"st-2\", \"st-1\", \"st-3\"]"),
        (SCOPES, "scopes = [\"chat_history\"]"),
    ]);
    assert_eq!(
        several,
        [
            "clients[0].bots: \"st-2\" belongs to none of this client's accounts; \"st-3\" belongs to none of this \
             client's accounts (text, line 15)",
            "clients[0].routes: \"conversation\" needs the scope \"analytics\", which no credential of its accounts has \
             (text, line 16)",
        ]
    );
}
