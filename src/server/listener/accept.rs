//! Takes connections off a socket, as long as there is a place for them.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::connection_limit::{ConnectionLimit, ConnectionPermit};
use crate::observe::metrics::{Connections, Ended};

/// After an accept that failed for want of descriptors or memory. They come back when connections
/// end; until then the kernel holds who comes.
const BACK_OFF: Duration = Duration::from_millis(50);

/// One listening socket.
pub struct Acceptor {
    listener: TcpListener,
    limit: Arc<ConnectionLimit>,
    ended: Connections,
    /// No accept before this.
    not_before: Option<Instant>,
    /// The last accept failed, and it has been said so.
    is_failing: bool,
    /// Accepted when there was no place.
    waiting: Option<(TcpStream, IpAddr)>,
    /// It has been said of [`Self::waiting`].
    has_reported_waiting: bool,
}

/// What came of an accept.
pub enum Accepted {
    Connection(TcpStream, ConnectionPermit),
    /// One waits for a place. It is told of once, and gets the next one that is free.
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

    /// Whether a connection waits for a place.
    pub fn has_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The next connection. May be given up at any await.
    pub async fn next(&mut self) -> Accepted {
        loop {
            let (stream, address) = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.accept().await,
            };
            // Before anybody has to make room for it.
            if !self.limit.allows(address) {
                self.ended.ended(Ended::AddressLimit);
                continue;
            }
            let Some(slot) = self.limit.try_acquire() else {
                self.waiting = Some((stream, address));
                if !std::mem::replace(&mut self.has_reported_waiting, true) {
                    return Accepted::Waiting;
                }
                // It is free again at once: whose it is, is seen above.
                let Some(_) = self.limit.acquire().await else { return std::future::pending().await };
                continue;
            };
            self.has_reported_waiting = false;
            match self.limit.permit(address, slot) {
                Some(permit) => return Accepted::Connection(stream, permit),
                // Dropped, and so closed: whoever holds so many has to let go of some.
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
                // It was gone before it was accepted.
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

    /// What has been accepted by the kernel and not yet by anybody, where closing the socket would
    /// close it too.
    pub async fn next_queued(&mut self) -> Option<(TcpStream, ConnectionPermit)> {
        // The runtime would have a task that has done much wait, which looks like nothing being left.
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
        // As after a turn in which the runtime let it do no more.
        let Accepted::Connection(first, permit) = acceptor.next().await else { panic!("there is room") };
        let mut taken = vec![(first, permit)];
        while let Some(next_queued) = acceptor.next_queued().await {
            taken.push(next_queued);
        }
        assert_eq!(taken.len(), callers.len());
    }
}
