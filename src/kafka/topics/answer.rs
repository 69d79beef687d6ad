//! Kafka's answers about a topic, told so that the reader knows what to do. Pure.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::kafka::KafkaError;

/// What was asked for: the right that it takes, in the words of Kafka's ACL tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To look at the topic.
    Describe,
    /// To look at its settings.
    DescribeConfigs,
    /// To make it.
    Create,
    /// To give it partitions.
    Alter,
    /// To change its settings.
    AlterConfigs,
    /// To delete it.
    Delete,
}

impl Asked {
    fn right(self) -> &'static str {
        match self {
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
            Self::Create => "Create",
            Self::Alter => "Alter",
            Self::AlterConfigs => "AlterConfigs",
            Self::Delete => "Delete",
        }
    }
}

/// Kafka's answer in its own `words` (may be empty), with the fix where one is known.
pub(super) fn readable(asked: Asked, topic: &str, code: Code, words: &str) -> KafkaError {
    // librdkafka repeats the code's name where the broker says nothing more.
    let words = words.trim().trim_end_matches('.');
    let code_words = code.to_string();
    let words = if words.is_empty() { code_words.as_str() } else { words };
    let right = asked.right();
    let fix = match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            let fix = format!("kafka-acls.sh --add --allow-principal User:<this client's> --operation {right} --topic {topic}");
            return KafkaError::Forbidden(format!("topic {topic}: {right} ({words}); {fix}"));
        }
        Code::PolicyViolation => return KafkaError::Refused(format!("topic {topic}: the cluster's policy forbids it: {words}")),
        Code::InvalidReplicationFactor => "plan with another --profile, or bring more brokers",
        Code::InvalidConfig => "mend the setting in topics.yaml",
        Code::InvalidPartitions => "mend `partitions` in topics.yaml",
        Code::InvalidTopic | Code::InvalidArgument => "mend the topic's entry in topics.yaml",
        Code::TopicAlreadyExists => "it is hidden from this client: allow Describe on it",
        Code::UnknownTopicOrPartition => "it went away meanwhile, or is hidden from this client; plan again",
        Code::RequestTimedOut | Code::OperationTimedOut => "it may be done yet: plan again to see",
        Code::ReassignmentInProgress => "wait until its replicas have moved",
        Code::ThrottlingQuotaExceeded => "the quota for such changes is used up: try again later",
        Code::TopicDeletionDisabled => "the brokers have delete.topic.enable=false",
        _ => return KafkaError::Refused(format!("topic {topic}: {words}")),
    };
    KafkaError::Refused(format!("topic {topic}: {words}; {fix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(asked: Asked, code: Code, words: &str) -> String {
        readable(asked, "t", code, words).to_string()
    }

    #[test]
    fn each_of_kafkas_answers_is_told_with_what_to_do() {
        let cases = [
            (
                Asked::Create,
                Code::InvalidReplicationFactor,
                "Unable to replicate the partition 3 time(s): only 1 broker(s) are registered.",
                "topic t: Unable to replicate the partition 3 time(s): only 1 broker(s) are registered; plan with another --profile, or bring more brokers",
            ),
            (
                Asked::Create,
                Code::PolicyViolation,
                "names begin with the team's",
                "topic t: the cluster's policy forbids it: names begin with the team's",
            ),
            (
                Asked::AlterConfigs,
                Code::TopicAuthorizationFailed,
                "Topic authorization failed.",
                "Kafka does not allow it: topic t: AlterConfigs (Topic authorization failed); kafka-acls.sh --add --allow-principal User:<this client's> --operation AlterConfigs --topic t",
            ),
            (
                Asked::AlterConfigs,
                Code::InvalidConfig,
                "Unknown topic config name: retention",
                "topic t: Unknown topic config name: retention; mend the setting in topics.yaml",
            ),
            (Asked::Delete, Code::TopicDeletionDisabled, "", "delete.topic.enable=false"),
            (Asked::Create, Code::TopicAlreadyExists, "Topic 't' already exists.", "allow Describe on it"),
            (Asked::Alter, Code::RequestTimedOut, "", "plan again to see"),
            (Asked::Alter, Code::NotController, "Not controller", "topic t: Not controller"),
        ];
        for (asked, code, words, expected) in cases {
            let told = told(asked, code, words);
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_forbidden_change_names_the_right_that_it_takes() {
        for (asked, right) in [
            (Asked::Describe, "Describe "),
            (Asked::DescribeConfigs, "DescribeConfigs "),
            (Asked::Create, "Create "),
            (Asked::Alter, "Alter "),
            (Asked::Delete, "Delete "),
        ] {
            let error = readable(asked, "t", Code::ClusterAuthorizationFailed, "");
            assert_eq!(error.code(), "forbidden");
            assert!(error.to_string().contains(&format!("--operation {right}")), "{error}");
        }
    }
}
