//! An answer too large to be held, passed on as it comes to all who waited for it.
//!
//! They go at one pace, so nothing is held but what is on its way. Who has held up the quickest for a second
//! is left behind, however many are as slow, and so is who takes nothing for too long. A caller whose part ends without its
//! [`Part::End`] was cut off, and sees a connection that breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{sleep, timeout_at};

use super::json_end::JsonEnd;
use crate::clock::Clock;
use crate::error::{Error, Kind};
use crate::fetch::answer::{Bounds, ContentType, Large, Parts};

/// Parts that a caller may be behind the quickest.
const AHEAD: usize = 4;

/// For how long in all a caller may hold up the quickest, who has nothing left to send then.
const MOST_BEHIND: Duration = Duration::from_secs(1);

/// What of the time that passes makes up for having held up others: who is a little slower all the time is
/// no nuisance.
const MADE_UP: u32 = 10;

/// Bytes looked through before other tasks get their turn: some 0.1 ms.
const STRETCH: usize = 64 * 1024;

#[derive(Clone)]
enum Part {
    Bytes(Bytes),
    End,
}

/// The start of the way: open as long as anybody holds it.
#[derive(Debug)]
pub struct Broadcast {
    status: StatusCode,
    content_type: Option<ContentType>,
    subscribers: mpsc::UnboundedSender<mpsc::Sender<Part>>,
}

impl Broadcast {
    /// Sets off, in a task of its own, once nobody can subscribe any more.
    pub fn open(large: Large, bounds: Bounds, clock: Clock) -> Arc<Self> {
        let (subscribers, subscribed) = mpsc::unbounded_channel();
        let Large { status, content_type, body } = large;
        tokio::spawn(forward(body, bounds, subscribed, clock));
        Arc::new(Self { status, content_type, subscribers })
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The whole answer, for one more caller.
    pub fn subscribe(&self) -> Large {
        let (place, parts) = mpsc::channel(AHEAD);
        // It is there as long as somebody can subscribe; if not, the caller is cut off.
        let _ = self.subscribers.send(place);
        let parts = stream::unfold(Some(parts), |parts| async {
            let mut parts = parts?;
            match parts.recv().await {
                Some(Part::Bytes(bytes)) => Some((Ok(bytes), Some(parts))),
                Some(Part::End) => None,
                None => Some((Err(Error::new(Kind::UpstreamInvalid, "the answer was cut")), None)),
            }
        });
        Large {
            status: self.status,
            content_type: self.content_type.clone(),
            body: Parts::new(parts.boxed()),
        }
    }
}

/// A caller, and for how long it has held up the quickest.
struct Caller {
    place: mpsc::Sender<Part>,
    behind: Duration,
}

async fn forward(
    body: Parts,
    bounds: Bounds,
    mut subscribed: mpsc::UnboundedReceiver<mpsc::Sender<Part>>,
    clock: Clock,
) {
    let mut callers = Vec::new();
    while let Some(place) = subscribed.recv().await {
        callers.push(Caller { place, behind: Duration::ZERO });
    }
    let mut readers = Readers { callers, since: clock.uptime(), stall_timeout: bounds.stall_timeout, clock };
    let forwarding = async {
        let (mut parts, mut json_end) = (body.into_stream(), JsonEnd::default());
        while let Some(part) = parts.next().await {
            // The upstream broke off: so does this.
            let Ok(part) = part else { return };
            for stretch in part.chunks(STRETCH) {
                json_end.read(stretch);
                tokio::task::yield_now().await;
            }
            readers.send_to_all(Part::Bytes(part)).await;
            if readers.callers.is_empty() {
                return;
            }
        }
        if json_end.are_closed().unwrap_or(bounds.is_framed) {
            readers.send_to_all(Part::End).await;
        }
    };
    // What is not done by then is cut: the way, and with it the upstream's connection, ends here.
    let _ = timeout_at(bounds.until, forwarding).await;
}

/// All who are still being given an answer.
struct Readers {
    callers: Vec<Caller>,
    /// When somebody was last waited for.
    since: Duration,
    /// For how long nobody may take anything.
    stall_timeout: Duration,
    clock: Clock,
}

impl Readers {
    /// Gives a part to all, and lets go of those who have left, do not take it, or are too far behind.
    async fn send_to_all(&mut self, part: Part) {
        let mut late = Vec::new();
        for caller in std::mem::take(&mut self.callers) {
            match caller.place.try_send(part.clone()) {
                Ok(()) => self.callers.push(caller),
                Err(TrySendError::Full(_)) => late.push(caller),
                Err(TrySendError::Closed(_)) => {}
            }
        }
        if late.is_empty() {
            return;
        }
        let made_up = self.clock.uptime().saturating_sub(self.since) / MADE_UP;
        late.iter_mut().for_each(|caller| caller.behind = caller.behind.saturating_sub(made_up));
        self.wait_for(late, &part).await;
        self.since = self.clock.uptime();
    }

