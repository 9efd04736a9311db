//! How often one client may ask: a bucket of tokens for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are remembered; beyond that, those with full buckets are forgotten, and then all.
const MAX_CLIENTS: usize = 20_000;

/// Buckets of clients.
#[derive(Debug, Default)]
pub struct Limiter(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn filled(&self, (rate, burst): (f64, f64)) -> f64 {
        burst.min(self.tokens + self.at.elapsed().as_secs_f64() * rate)
    }
}

impl Limiter {
    /// Whether this client may ask now, at a rate of so many requests a second and so many at once.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn ask(&self, client: IpAddr, limit: (f64, f64)) -> Result<(), Duration> {
        let client = network(client);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| bucket.filled(limit) < limit.1);
            if buckets.len() >= MAX_CLIENTS {
                buckets.clear();
            }
        }
        let now = Instant::now();
        let bucket = buckets.entry(client).or_insert(Bucket { tokens: limit.1, at: now });
        let tokens = bucket.filled(limit);
        *bucket = Bucket { tokens: if tokens >= 1.0 { tokens - 1.0 } else { tokens }, at: now };
        if tokens >= 1.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - tokens) / limit.0).min(3600.0)))
    }
}

/// Whoever has one IPv6 address has all of its network.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_served_and_then_the_rate() {
        let limiter = Limiter::default();
        let client = "2001:db8::1".parse().unwrap();
        let neighbour = "2001:db8::2".parse().unwrap();
        let limit = (0.001, 3.0);
        assert!((0..3).all(|_| limiter.ask(client, limit).is_ok()));
        assert!(limiter.ask(neighbour, limit).unwrap_err() > Duration::from_secs(900));
        assert!(limiter.ask("192.0.2.1".parse().unwrap(), limit).is_ok());
    }

    #[test]
    fn many_clients_take_bounded_memory() {
        let limiter = Limiter::default();
        for number in 0..50_000u32 {
            let _ = limiter.ask(std::net::Ipv4Addr::from(number).into(), (1.0, 2.0));
        }
        assert!(limiter.0.lock().unwrap().len() <= MAX_CLIENTS);
    }
}
