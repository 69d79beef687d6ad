//! Records to events. Never panics, and allocates at most [`MEMORY_PER_BYTE`] times the value and [`MEMORY_BASE`] bytes.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, Utc};

use super::{
    Event, Rejected,
    catalog::{Catalog, EventType, Version},
    cloudevent::DEFAULT_TYPE,
    complete::{self, Facts},
    excerpt::Excerpt,
    ids,
    record::{RawRecord, Record},
    render::Seen,
    time,
    view::{self, View},
};
use crate::outcome::DeadReason;

/// Most memory that decoding a value takes at once, per byte of it: a list of digits becomes a tree of values when it is validated.
/// Without validation it is 4.
pub const MEMORY_PER_BYTE: usize = 128;

/// Most memory that decoding takes besides, in bytes.
pub const MEMORY_BASE: usize = 64 * 1024;

/// Makes events of records, by one catalogue.
#[derive(Debug, Clone)]
pub struct Decoder {
    catalog: Arc<Catalog>,
    validate: bool,
    opaque: Option<Opaque>,
    unlisted: Option<Arc<Unlisted>>,
}

/// Types that the catalogue lacks, as they were met.
#[derive(Debug, Default)]
struct Unlisted(RwLock<HashMap<Arc<str>, Arc<EventType>>>);

/// Types that are kept: a producer's mistake can name any number of them.
const KEPT: usize = 1024;

/// Topics whose values need not be events.
#[derive(Debug, Clone)]
struct Opaque {
    topics: BTreeSet<Arc<str>>,
    kind: Arc<EventType>,
}

/// What a record says about itself before it is an event. Borrows from the record and the catalogue.
#[derive(Debug)]
pub(super) struct Read<'v> {
    pub(super) id: Option<Cow<'v, str>>,
    /// As it was sent.
    sent_type: &'v str,
    pub(super) kind: Option<&'v Arc<EventType>>,
    pub(super) user_id: Option<&'v str>,
    pub(super) sent_time: Option<DateTime<Utc>>,
    pub(super) expires: Option<DateTime<Utc>>,
    pub(super) version: Version,
    /// What is wrong with timestamp or version, where something is.
    pub(super) malformed: Option<&'static str>,
}

impl Read<'_> {
    /// The catalogue's name of the type, else as it was sent.
    pub(super) fn event_type(&self) -> Arc<str> {
        self.kind.map_or_else(|| self.sent_type.into(), |kind| Arc::clone(&kind.name))
    }

    fn judged(self, view: &View<'_>, user_id: &str, kind: Arc<EventType>, record: &Record) -> Judged {
        let value = record.value();
        Judged {
            id: self.id.map(|id| Excerpt::of(&id, value)),
            user_id: Excerpt::of(user_id, value),
            seen: Seen::of(view, value, &kind, self.version),
            kind,
            sent_time: self.sent_time,
            expires: self.expires,
            version: self.version,
        }
    }

    fn refused(self, reason: DeadReason, error: String) -> Box<Refusal> {
        let (event_type, user_id) = (Some(self.event_type()), self.user_id.map(Into::into));
        Box::new(Refusal { reason, error, id: self.id.map(Into::into), event_type, user_id })
    }
}

/// What makes a record an event.
struct Judged {
    id: Option<Excerpt>,
    user_id: Excerpt,
    kind: Arc<EventType>,
    sent_time: Option<DateTime<Utc>>,
    expires: Option<DateTime<Utc>>,
    version: Version,
    seen: Seen,
}

struct Refusal {
    reason: DeadReason,
    error: String,
    id: Option<Box<str>>,
    event_type: Option<Arc<str>>,
    user_id: Option<Box<str>>,
}

impl Unlisted {
    fn kind(&self, name: &Arc<str>) -> Result<Arc<EventType>, String> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Arc::clone(known));
        }
        let kind = Arc::new(EventType::unlisted(name)?);
        let mut kept = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.insert(Arc::clone(name), Arc::clone(&kind));
        }
        Ok(kind)
    }
}