    /// Waits for those who had no room for a part: once somebody else has sent all that there is, no longer than each
    /// may be behind.
    async fn wait_for(&mut self, late: Vec<Caller>, part: &Part) {
        let mut behind: Vec<_> = late.iter().map(|caller| Some(caller.behind)).collect();
        let mut taking: FuturesUnordered<_> = late
            .into_iter()
            .enumerate()
            .map(|(number, caller)| async move {
                let taken = caller.place.send(part.clone()).await.is_ok();
                (number, caller, taken)
            })
            .collect();
        let mut stalled = std::pin::pin!(sleep(self.stall_timeout));
        let mut starving: FuturesUnordered<_> =
            self.callers.iter().map(|caller| has_nothing_left(caller.place.clone())).collect();
        let mut held_up_since = None;
        loop {
            let too_far_behind = async {
                // The first who must be let go of.
                match (held_up_since, behind.iter().flatten().max()) {
                    (Some(since), Some(most)) => {
                        let waited = self.clock.uptime().saturating_sub(since);
                        self.clock.sleep(MOST_BEHIND.saturating_sub(*most).saturating_sub(waited)).await;
                    }
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                taken = taking.next() => {
                    let Some((number, mut caller, is_taken)) = taken else { return };
                    // Who was let go of may have taken it in the same moment, and has no place any more.
                    let Some(before) = behind.get_mut(number).and_then(Option::take) else { continue };
                    let now = self.clock.uptime();
                    caller.behind = before + now.saturating_sub(held_up_since.unwrap_or(now));
                    if is_taken {
                        starving.push(has_nothing_left(caller.place.clone()));
                        self.callers.push(caller);
                    }
                }
                Some(()) = starving.next(), if held_up_since.is_none() => {
                    held_up_since = Some(self.clock.uptime());
                }
                () = too_far_behind => {
                    let since = held_up_since.unwrap_or_default();
                    let waited = self.clock.uptime().saturating_sub(since);
                    for place in &mut behind {
                        *place = place.filter(|before| *before + waited < MOST_BEHIND);
                    }
                    if behind.iter().all(Option::is_none) {
                        return;
                    }
                }
                () = &mut stalled => return,
            }
        }
    }
}

/// When a caller who is still there has sent all that it was given.
async fn has_nothing_left(place: mpsc::Sender<Part>) {
    if place.reserve_many(AHEAD).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::clock::UnixMillis;

    const PARTS: usize = 50;

    /// An answer of so many parts, and how many of them have been asked for.
    fn broadcast(clock: &Clock) -> (Arc<Broadcast>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let text = |n| {
            if n == 0 {
                "[1"
            } else if n == PARTS - 1 {
                "]"
            } else {
                ",1"
            }
        };
        let parts = stream::iter(0..PARTS).map(move |n| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(text(n).as_bytes()))
        });
        let large = Large { status: StatusCode::OK, content_type: None, body: Parts::new(parts.boxed()) };
        let until = tokio::time::Instant::now() + Duration::from_secs(3600);
        let bounds = Bounds { is_framed: true, until, stall_timeout: Duration::from_secs(600) };
        (Broadcast::open(large, bounds, clock.clone()), asked)
    }

