//! Runs the requests of one HTTP/2 connection in the connection's own task.
//!
//! Without it, hyper spawns a task for each request, and each of sixteen responses wakes the connection's task by
//! itself. Here all requests are polled beside their connection and are answered before it is polled again. Their
//! counters need no locked instructions either. The price: one connection keeps at most one core busy, as with
//! HTTP/1.1.
//!
//! Workload W6 of docs/PERFORMANCE.md needs this, together with [`super::write_coalescer`]. Without both, a hit over
//! HTTP/2 costs 1.17 × HAProxy in place of 0.94 (docs/DECISIONS.md). Neither type shows in a signature outside of
//! `listener`.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;

/// A request, until its response is complete.
type Task = BoxFuture<'static, ()>;

/// hyper's executor for one connection. It queues tasks until [`InlineExecutor::run`].
#[derive(Clone, Default)]
pub struct SpawnHandle(Arc<Mutex<Vec<Task>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for SpawnHandle {
    fn execute(&self, task: F) {
        // A task that panics ends alone, as a spawned one would.
        let task = AssertUnwindSafe(task).catch_unwind().map(drop).boxed();
        self.waiting().push(task);
    }
}

impl SpawnHandle {
    fn waiting(&self) -> MutexGuard<'_, Vec<Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests of a connection that have not ended.
#[derive(Default)]
pub struct InlineExecutor {
    handle: SpawnHandle,
    running: FuturesUnordered<Task>,
}

impl InlineExecutor {
    /// The executor for hyper, which adds tasks to this one.
    pub fn handle(&self) -> SpawnHandle {
        self.handle.clone()
    }

    /// Polls every task that is ready. The others wake the task of `context` once they are ready.
    pub fn run(&mut self, context: &mut Context<'_>) {
        loop {
            self.running.extend(self.handle.waiting().drain(..));
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
            // Tasks may have added further tasks, and nothing else would run those.
            if self.handle.waiting().is_empty() {
                break;
            }
        }
    }
}

impl Drop for InlineExecutor {
    /// Breaks a cycle of references. hyper gives its executor to each stream, so each queued task holds the queue that
    /// it is in. Without this, tasks of a connection that ends before they run would never be freed.
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *self.handle.waiting());
        // Dropped after the lock is released, for a task may hold the last reference to the queue.
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
