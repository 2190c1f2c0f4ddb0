//! The requests of one HTTP/2 connection, in the connection's own task.
//!
//! hyper would spawn a task for each, and each of sixteen answers would then wake the connection's task
//! for itself. Polled beside their connection they are all answered before it is polled again, and what
//! it counts of them needs no locked instruction. The price: one connection keeps one core busy at most,
//! as in HTTP/1.1.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;

/// A request and its answer.
type Exchange = BoxFuture<'static, ()>;

/// hyper's executor for one connection: keeps what is to be run until [`Exchanges::run`].
#[derive(Clone, Default)]
pub struct Begun(Arc<Mutex<Vec<Exchange>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, exchange: F) {
        // One that panics ends alone, as a task would.
        let exchange = AssertUnwindSafe(exchange).catch_unwind().map(drop).boxed();
        self.waiting().push(exchange);
    }
}

impl Begun {
    fn waiting(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exchanges of a connection that have not ended.
#[derive(Default)]
pub struct Exchanges {
    begun: Begun,
    under_way: FuturesUnordered<Exchange>,
}

impl Exchanges {
    /// Where new ones come in.
    pub fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// Lets each that can go on do so. The others wake the task of `context` when they can.
    pub fn run(&mut self, context: &mut Context<'_>) {
        loop {
            self.under_way.extend(self.begun.waiting().drain(..));
            while let Poll::Ready(Some(())) = self.under_way.poll_next_unpin(context) {}
            // What they have begun themselves has nobody else to run it.
            if self.begun.waiting().is_empty() {
                break;
            }
        }
    }
}

impl Drop for Exchanges {
    /// hyper gives each stream its executor, so each exchange that waits holds the list it is in: without
    /// this, those of a connection that ends before they are run would be held for ever.
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *self.begun.waiting());
        // Not under the lock: what is dropped may be the last to hold the list.
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn those_that_were_never_run_go_with_their_connection_though_they_hold_their_list() {
        let (exchanges, held) = (Exchanges::default(), Arc::new(()));
        let kept = (exchanges.begun(), held.clone());
        exchanges.begun().execute(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        assert_eq!(Arc::strong_count(&held), 2);
        drop(exchanges);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn what_one_begins_is_run_in_the_same_turn() {
        let (mut exchanges, done) = (Exchanges::default(), Arc::new(AtomicU32::new(0)));
        let (begun, counted) = (exchanges.begun(), done.clone());
        exchanges.begun().execute(async move {
            begun.execute(async move {
                counted.fetch_add(1, Ordering::SeqCst);
            });
        });
        std::future::poll_fn(|context| {
            exchanges.run(context);
            Poll::Ready(())
        })
        .await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn one_that_panics_leaves_the_others_alone() {
        let (mut exchanges, done) = (Exchanges::default(), Arc::new(AtomicU32::new(0)));
        let one = || {
            let done = done.clone();
            async move {
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        let begun = exchanges.begun();
        begun.execute(one());
        begun.execute(async { panic!("a test's own") });
        begun.execute(one());
        std::future::poll_fn(|context| {
            exchanges.run(context);
            if exchanges.under_way.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }
}
