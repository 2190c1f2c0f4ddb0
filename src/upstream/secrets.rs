//! Which secret signs, and what the refusal of a token means. Pure: time is passed in.
//!
//! A secret changes in two places, in our file and at the upstream, and either may be first. So there are up to two
//! secrets: the *accepted* one is the last that the upstream accepted, the *candidate* is the one that the file holds
//! now. The candidate signs until it is refused. A refused candidate is kept. It signs again when the accepted secret
//! is refused, because the upstream may have changed in the meantime.
//!
//! An *epoch* is a time in which none of this changes. Each token carries its epoch, so that many refusals of tokens of
//! one epoch end it only once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::clock::UnixMillis;
use crate::routes;

/// What a token is used for. The upstream refuses a bot or a scope with the same status as a token
/// (contract §2), so each use is suspected on its own.
pub type Use = (routes::RouteName, Option<Arc<str>>);

/// The most uses that are suspect at a time. Callers may be able to invent bots; uses above this limit get no repeat.
const MAX_SUSPECT_USES: usize = 256;

/// After this time every use may have a repeat again.
const SUSPECT_FOR: Duration = Duration::from_secs(600);

/// The secrets of one credential.
#[derive(Clone)]
pub struct Secrets {
    /// The last one that the upstream accepted; at first the configured one.
    accepted: SecretString,
    /// The one in the file, if that is a different one.
    candidate: Option<Candidate>,
    epoch: u64,
    /// Whether the upstream accepted a token of this epoch.
    is_accepted: bool,
    /// The uses whose token was refused, with the epoch of the token that they got next. If that one is refused too,
    /// the token is not the cause.
    suspect_uses: HashMap<Use, u64>,
    suspects_expire_at: UnixMillis,
}

#[derive(Clone)]
struct Candidate {
    secret: SecretString,
    is_refused: bool,
}

