//! The embedded broker's limits, and the guard that keeps unsettled records within them.

use std::sync::Arc;

use worker::{
    engine::ports::{Commit, Publisher},
    event::record::RecordBatch,
    kafka::{client::Clients, embedded::Embedded, publisher::KafkaPublisher},
};

use crate::{
    kafka_member::{Peer, SOON, config, eventually, message, place},
    kafka_source::unique,
};

/// The limit is real: without the guard the broker forgets.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_drops_the_oldest_records_of_a_full_partition() {
    let broker = Embedded::start(&[("events", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &["kafka.producer.\"compression.type\"=\"none\""]);
    let publisher = KafkaPublisher::new(&Clients::new(&config).unwrap()).unwrap();
    let value: Vec<u8> = vec![b'x'; 50_000];
    for _ in 0..150 {
        publisher.publish(message("events", 0, value.clone())).await.unwrap();
    }
    let admin = worker::kafka::topics::TopicAdmin::new(&Clients::new(&config).unwrap()).unwrap();
    let (low, end) = admin.log_bounds(&[place("events", 0)]).await.unwrap()[0];
    assert_eq!(end, 150);
    assert!(low > 40, "7.5 MB were written, 5 MiB are kept, the log starts at {low}");
}

/// A full queue is answered before an unsettled record could be dropped, and a commit makes room.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_is_refused_before_an_unsettled_record_could_be_dropped_and_goes_on_after_a_commit() {
    let broker = Embedded::start(&[("events", 2), ("other", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let clients = Clients::new(&config).unwrap();
    let (publisher, guard) = broker.publisher(&clients, &[("events", 2)]).unwrap();
    let peer = Peer::start(&config, &["events"]);
    eventually("the assignment", || peer.owned().len() == 2).await;
    let sink = guard.sink(peer.source.offsets());

    let value: Vec<u8> = vec![b'x'; 9_000];
    let fill = async || {
        let mut written = 0_i64;
        loop {
            match publisher.publish(message("events", 0, value.clone())).await {
                Ok(_) => written += 1,
                Err(error) => {
                    assert_eq!(error.code(), "queue_full");
                    return written;
                }
            }
        }
    };
    let written = fill().await;
    assert!((500..583).contains(&written), "{written} records of 9 kB");
    let admin = worker::kafka::topics::TopicAdmin::new(&clients).unwrap();
    let bounds = async || admin.log_bounds(&[place("events", 0)]).await.unwrap()[0];
    assert_eq!(bounds().await, (0, written), "nothing was dropped");

    // The other partition has room, and so has a topic that nobody here reads.
    publisher.publish(message("events", 1, value.clone())).await.unwrap();
    for _ in 0..700 {
        publisher.publish(message("other", 0, value.clone())).await.unwrap();
    }

    let committed = written / 2;
    // What is not read yet is nobody's to commit.
    eventually("half of them", || i64::try_from(peer.count(0)).unwrap() >= committed).await;
    sink.commit(vec![Commit { partition: place("events", 0), offset: committed, metadata: String::new() }]).await.unwrap();
    let more = fill().await;
    assert!((committed - 2..=committed).contains(&more), "{more} more after {committed} were settled");
    let (low, end) = bounds().await;
    assert_eq!(end, written + more);
    assert!(low <= committed, "offset {committed} is not settled, the log starts at {low}");
    eventually("every record", || i64::try_from(peer.count(0)).unwrap() == end).await;
    assert!(peer.source.close(SOON).await);
    assert_eq!(publisher.close(SOON).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_records_are_counted_as_batches() {
    let broker = Embedded::start(&[("events", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let clients = Clients::new(&config).unwrap();
    let (publisher, _guard) = broker.publisher(&clients, &[("events", 1)]).unwrap();
    let mut written = 0_usize;
    'full: loop {
        let some = (0..1000).map(|_| publisher.publish(message("events", 0, "")));
        for answer in futures_util::future::join_all(some).await {
            match answer {
                Ok(_) => written += 1,
                Err(error) => {
                    assert_eq!(error.code(), "queue_full");
                    break 'full;
                }
            }
        }
    }
    assert!((50_000..100_000).contains(&written), "{written}");
    let admin = worker::kafka::topics::TopicAdmin::new(&clients).unwrap();
    assert_eq!(admin.log_bounds(&[place("events", 0)]).await.unwrap()[0].0, 0, "nothing was dropped");
    publisher.close(SOON).await;
}

/// A record keeps null and empty apart, and every header, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn keys_values_and_headers_come_back_as_they_were_written() {
    use worker::engine::ports::{LogReader, Message};
    let broker = Embedded::start(&[("events", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let clients = Clients::new(&config).unwrap();
    let publisher: Arc<dyn Publisher> = Arc::new(KafkaPublisher::new(&clients).unwrap());
    type Bytes = Option<&'static [u8]>;
    let shapes: [(Bytes, Bytes); 4] =
        [(None, Some(b"value")), (Some(b""), Some(b"")), (Some(b"\xff\x00k"), None), (Some(b"k"), Some(b"\x00\xfe"))];
    let headers: Vec<(String, Option<bytes::Bytes>)> = vec![
        ("a".into(), Some("1".into())),
        ("null".into(), None),
        ("empty".into(), Some("".into())),
        ("a".into(), Some(vec![0xff, 0].into())),
    ];
    for (key, value) in shapes {
        let message = Message {
            topic: "events".into(),
            key: key.map(Into::into),
            value: value.map(Into::into),
            headers: headers.clone(),
            partition: None,
        };
        publisher.publish(message).await.unwrap();
    }
    let reader = worker::kafka::reader::KafkaReader::start(&clients).unwrap();
    let records = reader.read(&place("events", 0), &[0, 1, 2, 3]).await.unwrap();
    for (record, (key, value)) in records.iter().zip(shapes) {
        assert_eq!((record.key(), record.value()), (key, value));
        let read: Vec<_> = record.headers().map(|(name, value)| (name.to_owned(), value.map(bytes::Bytes::copy_from_slice))).collect();
        assert_eq!(read, headers);
        assert!(record.timestamp().is_some());
    }
    let none: Vec<worker::event::record::RecordParts> = Vec::new();
    assert!(RecordBatch::is_empty(&none));
}

/// The stubs of one user: some gone, some far apart.
#[tokio::test(flavor = "multi_thread")]
async fn old_records_are_read_again_in_order_and_those_that_are_gone_are_left_out() {
    use worker::engine::ports::LogReader;
    let broker = Embedded::start(&[("events", 1)]).unwrap();
    let config = config(broker.brokers(), &unique("group"), &[]);
    let clients = Clients::new(&config).unwrap();
    let publisher = KafkaPublisher::new(&clients).unwrap();
    crate::kafka_member::fill(&publisher, "events", 0..1, 10_000).await;
    let reader = worker::kafka::reader::KafkaReader::start(&clients).unwrap();
    let wanted = [3, 4, 5, 400, 5_000, 9_998, 9_999, 10_000, 70_000];
    let records = reader.read(&place("events", 0), &wanted).await.unwrap();
    let offsets: Vec<_> = records.iter().map(worker::event::record::Record::offset).collect();
    assert_eq!(offsets, [3, 4, 5, 400, 5_000, 9_998, 9_999]);
    assert_eq!(records[4].value(), Some("5000".as_bytes()));
    assert!(reader.read(&place("events", 0), &[]).await.unwrap().is_empty());
    // Enough is enough, also in the middle of a run or between two.
    for (most, expected) in [(1, 1), (records[0].footprint() + 1, 2), (3 * records[0].footprint(), 3), (4 * records[0].footprint(), 4)] {
        let records = reader.read_up_to(most, &place("events", 0), &wanted).await.unwrap();
        assert_eq!(records.iter().map(worker::event::record::Record::offset).collect::<Vec<_>>(), wanted[..expected]);
    }
}
