//! A gateway in front of a stand-in upstream, both on real sockets and on clocks that move together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use kore_gateway::access::identify::key_digest;
use kore_gateway::app::App;
use kore_gateway::clock::{Clock, UnixMillis};
use kore_gateway::config::{Layer, Sources};
use kore_gateway::server::Server;
use kore_gateway::upstream::Resolver;
use kore_standin::{Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, OTHER_ACCOUNT, OTHER_STREAM, Standin};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::tls::{Front, Trust};

/// When every world begins: 2026-03-02T12:00:00Z, a Monday.
pub const NOON: i64 = 1_772_452_800_000;
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// The key of the client `reporting`, who may see all of the first account.
pub const REPORTING: &str = "kg_reporting";
/// The key of the client `neighbour`, who may see all of the second account.
pub const NEIGHBOUR: &str = "kg_neighbour";
/// The key of the client `one-bot`, who may see one bot of the first account.
pub const ONE_BOT: &str = "kg_one-bot";

/// What `/admin/*` asks for, where [`with_ops_token`] set it.
pub const OPS_TOKEN: &str = "ops-token-canary";

/// Before `NOON` by `ago`.
pub fn before(ago: Duration) -> i64 {
    NOON - i64::try_from(ago.as_millis()).unwrap()
}

/// How a world is set up, before it starts.
pub struct Setup {
    /// TOML laid over the world's own configuration.
    pub config: String,
    /// More `[[clients]]`.
    pub clients: String,
    /// More lines for each `[[accounts]]`.
    pub accounts: String,
    /// More lines for each `[[accounts.credentials]]`.
    pub credentials: String,
    /// Neither party counts calls.
    pub without_quota: bool,
    /// Time passes for sockets, too, only as the test moves it.
    pub is_simulated: bool,
    pub standin: kore_standin::Options,
    /// Of the world's own clients, those to leave out, by name.
    pub without: Vec<&'static str>,
    /// Where the gateway looks for its upstream, in place of the stand-in.
    pub upstream: Option<String>,
    /// By what name the gateway knows the stand-in, instead of its address; over http.
    pub named: Option<&'static str>,
    /// What finds addresses by names, in place of the machine.
    pub resolver: Option<Resolver>,
    /// The upstream speaks https; the gateway trusts its certificate if it is this one's.
    pub https: Option<Trust>,
    /// Where the world's secrets lie.
    pub secrets: tempfile::TempDir,
}

/// A running world; it ends when it is dropped.
pub struct World {
    pub standin: Standin,
    pub app: Arc<App>,
    pub clock: Clock,
    pub address: SocketAddr,
    pub ops: SocketAddr,
    pub http: reqwest::Client,
    stop: CancellationToken,
    pub running: JoinHandle<()>,
    /// The configuration, for tests that change it and reload.
    pub config_file: PathBuf,
    pub secrets: tempfile::TempDir,
    /// Where the upstream speaks https.
    pub front: Option<Front>,
}

