//! Writes records: idempotent, acknowledged by every in-sync replica, each failure sorted by what the caller can do about it.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use rdkafka::{
    ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError as Native, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use super::{
    KafkaError,
    client::{self, Clients},
    pulse::Pulse,
    token::Supplied,
};
use crate::engine::ports::{Acked, Message, PublishError, Publisher};

/// Told where a record went; dropped without being told where it went nowhere.
pub(super) trait Charge: Send + Sync {
    /// It is in the log, there.
    fn written(self: Box<Self>, acked: Acked);
}

/// One record on its way.
struct Pending {
    answer: oneshot::Sender<Result<Acked, PublishError>>,
    charge: Option<Box<dyn Charge>>,
}

/// Serves delivery reports on the producer's own thread.
struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message, false);
    }

    fn error(&self, error: Native, reason: &str) {
        client::report(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        let Pending { answer, charge } = *pending;
        let outcome = match result {
            Ok(record) => acknowledged(record.partition(), record.offset()).inspect(|acked| {
                if let Some(charge) = charge {
                    charge.written(*acked);
                }
            }),
            Err((error, record)) => Err(sort(error, record.topic())),
        };
        // Nobody waits for a record whose caller gave up; it is written all the same.
        let _ = answer.send(outcome);
    }
}

/// The producer. Cheap to share; dropping the last one throws away what is not yet acknowledged, so [`Self::close`] first.
pub struct KafkaPublisher {
    producer: Arc<Supplied<ThreadedProducer<Reports>>>,
    pulse: Pulse,
}

impl KafkaPublisher {
    /// Connects in the background; a publish before any broker answered waits up to `delivery.timeout.ms` (30 s).
    ///
    /// # Errors
    /// Where the properties make no client.
    pub fn new(clients: &Clients) -> Result<Self, KafkaError> {
        Self::with(clients, |_| {})
    }

    /// As [`Self::new`], with the last word on the properties.
    pub(super) fn with(clients: &Clients, adjust: impl FnOnce(&mut rdkafka::ClientConfig)) -> Result<Self, KafkaError> {
        let mut config = clients.producer();
        adjust(&mut config);
        let producer = Arc::new(clients.create(&config, Reports)?);
        Ok(Self { producer, pulse: Pulse::start(clients, |_, _| {})? })
    }

    /// Whether the brokers answer, at most 6 s old.
    pub fn brokers_up(&self) -> bool {
        self.pulse.brokers_up()
    }

    /// Records handed over and not acknowledged yet.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// Waits until everything is acknowledged, at most `deadline`; answers how many records are left behind.
    pub async fn close(&self, deadline: Duration) -> usize {
        let producer = Arc::clone(&self.producer);
        let (done, waited) = oneshot::channel();
        let spawned = std::thread::Builder::new().name("kafka-flush".to_owned()).spawn(move || {
            let _ = producer.flush(deadline);
            let _ = done.send(());
        });
        if spawned.is_ok() {
            let _ = waited.await;
        }
        self.in_flight()
    }

    /// Hands the record to the client; the answer comes with the acknowledgement.
    pub(super) fn enqueue(
        &self,
        message: &Message,
        charge: Option<Box<dyn Charge>>,
    ) -> Result<oneshot::Receiver<Result<Acked, PublishError>>, PublishError> {
        if message.topic.is_empty() || message.topic.contains('\0') {
            return Err(PublishError::Refused("a topic needs a name".to_owned()));
        }
        let (answer, answered) = oneshot::channel();
        let mut record: BaseRecord<'_, [u8], [u8], _> = BaseRecord::with_opaque_to(&message.topic, Box::new(Pending { answer, charge }));
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        record.partition = message.partition;
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record.headers =
                Some(message.headers.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() })));
        }
        match self.producer.send(record) {
            Ok(()) => Ok(answered),
            Err((error, _)) => Err(sort(&error, &message.topic)),
        }
    }
}

impl Publisher for KafkaPublisher {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        Box::pin(async move {
            let answered = self.enqueue(&message, None)?;
            answered.await.unwrap_or_else(|_| Err(PublishError::Unreachable("the producer was closed".to_owned())))
        })
    }
}

/// Where the brokers say it stands. Without a place there is no acknowledgement: the client calls a record written, too, when the brokers
/// refuse its sequence number as one they have passed. In a topic that was deleted and made anew meanwhile, another record of ours may
/// have passed it, and this one is nowhere.
fn acknowledged(partition: i32, offset: i64) -> Result<Acked, PublishError> {
    match offset {
        0.. => Ok(Acked { partition, offset }),
        _ => Err(PublishError::Unreachable("the record was called a duplicate, and its place is not known".to_owned())),
    }
}

/// Sorts a failed publish by what its caller can do.
fn sort(error: &Native, topic: &str) -> PublishError {
    match error.rdkafka_error_code() {
        Some(code) => sort_code(code, topic, &error.to_string()),
        None => PublishError::Refused(error.to_string()),
    }
}