impl Secrets {
    pub fn new(configured: SecretString) -> Self {
        Self {
            accepted: configured,
            candidate: None,
            epoch: 0,
            is_accepted: false,
            suspect_uses: HashMap::new(),
            suspects_expire_at: UnixMillis(0),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The secret that signs.
    pub fn signing(&self) -> &SecretString {
        match &self.candidate {
            Some(Candidate { secret, is_refused: false }) => secret,
            _ => &self.accepted,
        }
    }

    /// Takes the secret that the file holds now. Returns whether a different secret signs from now on.
    pub fn found(&mut self, secret: SecretString) -> bool {
        let is = |known: &SecretString| known.expose_secret() == secret.expose_secret();
        let is_new = if is(&self.accepted) {
            self.candidate.take().is_some_and(|candidate| !candidate.is_refused)
        } else if self.candidate.as_ref().is_some_and(|candidate| is(&candidate.secret)) {
            false
        } else {
            self.candidate = Some(Candidate { secret, is_refused: false });
            true
        };
        if is_new {
            self.reset();
        }
        is_new
    }

    /// Something else that tokens depend on has changed, so what earlier tokens showed is void.
    pub fn reset(&mut self) {
        self.suspect_uses.clear();
        self.next_epoch();
    }

    fn next_epoch(&mut self) {
        self.epoch += 1;
        self.is_accepted = false;
    }

    /// The upstream accepted a token of this epoch.
    pub fn accepted(&mut self, epoch: u64, usage: &Use) {
        if self.suspect_uses.get(usage).is_some_and(|fresh| *fresh <= epoch) {
            self.suspect_uses.remove(usage);
        }
        if epoch != self.epoch {
            return;
        }
        self.is_accepted = true;
        if let Some(candidate) = self.candidate.take_if(|candidate| !candidate.is_refused) {
            self.accepted = candidate.secret;
        }
    }

    /// The upstream refused a token of this epoch. Returns whether a call with another token is worthwhile.
    pub fn refused(&mut self, epoch: u64, usage: &Use, now: UnixMillis) -> bool {
        if now >= self.suspects_expire_at {
            self.suspect_uses.clear();
            self.suspects_expire_at = now.plus(SUSPECT_FOR);
        }
        let fresh = self.suspect_uses.get(usage).copied();
        if fresh.is_some_and(|fresh| epoch < fresh) {
            return true; // Sent before this use got a newer token.
        }
        let is_worth_it = fresh.is_none() && self.suspect_uses.len() < MAX_SUSPECT_USES;
        // A secret that was accepted lately is kept, even if one use is always refused.
        if epoch == self.epoch && (is_worth_it || !self.is_accepted) {
            if let Some(candidate) = &mut self.candidate {
                candidate.is_refused = !candidate.is_refused;
            }
            self.next_epoch();
        }
        if is_worth_it {
            self.suspect_uses.insert(usage.clone(), self.epoch);
        }
        is_worth_it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1);

    fn secrets() -> Secrets {
        Secrets::new("a".into())
    }

    fn usage(bot: &str) -> Use {
        (routes::RouteName::Conversation, Some(bot.into()))
    }

    fn signing(secrets: &Secrets) -> &str {
        secrets.signing().expose_secret()
    }

    /// One request, with its repeat, at an upstream that takes what is signed with `right`. How many
    /// calls it cost, and whether it was taken.
    fn request(secrets: &mut Secrets, bot: &str, right: &str) -> (u32, bool) {
        for calls in 1.. {
            let epoch = secrets.epoch();
            if signing(secrets) == right {
                secrets.accepted(epoch, &usage(bot));
                return (calls, true);
            }
            if !secrets.refused(epoch, &usage(bot), NOW) || calls == 2 {
                return (calls, false);
            }
        }
        unreachable!()
    }

    #[test]
    fn many_refusals_of_one_epoch_end_it_once() {
        let mut secrets = secrets();
        secrets.found("b".into());
        let epoch = secrets.epoch();
        for _ in 0..3 {
            assert!(secrets.refused(epoch, &usage("st-1"), NOW));
            assert_eq!((signing(&secrets), secrets.epoch()), ("a", epoch + 1));
        }
        assert!(secrets.refused(epoch, &usage("st-2"), NOW), "for another use just so");
        assert_eq!(secrets.epoch(), epoch + 1);
    }

    #[test]
    fn a_refused_candidate_costs_one_call_however_often_the_file_is_read() {
        let mut secrets = secrets();
        assert!(secrets.found("b".into()));
        assert_eq!(request(&mut secrets, "st-1", "a"), (2, true));
        for _ in 0..10 {
            assert!(!secrets.found("b".into()));
            assert_eq!(request(&mut secrets, "st-1", "a"), (1, true));
        }
        // Now the upstream changes too.
        assert_eq!(request(&mut secrets, "st-1", "b"), (2, true));
        assert_eq!(request(&mut secrets, "st-1", "b"), (1, true));
        assert!(!secrets.found("b".into()));
        assert!(secrets.found("a".into()), "what was accepted once is a candidate like any other");
    }

    #[test]
    fn a_second_change_of_the_file_does_not_drop_the_accepted_secret() {
        let mut secrets = secrets();
        secrets.found("b".into());
        secrets.found("c".into());
        assert_eq!(request(&mut secrets, "st-1", "a"), (2, true));
        assert_eq!(request(&mut secrets, "st-1", "c"), (2, true));
    }

    #[test]
    fn a_file_that_changes_back_is_believed() {
        let mut secrets = secrets();
        secrets.found("b".into());
        assert!(secrets.found("a".into()));
        assert_eq!(request(&mut secrets, "st-1", "a"), (1, true));
        secrets.found("b".into());
        assert_eq!(request(&mut secrets, "st-1", "a"), (2, true));
        assert!(!secrets.found("a".into()), "it signs already");
    }

    #[test]
    fn a_bot_that_is_always_refused_costs_a_bot_that_is_not_nothing() {
        let mut secrets = secrets();
        assert_eq!(request(&mut secrets, "st-good", "a"), (1, true));
        assert_eq!(request(&mut secrets, "st-bad", "nothing"), (2, false));
        assert_eq!(request(&mut secrets, "st-good", "a"), (1, true));
        let epoch = secrets.epoch();
        for _ in 0..10 {
            assert_eq!(request(&mut secrets, "st-bad", "nothing"), (1, false));
            assert_eq!(request(&mut secrets, "st-good", "a"), (1, true));
        }
        assert_eq!(secrets.epoch(), epoch);
    }

    #[test]
    fn bots_that_are_made_up_get_no_repeats_without_end_but_later_again() {
        let mut secrets = secrets();
        let mut repeats = 0;
        for n in 0..1000 {
            request(&mut secrets, "st-good", "a");
            repeats += request(&mut secrets, &format!("st-{n}"), "nothing").0 - 1;
        }
        assert_eq!(usize::try_from(repeats), Ok(MAX_SUSPECT_USES));
        let epoch = secrets.epoch();
        assert!(secrets.refused(epoch, &usage("st-good"), NOW.plus(SUSPECT_FOR)));
    }

    #[test]
    fn while_every_token_is_refused_both_secrets_are_tried_in_turn() {
        let mut secrets = secrets();
        secrets.found("b".into());
        for _ in 0..3 {
            assert!(!request(&mut secrets, "st-1", "nothing").1);
        }
        let tried: Vec<_> = (0..2).map(|_| request(&mut secrets, "st-1", "b")).collect();
        assert!(tried.contains(&(1, true)), "{tried:?}");
    }
}
