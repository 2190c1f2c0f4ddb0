//! Takes connections off a listening socket, within the connection limit.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::connection_limit::{ConnectionLimit, ConnectionPermit};
use crate::observe::metrics::{Connections, Ended};

/// The pause after an accept that failed for lack of descriptors or memory. Connections that end give them back. Until
/// then, the kernel queues new connections.
const BACK_OFF: Duration = Duration::from_millis(50);

/// One listening socket.
pub struct Acceptor {
    listener: TcpListener,
    limit: Arc<ConnectionLimit>,
    ended: Connections,
    /// The next accept comes no earlier than this.
    not_before: Option<Instant>,
    /// The last accept failed, and that has been logged.
    is_failing: bool,
    /// A connection that was accepted when there was no permit for it.
    waiting: Option<(TcpStream, IpAddr)>,
    /// [`Self::next`] has reported [`Self::waiting`].
    has_reported_waiting: bool,
}

/// The result of an accept.
pub enum Accepted {
    Connection(TcpStream, ConnectionPermit),
    /// A connection waits for a permit. This is reported once; the connection gets the next free permit.
    Waiting,
}

impl Acceptor {
    pub fn new(listener: TcpListener, limit: Arc<ConnectionLimit>, ended: Connections) -> Self {
        Self {
            listener,
            limit,
            ended,
            not_before: None,
            is_failing: false,
            waiting: None,
            has_reported_waiting: false,
        }
    }

    /// Whether a connection waits for a permit.
    pub fn has_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The next connection. Safe to cancel at any await.
    pub async fn next(&mut self) -> Accepted {
        loop {
            let (stream, address) = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.accept().await,
            };
            // Checked first, so that no connection is closed to make room for one that is then refused.
            if !self.limit.allows(address) {
                self.ended.ended(Ended::AddressLimit);
                continue;
            }
            let Some(slot) = self.limit.try_acquire() else {
                self.waiting = Some((stream, address));
                if !std::mem::replace(&mut self.has_reported_waiting, true) {
                    return Accepted::Waiting;
                }
                // The permit is released at once. The next turn of the loop acquires it, after another look at the
                // address.
                let Some(_) = self.limit.acquire().await else { return std::future::pending().await };
                continue;
            };
            self.has_reported_waiting = false;
            match self.limit.permit(address, slot) {
                Some(permit) => return Accepted::Connection(stream, permit),
                // Dropping the stream closes it: this address has as many connections as it may have.
                None => self.ended.ended(Ended::AddressLimit),
            }
        }
    }

    async fn accept(&mut self) -> (TcpStream, IpAddr) {
        loop {
            if let Some(moment) = self.not_before {
                tokio::time::sleep_until(moment).await;
                self.not_before = None;
            }
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.is_failing = false;
                    return (stream, peer.ip());
                }
                // The peer left before the connection was accepted.
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    self.ended.ended(Ended::NotAccepted);
                    if !self.is_failing {
                        tracing::warn!(%error, "cannot accept a connection; trying on");
                    }
                    self.is_failing = true;
                    self.not_before = Some(Instant::now() + BACK_OFF);
                }
            }
        }
    }

    /// The next connection that the kernel has accepted and queued, without waiting for one. Closing the listening
    /// socket would close these too.
    pub async fn next_queued(&mut self) -> Option<(TcpStream, ConnectionPermit)> {
        // tokio's cooperative budget could make the socket look empty. So this runs without it.
        tokio::task::unconstrained(async {
            tokio::select! {
                biased;
                Accepted::Connection(stream, permit) = self.next() => Some((stream, permit)),
                () = std::future::ready(()) => None,
            }
        })
        .await
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Caller;

    use tokio::net::TcpSocket;

    use super::*;
    use crate::observe::metrics::Metrics;

    #[tokio::test]
    async fn all_that_the_kernel_holds_are_taken_before_the_socket_is_closed() {
        const WAITING: usize = 200;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("an address");
        let listener = socket.listen(1024).expect("a queue");
        let address = listener.local_addr().expect("an address");
        let limit = ConnectionLimit::new(1000, 1000);
        let mut acceptor = Acceptor::new(listener, limit, Metrics::new().http.connections("main"));
        let callers: Vec<_> = (0..=WAITING).map(|_| Caller::connect(address).expect("connected")).collect();
        // The budget of a task that has already accepted one connection.
        let Accepted::Connection(first, permit) = acceptor.next().await else { panic!("there is room") };
        let mut taken = vec![(first, permit)];
        while let Some(next_queued) = acceptor.next_queued().await {
            taken.push(next_queued);
        }
        assert_eq!(taken.len(), callers.len());
    }
}