impl Opaque {
    fn event(&self, record: Record) -> Event {
        let id = Excerpt::Copy(id_of_position(&record));
        let user_id = Excerpt::Copy(record.key().map(|key| String::from_utf8_lossy(key).into()).unwrap_or_default());
        let time = time::of_record(record.timestamp());
        Event {
            id,
            id_from_offset: true,
            kind: Arc::clone(&self.kind),
            user_id,
            time,
            expires: None,
            version: Version::FIRST,
            seen: Seen::NOTHING,
            record,
        }
    }
}

impl Decoder {
    /// `validate`: whether `data` is checked against its schema. A version newer than the catalogue's is checked in any case, since that is
    /// what decides whether it can be handled as the newest known.
    pub fn new(catalog: Arc<Catalog>, validate: bool) -> Self {
        Self { catalog, validate, opaque: None, unlisted: None }
    }

    /// Makes events also of types that the catalogue lacks, where `deliver` says so. Their data is not looked at.
    #[must_use]
    pub fn delivering_unknown(self, deliver: bool) -> Self {
        Self { unlisted: deliver.then(Arc::default), ..self }
    }

    /// Takes whatever stands on `topics`: what is no valid event there becomes one of the type `raw`, its id its position's, its user
    /// the record's key.
    ///
    /// # Errors
    /// Where the type cannot be made; no reason is known.
    pub fn with_opaque(self, topics: BTreeSet<Arc<str>>) -> Result<Self, String> {
        let kind = Arc::new(EventType::opaque()?);
        Ok(Self { opaque: Some(Opaque { topics, kind }).filter(|opaque| !opaque.topics.is_empty()), ..self })
    }

    /// The catalogue.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Makes an event of a record.
    ///
    /// # Errors
    /// With the first reason that applies: undecodable (also: neither event_type nor CloudEvents type), missing_user_id, unknown_type,
    /// schema.
    pub fn decode(&self, record: Record) -> Result<Event, Box<Rejected>> {
        match view::open(&record, |view| self.judge(view, &record)) {
            Ok(Judged { id, user_id, kind, sent_time, expires, version, seen }) => {
                let id_from_offset = id.is_none();
                let id = id.unwrap_or_else(|| Excerpt::Copy(id_of_position(&record)));
                let time = sent_time.unwrap_or_else(|| time::of_record(record.timestamp()));
                Ok(Event { id, id_from_offset, kind, user_id, time, expires, version, seen, record })
            }
            Err(refusal) => {
                if let Some(opaque) = self.opaque.as_ref().filter(|opaque| opaque.topics.contains(record.topic())) {
                    return Ok(opaque.event(record));
                }
                let Refusal { reason, error, id, event_type, user_id } = *refusal;
                let id_from_offset = id.is_none();
                let id = id.unwrap_or_else(|| id_of_position(&record));
                Err(Box::new(Rejected { reason, error, id, id_from_offset, event_type, user_id, record }))
            }
        }
    }

    fn judge(&self, view: Result<&View<'_>, String>, record: &Record) -> Result<Judged, Box<Refusal>> {
        let view = view.map_err(|error| Refusal::of_no_event(DeadReason::Undecodable, error))?;
        let Some(read) = read(&self.catalog, view) else {
            return Err(Refusal::of_no_event(DeadReason::Undecodable, "neither event_type nor a CloudEvents type".to_owned()));
        };
        let Some(user_id) = read.user_id else {
            return Err(read.refused(DeadReason::MissingUserId, "user_id: missing at the top, in data and in metadata".to_owned()));
        };
        let Some(kind) = read.kind else {
            let event_type = read.event_type();
            return match self.unlisted.as_ref().map(|unlisted| unlisted.kind(&event_type)) {
                Some(Ok(kind)) => Ok(read.judged(view, user_id, kind, record)),
                _ => Err(read.refused(DeadReason::UnknownType, unknown_type(&self.catalog, &event_type))),
            };
        };
        if self.validate || read.version > kind.version {
            let time = read.sent_time.unwrap_or_else(|| time::of_record(record.timestamp()));
            if let Err(error) = check(view, &read, kind, time, Some(user_id)) {
                return Err(read.refused(DeadReason::Schema, error));
            }
        }
        let kind = Arc::clone(kind);
        Ok(read.judged(view, user_id, kind, record))
    }
}

