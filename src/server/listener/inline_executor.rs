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
type Task = BoxFuture<'static, ()>;

/// hyper's executor for one connection: keeps what is to be run until [`InlineExecutor::run`].
#[derive(Clone, Default)]
pub struct SpawnHandle(Arc<Mutex<Vec<Task>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for SpawnHandle {
    fn execute(&self, task: F) {
        // One that panics ends alone, as a task would.
        let task = AssertUnwindSafe(task).catch_unwind().map(drop).boxed();
        self.waiting().push(task);
    }
}

impl SpawnHandle {
    fn waiting(&self) -> MutexGuard<'_, Vec<Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exchanges of a connection that have not ended.
#[derive(Default)]
pub struct InlineExecutor {
    handle: SpawnHandle,
    running: FuturesUnordered<Task>,
}

impl InlineExecutor {
    /// Where new ones come in.
    pub fn handle(&self) -> SpawnHandle {
        self.handle.clone()
    }

    /// Lets each that can go on do so. The others wake the task of `context` when they can.
    pub fn run(&mut self, context: &mut Context<'_>) {
        loop {
            self.running.extend(self.handle.waiting().drain(..));
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
            // What they have begun themselves has nobody else to run it.
            if self.handle.waiting().is_empty() {
                break;
            }
        }
    }
}

impl Drop for InlineExecutor {
    /// hyper gives each stream its executor, so each exchange that waits holds the list it is in: without
    /// this, those of a connection that ends before they are run would be held for ever.
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *self.handle.waiting());
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
        let (executor, held) = (InlineExecutor::default(), Arc::new(()));
        let kept = (executor.handle(), held.clone());
        executor.handle().execute(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        assert_eq!(Arc::strong_count(&held), 2);
        drop(executor);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn what_one_begins_is_run_in_the_same_turn() {
        let (mut executor, done) = (InlineExecutor::default(), Arc::new(AtomicU32::new(0)));
        let (handle, counted) = (executor.handle(), done.clone());
        executor.handle().execute(async move {
            handle.execute(async move {
                counted.fetch_add(1, Ordering::SeqCst);
            });
        });
        std::future::poll_fn(|context| {
            executor.run(context);
            Poll::Ready(())
        })
        .await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn one_that_panics_leaves_the_others_alone() {
        let (mut executor, done) = (InlineExecutor::default(), Arc::new(AtomicU32::new(0)));
        let one = || {
            let done = done.clone();
            async move {
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        let handle = executor.handle();
        handle.execute(one());
        handle.execute(async { panic!("a test's own") });
        handle.execute(one());
        std::future::poll_fn(|context| {
            executor.run(context);
            if executor.running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }
}
