//! How often somebody may ask: a token bucket for each, in a table that cannot grow without bound.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Callers that are remembered one by one. Those beyond share one bucket, so that a flood of names or addresses can
/// neither fill the memory nor push out the memory of others.
const CALLERS_MAX: usize = 10_000;

/// A full table is searched for callers that have been quiet at most this often: the search costs a millisecond.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// A bound on requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second over time; 0 is no limit.
    pub per_second: u32,
    /// Requests at once after a pause.
    pub burst: u32,
}

/// Judges requests of many callers.
#[derive(Debug)]
pub struct RateLimiter {
    rate: Rate,
    hasher: RandomState,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    buckets: HashMap<u64, Bucket>,
    /// For callers that find no place of their own.
    shared: Option<Bucket>,
    swept: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl RateLimiter {
    /// A limiter that has seen nobody.
    pub fn new(rate: Rate) -> Self {
        let table = Table { buckets: HashMap::new(), shared: None, swept: None };
        Self { rate, hasher: RandomState::new(), table: Mutex::new(table) }
    }

    /// Whether `caller` may ask at this moment; it then has one request less.
    pub fn allows(&self, caller: impl Hash, now: Instant) -> bool {
        if self.rate.per_second == 0 {
            return true;
        }
        // A keyed hash stands for the caller: the table's size does not depend on what callers choose as their names.
        let key = self.hasher.hash_one(caller);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = table.buckets.get_mut(&key) {
            return bucket.take(self.rate, now);
        }
        table.make_place(self.rate, now);
        let mut fresh = Bucket { tokens: f64::from(self.rate.burst.max(1)), filled: now };
        if table.buckets.len() < CALLERS_MAX {
            let allowed = fresh.take(self.rate, now);
            table.buckets.insert(key, fresh);
            return allowed;
        }
        table.shared.get_or_insert(fresh).take(self.rate, now)
    }
}

impl Table {
    /// Forgets callers whose bucket is full again: they would start with a full one anyway.
    fn make_place(&mut self, rate: Rate, now: Instant) {
        let rested = self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP_PAUSE);
        if self.buckets.len() < CALLERS_MAX || !rested {
            return;
        }
        self.swept = Some(now);
        self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
    }
}

impl Bucket {
    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let gained = now.duration_since(self.filled).as_secs_f64() * f64::from(rate.per_second);
        (self.tokens + gained).min(f64::from(rate.burst.max(1)))
    }

    fn is_full(&self, rate: Rate, now: Instant) -> bool {
        self.level(rate, now) >= f64::from(rate.burst.max(1))
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let level = self.level(rate, now);
        self.filled = now;
        let allowed = level >= 1.0;
        self.tokens = if allowed { level - 1.0 } else { level };
        allowed
    }
}

/// What stands for an address: itself, or the /64 network that one IPv6 subscriber holds (RFC 6177).
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(Rate { per_second, burst })
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let (limiter, start) = (limiter(10, 3), Instant::now());

        let at_once: Vec<bool> = (0..4).map(|_| limiter.allows("a", start)).collect();

        assert_eq!(at_once, [true, true, true, false]);
        assert!(limiter.allows("b", start), "others are not affected");
        assert!(!limiter.allows("a", start + Duration::from_millis(90)));
        assert!(limiter.allows("a", start + Duration::from_millis(200)));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let (limiter, now) = (limiter(0, 1), Instant::now());
        assert!((0..1000).all(|_| limiter.allows("a", now)));
    }

    #[test]
    fn a_flood_of_callers_shares_one_bucket_and_pushes_nobody_out() {
        let (limiter, now) = (limiter(1, 2), Instant::now());
        assert!(limiter.allows("victim", now) && limiter.allows("victim", now));

        let allowed = (0..2 * CALLERS_MAX).filter(|number| limiter.allows(number, now)).count();

        assert!(allowed <= CALLERS_MAX + 1, "{allowed}");
        assert!(!limiter.allows("victim", now), "its spent bucket is still known");
        assert_eq!(limiter.table.lock().expect("table").buckets.len(), CALLERS_MAX);
        assert!(limiter.allows("late", now + Duration::from_secs(60)), "quiet callers make place");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one_subscriber() {
        let parse = |text: &str| subscriber(text.parse().expect("address"));
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
        assert_ne!(parse("10.0.0.1"), parse("10.0.0.2"));
    }
}