/// What a caller got.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Where the caller itself stands, without the upstream's pool.
    pub fn own_limits(&self) -> &str {
        let limits = self.header("ratelimit");
        limits.split_once(", \"upstream\"").map_or(limits, |(own, _)| own)
    }

    pub fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Whether it came out of the store and was fresh.
    pub fn is_hit(&self) -> bool {
        self.cache_status().starts_with("kore-gateway; hit; ttl=") && !self.cache_status().contains("ttl=-")
    }

    /// The last segment of a problem's `type`.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let kind = self.json()["type"].as_str().unwrap().to_owned();
        kind.rsplit(['/', '#']).next().unwrap().to_owned()
    }

    /// Where a problem's faults are, in their order: pointers, parameters and headers.
    pub fn fault_places(&self) -> Vec<String> {
        let places = ["pointer", "parameter", "header"];
        let errors = self.json()["errors"].as_array().unwrap().clone();
        errors
            .iter()
            .map(|error| places.iter().find_map(|place| error[place].as_str()).unwrap_or_default().to_owned())
            .collect()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A world whose upstream holds these conversations.
    pub async fn of(conversations: Vec<Conversation>) -> Self {
        Self::with(|setup| setup.standin.conversations = conversations).await
    }

    pub async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let options = kore_standin::Options {
            clock: kore_standin::Clock::starting_at(NOON),
            accounts: vec![kore_standin::Account::example(), kore_standin::Account::other()],
            ..kore_standin::Options::default()
        };
        let mut setup = Setup {
            config: String::new(),
            clients: String::new(),
            accounts: String::new(),
            credentials: String::new(),
            without_quota: false,
            is_simulated: false,
            standin: options,
            without: Vec::new(),
            upstream: None,
            named: None,
            resolver: None,
            https: None,
            secrets: tempfile::tempdir().unwrap(),
        };
        change(&mut setup);
        if setup.without_quota {
            let any = r#"["100000000/min"]"#;
            setup.credentials.push_str(&format!("[accounts.quota]\naccount = {any}\nbot = {any}\n"));
            setup.standin.switches.enforce_quota = false;
        }
        let standin = Standin::start(setup.standin).await.unwrap();

        let secrets = setup.secrets;
        let (front, url, trusted) = match setup.https {
            None => {
                let host = setup.named.map(|name| format!("http://{name}:{}", standin.address().port()));
                (None, host.unwrap_or_else(|| standin.url()), String::new())
            }
            Some(trust) => {
                let front = Front::before(standin.address()).await;
                let file = secrets.path().join("ca.pem");
                std::fs::write(&file, front.certificate(trust)).unwrap();
                let url = front.url();
                (Some(front), url, format!("upstream.ca_file = \"{}\"\n", file.display()))
            }
        };
        let mut config = trusted
            + &base_config(
                &setup.upstream.unwrap_or(url),
                secrets.path(),
                (&setup.accounts, &setup.credentials),
                &setup.without,
            );
        config.push_str(&setup.clients);
        let file = secrets.path().join("gateway.toml");
        std::fs::write(&file, config).unwrap();
        // No back-off: the clock stands still, and who waits for it waits for the test to move it.
        let patient = Layer::Text("cache.back_off = \"0s\"".to_owned());
        let layers = vec![patient, Layer::File(file.clone()), Layer::Text(setup.config)];
        let sources = Sources { layers, environment: Vec::new() };
        let new_clock = if setup.is_simulated { Clock::governing } else { Clock::manual };
        let clock = new_clock(UnixMillis(NOON));
        let app = App::resolving(sources, clock.clone(), setup.resolver)
            .unwrap_or_else(|faults| panic!("{faults:?}"));
        let server = Server::bind(app.clone()).unwrap();
        let (address, ops) = (server.address().unwrap(), server.ops_address().unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(stop.clone()));
        Self {
            standin,
            app,
            clock,
            address,
            ops,
            http: http_client(),
            stop,
            running,
            config_file: file,
            secrets,
            front,
        }
    }

    /// Moves both parties' clocks.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.standin.clock().advance(by);
    }

    /// Moves the clocks by what a task sleeps between two looks at something, and waits until it has looked and sleeps
    /// again: so many times. It has to be the only one that sleeps for so long.
    pub async fn have_looked(&self, every: Duration, times: u32) {
        let sleeps = || self.clock.asleep_for(every) == 1;
        until("it waits for its next look", sleeps).await;
        for _ in 0..times {
            self.advance(every);
            until("it has looked, and waits for its next look", sleeps).await;
        }
    }

    /// Begins the drain, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// A request to begin with: to the main listener, with the client's key.
    pub fn request(&self, method: Method, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address)).header("x-api-key", key)
    }

    pub async fn get(&self, path: &str) -> Got {
        got(self.request(Method::GET, path, REPORTING)).await
    }

    pub async fn post(&self, path: &str, body: impl ToString) -> Got {
        got(self.post_request(path, body, REPORTING)).await
    }

    pub fn post_request(&self, path: &str, body: impl ToString, key: &str) -> reqwest::RequestBuilder {
        self.request(Method::POST, path, key)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// From the ops listener.
    pub async fn ops(&self, path: &str) -> Got {
        got(self.http.get(format!("http://{}{path}", self.ops))).await
    }

    /// The value of one time series, as it is spelled in the Prometheus text; 0 if there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = String::from_utf8(self.ops("/metrics").await.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The upstream has seen nothing that a well-behaved gateway never does.
    pub fn assert_no_violations(&self) {
        assert_eq!(self.standin.violations(), Vec::<String>::new());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// A client whose requests come from this address of loopback; all of 127/8 is ours.
pub fn from_address(address: [u8; 4]) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    builder.local_address(std::net::IpAddr::from(address)).build().unwrap()
}

/// Waits until something has happened on another task; fails if it does not within a minute.
pub async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let wait = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MINUTE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Sends a request and reads all of the answer.
pub async fn got(request: reqwest::RequestBuilder) -> Got {
    let mut response = request.send().await.unwrap();
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    Got { status, headers, body: response.bytes().await.unwrap() }
}

/// The path of a conversation of the first account.
pub fn conversation_path(id: &str) -> String {
    format!("/agentassist/api/v1/public/{EXAMPLE_STREAM}/conversations/{id}")
}

/// The path of the first account's windows.
pub fn window_path() -> String {
    format!("/agentassist/api/public/analytics/account/{EXAMPLE_ACCOUNT}/v2/interactionDetails")
}

/// The path of the first account's transcripts.
pub fn transcript_path() -> String {
    format!("/api/public/bot/{EXAMPLE_STREAM}/conversationDetails")
}

/// Two accounts, three clients, any ports, a rate limit that only its own tests reach.
fn base_config(
    upstream: &str,
    secrets: &std::path::Path,
    (more, credentials): (&str, &str),
    without: &[&str],
) -> String {
    // Retries have tests of their own; elsewhere a call is a call. So have strangers.
    let mut config = String::from(
        "server.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:0\"\nlog.access = false\n\
         limits.unauthenticated = \"1000000/min\"\nserver.max_connections_per_address = 10000\nupstream.retry.budget = 0\n",
    );
    let accounts = [
        (
            EXAMPLE_ACCOUNT,
            kore_standin::EXAMPLE_CLIENT_ID,
            kore_standin::example_secret(),
            "\"*\"".to_owned(),
        ),
        (
            OTHER_ACCOUNT,
            kore_standin::OTHER_CLIENT_ID,
            kore_standin::other_secret(),
            format!("\"{OTHER_STREAM}\""),
        ),
    ];
    for (account, client_id, secret, bots) in accounts {
        let file = secrets.join(client_id);
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        config.push_str(&format!(
            r#"
[[accounts]]
id = "{account}"
contact_center_url = "{upstream}"
automation_url = "{upstream}"
bots = [{bots}]
{more}
[[accounts.credentials]]
client_id = "{client_id}"
client_secret = {{ file = "{}" }}
scopes = ["analytics", "chat_history"]
{credentials}
"#,
            file.display()
        ));
    }
    let clients = [
        ("reporting", REPORTING, EXAMPLE_ACCOUNT, "*"),
        ("neighbour", NEIGHBOUR, OTHER_ACCOUNT, "*"),
        ("one-bot", ONE_BOT, EXAMPLE_ACCOUNT, EXAMPLE_STREAM),
    ];
    for (name, key, account, bots) in clients.into_iter().filter(|(name, ..)| !without.contains(name)) {
        config.push_str(&client(name, key).account(account).bots(bots).toml());
    }
    config
}

/// A `[[clients]]` block in the making: a client of the first account that may see all of it, and reaches no limit.
pub struct Client<'a> {
    name: &'a str,
    key: &'a str,
    account: &'a str,
    bots: &'a str,
    rate_limit: &'a str,
}

