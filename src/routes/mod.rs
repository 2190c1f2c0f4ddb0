//! The three routes, as data. A fourth is one more file and one more line in [`ROUTES`].
//!
//! Each route's file holds its contract as constants, its validation, its canonical form, and what
//! it reads out of an answer. Pure: nothing here does IO or reads the clock.

pub mod body;
mod conversation;
mod conversation_details;
pub mod date;
pub mod ids;
mod interaction_details;
mod key;
mod names;
pub mod openapi;
mod params;
mod path;
mod query;
mod value;

use std::sync::LazyLock;

use http::Method;
use http::uri::PathAndQuery;

use crate::error::Fault;

pub use conversation_details::without_summary;
pub use interaction_details::phase_of_own_rows;
pub use key::{Key, KeyParts};
use names::Names;
use openapi::Description;
pub use path::Ids;
use path::Pattern;
pub use query::{IdentityProof, Misfit, Query, Reading, Requested, Transcript};
pub use value::Spellings;

/// One route of the upstream's, served under the same path.
pub struct Route {
    pub name: RouteName,
    pub method: Method,
    /// Path patterns: literal segments and `{ids}`. A literal last segment matches in any letter
    /// case, everything else as it stands. The first pattern is the one used upstream.
    pub paths: &'static [&'static str],
    /// What it takes, in the query string and in the body.
    pub names: Names,
    /// What its answers have, where the vendor lists that.
    pub listed: &'static [Listed],
    pub scope: Scope,
    pub base: Base,
    /// Says what the contract is, for [`openapi`].
    pub describe: fn(RequestLimits) -> Description,
    /// Checks a request against the contract and makes it canonical. `body` is `None` where no
    /// body was read; faults of a body are then not among the faults.
    pub parse: fn(&Request<'_>) -> Result<Canonical, Vec<Fault>>,
    /// Reads out of a complete body of a 200 what freshness and admission need.
    pub read: fn(&Requested, &[u8]) -> Result<Reading, Misfit>,
}

/// The members of a place in answers that the vendor lists, in its pages or its samples. What else stands there may
/// hold anything. What is below a member that is no place of its own, the vendor leaves open.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// The way there; `*` is every element.
    pub at: &'static [&'static str],
    pub members: &'static [&'static str],
}

/// The word for a route in configuration, metrics and logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RouteName {
    Conversation,
    InteractionDetails,
    ConversationDetails,
}

impl RouteName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::InteractionDetails => "interaction_details",
            Self::ConversationDetails => "conversation_details",
        }
    }
}

/// The vendor's API scope that an app needs for a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// "SmartAssist Analytics".
    Analytics,
    /// "Bot Builder: Chat History".
    ChatHistory,
}

impl Scope {
    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Analytics => "analytics",
            Self::ChatHistory => "chat_history",
        }
    }
}

/// Which of an account's base URLs serves a route, and so which quota pool counts it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    ContactCenter,
    Automation,
}

/// In the order of [`RouteName`].
pub static ROUTES: [Route; 3] =
    [conversation::ROUTE, interaction_details::ROUTE, conversation_details::ROUTE];

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name.as_str())
    }
}

impl Route {
    /// Whether the method QUERY asks the same here as POST.
    pub fn takes_query(&self) -> bool {
        self.method == Method::POST
    }

    /// GET answers HEAD too; POST, which is a query in truth, answers QUERY (RFC 10008).
    pub fn takes(&self, method: &Method) -> bool {
        let head_of_get = self.method == Method::GET && method == Method::HEAD;
        let query_of_post = self.takes_query() && method == Method::QUERY;
        *method == self.method || head_of_get || query_of_post
    }

    /// The methods it takes, as `Allow` lists them.
    pub fn allow(&self) -> &'static str {
        if self.method == Method::GET { "GET, HEAD" } else { "POST, QUERY" }
    }

    /// The ids in one of its paths; none if the path is no such one.
    pub fn ids(&self, target: &PathAndQuery) -> Option<Ids> {
        self.patterns().iter().find_map(|pattern| pattern.ids(target))
    }

    fn patterns(&self) -> &'static [Pattern] {
        &PATTERNS[self.name as usize]
    }

    /// The route of that name.
    pub fn named(name: RouteName) -> &'static Self {
        &ROUTES[name as usize]
    }
}

/// RequestLimits of the routes that the vendor leaves open.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    pub conversation_details_limit: u64,
    pub max_json_depth: usize,
}

/// A request as a route sees it.
pub struct Request<'a> {
    pub ids: &'a Ids,
    /// Raw, without the question mark; empty if there is none.
    pub query: &'a str,
    pub body: Option<&'a [u8]>,
    pub limits: RequestLimits,
}

