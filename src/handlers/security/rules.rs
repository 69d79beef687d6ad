//! What makes a login suspicious, over bounded windows of earlier ones. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::security::SecurityConfig;

/// Devices, and networks, that are known of a user; the one that was not seen for longest goes.
const MOST_KNOWN: usize = 32;
/// Logins of a window that are remembered beyond the limit.
const SPARE: usize = 8;

/// A login, without what nobody should know.
#[derive(Debug, Clone)]
pub(super) struct Login {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) failed: bool,
    pub(super) user: String,
    pub(super) device: String,
    pub(super) network: String,
    pub(super) address: String,
}

/// When a rule speaks.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) rules: BTreeSet<String>,
    pub(super) window: Duration,
    pub(super) user_failures: usize,
    pub(super) address_failures: usize,
    pub(super) address_users: usize,
    pub(super) user_logins: usize,
    pub(super) remember: Duration,
}

/// A rule that a login breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alert {
    pub(super) rule: String,
    pub(super) severity: String,
    pub(super) evidence: Value,
}

impl Limits {
    pub(super) fn of(config: &SecurityConfig) -> Self {
        let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            rules: config.rules.iter().cloned().collect(),
            window: config.window,
            user_failures: number(config.user_failures),
            address_failures: number(config.address_failures),
            address_users: number(config.address_users),
            user_logins: number(config.user_logins),
            remember: config.remember,
        }
    }

    fn alert(&self, rule: &str, severity: &str, evidence: impl FnOnce() -> Value) -> Option<Alert> {
        self.rules.contains(rule).then(|| Alert { rule: rule.to_owned(), severity: severity.to_owned(), evidence: evidence() })
    }
}

/// Moments within a window of the newest one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window(Vec<i64>);

impl Window {
    /// Adds a moment; answers how many there are, unless it comes too late to be one of them.
    fn add(&mut self, at: i64, window: Duration, most: usize) -> Option<usize> {
        let newest = self.0.last().copied().unwrap_or(at).max(at);
        let oldest = newest.saturating_sub(millis(window));
        let place = self.0.partition_point(|other| *other <= at);
        self.0.insert(place, at);
        self.0.retain(|other| *other > oldest);
        let excess = self.0.len().saturating_sub(most);
        self.0.drain(..excess);
        (at > oldest).then_some(self.0.len())
    }
}

/// When each rule spoke last: once in a window is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spoken(BTreeMap<String, i64>);

impl Spoken {
    fn once(&mut self, alert: Option<Alert>, at: i64, window: Duration) -> Option<Alert> {
        let alert = alert?;
        let silent = self.0.get(&alert.rule).is_some_and(|spoke| at.saturating_sub(*spoke) < millis(window));
        if silent {
            return None;
        }
        self.0.insert(alert.rule.clone(), at);
        Some(alert)
    }
}

/// What is known of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    /// When each device, and each network, was seen last.
    devices: BTreeMap<String, i64>,
    networks: BTreeMap<String, i64>,
    logins: Window,
    failures: Window,
    spoken: Spoken,
}

impl User {
    /// Adds a login and answers what is suspicious about it.
    pub(super) fn take(&mut self, login: &Login, limits: &Limits) -> Vec<Alert> {
        let mut alerts = Vec::new();
        if login.failed {
            let count = self.failures.add(login.at, limits.window, limits.user_failures + SPARE).unwrap_or_default();
            let evidence = || json!({ "failures": count, "within_seconds": limits.window.as_secs(), "address_hash": login.address });
            let alert = (count >= limits.user_failures).then(|| limits.alert("user_failures", "high", evidence)).flatten();
            alerts.extend(self.spoken.once(alert, login.at, limits.window));
            // Who fails is not known to be the user: neither device nor network is theirs.
            return alerts;
        }
        let evidence = |what: &str, hash: &str, known: usize| json!({ what: hash, "known": known, "address_hash": login.address });
        let known = see(&mut self.devices, &login.device, login.at, limits.remember);
        alerts.extend(known.and_then(|known| limits.alert("new_device", "medium", || evidence("device_hash", &login.device, known))));
        let known = see(&mut self.networks, &login.network, login.at, limits.remember);
        alerts.extend(known.and_then(|known| limits.alert("new_network", "low", || evidence("network_hash", &login.network, known))));
        let count = self.logins.add(login.at, limits.window, limits.user_logins + SPARE).unwrap_or_default();
        let evidence = || json!({ "logins": count, "within_seconds": limits.window.as_secs() });
        let alert = (count >= limits.user_logins).then(|| limits.alert("user_logins", "high", evidence)).flatten();
        alerts.extend(self.spoken.once(alert, login.at, limits.window));
        alerts
    }
}

