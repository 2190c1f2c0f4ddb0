//! Work on a body that takes a while: done once for all who wait for it, off the threads that serve, and given up
//! when nobody waits any more. Those who wait hold no thread.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;

/// Bytes of a body up to which the work is done where its request is: some 0.1 ms of it.
pub const INLINE: usize = 8 * 1024;

/// A piece of work, for one of those who wait for it. `None` is one that was lost to a panic or a shutdown.
pub type Job<T> = Shared<BoxFuture<'static, Option<T>>>;
/// The same, for whoever may come to wait for it too.
pub type UnderWay<T> = WeakShared<BoxFuture<'static, Option<T>>>;

/// Places for work: as many as there are cores.
pub struct Jobs(Arc<Semaphore>);

/// Tells the work, when it is dropped, that nobody waits for it.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Jobs {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(available_parallelism().map_or(1, NonZero::get))))
    }

    /// `work`, which is to end soon once what it is given becomes true. It begins when somebody waits for it and
    /// there is a place.
    pub fn job<T: Clone + Send + Sync + 'static>(
        &self,
        work: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static,
    ) -> Job<T> {
        let places = self.0.clone();
        let done = async move {
            let place = places.acquire_owned().await.ok()?;
            let wanted = Wanted::default();
            let is_unwanted = wanted.0.clone();
            // The place is free when the work has ended, not when nobody waits for it any more.
            let work = move || {
                let _place = place;
                work(is_unwanted)
            };
            tokio::task::spawn_blocking(work).await.ok()
        };
        done.boxed().shared()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_share_one_piece_of_work() {
        let (jobs, times) = (Jobs::new(), Arc::new(AtomicUsize::new(0)));
        let counted = times.clone();
        let job = jobs.job(move |_| counted.fetch_add(1, Ordering::Relaxed) + 7);
        let waiting = futures_util::future::join_all((0..500).map(|_| job.clone()));
        assert_eq!(waiting.await, vec![Some(7); 500]);
        assert_eq!(times.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn work_goes_on_while_one_waits_and_is_told_when_nobody_does() {
        let (began, has_begun) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let job = Jobs::new().job(move |is_unwanted| {
            began.send(is_unwanted.clone()).expect("the test listens");
            while !is_unwanted.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            ended.send(()).expect("the test listens");
        });
        let another = job.clone();
        let first = tokio::spawn(job);
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
        let all = (0..50).map(|_| {
            let (now, most) = (now.clone(), most.clone());
            jobs.job(move |_| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
            })
        });
        futures_util::future::join_all(all).await;
        let cores = available_parallelism().expect("it is known").get();
        assert!(most.load(Ordering::SeqCst) <= cores);
    }

    #[tokio::test]
    async fn work_that_panics_is_none_for_all_and_leaves_its_place() {
        let jobs = Jobs(Arc::new(Semaphore::new(1)));
        let lost: Job<()> = jobs.job(|_| std::panic::resume_unwind(Box::new(())));
        assert_eq!(lost.await, None);
        assert_eq!(jobs.job(|_| 1).await, Some(1));
    }
}
