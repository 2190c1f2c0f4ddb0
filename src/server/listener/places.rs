//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a listener. Its table holds addresses that have a connection, so no more than
/// there are places.
pub struct Places {
    all: Arc<Semaphore>,
    per_address: usize,
    taken: Mutex<HashMap<Ipv6Addr, usize>>,
}

/// A connection's place; free again when it is dropped.
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
    _one_of_all: OwnedSemaphorePermit,
}

impl Places {
    pub fn new(in_all: usize, per_address: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(in_all.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { all, per_address, taken: Mutex::default() })
    }

    /// Whether `address` may have one more.
    pub fn admit(&self, address: IpAddr) -> bool {
        self.taken().get(&network(address)).is_none_or(|count| *count < self.per_address)
    }

    /// One of all places, if one is free.
    pub fn free_now(&self) -> Option<OwnedSemaphorePermit> {
        self.all.clone().try_acquire_owned().ok()
    }

    /// One of all places, once one is free.
    pub async fn free(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.all.clone().acquire_owned().await.ok()
    }

    /// The place for a connection from `address`, if that may have one more.
    pub fn take(self: &Arc<Self>, address: IpAddr, free: OwnedSemaphorePermit) -> Option<Place> {
        let mut taken = self.taken();
        let count = taken.entry(network(address)).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), address, _one_of_all: free })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Ipv6Addr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Who is at the other end.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&network(self.address)) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&network(self.address));
            }
        }
    }
}

/// One address, or one network of IPv6: whoever has one of those has all of its 2^64 addresses.
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
        let places = Places::new(10, 2);
        let take = async |address: &str| {
            let free = places.free().await.expect("open");
            places.take(address.parse().expect("an address"), free)
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
        assert!(places.taken().is_empty());
        assert_eq!(places.all.available_permits(), 10);
    }
}