/// A request in canonical form: equal meaning, equal form.
#[derive(Debug)]
pub struct Canonical {
    pub query: String,
    /// Empty for a route without a body.
    pub body: String,
    /// For a transcript with a summary: the body that asks for the same without it.
    pub plain_body: Option<String>,
    /// Whether it leaves out, or spells in another way, some text that the caller has chosen.
    pub drops_text: bool,
    pub requested: Requested,
}

/// A caller's value in an error: quoted, cut short, without control characters.
fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// What a method and a path lead to.
pub enum Found {
    Route(&'static Route, Ids),
    /// The path is known; `Allow` lists these.
    MethodNotAllowed(&'static str),
    Nothing,
}

/// The paths of [`ROUTES`], read.
static PATTERNS: LazyLock<[Vec<Pattern>; ROUTES.len()]> = LazyLock::new(|| {
    ROUTES.each_ref().map(|route| route.paths.iter().map(|path| Pattern::of(path)).collect())
});

/// Where the record of a conversation is asked for; none if these are no ids.
pub fn conversation_path(bot: &str, conversation: &str) -> Option<PathAndQuery> {
    let path = Route::named(RouteName::Conversation).paths[0];
    PathAndQuery::try_from(path.replace("{streamId}", bot).replace("{conversationId}", conversation)).ok()
}

/// Finds the route of a request, as the server's router does.
pub fn find(method: &Method, target: &PathAndQuery) -> Found {
    let found = ROUTES.iter().find_map(|route| Some((route, route.ids(target)?)));
    match found {
        Some((route, ids)) if route.takes(method) => Found::Route(route, ids),
        Some((route, _)) => Found::MethodNotAllowed(route.allow()),
        None => Found::Nothing,
    }
}

/// The route of a path, whose literal last segment may be in any letter case.
pub fn of_path(target: &PathAndQuery) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.ids(target).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &'static str) -> Found {
        find(&method, &PathAndQuery::from_static(path))
    }

    #[test]
    fn the_table_is_in_the_order_of_the_names() {
        for route in &ROUTES {
            assert_eq!(Route::named(route.name).name, route.name);
        }
    }

    #[test]
    fn a_route_describes_the_names_that_it_knows() {
        let limits = RequestLimits { conversation_details_limit: 100, max_json_depth: 32 };
        for route in &ROUTES {
            let described = (route.describe)(limits);
            let in_query: Vec<_> = described.parameters.iter().map(|parameter| parameter.name).collect();
            assert_eq!(in_query, route.names.query);
            let members = described.body["properties"].as_object().into_iter().flat_map(|all| all.keys());
            let (mut in_body, mut known): (Vec<_>, _) = (members.collect(), route.names.body.to_vec());
            in_body.sort_unstable();
            known.sort_unstable();
            assert_eq!(in_body, known);
        }
    }

    #[test]
    fn aliases_and_any_letter_case_of_the_last_segment_lead_to_one_route() {
        for path in [
            "/agentassist/api/public/analytics/account/a1/v2/interactionDetails",
            "/agentassist/api/public/analytics/account/a1/v2/INTERACTIONDETAILS",
            "/agentassist/api/public/analytics/account/a1/v2/calldetails?limit=1",
            "/agentassist/api/public/analytics/account/a1/v2/callDetails",
        ] {
            let Found::Route(route, ids) = found(Method::POST, path) else { panic!("{path}") };
            assert_eq!(route.name, RouteName::InteractionDetails);
            assert_eq!(ids.account(), Some("a1"));
        }
    }

    #[test]
    fn the_other_segments_match_as_they_stand() {
        for path in [
            "/Agentassist/api/public/analytics/account/a1/v2/interactionDetails",
            "/agentassist/api/public/analytics/account/a1/v2/interactionDetails/",
            "/agentassist/api/public/analytics/account/a1/v2",
            "//api/public/bot/st-1/conversationDetails",
            "/api/public/bot/st-1/x/conversationDetails",
            "/",
        ] {
            assert!(matches!(found(Method::POST, path), Found::Nothing), "{path}");
        }
    }

    #[test]
    fn another_method_on_a_known_path_names_the_right_ones() {
        let path = "/agentassist/api/v1/public/st-1/conversations/c-1";
        assert!(matches!(found(Method::HEAD, path), Found::Route(..)));
        assert!(matches!(found(Method::POST, path), Found::MethodNotAllowed("GET, HEAD")));
        let path = "/api/public/bot/st-1/conversationDetails";
        assert!(matches!(found(Method::HEAD, path), Found::MethodNotAllowed("POST, QUERY")));
    }

    #[test]
    fn an_id_that_is_none_is_a_fault_with_its_name() {
        let path = "/agentassist/api/v1/public/st%2d1/conversations/x";
        let Found::Route(_, ids) = found(Method::GET, path) else { panic!() };
        let faults = ids.faults();
        assert_eq!(faults.len(), 2);
        assert!(faults[0].detail.contains("st-24ccdea9"), "{}", faults[0].detail);
    }
}
