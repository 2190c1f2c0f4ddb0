//! The judgement of a call: who, whether, and what.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::answers::{conversation, conversation_details, interaction_details};
use super::fault::{Fault, Faults};
use super::journal::{Journal, Ticket};
use super::json::Json;
use super::options::{Account, Scope, Switches};
use super::quota::Quota;
use super::refusal::Refusal;
use super::route::Route;
use super::token::{self, Caller, SeenTokens};
use super::wire::{Request, Response};
use super::{Clock, Conversation, Options, Pool, strict, time};

const MONTH_MS: i64 = 30 * 86_400_000;

/// Everything that lives as long as the stand-in.
pub(super) struct Kore {
    pub(super) clock: Clock,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) accounts: Vec<Account>,
    pub(super) switches: Switches,
    pub(super) conversations: Vec<Conversation>,
    pub(super) canned: Vec<Canned>,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
    pub(super) quota: Quota,
    seen: SeenTokens,
    /// How many summaries were made: no two are alike (contract §5).
    summaries: u64,
}

/// An answer that a test has put down beforehand.
pub(super) struct Canned {
    /// In lower case.
    pub(super) path_contains: String,
    pub(super) body_contains: String,
    pub(super) response: Response,
}

/// An answer, when it is due, and what is to go wrong with it.
pub(super) struct Reply {
    pub(super) response: Response,
    pub(super) delay: Duration,
    /// On the stand-in's clock.
    pub(super) not_before_ms: i64,
    pub(super) fault: Option<Fault>,
}

/// What becomes known while a call is judged, refused or not.
#[derive(Default)]
struct Notes {
    violations: Vec<String>,
    app_id: Option<String>,
    pool: Option<Pool>,
    delay: Duration,
}

impl Kore {
    pub(super) fn new(options: Options) -> Kore {
        Kore {
            clock: options.clock,
            state: Mutex::new(State {
                accounts: options.accounts,
                switches: options.switches,
                conversations: options.conversations,
                canned: Vec::new(),
                faults: Faults::default(),
                journal: Journal::default(),
                quota: Quota::default(),
                seen: SeenTokens::default(),
                summaries: 0,
            }),
        }
    }

    /// The state, also after a test has panicked with it in hand.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a violation down, in strict mode.
    pub(super) fn object(&self, violation: String) {
        let mut state = self.state();
        if state.switches.strict {
            state.journal.object(violation);
        }
    }

    /// Judges a call at this moment of the clock. Nothing here waits: delays and faults are
    /// carried out by whoever holds the connection.
    pub(super) fn receive(&self, request: &Request) -> Reply {
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        let ticket = state.journal.arrive(request, now_ms);
        let mut notes = Notes {
            violations: strict::objections(request, &state.switches),
            delay: state.switches.latency,
            ..Notes::default()
        };
        let outcome = state.answer(request, now_ms, &mut notes);
        if let Err(refusal) = &outcome {
            notes.violations.extend(refusal.violation());
        }
        let right = outcome.unwrap_or_else(Refusal::into_response);
        let fault = state.faults.take(&request.path);
        let response = match &fault {
            Some(Fault::EchoedToken(status)) => {
                let token = request.header("auth").unwrap_or_default();
                Fault::quoting(*status, token)
            }
            Some(Fault::TokenInType(length)) => {
                Fault::typed_by(request.header("auth").unwrap_or_default(), *length)
            }
            Some(fault) => fault.instead_of(right, || state.of_somebody_else(request, now_ms)),
            None => right,
        };
        if let Some(Fault::Latency(more)) = fault {
            notes.delay += more;
        }
        let status = match &fault {
            Some(fault) if !fault.lets_status_out() => 0,
            _ => response.status,
        };
        let response = response.with_header("date", time::http_date(now_ms));
        let delay = notes.delay;
        let lag = i64::try_from(state.switches.lag.as_millis()).unwrap_or(0);
        let not_before_ms = now_ms + lag;
        state.write_down(ticket, status, request, notes);
        Reply { response, delay, not_before_ms, fault }
    }
}

impl State {
    fn write_down(&mut self, ticket: Ticket, status: u16, request: &Request, notes: Notes) {
        if let Some(call) = self.journal.entry(ticket) {
            call.status = status;
            call.app_id = notes.app_id;
            call.pool = notes.pool;
        }
        if self.switches.strict {
            let (method, path) = (&request.method, &request.path);
            for violation in notes.violations {
                self.journal.object(format!("{violation} ({method} {path})"));
            }
        }
    }

