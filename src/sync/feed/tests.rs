use std::collections::HashMap;

use futures_util::FutureExt;
use proptest::{collection::vec, prelude::*};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn feed(limits: Limits) -> Feed {
    let feed = Feed::new(limits, Metrics::new("consumer"));
    feed.begin(BTreeMap::from([(0, 100), (1, 0)]));
    feed.ready();
    feed
}

fn roomy() -> Limits {
    Limits { history: HOUR, memory: 1 << 20, connections: 100 }
}

fn push(feed: &Feed, user: &str, partition: i32, offset: i64) {
    let data = Bytes::from(format!("{partition}/{offset}"));
    feed.push(partition, offset, Some((user.into(), Update { partition, offset, event_type: "task.updated".into(), data })));
}

/// What waits for a client.
fn waiting(subscription: &mut Subscription) -> Vec<(i32, i64)> {
    std::iter::from_fn(|| subscription.next().now_or_never().flatten()).map(|update| (update.partition, update.offset)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_gets_what_it_missed_and_nothing_twice() {
    let feed = feed(roomy());
    let mut first = feed.subscribe("ada", None).unwrap();
    push(&feed, "ada", 0, 100);
    push(&feed, "bob", 0, 101);
    push(&feed, "ada", 1, 0);
    assert_eq!(waiting(&mut first), [(0, 100), (1, 0)]);
    let position = first.position().clone();
    drop(first);
    push(&feed, "ada", 0, 102);
    let mut again = feed.subscribe("ada", Some(position)).unwrap();
    push(&feed, "ada", 0, 103);
    assert_eq!((again.is_reset(), waiting(&mut again)), (false, vec![(0, 102), (0, 103)]));
    assert_eq!(waiting(&mut feed.subscribe("ada", None).unwrap()), [], "a new client starts now");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_events_of_its_own_keeps_up_with_the_topic() {
    let limits = Limits { memory: 3 * (OVERHEAD as u64 + 10), ..roomy() };
    let feed = feed(limits);
    let mut idle = feed.subscribe("ada", None).unwrap();
    let old = idle.position().clone();
    (100..200).for_each(|offset| push(&feed, "bob", 0, offset));
    assert!(feed.subscribe("ada", Some(old)).unwrap().is_reset(), "what was forgotten may have been hers");
    idle.catch_up();
    assert!(!feed.subscribe("ada", Some(idle.position().clone())).unwrap().is_reset());
    push(&feed, "ada", 0, 200);
    idle.catch_up();
    assert_eq!(idle.position().next(0), 200, "what waits for it is not skipped");
    assert_eq!(waiting(&mut idle), [(0, 200)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_forgotten_and_what_is_no_event_moves_on() {
    let feed = feed(roomy());
    push(&feed, "ada", 0, 100);
    let position = feed.subscribe("ada", None).unwrap().position().clone();
    push(&feed, "ada", 0, 101);
    tokio::time::advance(HOUR + Duration::from_secs(1)).await;
    feed.push(0, 102, None);
    assert!(feed.subscribe("ada", Some(position)).unwrap().is_reset());
    assert!(feed.state().users.is_empty(), "nobody's entry stays");
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_let_go_and_takes_up_again() {
    let feed = feed(roomy());
    let mut slow = feed.subscribe("ada", None).unwrap();
    let count = i64::try_from(WAITING).unwrap() + 10;
    (0..count).for_each(|offset| push(&feed, "ada", 1, offset));
    let first = waiting(&mut slow);
    assert_eq!(first.len(), WAITING);
    assert!(slow.next().now_or_never().unwrap().is_none(), "it is told to come again");
    let mut again = feed.subscribe("ada", Some(slow.position().clone())).unwrap();
    assert_eq!(waiting(&mut again).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn clients_are_bounded_in_all_and_by_user_and_wait_for_a_feed_that_is_behind() {
    let feed = feed(Limits { connections: OF_ONE_USER + 1, ..roomy() });
    let mut all: Vec<_> = (0..OF_ONE_USER).map(|_| feed.subscribe("ada", None).unwrap()).collect();
    assert_eq!(feed.subscribe("ada", None).err(), Some(Refused::TooMany));
    all.push(feed.subscribe("bob", None).unwrap());
    assert_eq!(feed.subscribe("cyd", None).err(), Some(Refused::Full));
    drop(all);
    let mut ahead = Position::default();
    ahead.advance(0, 101);
    assert_eq!(feed.subscribe("ada", Some(ahead)).err(), Some(Refused::Ahead));
    feed.begin(BTreeMap::new());
    assert_eq!(feed.subscribe("ada", None).err(), Some(Refused::NotReady));
    assert_eq!(feed.0.metrics.sync_connections.get(), 0);
}

/// What happens to a feed and the clients of it.
#[derive(Debug, Clone)]
enum Step {
    Push(usize, i32),
    Connect(usize),
    Read(usize),
    Leave(usize),
    CatchUp(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..4_usize;
    vec(
        prop_oneof![
            3 => (0..2_usize, 0..2).prop_map(|(user, partition)| Step::Push(user, partition)),
            1 => client.clone().prop_map(Step::Connect),
            2 => client.clone().prop_map(Step::Read),
            1 => client.clone().prop_map(Step::Leave),
            1 => client.prop_map(Step::CatchUp),
        ],
        1..120,
    )
}

proptest! {
    /// Clients 0 and 1 are the first user's, 2 and 3 the second's. What a client saw since its last reset is exactly what its user got since, in order.
    #[test]
    fn no_client_misses_an_event_or_sees_one_twice_or_another_users(steps in steps(), memory in 200..4000_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().start_paused(true).enable_time().build().unwrap();
        let _inside = runtime.enter();
        let feed = feed(Limits { memory, ..roomy() });
        let users = ["ada", "bob"];
        let mut next = HashMap::from([(0, 100), (1, 0)]);
        let mut log: Vec<(usize, (i32, i64))> = Vec::new();
        let mut clients: Vec<Option<Subscription>> = (0..4).map(|_| None).collect();
        let mut positions: Vec<Option<Position>> = vec![None; 4];
        // From where in the log a client must have everything, and what it has.
        let mut since = [0_usize; 4];
        let mut seen: Vec<Vec<(i32, i64)>> = vec![Vec::new(); 4];
        for step in steps {
            match step {
                Step::Push(user, partition) => {
                    let offset = next[&partition];
                    *next.get_mut(&partition).unwrap() += 1;
                    push(&feed, users[user], partition, offset);
                    log.push((user, (partition, offset)));
                }
                Step::Connect(client) => {
                    if clients[client].is_some() { continue }
                    let subscription = feed.subscribe(users[client / 2], positions[client].clone()).unwrap();
                    if subscription.is_reset() || positions[client].is_none() {
                        since[client] = log.len();
                        seen[client].clear();
                    }
                    clients[client] = Some(subscription);
                }
                Step::Read(client) => {
                    if let Some(subscription) = &mut clients[client] { seen[client].extend(waiting(subscription)); }
                }
                Step::CatchUp(client) => {
                    if let Some(subscription) = &mut clients[client] { subscription.catch_up(); }
                }
                Step::Leave(client) => {
                    if let Some(subscription) = clients[client].take() { positions[client] = Some(subscription.position().clone()); }
                }
            }
        }
        for client in 0..4 {
            let Some(subscription) = &mut clients[client] else { continue };
            seen[client].extend(waiting(subscription));
            let owed: Vec<_> = log[since[client]..].iter().filter(|(user, _)| *user == client / 2).map(|(_, at)| *at).collect();
            let of = |partition: i32, all: &[(i32, i64)]| all.iter().filter(|(of, _)| *of == partition).copied().collect::<Vec<_>>();
            for partition in [0, 1] {
                prop_assert_eq!(of(partition, &seen[client]), of(partition, &owed), "client {} partition {}", client, partition);
            }
        }
    }
}