/// A client by its name and its key.
pub fn client<'a>(name: &'a str, key: &'a str) -> Client<'a> {
    Client { name, key, account: EXAMPLE_ACCOUNT, bots: "*", rate_limit: "1000000/min" }
}

impl<'a> Client<'a> {
    pub fn account(self, account: &'a str) -> Self {
        Self { account, ..self }
    }

    /// The one bot that it may see.
    pub fn bots(self, bots: &'a str) -> Self {
        Self { bots, ..self }
    }

    pub fn rate_limit(self, rate_limit: &'a str) -> Self {
        Self { rate_limit, ..self }
    }

    /// As it is written; lines that follow belong to it.
    pub fn toml(&self) -> String {
        let Self { name, key, account, bots, rate_limit } = self;
        format!(
            r#"
[[clients]]
name = "{name}"
api_key_sha256 = "{}"
accounts = ["{account}"]
bots = ["{bots}"]
routes = ["conversation", "interaction_details", "conversation_details"]
rate_limit = "{rate_limit}"
"#,
            hex::encode(key_digest(key.as_bytes()))
        )
    }
}

/// Lets `/admin/*` be used, with [`OPS_TOKEN`].
pub fn with_ops_token(setup: &mut Setup) {
    let token = setup.secrets.path().join("ops-token");
    std::fs::write(&token, OPS_TOKEN).unwrap();
    setup.config.insert_str(0, &format!("ops.token = {{ file = \"{}\" }}\n", token.display()));
}

/// A request to `/admin/*`.
pub fn admin(world: &World, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
    world.http.request(method, format!("http://{}{path}", world.ops)).bearer_auth(token)
}

/// Has the gateway read its configuration again.
pub async fn reload(world: &World) -> Got {
    got(admin(world, Method::POST, "/admin/reload", OPS_TOKEN)).await
}

/// Writes the configuration anew. A change that changes nothing would prove nothing.
pub fn change_config(world: &World, change: impl FnOnce(String) -> String) {
    let written = std::fs::read_to_string(&world.config_file).unwrap();
    let changed = change(written.clone());
    assert_ne!(changed, written, "the change is none");
    std::fs::write(&world.config_file, changed).unwrap();
}