    type Reader = stream::BoxStream<'static, Result<Bytes, Error>>;

    fn boards(broadcast: &Broadcast) -> Reader {
        broadcast.subscribe().body.into_stream()
    }

    /// What is at hand, and whether it ended well; `None` while there may be more.
    async fn at_hand(reader: &mut Reader, most: usize) -> (usize, Option<bool>) {
        let mut got = 0;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        while got < most {
            match reader.next().now_or_never() {
                None => break,
                Some(None) => return (got, Some(true)),
                Some(Some(Err(_))) => return (got, Some(false)),
                Some(Some(Ok(_))) => got += 1,
            }
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        (got, None)
    }

    #[tokio::test]
    async fn who_stands_still_is_let_go_of_after_a_second_and_the_others_go_on() {
        let clock = Clock::manual(UnixMillis(0));
        let (broadcast, _) = broadcast(&clock);
        let (mut quick, mut slow) = (boards(&broadcast), boards(&broadcast));
        drop(broadcast);
        let (got, end) = at_hand(&mut quick, PARTS).await;
        assert_eq!((got, end), (AHEAD + 1, None), "a part more than the other has room for");
        clock.advance(MOST_BEHIND - Duration::from_millis(1));
        assert_eq!(at_hand(&mut quick, PARTS).await, (0, None));
        clock.advance(Duration::from_millis(1));
        assert_eq!(at_hand(&mut quick, PARTS).await, (PARTS - AHEAD - 1, Some(true)));
        assert_eq!(at_hand(&mut slow, PARTS).await, (AHEAD, Some(false)));
    }

    #[tokio::test]
    async fn who_is_slow_all_the_time_holds_up_the_others_for_a_second_in_all() {
        let clock = Clock::manual(UnixMillis(0));
        let (broadcast, _) = broadcast(&clock);
        let (mut quick, mut slow) = (boards(&broadcast), boards(&broadcast));
        drop(broadcast);
        let (mut taken, mut steps) = (0, 0);
        let ended = loop {
            let (got, end) = at_hand(&mut quick, PARTS).await;
            taken += got;
            if let Some(end) = end {
                break end;
            }
            // A part each 300 ms.
            clock.advance(Duration::from_millis(300));
            steps += 1;
            assert!(steps < 10, "held up for too long");
            at_hand(&mut slow, 1).await;
        };
        assert!(ended && taken == PARTS, "{taken}");
        assert_eq!(at_hand(&mut slow, PARTS).await.1, Some(false));
    }

    #[tokio::test]
    async fn one_who_is_quicker_than_most_does_not_wait_for_them_either() {
        let clock = Clock::manual(UnixMillis(0));
        let (broadcast, asked) = broadcast(&clock);
        let (mut quick, mut slow) = (boards(&broadcast), [boards(&broadcast), boards(&broadcast)]);
        drop(broadcast);
        assert_eq!(at_hand(&mut quick, PARTS).await, (AHEAD + 1, None));
        clock.advance(MOST_BEHIND);
        assert_eq!(at_hand(&mut quick, PARTS).await, (PARTS - AHEAD - 1, Some(true)));
        for reader in &mut slow {
            assert_eq!(at_hand(reader, PARTS).await, (AHEAD, Some(false)));
        }
        assert_eq!(asked.load(Ordering::Relaxed), PARTS);
    }

    /// They take their parts in turns, so one has each part before the other, and neither has nothing left.
    #[tokio::test]
    async fn two_who_are_as_slow_as_each_other_both_get_all_of_it() {
        let clock = Clock::manual(UnixMillis(0));
        let (broadcast, _) = broadcast(&clock);
        let mut readers = [boards(&broadcast), boards(&broadcast)];
        drop(broadcast);
        let mut ends = [None; 2];
        for n in 0..3 * PARTS {
            let (reader, end) = (&mut readers[n % 2], &mut ends[n % 2]);
            if end.is_none() {
                *end = at_hand(reader, 1).await.1;
            }
            clock.advance(MOST_BEHIND / 2);
        }
        assert_eq!(ends, [Some(true); 2]);
    }
}
