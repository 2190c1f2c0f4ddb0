//! The upstream's accounts and their apps (`[[accounts]]`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

use super::bots::Bots;
use super::secret::Secret;
use super::section::Section;
use super::setting::Setting;
use super::url::base_url;
use super::value::Rate;
use crate::routes::{Scope, ids};

/// Where the vendor enforces JTI, a token may live this long at most.
const LONGEST_JTI_LIFETIME: Duration = Duration::from_secs(3600);

/// One Kore.ai account.
#[derive(Debug)]
pub struct Account {
    pub id: Arc<str>,
    /// Base URL of `/agentassist/*`, without a trailing slash.
    pub contact_center_url: String,
    /// Base URL of `/api/public/*`, without a trailing slash.
    pub automation_url: String,
    pub bots: Bots,
    pub credentials: Vec<Arc<Credential>>,
    pub quota: Quota,
    pub unproven_sessions: UnprovenSessions,
}

impl Account {
    /// The app to sign with, as its place in `credentials`: the most specific one that holds the
    /// scope. Without a `bot` the whole account is meant, which a bot-bound app cannot speak for.
    pub fn credential(&self, scope: Scope, bot: Option<&str>) -> Option<usize> {
        let place = |fits: &dyn Fn(&Bots) -> bool| {
            self.credentials.iter().position(|app| app.scopes.contains(&scope) && fits(&app.bots))
        };
        let named = |bots: &Bots| bot.is_some_and(|bot| *bots != Bots::Any && bots.include(bot));
        place(&named).or_else(|| place(&|bots| *bots == Bots::Any))
    }
}

/// What becomes of a transcript whose session no answer has said to be any bot's, for clients limited to some bots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnprovenSessions {
    Refuse,
    /// The upstream is trusted to hold a session to the bot in the path.
    Pass,
}

/// One app of an account.
#[derive(Debug)]
pub struct Credential {
    pub client_id: String,
    /// Never printed: `SecretString` has no other `Debug`.
    pub client_secret: SecretString,
    /// Where the secret can be read again.
    pub secret_file: Option<PathBuf>,
    pub scopes: Vec<Scope>,
    pub bots: Bots,
    pub lifetime: Duration,
    pub jti: bool,
    pub claims: Claims,
}

/// Who a token says it is from, about and for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

/// What the upstream allows: each pool has several rolling windows, all of which hold.
#[derive(Clone, Debug)]
pub struct Quota {
    pub account: Vec<Rate>,
    pub bot: Vec<Rate>,
}

/// The accounts as clients are held against them. What is at fault in an account may be anything, so that no
/// client is wrong for it.
pub(super) struct Accounts {
    read: Vec<Read>,
    /// There is no other.
    are_all: bool,
}

/// An account, and what of it is known.
struct Read {
    account: Arc<Account>,
    has_id: bool,
    has_bots: bool,
    has_scopes: bool,
}

impl Accounts {
    pub fn read_all(root: &mut Section<'_>, allow_plain_http: bool) -> Self {
        let mut accounts = Self { read: Vec::new(), are_all: true };
        let mut owners = Owners::default();
        for section in root.sections("accounts") {
            let account = accounts.read(section, allow_plain_http, &mut owners);
            accounts.read.push(account);
        }
        if accounts.read.is_empty() {
            let problem = "is missing; at least one [[accounts]] says where the upstream is";
            root.report_missing("accounts", &[], problem);
        }
        accounts.are_all = root.is_known("accounts");
        accounts
    }

    fn read(&self, mut section: Section<'_>, allow_plain_http: bool, owners: &mut Owners) -> Read {
        let id: String = section.required("id");
        if let Err(expected) = ids::account(&id) {
            section.report("id", format!("is {id:?}; it is {expected}"));
        }
        if self.read.iter().any(|read| *read.account.id == *id) {
            section.report("id", "is the id of an earlier account too");
        }
        let id: Arc<str> = id.into();
        let bots = Bots::read(&mut section);
        section.report_all("bots", &owners.add(&bots, &id));
        let contact_center_url = base_url(&mut section, "contact_center_url", allow_plain_http);
        let automation_url = base_url(&mut section, "automation_url", allow_plain_http);
        let credentials = section.sections("credentials");
        if credentials.is_empty() {
            let problem = "is missing; an account needs at least one [[accounts.credentials]]";
            section.report_missing("credentials", &[], problem);
        }
        let mut has_scopes = section.is_known("credentials");
        let credentials = credentials.into_iter().map(|section| {
            let (credential, is_known) = Credential::read(section);
            has_scopes &= is_known;
            Arc::new(credential)
        });
        let credentials = credentials.collect();
        let quota = Quota::read(section.section("quota"));
        let known = [("refuse", UnprovenSessions::Refuse), ("pass", UnprovenSessions::Pass)];
        let unproven_sessions = section.one_of("unproven_sessions", &known, Some(UnprovenSessions::Refuse));
        let (has_id, has_bots) = (section.is_known("id"), section.is_known("bots"));
        section.close();
        let account =
            Account { id, contact_center_url, automation_url, bots, credentials, quota, unproven_sessions };
        Read { account: Arc::new(account), has_id, has_bots, has_scopes }
    }

