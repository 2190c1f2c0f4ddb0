//! Which answers that are not stored have been asked for before. A full store lets in what comes to it a second
//! time: what is asked for once pushes nothing out.

/// Keys of one set: one line of memory. In each, the key that was asked for longest ago is forgotten first.
const WAYS: usize = 16;

/// Bytes of the store for each key that is remembered: one in 256, with four bytes a key, is 1.6 % on top.
const CAPACITY_PER_KEY: u64 = 256;

/// Keys that are remembered at least and at most. A scan of a million ids leaves the counts of what was asked
/// for before it.
const LEAST_KEYS: u64 = 1 << 12;
const MOST_KEYS: u64 = 1 << 20;

/// Bits of a slot that count; the others are the key's fingerprint. An empty slot is zero.
const COUNT: u32 = 0b11;

/// Counts of requests for what is not stored, by the hash of what they asked for. Two keys are taken for one if their
/// sets and 30 bits of their hashes are the same: then one of them is let in early.
pub struct Doorkeeper(Box<[[u32; WAYS]]>);

impl Doorkeeper {
    /// For a store of so many bytes.
    pub fn new(capacity: u64) -> Self {
        let keys = (capacity / CAPACITY_PER_KEY).clamp(LEAST_KEYS, MOST_KEYS);
        let sets = usize::try_from(keys).unwrap_or(usize::MAX).next_power_of_two() / WAYS;
        // Zeroes take no memory before they are written to.
        Self(vec![[0; WAYS]; sets].into_boxed_slice())
    }

    /// One more request for it.
    pub fn ask(&mut self, hash: u64) {
        let Some((set, fingerprint)) = self.place(hash) else { return };
        let found = set.iter().position(|slot| is_of(*slot, fingerprint));
        let until = found.unwrap_or(WAYS - 1);
        let count = found.and_then(|found| set.get(found)).map_or(0, |slot| slot & COUNT);
        if let Some(newer) = set.get_mut(..=until) {
            newer.rotate_right(1);
        }
        if let Some(first) = set.first_mut() {
            *first = fingerprint | (count + 1).min(COUNT);
        }
    }

    /// It counts from nothing again.
    pub fn forget(&mut self, hash: u64) {
        let Some((set, fingerprint)) = self.place(hash) else { return };
        if let Some(slot) = set.iter_mut().find(|slot| is_of(**slot, fingerprint)) {
            *slot = 0;
        }
    }

    /// How often it was asked for, as far as that is remembered; three at most.
    pub fn asks(&mut self, hash: u64) -> u32 {
        let Some((set, fingerprint)) = self.place(hash) else { return 0 };
        set.iter().find(|slot| is_of(**slot, fingerprint)).map_or(0, |slot| slot & COUNT)
    }

    fn place(&mut self, hash: u64) -> Option<(&mut [u32; WAYS], u32)> {
        let [high, low] = [hash >> 32, hash & u64::from(u32::MAX)].map(u32::try_from);
        // A power of two.
        let at = usize::try_from(high.ok()?).ok()? & (self.0.len() - 1);
        Some((self.0.get_mut(at)?, low.ok()? & !COUNT))
    }
}

fn is_of(slot: u32, fingerprint: u32) -> bool {
    slot != 0 && slot & !COUNT == fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash for a number (splitmix64).
    fn hash(number: u64) -> u64 {
        let mut hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    #[test]
    fn requests_are_counted_up_to_three() {
        let mut doorkeeper = Doorkeeper::new(1 << 20);
        assert_eq!(doorkeeper.asks(hash(1)), 0);
        for expected in [1, 2, 3, 3] {
            doorkeeper.ask(hash(1));
            assert_eq!((doorkeeper.asks(hash(1)), doorkeeper.asks(hash(2))), (expected, 0));
        }
        // A fingerprint of nothing but zeroes is one like any other.
        assert_eq!(doorkeeper.asks(0), 0);
        doorkeeper.ask(0);
        assert_eq!(doorkeeper.asks(0), 1);
    }

    #[test]
    fn what_was_asked_for_longest_ago_is_forgotten_first_and_no_more_is_held_than_may_be() {
        let mut doorkeeper = Doorkeeper::new(0);
        let same_set = |number: u64| number << 2;
        for number in 1..=16 {
            doorkeeper.ask(same_set(number));
        }
        doorkeeper.ask(same_set(1));
        doorkeeper.ask(same_set(17));
        assert_eq!(doorkeeper.asks(same_set(1)), 2);
        assert_eq!(doorkeeper.asks(same_set(2)), 0);
        assert!((3..=17).all(|number| doorkeeper.asks(same_set(number)) == 1));
        assert_eq!(Doorkeeper::new(u64::MAX).0.len() * WAYS, 1 << 20);
        assert_eq!(doorkeeper.0.len() * WAYS, 1 << 12);
    }

    #[test]
    fn most_of_a_scan_is_told_from_what_was_asked_for_twice() {
        let mut doorkeeper = Doorkeeper::new(512 << 20);
        (0..1000).for_each(|number| doorkeeper.ask(hash(number)));
        let mut taken_for_known = 0;
        for number in 1000..500_000 {
            taken_for_known += u32::from(doorkeeper.asks(hash(number)) > 0);
            doorkeeper.ask(hash(number));
        }
        assert!(taken_for_known < 5, "{taken_for_known}");
        let remembered = (0..1000).filter(|number| doorkeeper.asks(hash(*number)) == 1).count();
        assert!(remembered > 990, "{remembered}");
    }
}
