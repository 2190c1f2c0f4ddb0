//! Withholds an answer that repeats the token of its request: some servers and proxies quote the request in their error
//! pages. It searches for the token's signature, because the rest is worthless without it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use memchr::memmem::Finder;

use super::exchange::ExchangeError;
use super::outcome::AttemptOutcome;
use super::token::Token;
use crate::error::{Error, Kind};
use crate::fetch::answer::{ContentType, Fetched, Large, Parts};

/// Returns the outcome, unless it is an answer that contains the signature of `token`. Then it calls `count` and
/// returns a failure. Of a streamed answer, no byte of the signature leaves.
pub fn without_token(
    outcome: AttemptOutcome,
    token: &Token,
    count: impl Fn() + Send + Sync + 'static,
) -> AttemptOutcome {
    let Some(finder) = token.signature.clone() else { return outcome };
    let AttemptOutcome::Answered(fetched) = outcome else { return outcome };
    let contains = |bytes: &[u8]| finder.find(bytes).is_some();
    // Of the head, only the type is passed on unchanged.
    let (content_type, body) = match &fetched {
        Fetched::Whole(answer) => (&answer.content_type, &*answer.body),
        Fetched::Large(large, _) => (&large.content_type, &[][..]),
    };
    let content_type = content_type.as_ref().map(ContentType::value);
    if contains(body) || content_type.is_some_and(|name| contains(name.as_bytes())) {
        count();
        return AttemptOutcome::Failed(ExchangeError::Invalid(repeated()));
    }
    AttemptOutcome::Answered(match fetched {
        Fetched::Large(large, bounds) => {
            let body = watched(large.body, finder, count);
            Fetched::Large(Large { body, ..large }, bounds)
        }
        whole @ Fetched::Whole(_) => whole,
    })
}

/// The same parts. As many bytes as may be the start of a signature are held back.
fn watched(parts: Parts, finder: Arc<Finder<'static>>, count: impl Fn() + Send + Sync + 'static) -> Parts {
    let keep = finder.needle().len().saturating_sub(1);
    let count = Arc::new(count);
    let state = Some((parts.into_stream(), Vec::new()));
    Parts::new(
        stream::unfold(state, move |state| {
            let (finder, count) = (finder.clone(), count.clone());
            async move {
                let (mut parts, mut held) = state?;
                match parts.next().await {
                    Some(Ok(part)) => {
                        held.extend_from_slice(&part);
                        if finder.find(&held).is_some() {
                            count();
                            return Some((Err(repeated()), None));
                        }
                        let rest = held.split_off(held.len().saturating_sub(keep));
                        Some((Ok(Bytes::from(held)), Some((parts, rest))))
                    }
                    Some(Err(error)) => Some((Err(error), None)),
                    None => Some((Ok(Bytes::from(held)), None)),
                }
            }
        })
        .filter(|part| {
            let is_empty = part.as_ref().is_ok_and(Bytes::is_empty);
            std::future::ready(!is_empty)
        })
        .boxed(),
    )
}

fn repeated() -> Error {
    Error::new(Kind::UpstreamInvalid, "the upstream's answer repeats what only the gateway may know")
        .proxy_error("http_protocol_error")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::TryStreamExt;

    use super::*;

    fn parts(parts: &[&'static str]) -> Parts {
        let parts: Vec<Result<Bytes, Error>> =
            parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        Parts::new(stream::iter(parts).boxed())
    }

    fn finder() -> Arc<Finder<'static>> {
        Arc::new(Finder::new("SIGNATURE"))
    }

    #[tokio::test]
    async fn what_is_passed_on_stops_before_the_first_byte_of_a_signature_however_it_is_cut() {
        for cut in
            [&["before SIGNATURE after"][..], &["before SIGN", "ATURE after"], &["before S", "IGNATUR", "E"]]
        {
            let found = Arc::new(AtomicUsize::new(0));
            let counted = found.clone();
            let count = move || {
                counted.fetch_add(1, Ordering::Relaxed);
            };
            let mut passed = Vec::new();
            let mut stream = watched(parts(cut), finder(), count).into_stream();
            let ended = loop {
                match stream.try_next().await {
                    Ok(Some(part)) => passed.extend_from_slice(&part),
                    ended => break ended,
                }
            };
            assert!(ended.is_err(), "{cut:?}");
            assert!(b"before ".starts_with(&passed[..]), "{cut:?}: {passed:?}");
            assert_eq!(found.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test]
    async fn what_does_not_hold_it_is_passed_on_to_the_last_byte() {
        let text = ["SIGNATUR", "", "SIGNATUR", "e"];
        let stream = watched(parts(&text), finder(), || panic!("it is not there")).into_stream();
        let passed: Vec<Bytes> = stream.try_collect().await.expect("no error");
        assert_eq!(passed.concat(), text.concat().as_bytes());
    }
}
