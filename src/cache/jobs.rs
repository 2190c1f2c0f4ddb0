//! Work on a body that takes a while: done once for all who wait for it, off the threads that serve, and given up
//! when nobody waits any more. Those who wait hold no thread. Clients take turns: one that has much made does not keep
//! another waiting for more than what is being made already.

use std::convert::Infallible;
use std::future::pending;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::overload::shares::{Each, Who};

/// Bytes of a body up to which the work is done where its request is: some 0.1 ms of it.
pub const INLINE: usize = 8 * 1024;

/// In whose turn a body may be made ready, and for how long one waits for it.
#[derive(Clone, Debug)]
pub struct Turn {
    pub client: Who,
    pub at_most: Duration,
}

/// A piece of work, for one of those who wait for it. `None` is one that was lost to a panic or a shutdown.
#[derive(Clone)]
pub struct Job<T> {
    done: Shared<BoxFuture<'static, Option<T>>>,
    begin: Begin,
}

/// The same, for whoever may come to wait for it too.
#[derive(Debug)]
pub struct UnderWay<T> {
    done: WeakShared<BoxFuture<'static, Option<T>>>,
    begin: Begin,
}

/// Takes the place for the work, from the first of those who wait for it whose turn it is.
type Begin = Arc<Mutex<Option<oneshot::Sender<Place>>>>;

/// A client's turn, and a core.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Places for work: as many as there are cores, for each client and in all. So a client has no more at the head of the
/// queue for all than can be done at a time, and its next piece of work comes after those of others who wait.
pub struct Jobs {
    places: usize,
    turns: Each<Semaphore>,
    cores: Arc<Semaphore>,
}

/// Tells the work, when it is dropped, that nobody waits for it.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Job<T> {
    pub fn downgrade(&self) -> Option<UnderWay<T>> {
        Some(UnderWay { done: self.done.downgrade()?, begin: self.begin.clone() })
    }
}

impl<T> UnderWay<T> {
    /// If anybody still waits for it.
    pub fn upgrade(&self) -> Option<Job<T>> {
        Some(Job { done: self.done.upgrade()?, begin: self.begin.clone() })
    }
}

impl Jobs {
    pub fn new() -> Self {
        Self::with_places(available_parallelism().map_or(1, NonZero::get))
    }

    fn with_places(places: usize) -> Self {
        Self { places, turns: Each::default(), cores: Arc::new(Semaphore::new(places)) }
    }

    /// `work`, which is to end soon once what it is given becomes true. It begins when it is the turn of somebody who
    /// waits for it.
    pub fn job<T: Clone + Send + Sync + 'static>(
        work: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static,
    ) -> Job<T> {
        let (begin, begun) = oneshot::channel();
        let done = async move {
            let place: Place = begun.await.ok()?;
            let wanted = Wanted::default();
            let is_unwanted = wanted.0.clone();
            // The place is free when the work has ended, not when nobody waits for it any more.
            let work = move || {
                let _place = place;
                work(is_unwanted)
            };
            tokio::task::spawn_blocking(work).await.ok()
        };
        Job { done: done.boxed().shared(), begin: Arc::new(Mutex::new(Some(begin))) }
    }

    /// What comes of a piece of work, for one who waits for it on the account of `client`.
    pub async fn done<T: Clone>(&self, job: Job<T>, client: &Who) -> Option<T> {
        let turn = async {
            let Some(place) = self.place(client).await else { return pending::<Infallible>().await };
            let begin = job.begin.lock().unwrap_or_else(PoisonError::into_inner).take();
            // If another one's turn came first, the place is free again.
            if let Some(begin) = begin {
                let _ = begin.send(place);
            } else {
                drop(place);
            }
            pending().await
        };
        tokio::select! {
            biased;
            done = job.done.clone() => done,
            never = turn => match never {},
        }
    }

    async fn place(&self, client: &Who) -> Option<Place> {
        let turns = self.turns.of(client, || Semaphore::new(self.places));
        let turn = turns.acquire_owned().await.ok()?;
        Some((turn, self.cores.clone().acquire_owned().await.ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_share_one_piece_of_work() {
        let (jobs, times) = (Jobs::new(), Arc::new(AtomicUsize::new(0)));
        let counted = times.clone();
        let job = Jobs::job(move |_| counted.fetch_add(1, Ordering::Relaxed) + 7);
        let waiting = join_all((0..500).map(|_| jobs.done(job.clone(), &None)));
        assert_eq!(waiting.await, vec![Some(7); 500]);
        assert_eq!(times.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn work_goes_on_while_one_waits_and_is_told_when_nobody_does() {
        let (began, has_begun) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let jobs = Arc::new(Jobs::new());
        let job = Jobs::job(move |is_unwanted| {
            began.send(is_unwanted.clone()).expect("the test listens");
            while !is_unwanted.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            ended.send(()).expect("the test listens");
        });
        let another = job.clone();
        let first = tokio::spawn(async move { jobs.done(job, &None).await });
        let is_unwanted = tokio::task::spawn_blocking(move || has_begun.recv().expect("it begins"));
        let is_unwanted = is_unwanted.await.expect("no panic");
        first.abort();
        assert!(first.await.is_err_and(|error| error.is_cancelled()));
        assert!(!is_unwanted.load(Ordering::Relaxed), "somebody still waits");
        drop(another);
        tokio::task::spawn_blocking(move || has_ended.recv().expect("it ends")).await.expect("no panic");
    }

    #[tokio::test]
    async fn no_more_is_done_at_a_time_than_there_are_cores() {
        let (jobs, now, most) = (Jobs::new(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let clients = [None, Some("a".into()), Some("b".into())];
        let all = (0..50).map(|n| {
            let (now, most) = (now.clone(), most.clone());
            let job = Jobs::job(move |_| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            });
            jobs.done(job, &clients[n % clients.len()])
        });
        join_all(all).await;
        let cores = available_parallelism().expect("it is known").get();
        assert!(most.load(Ordering::SeqCst) <= cores);
    }

    /// Also work that another client waits for too, who has much before it.
    #[tokio::test]
    async fn clients_take_turns() {
        let jobs = Jobs::with_places(2);
        let (a, b) = (Some("a".into()), Some("b".into()));
        let done = Mutex::new(Vec::new());
        let job = |n: usize| Jobs::job(move |_| n);
        let shared = job(100);
        let of = async |job: Job<usize>, client| {
            let n = jobs.done(job, client).await.expect("no panic");
            done.lock().expect("no panic").push(n);
        };
        let of_a = join_all((0..20).map(job).chain([shared.clone()]).map(|job| of(job, &a)));
        let of_b = join_all([job(101), shared].map(|job| of(job, &b)));
        futures_util::join!(of_a, of_b);
        let done = done.into_inner().expect("no panic");
        let last = |n| done.iter().rposition(|done| *done == n).expect("it is done");
        assert!(last(101) < 8 && done.iter().position(|n| *n == 100).expect("it is done") < 8, "{done:?}");
    }

    #[tokio::test]
    async fn work_that_panics_is_none_for_all_and_leaves_its_place() {
        let jobs = Jobs::with_places(1);
        let lost: Job<()> = Jobs::job(|_| std::panic::resume_unwind(Box::new(())));
        assert_eq!(jobs.done(lost, &None).await, None);
        assert_eq!(jobs.done(Jobs::job(|_| 1), &None).await, Some(1));
    }
}
