//! What a Redis says about itself: whether it may hold the store, for start and for `worker doctor`.

use std::time::Duration;

use crate::engine::ports::StoreError;

/// One look at the server, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Host and port.
    pub address: String,
    /// As the server names it, for example `7.0.15`.
    pub version: String,
    /// `noeviction`, or what is thrown away when memory is full.
    pub policy: String,
    /// Memory limit in bytes; 0: none.
    pub maxmemory: u64,
    /// Memory in use, bytes.
    pub used_memory: u64,
    /// Whether writes survive a restart (append-only file).
    pub append_only: bool,
    /// Server's clock minus this machine's in milliseconds, as far as the round trip lets it be told.
    pub clock_difference_ms: i64,
    /// One exchange.
    pub round_trip: Duration,
    pub(super) info: ServerInfo,
}

impl Probe {
    /// What to mend, though the store runs: one sentence each, with the fix.
    ///
    /// # Errors
    /// Where the store would not run here, with the reason and the fix; `allow_eviction` as configured.
    pub fn judge(&self, allow_eviction: bool) -> Result<Vec<String>, StoreError> {
        self.info.usable()?;
        let mut warnings = Vec::from_iter(self.info.eviction(allow_eviction)?);
        if !self.append_only {
            warnings.push(String::from("appendonly is off: a restart forgets finished events; CONFIG SET appendonly yes"));
        }
        if self.clock_difference_ms.abs() > 5000 {
            warnings.push(format!(
                "its clock is {} s away from this machine's: retries' due times are told on it; set up time synchronisation",
                self.clock_difference_ms / 1000
            ));
        }
        Ok(warnings)
    }
}

/// The lines of `INFO` that matter; a line that is missing is empty or 0.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ServerInfo {
    pub(super) version: String,
    pub(super) policy: String,
    pub(super) maxmemory: u64,
    pub(super) used_memory: u64,
    pub(super) append_only: bool,
    replica: bool,
    cluster: bool,
    loading: bool,
}

impl ServerInfo {
    pub(super) fn parse(info: &str) -> Self {
        let mut found = Self::default();
        for (name, value) in info.lines().filter_map(|line| line.trim_end().split_once(':')) {
            match name {
                "redis_version" => value.clone_into(&mut found.version),
                "maxmemory_policy" => value.clone_into(&mut found.policy),
                "maxmemory" => found.maxmemory = value.parse().unwrap_or(0),
                "used_memory" => found.used_memory = value.parse().unwrap_or(0),
                "aof_enabled" => found.append_only = value == "1",
                "role" => found.replica = value == "slave",
                "cluster_enabled" => found.cluster = value == "1",
                "loading" => found.loading = value == "1",
                _ => {}
            }
        }
        found
    }

    /// Whether the store's commands exist here and may write.
    pub(super) fn usable(&self) -> Result<(), StoreError> {
        let mut numbers = self.version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version != (0, 0) && version < (6, 2) {
            return Err(StoreError::Refused(format!("redis {} is too old: the store needs 6.2 or newer", self.version)));
        }
        if self.cluster {
            return Err(StoreError::Refused(String::from("a redis cluster is not supported; give the store a redis of its own")));
        }
        if self.replica {
            return Err(StoreError::Unavailable(String::from("redis is a replica; waiting for the primary")));
        }
        if self.loading {
            return Err(StoreError::Unavailable(String::from("redis is still loading its data")));
        }
        Ok(())
    }

    /// Refuses a server that throws keys away when it is full: events would silently run twice. Without a memory limit nothing is thrown
    /// away, whatever the policy: then a warning is returned, as where `allowed` by `store.allow_eviction`.
    pub(super) fn eviction(&self, allowed: bool) -> Result<Option<String>, StoreError> {
        if self.policy.is_empty() || self.policy == "noeviction" {
            return Ok(None);
        }
        if self.maxmemory == 0 {
            return Ok(Some(String::from("redis has an evicting maxmemory-policy, without effect as long as maxmemory is 0")));
        }
        if allowed {
            return Ok(Some(String::from("redis may evict what the store remembers: events can run twice when it is full")));
        }
        Err(StoreError::Refused(format!(
            "redis has maxmemory-policy {}: when full it would forget finished events, and they would run twice. Set it to noeviction \
             (CONFIG SET maxmemory-policy noeviction), or accept that with store.allow_eviction = true",
            self.policy
        )))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_what_to_mend() {
        let mut probe = Probe {
            address: String::from("h:6379"),
            version: String::from("7.0.15"),
            policy: String::from("noeviction"),
            maxmemory: 0,
            used_memory: 1,
            append_only: true,
            clock_difference_ms: -4000,
            round_trip: Duration::from_millis(1),
            info: info("maxmemory:0 maxmemory_policy:noeviction"),
        };
        assert_eq!(probe.judge(false), Ok(vec![]));
        (probe.append_only, probe.clock_difference_ms) = (false, 60_000);
        assert_eq!(probe.judge(false).unwrap().len(), 2);
        probe.info = info("maxmemory:1 maxmemory_policy:allkeys-lfu");
        assert!(probe.judge(false).is_err());
        assert_eq!(probe.judge(true).unwrap().len(), 3);
    }

    fn info(lines: &str) -> ServerInfo {
        ServerInfo::parse(&format!("# Server\r\nredis_version:7.0.15\r\n{}\r\n", lines.replace(' ', "\r\n")))
    }

    #[test]
    fn a_server_that_would_forget_finished_events_is_refused_unless_told() {
        let evicting = info("maxmemory:1000 maxmemory_policy:allkeys-lru");
        assert!(evicting.eviction(false).unwrap_err().to_string().contains("store.allow_eviction"));
        assert!(evicting.eviction(true).unwrap().is_some());
        // Every key here has an expiry, so the volatile policies evict them as well.
        assert!(info("maxmemory:1000 maxmemory_policy:volatile-ttl").eviction(false).is_err());
        assert!(info("maxmemory:0 maxmemory_policy:allkeys-lru").eviction(false).unwrap().is_some());
        assert_eq!(info("maxmemory:1000 maxmemory_policy:noeviction").eviction(false), Ok(None));
        assert_eq!(info("").eviction(false), Ok(None));
    }

    #[test]
    fn a_server_that_cannot_hold_the_store_is_told_from_one_that_cannot_now() {
        assert_eq!(info("role:master cluster_enabled:0").usable(), Ok(()));
        assert!(matches!(info("role:slave").usable(), Err(StoreError::Unavailable(_))));
        assert!(matches!(info("loading:1").usable(), Err(StoreError::Unavailable(_))));
        assert!(matches!(info("cluster_enabled:1").usable(), Err(StoreError::Refused(_))));
        assert!(matches!(ServerInfo::parse("redis_version:6.0.16").usable(), Err(StoreError::Refused(_))));
        assert!(ServerInfo::parse("redis_version:6.2.0").usable().is_ok());
        assert!(ServerInfo::parse("redis_version:10.0.0").usable().is_ok());
    }
}