impl Refusal {
    fn of_no_event(reason: DeadReason, error: String) -> Box<Self> {
        Box::new(Self { reason, error, id: None, event_type: None, user_id: None })
    }
}

/// Whose record it is, as [`Decoder::decode`] would find it, without a catalogue: for the lane of a record without a key.
pub fn cheap_user(record: &dyn RawRecord) -> Option<Box<str>> {
    view::open(record, |view| view.ok()?.user().map(Into::into))
}

/// Reads everything but the data's validity; `None` where nothing names a type.
pub(super) fn read<'v>(catalog: &'v Catalog, view: &'v View<'_>) -> Option<Read<'v>> {
    let sent_type = view.event_type()?;
    let (kind, suffix) = catalog.resolve(sent_type).map_or((None, None), |(kind, suffix)| (Some(kind), suffix));
    let sent_time = view.time();
    let version = sent_version(view);
    let malformed = match (&sent_time, &version) {
        (Some(Err(())), _) => Some("timestamp: no RFC 3339 time"),
        (_, Some(Err(()))) => Some("event_version: no version like 1.0"),
        _ => None,
    };
    let sent_time = sent_time.and_then(Result::ok);
    let newest = || kind.map_or(Version::FIRST, |kind| kind.version);
    let version = match version {
        Some(version) => version.unwrap_or_else(|()| newest()),
        None => suffix.unwrap_or(Version::FIRST),
    };
    let (user_id, expires) = (view.user(), view.expires());
    let mut read = Read { id: view.event_id(), sent_type, kind, user_id, sent_time, expires, version, malformed };
    if read.id.is_none() {
        read.id =
            view.task().zip(sent_time).map(|(task, time)| ids::of_event(&read.event_type(), &task, &time::format(time)).to_string().into());
    }
    Some(read)
}

/// Checks envelope and data against the newest known version.
pub(super) fn check(view: &View<'_>, read: &Read<'_>, kind: &EventType, time: DateTime<Utc>, user_id: Option<&str>) -> Result<(), String> {
    if let Some(malformed) = read.malformed {
        return Err(format!("{malformed} ({} {})", kind.name, kind.version));
    }
    let facts = Facts { kind: Some(kind), version: read.version, time, user_id };
    if complete::surely_valid(view, facts) {
        return Ok(());
    }
    kind.schema.check(&complete::value(view, facts))
}

fn sent_version(view: &View<'_>) -> Option<Result<Version, ()>> {
    use super::envelope::Scalar;
    match &view.head.event_version {
        Scalar::Absent | Scalar::Null => None,
        Scalar::Text(text) => Some(text.parse().map_err(|_| ())),
        Scalar::Integer(number) => Some(number.to_string().parse().map_err(|_| ())),
        Scalar::Float(number) => Some(number.to_string().parse().map_err(|_| ())),
        Scalar::Large(_) | Scalar::Other => Some(Err(())),
    }
}

fn id_of_position(record: &Record) -> Box<str> {
    ids::of_position(record.partition(), record.offset()).to_string().into_boxed_str()
}

/// A type for an error: types are not secret, but a producer's mistake can put anything there.
pub(super) fn shown(event_type: &str) -> String {
    if event_type.len() <= 80 && event_type.bytes().all(|byte| byte.is_ascii_graphic()) {
        format!("`{event_type}`")
    } else {
        format!("a name of {} bytes", event_type.len())
    }
}

/// What is said of a type that the catalogue lacks, with the one that was meant where two letters make the difference.
pub(super) fn unknown_type(catalog: &Catalog, event_type: &str) -> String {
    if event_type == DEFAULT_TYPE {
        // Every CloudEvent that was wrapped by a sidecar says so: it is the event inside that lacks a type.
        return format!("event_type: missing in the data, and the CloudEvent's type is only `{DEFAULT_TYPE}`");
    }
    let sent = event_type.to_ascii_lowercase();
    let alike = catalog.types().filter(|kind| sent.len().abs_diff(kind.name.len()) <= 2);
    let near = alike.map(|kind| (strsim::osa_distance(&sent, &kind.name), &kind.name)).filter(|(distance, _)| *distance <= 2).min();
    let meant = near.map(|(_, name)| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("event_type: {} is not in the catalogue{meant}", shown(event_type))
}
