//! What is not allowed is denied: every combination of a client's policy with every route, made from
//! the table of routes, so that a new one cannot be without.

use http::Method;
use kore_gateway::config::Lane;
use kore_gateway::routes::{ROUTES, Route, RouteName};
use kore_standin::{EXAMPLE_ACCOUNT, EXAMPLE_STREAM, OTHER_ACCOUNT, OTHER_STREAM};

use crate::world::{World, client, conversation_path, got, transcript_path, window_path};

/// What one client may do.
#[derive(Clone, Copy)]
struct Policy {
    allows_route: bool,
    account: &'static str,
    /// A bot of the asked account, of another, or any.
    bots: &'static str,
    filters_rows: bool,
}

impl Policy {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for allows_route in [true, false] {
            for (account, bots) in [
                (EXAMPLE_ACCOUNT, "*"),
                (EXAMPLE_ACCOUNT, EXAMPLE_STREAM),
                (EXAMPLE_ACCOUNT, "st-24ccdea9-de4e-5139-923f-883c53ffcccc"),
                (OTHER_ACCOUNT, "*"),
                (OTHER_ACCOUNT, OTHER_STREAM),
            ] {
                for filters_rows in [false, true] {
                    // There is nothing to filter for who may see all; the configuration says so.
                    if !(filters_rows && bots == "*") {
                        all.push(Self { allows_route, account, bots, filters_rows });
                    }
                }
            }
        }
        all
    }

    fn block(self, name: &str, route: &Route) -> String {
        let all = r#"routes = ["conversation", "interaction_details", "conversation_details"]"#;
        let routes: Vec<String> = ROUTES
            .iter()
            .filter(|other| (other.name == route.name) == self.allows_route)
            .map(|other| format!("{:?}", other.name.as_str()))
            .collect();
        let block = client(name, name).account(self.account).bots(self.bots).toml();
        block.replace(all, &format!("routes = [{}]\nfilter_rows = {}", routes.join(", "), self.filters_rows))
    }

    /// By the rule as interface and manual have it, not by the code.
    fn allows(self, route: &Route, account: &str, bot: &str) -> bool {
        let owner = if bot == EXAMPLE_STREAM { EXAMPLE_ACCOUNT } else { OTHER_ACCOUNT };
        let names_bot = route.paths[0].contains("{botId}") || route.paths[0].contains("{streamId}");
        let may_account = self.account == if names_bot { owner } else { account };
        let may_bots = match (names_bot, self.bots) {
            (_, "*") => true,
            (true, only) => only == bot,
            (false, _) => self.filters_rows,
        };
        self.allows_route && may_account && may_bots
    }
}

#[tokio::test]
async fn every_route_is_open_to_exactly_those_whose_policy_allows_it() {
    let mut clients = String::new();
    let mut table = Vec::new();
    for route in &ROUTES {
        for (n, policy) in Policy::all().into_iter().enumerate() {
            let key = format!("{}-{n}", route.name.as_str());
            clients.push_str(&policy.block(&key, route));
            table.push((route, policy, key));
        }
    }
    let world = World::with(|setup| setup.clients = clients).await;
    let (mut allowed, mut denied) = (0, 0);
    for (route, policy, key) in table {
        for (account, bot) in [(EXAMPLE_ACCOUNT, EXAMPLE_STREAM), (OTHER_ACCOUNT, OTHER_STREAM)] {
            for pattern in route.paths {
                let path = pattern
                    .replace("{accountId}", account)
                    .replace("{botId}", bot)
                    .replace("{streamId}", bot)
                    .replace("{conversationId}", "c-1")
                    // Breaks the contract, so that what is allowed needs no answer of the upstream's.
                    + "?limit=0";
                let body = if route.method == Method::POST { "{}" } else { "" };
                let request = world.request(route.method.clone(), &path, &key).body(body);
                let answer = got(request).await;
                let is_allowed = policy.allows(route, account, bot);
                let expected = if is_allowed { 400 } else { 403 };
                assert_eq!(answer.status, expected, "{key} {path}: {answer:?}");
                *(if is_allowed { &mut allowed } else { &mut denied }) += 1;
            }
        }
    }
    println!("{allowed} combinations allowed, {denied} denied");
    assert!(allowed >= 2 * ROUTES.len() && denied > allowed);
    assert_eq!(world.standin.count(), 0);
}

