//! What is not allowed is denied: every combination of a client's policy with every route, made from
//! the table of routes, so that a new one cannot be without.

use http::Method;
use kore_gateway::routes::{ROUTES, Route};
use kore_gateway::standin::{EXAMPLE_ACCOUNT, EXAMPLE_STREAM, OTHER_ACCOUNT, OTHER_STREAM};

use crate::world::{World, client, got};

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
        let block = client(name, name, self.account, self.bots, "1000000/min");
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