/// Notes that something was seen. Answers how many others are known, where it is new among them; the first of a user, or the first after all that was known has ended, is no news.
fn see(known: &mut BTreeMap<String, i64>, hash: &str, at: i64, remember: Duration) -> Option<usize> {
    let newest = known.values().copied().max().unwrap_or(at).max(at);
    let oldest = newest.saturating_sub(millis(remember));
    known.retain(|_, seen| *seen >= oldest);
    let others = known.len();
    let is_new = !known.contains_key(hash);
    let seen = known.entry(hash.to_owned()).or_insert(at);
    *seen = at.max(*seen);
    if known.len() > MOST_KNOWN
        && let Some(first) = known.iter().filter(|(other, _)| *other != hash).min_by_key(|(_, seen)| **seen).map(|(other, _)| other.clone())
    {
        known.remove(&first);
    }
    (is_new && others > 0).then_some(others)
}

/// What is known of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    failures: Window,
    /// When each user came from there last.
    users: BTreeMap<String, i64>,
    spoken: Spoken,
}

impl Address {
    /// As [`User::take`].
    pub(super) fn take(&mut self, login: &Login, limits: &Limits) -> Vec<Alert> {
        let mut alerts = Vec::new();
        let within = limits.window.as_secs();
        if login.failed {
            let count = self.failures.add(login.at, limits.window, limits.address_failures + SPARE).unwrap_or_default();
            let evidence = || json!({ "failures": count, "within_seconds": within, "address_hash": login.address });
            let alert = (count >= limits.address_failures).then(|| limits.alert("address_failures", "high", evidence)).flatten();
            alerts.extend(self.spoken.once(alert, login.at, limits.window));
        }
        let newest = self.users.values().copied().max().unwrap_or(login.at).max(login.at);
        let oldest = newest.saturating_sub(millis(limits.window));
        let seen = self.users.entry(login.user.clone()).or_insert(login.at);
        *seen = login.at.max(*seen);
        self.users.retain(|_, seen| *seen > oldest);
        while self.users.len() > limits.address_users + SPARE
            && let Some(first) = self.users.iter().min_by_key(|(_, seen)| **seen).map(|(user, _)| user.clone())
        {
            self.users.remove(&first);
        }
        let count = self.users.len();
        let evidence = || json!({ "users": count, "within_seconds": within, "address_hash": login.address });
        let alert = (count >= limits.address_users).then(|| limits.alert("address_users", "high", evidence)).flatten();
        alerts.extend(self.spoken.once(alert, login.at, limits.window));
        alerts
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn limits() -> Limits {
        Limits::of(&SecurityConfig { user_failures: 3, address_failures: 5, address_users: 4, user_logins: 6, ..SecurityConfig::default() })
    }

    fn login(at: i64) -> Login {
        let [user, device, network, address] = ["ada", "d1", "n1", "a1"].map(str::to_owned);
        Login { at, failed: false, user, device, network, address }
    }

    fn rules(alerts: &[Alert]) -> Vec<&str> {
        alerts.iter().map(|alert| alert.rule.as_str()).collect()
    }

    #[test]
    fn the_first_device_and_network_of_a_user_are_no_news_and_later_ones_are_once() {
        let (mut user, limits) = (User::default(), limits());
        assert!(user.take(&login(0), &limits).is_empty());
        let phone = Login { device: "d2".to_owned(), network: "n2".to_owned(), ..login(MINUTE) };
        let alerts = user.take(&phone, &limits);
        assert_eq!(rules(&alerts), ["new_device", "new_network"]);
        assert_eq!(alerts[0].evidence, json!({ "device_hash": "d2", "known": 1, "address_hash": "a1" }));
        assert!(user.take(&phone, &limits).is_empty());
        let years_later = login(400 * 24 * 60 * MINUTE);
        assert!(user.take(&years_later, &limits).is_empty(), "nothing is known any more to tell it from");
    }

    #[test]
    fn a_failed_login_makes_no_device_known() {
        let (mut user, limits) = (User::default(), limits());
        user.take(&login(0), &limits);
        let thief = |failed| Login { device: "d2".to_owned(), failed, ..login(MINUTE) };
        assert!(user.take(&thief(true), &limits).is_empty());
        assert_eq!(rules(&user.take(&thief(false), &limits)), ["new_device"]);
    }

    #[test]
    fn too_many_of_a_window_are_told_once_in_it() {
        let limits = limits();
        let mut user = User::default();
        let failed = |at: i64| Login { failed: true, ..login(at * MINUTE) };
        let told: Vec<_> = (0..30).filter(|at| !user.take(&failed(*at), &limits).is_empty()).collect();
        assert_eq!(told, [2, 12, 22]);
        let (mut user, mut address) = (User::default(), Address::default());
        let slow: Vec<_> = (0..30).flat_map(|at| user.take(&failed(6 * at), &limits)).collect();
        assert!(slow.is_empty(), "never three in ten minutes: {slow:?}");
        let told: Vec<_> = (0..9).map(|n| rules(&address.take(&Login { user: format!("u{n}"), ..failed(0) }, &limits)).join(" ")).collect();
        assert_eq!(told, ["", "", "", "address_users", "address_failures", "", "", "", ""]);
        let told: Vec<_> = (0..9).map(|n| rules(&user.take(&login(1000 * MINUTE + n), &limits)).join(" ")).collect();
        assert_eq!(told, ["", "", "", "", "", "user_logins", "", "", ""]);
    }

    #[test]
    fn a_rule_that_is_not_in_force_says_nothing() {
        let limits = Limits { rules: BTreeSet::from(["new_network".to_owned()]), ..limits() };
        let mut user = User::default();
        user.take(&login(0), &limits);
        let phone = Login { device: "d2".to_owned(), network: "n2".to_owned(), ..login(1) };
        assert_eq!(rules(&user.take(&phone, &limits)), ["new_network"]);
    }

    fn logins() -> impl Strategy<Value = Vec<Login>> {
        let one = (0..100_000_000_i64, any::<bool>(), 0..80_u8, 0..200_u8).prop_map(|(at, failed, user, device)| Login {
            failed,
            user: format!("u{user}"),
            device: format!("d{device}"),
            network: format!("n{device}"),
            ..login(at)
        });
        prop::collection::vec(one, 0..300)
    }

    proptest! {
        #[test]
        fn what_is_known_is_bounded_whatever_comes_in_whatever_order(logins in logins()) {
            let (mut user, mut address, limits) = (User::default(), Address::default(), limits());
            for login in &logins {
                user.take(login, &limits);
                address.take(login, &limits);
                prop_assert!(user.devices.len() <= MOST_KNOWN && user.networks.len() <= MOST_KNOWN);
                prop_assert!(user.logins.0.len() <= limits.user_logins + SPARE && user.failures.0.len() <= limits.user_failures + SPARE);
                prop_assert!(address.users.len() <= limits.address_users + SPARE && address.failures.0.len() <= limits.address_failures + SPARE);
                prop_assert!(user.failures.0.is_sorted());
            }
            let size = serde_json::to_vec(&(&user, &address)).unwrap_or_default().len();
            prop_assert!(size < 8 * 1024, "{size} bytes");
        }

        #[test]
        fn a_window_counts_what_it_holds(mut moments in prop::collection::vec(0..5_000_000_i64, 1..60)) {
            let mut window = Window::default();
            let all = Duration::from_secs(600);
            moments.sort_unstable();
            for (at, moment) in moments.iter().enumerate() {
                let expected = moments[..=at].iter().filter(|other| **other > moment - 600_000).count();
                prop_assert_eq!(window.add(*moment, all, usize::MAX), Some(expected));
            }
        }
    }
}