/// A request for a route, and an answer that is settled and says something secret. A new route has to
/// have one.
fn example(route: &Route) -> (String, &'static str, String) {
    let ended = r#""status":"CLOSED","endTime":"2026-02-01T00:00:00Z""#;
    let row = r#""sessionId":"s-1","finalStatus":"CLOSED","sessionEndTime":"2026-02-17T00:00:00""#;
    match route.name {
        RouteName::Conversation => (
            conversation_path("c-1"),
            "",
            format!(r#"{{"_id":"c-1","botId":"{EXAMPLE_STREAM}",{ended},"secret":"canary"}}"#),
        ),
        RouteName::InteractionDetails => (
            window_path(),
            r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#,
            format!(r#"{{"numResults":1,"data":[{{"botId":"{EXAMPLE_STREAM}",{row}}}],"secret":"canary"}}"#),
        ),
        RouteName::ConversationDetails => (
            transcript_path(),
            r#"{"sessionId":"s-1"}"#,
            r#"{"conversationInfo":{"sessionId":"s-1"},"conversationHistory":[],"secret":"canary"}"#
                .to_owned(),
        ),
    }
}

/// Redaction, refreshing, rate limit and lane, in every combination, on every route: each does what it
/// says whatever the others say.
#[tokio::test]
async fn every_combination_of_the_rest_of_a_policy_holds_on_every_route() {
    let mut clients = String::new();
    let mut table = Vec::new();
    for route in &ROUTES {
        for bits in 0..16_u8 {
            let [redacts, refreshes, is_slow, is_background] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let name = format!("{}-{bits}", route.name.as_str());
            let rate = if is_slow { "2/h" } else { "1000/h" };
            clients.push_str(&client(&name, &name).rate_limit(rate).toml());
            let lane = if is_background { "background" } else { "interactive" };
            let redact = if redacts { "\"no-secret\"" } else { "" };
            clients.push_str(&format!("may_refresh = {refreshes}\nlane = {lane:?}\nredact = [{redact}]\n"));
            table.push((route, name, redacts, refreshes, is_slow, is_background));
        }
    }
    let world = World::with(|setup| {
        setup.without_quota = true;
        setup.config = "[redaction.no-secret]\nremove = [\"/secret\"]\n".to_owned();
        setup.clients = clients;
    })
    .await;
    // The window tells of the session that the transcript is about; then that is stored too.
    let order = [RouteName::InteractionDetails, RouteName::Conversation, RouteName::ConversationDetails];
    assert_eq!(order.len(), ROUTES.len());
    for route in order.map(Route::named) {
        let (path, body, answer) = example(route);
        world.standin.serve_body("/", 200, "application/json", answer);
        let ask = async |key: &str| {
            let request = world.request(route.method.clone(), &path, key).body(body);
            got(request.header("cache-control", "no-cache")).await
        };
        let fill = got(world.request(route.method.clone(), &path, crate::world::REPORTING).body(body)).await;
        assert!(fill.cache_status().ends_with("stored"), "{fill:?}");
        for (_, name, redacts, refreshes, is_slow, is_background) in
            table.iter().filter(|(of, ..)| of.name == route.name)
        {
            let calls = world.standin.count();
            let first = ask(name).await;
            assert_eq!(first.status, 200, "{name}: {first:?}");
            assert_eq!(!first.body.windows(6).any(|bytes| bytes == b"canary"), *redacts, "{name}");
            assert_eq!(world.standin.count() > calls, *refreshes, "{name}");
            let quota = if *is_slow { "\"client\";q=2;w=3600" } else { "\"client\";q=1000;w=3600" };
            assert!(first.header("ratelimit-policy").starts_with(quota), "{name}");
            assert_eq!(ask(name).await.status, 200);
            assert_eq!(ask(name).await.status, if *is_slow { 429 } else { 200 }, "{name}");
            // What it is good for is shown by the tests of fairness.
            let lane = world.app.snapshot().config.clients.named(name).unwrap().lane;
            assert_eq!(lane == Lane::Background, *is_background, "{name}");
        }
    }
}