    /// Whether there may be an account of that id.
    pub fn may_have(&self, id: &str) -> bool {
        !self.are_all || self.read.iter().any(|read| !read.has_id || *read.account.id == *id)
    }

    /// Whether one of the accounts of these ids may have the bot.
    pub fn may_have_bot(&self, ids: &[String], bot: &str) -> bool {
        self.may(ids, |read| !read.has_bots || read.account.bots.include(bot))
    }

    /// Whether one of the accounts of these ids may have a credential with the scope.
    pub fn may_have_scope(&self, ids: &[String], scope: Scope) -> bool {
        let has = |account: &Account| account.credentials.iter().any(|app| app.scopes.contains(&scope));
        self.may(ids, |read| !read.has_scopes || has(&read.account))
    }

    fn may(&self, ids: &[String], is_so: impl Fn(&Read) -> bool) -> bool {
        let is_named = |read: &&Read| !read.has_id || ids.iter().any(|id| **id == *read.account.id);
        !self.are_all || self.read.iter().filter(is_named).any(is_so)
    }

    pub fn into_vec(self) -> Vec<Arc<Account>> {
        self.read.into_iter().map(|read| read.account).collect()
    }
}

/// To which account each bot leads.
#[derive(Default)]
struct Owners {
    of: HashMap<String, Arc<str>>,
    of_any: Option<Arc<str>>,
}

impl Owners {
    /// Adds the bots of an account; what is wrong with that.
    fn add(&mut self, bots: &Bots, account: &Arc<str>) -> Vec<String> {
        match bots {
            Bots::Any => {
                let other = self.of_any.replace(account.clone());
                let problem =
                    |other| format!("is [\"*\"] here and in account {other}; a bot must lead to one account");
                other.map(problem).into_iter().collect()
            }
            Bots::These(list) => {
                let problem = |bot: &String| {
                    let other = self.of.insert(bot.clone(), account.clone())?;
                    Some(format!("{bot} belongs to account {other} too; a bot must lead to one account"))
                };
                list.iter().filter_map(problem).collect()
            }
        }
    }
}

impl Credential {
    /// And whether its scopes are known.
    fn read(mut section: Section<'_>) -> (Self, bool) {
        let client_id: String = section.required("client_id");
        let secret = section.required::<Secret>("client_secret");
        let claims = section.optional_section("claims").map(Claims::read).unwrap_or_else(|| {
            let id = Some(client_id.clone());
            Claims { app_id: id.clone(), sub: id, ..Claims::default() }
        });
        let credential = Self {
            client_id,
            client_secret: secret.value,
            secret_file: secret.file,
            claims,
            scopes: section.required("scopes"),
            bots: Bots::read_or_any(&mut section),
            lifetime: section.or("lifetime", Duration::from_secs(3600)),
            jti: section.or("jti", false),
        };
        if credential.scopes.is_empty() {
            section.report("scopes", format!("is empty; it is {}", <Vec<Scope>>::EXPECTED));
        }
        // Shorter ones would be renewed before their first use: iat lies 30 s back.
        if credential.lifetime < Duration::from_secs(60) {
            section.report("lifetime", "is less than a minute");
        }
        if credential.jti && credential.lifetime > LONGEST_JTI_LIFETIME {
            section.report("lifetime", "is more than an hour; an app that enforces JTI refuses that");
        }
        let has_scopes = section.is_known("scopes");
        section.close();
        (credential, has_scopes)
    }
}

impl Claims {
    fn read(mut section: Section<'_>) -> Self {
        let claims = Self {
            app_id: section.optional("appId"),
            sub: section.optional("sub"),
            iss: section.optional("iss"),
            aud: section.optional("aud"),
        };
        if claims.app_id.is_none() && claims.iss.is_none() {
            section.report_missing(
                "appId",
                &["iss"],
                "is missing, and so is `iss`; one of them names the app",
            );
        }
        section.close();
        claims
    }
}

impl Setting for Scope {
    const EXPECTED: &'static str = r#""analytics" or "chat_history""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let known = [Self::Analytics, Self::ChatHistory];
        let named = known.into_iter().find(|scope| value.as_str() == Some(scope.as_str()));
        named.ok_or_else(|| format!("is no scope; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self::Analytics
    }
}

impl Quota {
    fn read(mut section: Section<'_>) -> Self {
        let per_minute = Rate { amount: 60, window: Duration::from_secs(60) };
        let per_hour = Rate { amount: 1800, window: Duration::from_secs(3600) };
        let account = Self::windows(&mut section, "account", vec![per_minute]);
        let bot = Self::windows(&mut section, "bot", vec![per_minute, per_hour]);
        section.close();
        Self { account, bot }
    }

    /// Shortest first: it is the one that callers are told of.
    fn windows(section: &mut Section<'_>, name: &'static str, default: Vec<Rate>) -> Vec<Rate> {
        let mut windows = section.or(name, default);
        if windows.is_empty() {
            section.report(name, "is empty; the upstream has a limit, and without a window there is none");
        }
        windows.sort_by_key(|rate| rate.window);
        windows
    }
}