    fn answer(&mut self, request: &Request, now_ms: i64, notes: &mut Notes) -> Result<Response, Refusal> {
        let route = Route::of(&request.path).ok_or(Refusal::NoRoute)?;
        if request.method != route.method() {
            return Err(Refusal::Method);
        }
        let caller = self.admit(route, request, now_ms, notes)?;
        let body = match route {
            Route::Conversation { conversation, .. } => {
                conversation::check(request, conversation)?;
                if let Some(canned) = self.canned(request) {
                    return Ok(canned);
                }
                let record = self
                    .found_under(route, &caller)
                    .find(|record| record.has_agent && record.conversation_id == conversation);
                conversation::answer(record, &caller.account.id, now_ms)?
            }
            Route::InteractionDetails { .. } => {
                let search = interaction_details::Search::parse(request, &self.switches)?;
                notes.violations.extend(search.objection.clone());
                if let Some(canned) = self.canned(request) {
                    return Ok(canned);
                }
                let visible = |record: &&Conversation| caller.sees(&record.stream);
                let records = self.conversations.iter().filter(visible);
                search.answer(records, &self.switches, now_ms)
            }
            Route::ConversationDetails { .. } => {
                let ask = conversation_details::Ask::parse(request, &self.switches)?;
                notes.violations.extend(ask.objection.clone());
                if let Some(canned) = self.canned(request) {
                    return Ok(canned);
                }
                let summary = ask.summary.then(|| {
                    self.summaries += 1;
                    notes.delay += self.switches.summary_latency;
                    self.summaries
                });
                ask.answer(self.found_under(route, &caller), summary, now_ms)
            }
        };
        Ok(Response::json(200, &body))
    }

    /// Whether this caller may make this call now: token, scope, whose stream, whose account,
    /// and how often.
    fn admit(
        &mut self,
        route: Route<'_>,
        request: &Request,
        now_ms: i64,
        notes: &mut Notes,
    ) -> Result<Caller, Refusal> {
        let caller = token::verify(request, &self.accounts, &mut self.seen, now_ms)?;
        notes.app_id = Some(caller.app.client_id.clone());
        if caller.lives_too_long {
            notes.violations.push("token: lives for more than a day".into());
        }
        if !caller.app.scopes.contains(&route.scope()) {
            return Err(Refusal::Scope);
        }
        if let Some(stream) = route.stream() {
            self.check_stream(stream, &caller)?;
        }
        self.check_account(route, request, &caller)?;
        if let Some(stream) = request.header("iid") {
            self.check_stream(stream, &caller)?;
        }
        let (pool, limits) = route.pool(&caller.account);
        let excess = self.quota.count(&pool, &limits, now_ms);
        notes.pool = Some(pool);
        match excess {
            Some(excess) if self.switches.enforce_quota => {
                Err(Refusal::Quota(excess, self.switches.quota_refusal))
            }
            _ => Ok(caller),
        }
    }

    fn check_stream(&self, stream: &str, caller: &Caller) -> Result<(), Refusal> {
        let known = |account: &Account| account.streams.iter().any(|known| known == stream);
        if !self.accounts.iter().any(known) {
            Err(Refusal::Stream)
        } else if caller.sees(stream) {
            Ok(())
        } else {
            Err(Refusal::Credentials("another account's or app's stream"))
        }
    }

    /// The account in the header, and in the path if it has one, is the token's. Which refusals
    /// a wrong or missing header gets is our choice: contract §7 leaves them open.
    fn check_account(&self, route: Route<'_>, request: &Request, caller: &Caller) -> Result<(), Refusal> {
        let foreign = |id: &str| id != caller.account.id;
        let in_path = match route {
            Route::InteractionDetails { account } => Some(account),
            _ => None,
        };
        if request.values("accountid").chain(in_path).any(foreign) {
            return Err(Refusal::Credentials("an account that is not the token's"));
        }
        let needed = self.switches.account_id_required && route.scope() == Scope::Analytics;
        match (needed, request.values("accountid").count()) {
            (_, 1) | (false, 0) => Ok(()),
            _ => Err(Refusal::arguments("not exactly one accountId header")),
        }
    }

    /// The records that a path with a stream or bot in it leads to.
    fn found_under(&self, route: Route<'_>, caller: &Caller) -> impl Iterator<Item = &Conversation> {
        let is_held = self.switches.held_to_path;
        self.conversations.iter().filter(move |record| {
            let is_its_own = route.stream() == Some(record.stream.as_str());
            is_its_own || !is_held && caller.account.streams.contains(&record.stream)
        })
    }

    fn canned(&self, request: &Request) -> Option<Response> {
        let path = request.path.to_ascii_lowercase();
        let body = String::from_utf8_lossy(&request.body);
        let fits =
            |canned: &&Canned| path.contains(&canned.path_contains) && body.contains(&canned.body_contains);
        // The latest word counts.
        let found = self.canned.iter().rev().find(fits);
        found.map(|canned| canned.response.clone())
    }

    /// The route's answer about a conversation of a month ago that no test has put down.
    fn of_somebody_else(&self, request: &Request, now_ms: i64) -> Json {
        let route = Route::of(&request.path);
        let stream = route.and_then(Route::stream).unwrap_or(super::OTHER_STREAM);
        let record = Conversation::closed_at(stream, u64::MAX, now_ms - MONTH_MS);
        match route {
            Some(Route::Conversation { .. }) => conversation::of_somebody_else(&record, now_ms),
            Some(Route::InteractionDetails { .. }) => interaction_details::of_somebody_else(&record, now_ms),
            Some(Route::ConversationDetails { .. }) | None => {
                conversation_details::of_somebody_else(&record, now_ms)
            }
        }
    }
}
