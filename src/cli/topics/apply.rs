//! Makes the changes of a plan that are allowed, and notes Kafka's answer on each.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};

use super::plan::{Difference, Plan, Risk, Topic, What};
use crate::kafka::{
    KafkaError,
    topics::{TopicAdmin, TopicResult},
};

/// Longest wait until the brokers show what they have done, and between two looks.
const VISIBLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// First what is missing, then partitions and settings, at last what is to be deleted. A refused change leaves the others.
/// Ends when the brokers show it, so that a plan which follows finds nothing left to do.
pub(super) async fn apply(plan: &mut Plan, allowed: &[Risk], admin: &TopicAdmin) -> Result<(), KafkaError> {
    let specs = plan.topics.iter().filter(|topic| does(topic, &What::Create, allowed));
    let specs: Vec<_> = specs.filter_map(|topic| Some(topic.wanted.as_ref()?.spec.clone())).collect();
    let created = unless_there(admin, admin.create(&specs).await?).await?;
    note(plan, &created, |found| found.what == What::Create);

    let total = |topic: &Topic| topic.wanted.as_ref().and_then(|wanted| usize::try_from(wanted.spec.partitions).ok());
    let wider = plan.topics.iter().filter(|topic| does(topic, &What::Partitions, allowed));
    let wider: Vec<_> = wider.filter_map(|topic| Some((topic.name.clone(), total(topic)?))).collect();
    note(plan, &admin.add_partitions(&wider).await?, |found| found.what == What::Partitions);

    let is_setting = |found: &Difference| matches!(found.what, What::Setting(_)) && found.is_allowed(allowed);
    let settings = |topic: &Topic| -> BTreeMap<_, _> {
        topic.differences.iter().filter(|found| is_setting(found)).map(|found| (found.setting().to_owned(), found.wanted.clone())).collect()
    };
    let changed: Vec<_> =
        plan.topics.iter().map(|topic| (topic.name.clone(), settings(topic))).filter(|(_, new)| !new.is_empty()).collect();
    note(plan, &admin.set_config(&changed).await?, is_setting);

    let gone = plan.topics.iter().filter(|topic| does(topic, &What::Delete, allowed));
    let gone: Vec<_> = gone.map(|topic| topic.name.clone()).collect();
    note(plan, &admin.delete(&gone).await?, |found| found.what == What::Delete);

    let end = Instant::now() + VISIBLE;
    while !is_visible(plan, admin).await && Instant::now() < end {
        sleep(LOOK).await;
    }
    Ok(())
}

/// Kafka answers before all brokers know. Brokers that are away now have answered already: nothing is waited for.
async fn is_visible(plan: &Plan, admin: &TopicAdmin) -> bool {
    let changed: Vec<_> = plan.topics.iter().filter(|topic| topic.is_changed()).collect();
    let names: Vec<_> = changed.iter().map(|topic| topic.name.clone()).collect();
    let found = admin.describe(&names).await;
    found.map_or(true, |found| changed.iter().zip(found).all(|(topic, found)| topic.shows_in(found)))
}

fn does(topic: &Topic, what: &What, allowed: &[Risk]) -> bool {
    topic.differences.iter().any(|found| found.what == *what && found.is_allowed(allowed))
}

fn note(plan: &mut Plan, results: &[TopicResult], about: impl Fn(&Difference) -> bool) {
    for (name, result) in results {
        let topic = plan.topics.iter_mut().filter(|topic| topic.name == *name);
        for found in topic.flat_map(|topic| &mut topic.differences).filter(|found| about(found)) {
            found.outcome = Some(result.as_ref().copied().map_err(KafkaError::to_string));
        }
    }
}

/// That somebody else was faster is no refusal.
async fn unless_there(admin: &TopicAdmin, mut results: Vec<TopicResult>) -> Result<Vec<TopicResult>, KafkaError> {
    let refused: Vec<_> = results.iter().filter(|(_, result)| result.is_err()).map(|(topic, _)| topic.clone()).collect();
    if !refused.is_empty() {
        let there: Vec<_> = admin.list().await?.into_iter().map(|topic| topic.name).collect();
        results.iter_mut().filter(|(topic, _)| there.contains(topic)).for_each(|(_, result)| *result = Ok(()));
    }
    Ok(results)
}
