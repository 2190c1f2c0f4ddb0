//! Bytes that are held for a while beside what is stored: of answers being read, and of bodies that responses hold.
//! Each has a bound, so that peers which are slow cost no more memory than was meant for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::error::{Error, Kind};

/// Bodies of fewer bytes are not counted: what is not stored of them costs a call of the upstream's quota each, and a
/// hit of one should not pay for the count.
const LEAST: usize = 64 * 1024;

/// Until there may be room again: about as long as a body takes to be sent.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Bytes that are taken now.
#[derive(Debug, Default)]
pub struct Bytes(AtomicUsize);

/// Some of them. They are given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    of: Arc<Bytes>,
    bytes: usize,
}

impl Bytes {
    pub fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Nothing yet.
    pub fn begin(self: &Arc<Self>) -> Taken {
        Taken { of: self.clone(), bytes: 0 }
    }
}

impl Taken {
    /// Takes more until there are so many; as [`Taken::grow`].
    pub fn grow_to(&mut self, bytes: usize, most: usize) -> bool {
        self.grow(bytes.saturating_sub(self.bytes), most)
    }

    /// Takes more, if there are then at most `most` taken in all, or none by anybody else: what is alone has room, or
    /// it would never have any.
    pub fn grow(&mut self, more: usize, most: usize) -> bool {
        let fits = |now: usize| {
            let then = now.saturating_add(more);
            (then <= most || now == self.bytes).then_some(then)
        };
        let grown = self.of.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if grown { more } else { 0 };
        grown
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The large bodies that responses hold, each counted once, however many hold it.
#[derive(Default)]
pub struct Responses(Arc<Held>);

#[derive(Default)]
struct Held {
    bytes: Arc<Bytes>,
    /// By where they are in memory.
    bodies: Mutex<HashMap<usize, Weak<Counted>, RandomState>>,
}

/// A body as a response holds it.
pub enum HeldBody {
    /// Too small to be counted.
    Small(Arc<[u8]>),
    Counted(Arc<Counted>),
}

/// A body that counts until the last response lets it go.
pub struct Counted {
    pub bytes: Arc<[u8]>,
    _taken: Taken,
    held: Arc<Held>,
}

impl Responses {
    /// Bytes of them.
    pub fn bytes(&self) -> usize {
        self.0.bytes.now()
    }

    /// `body` for one more response; at most `most` bytes for all of them.
    pub fn hold(&self, body: Arc<[u8]>, most: usize) -> Result<HeldBody, Error> {
        if body.len() < LEAST {
            Ok(HeldBody::Small(body))
        } else {
            self.count(body, most).map(HeldBody::Counted)
        }
    }

    fn count(&self, body: Arc<[u8]>, most: usize) -> Result<Arc<Counted>, Error> {
        let mut bodies = self.0.bodies();
        if let Some(counted) = bodies.get(&place(&body)).and_then(Weak::upgrade) {
            return Ok(counted);
        }
        let mut taken = self.0.bytes.begin();
        if !taken.grow(body.len(), most) {
            return Err(full("sending as many bytes of answers"));
        }
        let counted = Arc::new(Counted { bytes: body, _taken: taken, held: self.0.clone() });
        bodies.insert(place(&counted.bytes), Arc::downgrade(&counted));
        Ok(counted)
    }
}

impl Held {
    /// No change is left half done by a panic.
    fn bodies(&self) -> MutexGuard<'_, HashMap<usize, Weak<Counted>, RandomState>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut bodies = self.held.bodies();
        // Another response may have counted the same body anew meanwhile.
        if bodies.get(&place(&self.bytes)).is_some_and(|counted| counted.strong_count() == 0) {
            bodies.remove(&place(&self.bytes));
        }
    }
}

fn place(body: &Arc<[u8]>) -> usize {
    Arc::as_ptr(body).addr()
}

/// What is refused for want of room.
pub fn full(what: &str) -> Error {
    let detail = format!("the gateway is {what} as it may hold at a time");
    Error::new(Kind::TemporaryReducedCapacity, detail).retry_after(FULL_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(length: usize) -> Arc<[u8]> {
        vec![b'x'; length].into()
    }

    #[test]
    fn a_body_counts_once_until_the_last_response_lets_it_go() {
        let responses = Responses::default();
        let (one, other) = (body(LEAST), body(LEAST));
        let held: Vec<_> = (0..40).map(|_| responses.hold(one.clone(), LEAST).expect("one body")).collect();
        assert_eq!(responses.bytes(), LEAST);
        let refused = responses.hold(other.clone(), 2 * LEAST - 1).err().expect("no room for another");
        assert_eq!((refused.kind, refused.wait()), (Kind::TemporaryReducedCapacity, Some(FULL_FOR)));
        assert!(responses.hold(other.clone(), 2 * LEAST).is_ok());
        assert_eq!(responses.bytes(), LEAST, "and let go again");
        assert!(responses.hold(body(LEAST - 1), 0).is_ok(), "what is small is not counted");
        drop(held);
        assert_eq!((responses.bytes(), responses.0.bodies().len()), (0, 0));
        assert!(responses.hold(other, 1).is_ok(), "what is alone has room");
    }

    #[test]
    fn what_is_read_counts_as_it_grows_and_has_room_where_it_is_alone() {
        let bytes = Arc::new(Bytes::default());
        let (mut one, mut other) = (bytes.begin(), bytes.begin());
        assert!(one.grow(10, 15) && one.grow(10, 15), "alone");
        assert!(!other.grow(1, 15) && other.grow(5, 25));
        assert_eq!(bytes.now(), 25);
        assert!(!one.grow(1, 25));
        drop(other);
        assert_eq!(bytes.now(), 20);
        drop(one);
        assert_eq!(bytes.now(), 0);
    }
}
