//! Requests that wait, for the upstream, for their own bodies or for an issuer's keys: so many in all, and of
//! them a share for each client and one for those whose credential is not known yet. What needs no wait, a
//! hit above all, needs no place.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use crate::error::cause::Cause;
use crate::error::{Error, Kind};

/// After so long a gateway that has too much to do may have done it.
const SHED_FOR: Duration = Duration::from_secs(1);

/// How many may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Most {
    pub all: usize,
    /// Of one client.
    pub of_client: usize,
    pub unauthenticated: usize,
}

/// Who waits: a client by its name, or somebody who is not known yet.
type Who = Option<Arc<str>>;

/// The requests that wait now.
#[derive(Default)]
pub struct Waiting(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    of: HashMap<Who, usize>,
}

/// A request that waits. It waits no more when this is dropped.
pub struct Place {
    waiting: Arc<Waiting>,
    who: Who,
}

impl Waiting {
    /// A place for one more request of `who`, if there is one.
    pub fn begin(self: &Arc<Self>, who: Who, most: Most) -> Result<Place, Error> {
        let mut counts = self.counts();
        let own = counts.of.get(&who).copied().unwrap_or_default();
        let (share, whose) = match who {
            Some(_) => (most.of_client, "this client"),
            None => (most.unauthenticated, "those whose credential is not known yet"),
        };
        if own >= share {
            return Err(full(format!("{share} requests of {whose} wait already, which is the share")));
        }
        if counts.all >= most.all {
            return Err(full(format!(
                "{} requests wait already, and the gateway takes on no more",
                most.all
            )));
        }
        counts.all += 1;
        counts.of.insert(who.clone(), own + 1);
        Ok(Place { waiting: self.clone(), who })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.waiting.counts();
        counts.all = counts.all.saturating_sub(1);
        if let Some(own) = counts.of.get_mut(&self.who) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                counts.of.remove(&self.who);
            }
        }
    }
}

fn full(detail: String) -> Error {
    Error::new(Kind::TemporaryReducedCapacity, detail).retry_after(SHED_FOR).because(Cause::Overload)
}

/// Does `work`; if it has to wait, with the place that `begin` gives. Without one it is over `soon` or refused.
pub async fn with_place<T>(
    work: impl Future<Output = Result<T, Error>>,
    soon: Duration,
    begin: impl FnOnce() -> Result<Place, Error>,
) -> Result<T, Error> {
    let mut work = pin!(work);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        return done;
    }
    let _place = match begin() {
        Ok(place) => place,
        Err(full) => return tokio::time::timeout(soon, work).await.unwrap_or(Err(full)),
    };
    work.await
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { all: 5, of_client: 3, unauthenticated: 1 };

    #[test]
    fn each_has_its_share_all_have_the_whole_and_places_come_back() {
        let waiting = Arc::new(Waiting::default());
        let begin = |name: Option<&str>| waiting.begin(name.map(Arc::from), MOST);
        let of_a: Vec<_> = (0..3).map(|_| begin(Some("a")).expect("within the share")).collect();
        assert!(begin(Some("a")).is_err());
        let stranger = begin(None).expect("their own share");
        assert!(begin(None).is_err());
        let of_b = begin(Some("b")).expect("the last place");
        assert!(begin(Some("b")).is_err_and(|error| error.wait() == Some(SHED_FOR)));
        drop((of_a, stranger));
        assert_eq!(waiting.counts().all, 1);
        assert!(begin(Some("a")).is_ok() && begin(None).is_ok());
        drop(of_b);
        assert!(waiting.counts().of.is_empty(), "who waits no more is forgotten");
    }
}
