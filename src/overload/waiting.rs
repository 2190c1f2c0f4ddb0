//! Requests that wait, for the upstream, for their own bodies, for an issuer's keys or for what is made of an answer:
//! so many in all, and of them a share for each client and one for those whose credential is not known yet. What needs
//! no wait, a hit above all, needs no place.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::shares::{Bound, Full, Share, Shares, Who};
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

/// The requests that wait now.
#[derive(Default)]
pub struct Waiting(Shares);

/// A request that waits. It waits no more when this is dropped.
pub struct Place(#[expect(dead_code, reason = "it is given back when it is dropped")] Share);

impl Waiting {
    /// A place for one more request of `who`, if there is one.
    pub fn begin(&self, who: &Who, most: Most) -> Result<Place, Error> {
        let (of_one, whose) = match who {
            Some(_) => (most.of_client, "this client"),
            None => (most.unauthenticated, "those whose credential is not known yet"),
        };
        let mut share = self.0.begin(who);
        match share.grow(1, Bound { all: most.all, of_one }) {
            Ok(()) => Ok(Place(share)),
            Err(Full::Share) => {
                Err(full(format!("{of_one} requests of {whose} wait already, which is the share")))
            }
            Err(Full::All) => {
                Err(full(format!("{} requests wait already, and the gateway takes on no more", most.all)))
            }
        }
    }
}

fn full(detail: String) -> Error {
    Error::new(Kind::TemporaryReducedCapacity, detail).retry_after(SHED_FOR).because(Cause::Overload)
}

/// Does `work`; if it has to wait, with the place that `begin` gives. Without one it is over `soon` or refused.
pub async fn with_place<T, P>(
    work: impl Future<Output = Result<T, Error>>,
    soon: Duration,
    begin: impl FnOnce() -> Result<P, Error>,
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
        let waiting = Waiting::default();
        let begin = |name: Option<&str>| waiting.begin(&name.map(Into::into), MOST);
        let of_a: Vec<_> = (0..3).map(|_| begin(Some("a")).expect("within the share")).collect();
        assert!(begin(Some("a")).is_err());
        let stranger = begin(None).expect("their own share");
        assert!(begin(None).is_err());
        let of_b = begin(Some("b")).expect("the last place");
        assert!(begin(Some("b")).is_err_and(|error| error.wait() == Some(SHED_FOR)));
        drop((of_a, stranger));
        assert_eq!(waiting.0.now(), 1);
        assert!(begin(Some("a")).is_ok() && begin(None).is_ok());
        drop(of_b);
        assert_eq!(waiting.0.now(), 0, "who waits no more is not counted");
    }
}
