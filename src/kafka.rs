//! Everything that speaks to Kafka; the only folder that names the client library.
