//! The limit on open connections, in total and per address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connection limit of one listener. Its table holds only addresses with an open connection, so it has no more rows
/// than there are permits.
pub struct ConnectionLimit {
    slots: Arc<Semaphore>,
    max_per_address: usize,
    counts: Mutex<HashMap<Ipv6Addr, usize>>,
}

/// The permit of one open connection. Dropping it releases it.
pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    address: IpAddr,
    _slot: OwnedSemaphorePermit,
}

impl ConnectionLimit {
    pub fn new(in_all: usize, max_per_address: usize) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(in_all.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { slots, max_per_address, counts: Mutex::default() })
    }

    /// Whether `address` may open one more connection.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.counts().get(&network(address)).is_none_or(|count| *count < self.max_per_address)
    }

    /// One of the slots for all connections, if one is free now.
    pub fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// One of the slots for all connections. Waits until one is free.
    pub async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so there is no error.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// The permit for a connection from `address`, unless that address is at its limit.
    pub fn permit(self: &Arc<Self>, address: IpAddr, slot: OwnedSemaphorePermit) -> Option<ConnectionPermit> {
        let mut counts = self.counts();
        let count = counts.entry(network(address)).or_default();
        if *count >= self.max_per_address {
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { limit: self.clone(), address, _slot: slot })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Ipv6Addr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// The address of the peer.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.limit.counts();
        if let Some(count) = counts.get_mut(&network(self.address)) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network(self.address));
            }
        }
    }
}

/// The key to count by: one IPv4 address, or one /64 network of IPv6, whose 2^64 addresses belong to one peer.
fn network(address: IpAddr) -> Ipv6Addr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_has_its_own_number_of_places_and_an_ipv6_network_is_one() {
        let limit = ConnectionLimit::new(10, 2);
        let take = async |address: &str| {
            let free = limit.acquire().await.expect("open");
            limit.permit(address.parse().expect("an address"), free)
        };
        let first = take("2001:db8::1").await;
        let second = take("2001:db8::ffff:2").await;
        assert!(first.is_some() && second.is_some());
        assert!(take("2001:db8:0:0:1::").await.is_none(), "the same /64");
        assert!(take("2001:db8:0:1::1").await.is_some(), "another /64");
        let v4 = (take("192.0.2.1").await, take("::ffff:192.0.2.1").await);
        assert!(v4.0.is_some() && v4.1.is_some());
        assert!(take("192.0.2.1").await.is_none(), "one address, however it is written");
        drop(first);
        assert!(take("2001:db8::3").await.is_some(), "its place is free again");
        drop((second, v4));
        assert!(limit.counts().is_empty());
        assert_eq!(limit.slots.available_permits(), 10);
    }
}