/// Every code by name, so that a new one has to be thought about.
fn sort_code(code: Code, topic: &str, words: &str) -> PublishError {
    let words = || words.to_owned();
    match code {
        Code::QueueFull => PublishError::QueueFull,

        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => PublishError::TooLarge,

        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownTopicId | Code::NoEnt => {
            PublishError::TopicMissing(topic.to_owned())
        }

        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            PublishError::Forbidden(topic.to_owned())
        }

        // The client gave up its promises: only a new process may go on.
        Code::Fatal
        | Code::Fenced
        | Code::GaplessGuarantee
        | Code::Inconsistent
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId
        | Code::OutOfOrderSequenceNumber
        | Code::InvalidTransactionalState
        | Code::InvalidTransactionTimeout
        | Code::ConcurrentTransactions
        | Code::TransactionCoordinatorFenced
        | Code::CriticalSystemResource
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::NotImplemented
        | Code::NotConfigured => PublishError::Fatal(words()),

        // About this record: sending it again changes nothing.
        Code::BadMessage
        | Code::BadCompression
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::InvalidArgument
        | Code::InvalidType
        | Code::InvalidRequest
        | Code::InvalidRequiredAcks
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::PolicyViolation
        | Code::UnknownPartition
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::KeySerialization
        | Code::ValueSerialization
        | Code::KeyDeserialization
        | Code::ValueDeserialization
        | Code::InvalidDifferentRecord
        | Code::ReadOnly
        | Code::Underflow
        | Code::TopicAlreadyExists
        | Code::TopicDeletionDisabled => PublishError::Refused(words()),

        // Away, moving, slow, or not letting us in at the moment (credentials rotate): may pass later. Codes that no producer should
        // see are here too: "not acknowledged" is what is known then.
        Code::BrokerDestroy
        | Code::Fail
        | Code::BrokerTransportFailure
        | Code::Resolve
        | Code::MessageTimedOut
        | Code::PartitionEOF
        | Code::FileSystem
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::ISRInsufficient
        | Code::NodeUpdate
        | Code::SSL
        | Code::WaitingForCoordinator
        | Code::UnknownGroup
        | Code::InProgress
        | Code::PreviousInProgress
        | Code::ExistingSubscription
        | Code::AssignPartitions
        | Code::RevokePartitions
        | Code::Conflict
        | Code::State
        | Code::UnknownProtocol
        | Code::Authentication
        | Code::NoOffset
        | Code::Outdated
        | Code::TimedOutQueue
        | Code::WaitCache
        | Code::Interrupted
        | Code::Partial
        | Code::Retry
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::PollExceeded
        | Code::UnknownBroker
        | Code::Application
        | Code::AssignmentLost
        | Code::Noop
        | Code::AutoOffsetReset
        | Code::LogTruncation
        | Code::DestroyBroker
        | Code::Unknown
        | Code::OffsetOutOfRange
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::RequestTimedOut
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::StaleControllerEpoch
        | Code::OffsetMetadataTooLarge
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::IllegalGeneration
        | Code::InconsistentGroupProtocol
        | Code::InvalidGroupId
        | Code::UnknownMemberId
        | Code::InvalidSessionTimeout
        | Code::RebalanceInProgress
        | Code::InvalidCommitOffsetSize
        | Code::GroupAuthorizationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::NotController
        | Code::DuplicateSequenceNumber
        | Code::SecurityDisabled
        | Code::OperationNotAttempted
        | Code::KafkaStorageError
        | Code::LogDirNotFound
        | Code::SaslAuthenticationFailed
        | Code::ReassignmentInProgress
        | Code::DelegationTokenAuthDisabled
        | Code::DelegationTokenNotFound
        | Code::DelegationTokenOwnerMismatch
        | Code::DelegationTokenRequestNotAllowed
        | Code::DelegationTokenAuthorizationFailed
        | Code::DelegationTokenExpired
        | Code::InvalidPrincipalType
        | Code::NonEmptyGroup
        | Code::GroupIdNotFound
        | Code::FetchSessionIdNotFound
        | Code::InvalidFetchSessionEpoch
        | Code::ListenerNotFound
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::StaleBrokerEpoch
        | Code::OffsetNotAvailable
        | Code::MemberIdRequired
        | Code::PreferredLeaderNotAvailable
        | Code::GroupMaxSizeReached
        | Code::FencedInstanceId
        | Code::EligibleLeadersNotAvailable
        | Code::ElectionNotNeeded
        | Code::NoReassignmentInProgress
        | Code::GroupSubscribedToTopic
        | Code::UnstableOffsetCommit
        | Code::ThrottlingQuotaExceeded
        | Code::ResourceNotFound
        | Code::DuplicateResource
        | Code::UnacceptableCredential
        | Code::InconsistentVoterSet
        | Code::InvalidUpdateVersion
        | Code::FeatureUpdateFailed
        | Code::PrincipalDeserializationFailure
        | Code::FencedMemberEpoch
        | Code::UnreleasedInstanceId
        | Code::UnsupportedAssignor
        | Code::StaleMemberEpoch
        | Code::UnknownSubscriptionId
        | Code::TelemetryTooLarge
        | Code::RebootstrapRequired
        | Code::NoError => PublishError::Unreachable(words()),
        // A code newer than this list.
        _ => PublishError::Unreachable(words()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// F02: such a report may stand for a record that is in no log.
    #[test]
    fn a_report_without_an_offset_is_no_acknowledgement() {
        assert_eq!(acknowledged(2, 0), Ok(Acked { partition: 2, offset: 0 }));
        assert_eq!(acknowledged(2, -1001).unwrap_err().code(), "unreachable");
    }

    #[test]
    fn each_failure_tells_the_caller_what_can_be_done_about_it() {
        let sorted = |code| sort_code(code, "t", "words").code();
        assert_eq!(sorted(Code::QueueFull), "queue_full");
        assert_eq!(sorted(Code::MessageSizeTooLarge), "too_large");
        assert_eq!(sorted(Code::UnknownTopicOrPartition), "topic_missing");
        assert_eq!(sorted(Code::TopicAuthorizationFailed), "forbidden");
        assert_eq!(sorted(Code::MessageTimedOut), "unreachable");
        assert_eq!(sorted(Code::AllBrokersDown), "unreachable");
        assert_eq!(sorted(Code::NotEnoughReplicas), "unreachable");
        assert_eq!(sorted(Code::InvalidRecord), "refused");
        assert_eq!(sorted(Code::PolicyViolation), "refused");
        assert_eq!(sorted(Code::Fatal), "fatal");
    }
}
