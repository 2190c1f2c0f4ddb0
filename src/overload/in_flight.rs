//! The bodies that responses hold for a while beside what is stored. They have a bound, and each client a share of it,
//! so that peers which are slow cost no more memory than was meant for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::shares::{Bound, Full, Shares, Taken, Who};
use crate::error::{Error, Kind};

/// Bodies of fewer bytes are not counted: what is not stored of them costs a call of the upstream's quota each, and a
/// hit of one should not pay for the count.
const LEAST: usize = 64 * 1024;

/// Until there may be room again: about as long as a body takes to be sent.
const FULL_FOR: Duration = Duration::from_secs(5);

/// The large bodies that responses hold, each counted once, however many hold it; and once for each client.
#[derive(Default)]
pub struct Responses(Arc<Held>);

#[derive(Default)]
struct Held {
    shares: Shares,
    /// By where they are in memory.
    bodies: Mutex<Bodies>,
}

type Bodies = HashMap<usize, Body, RandomState>;

/// Who holds a body.
#[derive(Default)]
struct Body {
    in_all: Weak<Taken>,
    of_each: HashMap<Who, Weak<Counted>, RandomState>,
}

/// A body that counts until the last response of one client lets it go.
pub struct Counted {
    pub bytes: Arc<[u8]>,
    who: Who,
    _own: Taken,
    _in_all: Arc<Taken>,
    held: Arc<Held>,
}

/// A counted body as a response holds it.
struct HeldBody(Arc<Counted>);

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Responses {
    /// Bytes of them.
    pub fn bytes(&self) -> usize {
        self.0.shares.now()
    }

    /// `body` for one more response to a client, as long as there is room.
    pub fn hold(&self, body: Arc<[u8]>, client: &Arc<str>, bound: Bound) -> Result<Bytes, Error> {
        if body.len() < LEAST {
            return Ok(Bytes::from_owner(body));
        }
        let counted = self.count(body, Some(client.clone()), bound);
        counted
            .map(|counted| Bytes::from_owner(HeldBody(counted)))
            .map_err(|is_full| full("sending", is_full))
    }

    fn count(&self, bytes: Arc<[u8]>, who: Who, bound: Bound) -> Result<Arc<Counted>, Full> {
        let Held { shares, .. } = &*self.0;
        let mut bodies = self.0.bodies();
        let known = bodies.get(&place(&bytes));
        if let Some(counted) = known.and_then(|body| body.of_each.get(&who)).and_then(Weak::upgrade) {
            return Ok(counted);
        }
        let mut own = shares.begin_own(&who);
        if !own.grow(bytes.len(), bound.of_one) {
            return Err(Full::Share);
        }
        let in_all = match known.and_then(|body| body.in_all.upgrade()) {
            Some(in_all) => in_all,
            None => {
                let mut in_all = shares.begin_all();
                if !in_all.grow(bytes.len(), bound.all) {
                    return Err(Full::All);
                }
                Arc::new(in_all)
            }
        };
        let body = bodies.entry(place(&bytes)).or_default();
        body.in_all = Arc::downgrade(&in_all);
        let counted = Counted { bytes, who: who.clone(), _own: own, _in_all: in_all, held: self.0.clone() };
        let counted = Arc::new(counted);
        body.of_each.insert(who.clone(), Arc::downgrade(&counted));
        Ok(counted)
    }
}
impl Held {
    /// No change is left half done by a panic.
    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut bodies = self.held.bodies();
        let Some(body) = bodies.get_mut(&place(&self.bytes)) else { return };
        // Another response may have counted the same body anew meanwhile.
        if body.of_each.get(&self.who).is_some_and(|counted| counted.strong_count() == 0) {
            body.of_each.remove(&self.who);
        }
        if body.of_each.is_empty() {
            bodies.remove(&place(&self.bytes));
        }
    }
}

fn place(body: &Arc<[u8]>) -> usize {
    Arc::as_ptr(body).addr()
}

/// What is refused for want of room: `doing` says what the gateway does with the bytes.
pub fn full(doing: &str, is_full: Full) -> Error {
    let detail = match is_full {
        Full::Share => {
            format!("the gateway is {doing} as many bytes of answers for this client as is its share")
        }
        Full::All => format!("the gateway is {doing} as many bytes of answers as it may hold at a time"),
    };
    Error::new(Kind::TemporaryReducedCapacity, detail).retry_after(FULL_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { all: 3 * LEAST, of_one: 2 * LEAST };

    fn body(length: usize) -> Arc<[u8]> {
        vec![b'x'; length].into()
    }

    #[test]
    fn a_body_counts_once_until_the_last_response_lets_it_go() {
        let (responses, who) = (Responses::default(), &"a".into());
        let (one, other) = (body(LEAST), body(LEAST));
        let just = |all| Bound { all, of_one: all };
        let held: Vec<_> =
            (0..40).map(|_| responses.hold(one.clone(), who, just(LEAST)).expect("one body")).collect();
        assert_eq!(responses.bytes(), LEAST);
        let refused =
            responses.hold(other.clone(), who, just(2 * LEAST - 1)).expect_err("no room for another");
        assert_eq!((refused.kind, refused.wait()), (Kind::TemporaryReducedCapacity, Some(FULL_FOR)));
        assert!(responses.hold(other.clone(), who, just(2 * LEAST)).is_ok());
        assert_eq!(responses.bytes(), LEAST, "and let go again");
        assert!(responses.hold(body(LEAST - 1), who, just(0)).is_ok(), "what is small is not counted");
        drop(held);
        assert_eq!((responses.bytes(), responses.0.bodies().len()), (0, 0));
        assert!(responses.hold(other, who, just(1)).is_ok(), "what is alone has room");
    }

    #[test]
    fn a_body_of_several_clients_counts_for_each_and_once_in_all() {
        let (responses, [a, b]) = (Responses::default(), ["a", "b"].map(Into::into));
        let [one, two, three] = [body(LEAST), body(LEAST), body(LEAST)];
        let hold = |body: &Arc<[u8]>, who| responses.hold(body.clone(), who, BOUND);
        let of_a = (hold(&one, &a).expect("room"), hold(&two, &a).expect("room"));
        let of_b = hold(&one, &b).expect("room");
        assert_eq!(responses.bytes(), 2 * LEAST);
        assert!(hold(&three, &a).is_err() && hold(&three, &b).is_ok());
        drop(of_a);
        assert_eq!(responses.bytes(), LEAST, "the other one still has it");
        let _two = hold(&two, &b).expect("room");
        assert!(hold(&three, &b).is_err(), "and it counts for the other one");
        drop(of_b);
        assert_eq!((responses.bytes(), responses.0.bodies().len()), (LEAST, 1));
    }
}
