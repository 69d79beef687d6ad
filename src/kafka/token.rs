//! Tokens for SASL OAUTHBEARER: asked for by one thread, and handed to every client of a configuration before it asks.
//!
//! librdkafka would ask each client's application, in events that wait until that client is polled: some are never polled, and none should
//! wait for an HTTP request while it is. So nobody listens to those events, and tokens are set from here.
//!
//! # Safety
//! A client (`rd_kafka_t`) is in the list from after its making until before its end: [`Supplied`] puts it there and takes it out. The list
//! is locked while a token is set, so no client ends meanwhile. The call copies what it is given.

mod ask;

use std::{
    collections::HashMap,
    ffi::{CStr, CString, c_char},
    fmt,
    ops::Deref,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    producer::{Producer, ProducerContext, ThreadedProducer},
};
use rdkafka_sys as sys;

use self::ask::Endpoint;
use super::{KafkaError, native};
use crate::config::oidc::Oidc;

/// First pause after a question that brought no token; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The wall clock, which a token's life is told on, is looked at this often: a machine that slept wakes with an old one.
const LOOK: Duration = Duration::from_secs(15);
/// What of its life a token is used for.
const USED: f64 = 0.8;

/// A token, as the client library takes it.
struct Token {
    value: CString,
    /// Whose it is; told in the library's own logs alone.
    principal: CString,
    ends: SystemTime,
    renew: SystemTime,
}

/// A client among those that get tokens.
struct Place(NonNull<sys::rd_kafka_t>);

// SAFETY: see the file's head: used while it is in the list only, by calls that are thread-safe.
unsafe impl Send for Place {}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Why the last question brought none.
    failure: Option<String>,
    clients: HashMap<u64, Place>,
    /// How many were ever put on the list.
    counted: u64,
}

struct Shared {
    state: Mutex<State>,
    /// Names and values in turn.
    extensions: Vec<CString>,
    endpoint: String,
}

/// The supply of one configuration's clients. The last one dropped ends the thread.
#[derive(Clone)]
pub(super) struct Tokens {
    shared: Arc<Shared>,
    _stop: Arc<mpsc::SyncSender<()>>,
}

impl Tokens {
    /// Starts asking.
    ///
    /// # Errors
    /// [`KafkaError::Config`] for an authority that cannot be read.
    pub(super) fn start(oidc: &Oidc) -> Result<Self, KafkaError> {
        let endpoint = Endpoint::new(oidc).map_err(KafkaError::Config)?;
        let texts = oidc.extensions.iter().flat_map(|(name, value)| [name, value]);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            extensions: texts.filter_map(|text| CString::new(text.as_str()).ok()).collect(),
            endpoint: endpoint.shown(),
        });
        let (stop, stopped) = mpsc::sync_channel(1);
        let keeper = Arc::clone(&shared);
        thread::Builder::new()
            .name("kafka-token".to_owned())
            .spawn(move || keep(&endpoint, &keeper, &stopped))
            .map_err(|error| KafkaError::Refused(format!("no thread: {error}")))?;
        Ok(Self { shared, _stop: Arc::new(stop) })
    }

    /// Why there is no token, while there is none and the last question brought none either.
    pub(super) fn failure(&self) -> Option<KafkaError> {
        let state = self.shared.lock();
        let valid = state.token.as_ref().is_some_and(|token| token.ends > SystemTime::now());
        let why = state.failure.as_ref().filter(|_| !valid)?;
        Some(KafkaError::NoToken(format!("{}: {why}", self.shared.endpoint)))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every client the new token.
    fn hand_out(&self, token: Token) {
        let mut state = self.lock();
        if state.failure.take().is_some() {
            tracing::info!(kafka.token.endpoint = %self.endpoint, "the token endpoint gives tokens again");
        }
        state.clients.values().for_each(|client| self.set(client, &token));
        state.token = Some(token);
    }

    fn failed(&self, why: String) {
        let mut state = self.lock();
        if state.failure.as_ref() != Some(&why) {
            let left =
                state.token.as_ref().and_then(|token| token.ends.duration_since(SystemTime::now()).ok()).map_or(0, |left| left.as_secs());
            tracing::warn!(
                kafka.token.endpoint = %self.endpoint, kafka.token.left_s = left, error = %why,
                "no token to log in to kafka with, trying again"
            );
        }
        state.failure = Some(why);
    }

    fn set(&self, client: &Place, token: &Token) {
        let Ok(since_1970) = token.ends.duration_since(UNIX_EPOCH) else { return };
        let ends_ms = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        let mut extensions: Vec<*const c_char> = self.extensions.iter().map(|text| text.as_ptr()).collect();
        let mut words: [c_char; 256] = [0; 256];
        // SAFETY: the client is alive, see the file's head; all texts outlive the call, which ends its words with a NUL within their array.
        let (code, words) = unsafe {
            let code = sys::rd_kafka_oauthbearer_set_token(
                client.0.as_ptr(),
                token.value.as_ptr(),
                ends_ms,
                token.principal.as_ptr(),
                extensions.as_mut_ptr(),
                extensions.len(),
                words.as_mut_ptr(),
                words.len(),
            );
            (native::code(code), CStr::from_ptr(words.as_ptr()))
        };
        if code.is_err() {
            tracing::warn!(error = %words.to_string_lossy(), "the kafka client does not take its token");
        }
    }
}

/// Asks for a token whenever the last one has lived for most of its life, until nobody needs any.
fn keep(endpoint: &Endpoint, shared: &Shared, stopped: &mpsc::Receiver<()>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return shared.failed(format!("no runtime: {error}")),
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let wait = match runtime.block_on(endpoint.ask()) {
            Ok(token) => {
                let renew = token.renew;
                shared.hand_out(token);
                pause = FIRST_PAUSE;
                Wait::Until(renew)
            }
            Err(why) => {
                shared.failed(why);
                let wait = Wait::For(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
                wait
            }
        };
        if !wait.pass(stopped) {
            return;
        }
    }
}

enum Wait {
    For(Duration),
    Until(SystemTime),
}

impl Wait {
    /// `false`: it ended because nobody needs tokens any more.
    fn pass(&self, stopped: &mpsc::Receiver<()>) -> bool {
        loop {
            let left = match self {
                Self::For(pause) => *pause,
                Self::Until(at) => match at.duration_since(SystemTime::now()) {
                    Ok(left) => left.min(LOOK),
                    Err(_) => return true,
                },
            };
            if !matches!(stopped.recv_timeout(left), Err(mpsc::RecvTimeoutError::Timeout)) {
                return false;
            }
            if matches!(self, Self::For(_)) {
                return true;
            }
        }
    }
}

/// A client's address; the client is destroyed by nothing but its owner's end.
pub(super) trait Handle {
    /// The client in librdkafka's own terms.
    fn handle(&self) -> *mut sys::rd_kafka_t;
}

impl<C: ConsumerContext> Handle for BaseConsumer<C> {
    fn handle(&self) -> *mut sys::rd_kafka_t {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext + 'static> Handle for ThreadedProducer<C> {
    fn handle(&self) -> *mut sys::rd_kafka_t {
        self.client().native_ptr()
    }
}

/// A client that has the newest token for as long as it lives, where its configuration asks for tokens.
pub(super) struct Supplied<T> {
    // Declared first, dropped first: out of the list before the client ends.
    _membership: Option<Membership>,
    client: T,
}

impl<T: Handle> Supplied<T> {
    /// Puts the client on the list, with the token that there is.
    pub(super) fn new(client: T, tokens: Option<&Tokens>) -> Self {
        let membership = tokens.and_then(|tokens| {
            let place = NonNull::new(client.handle())?;
            let mut state = tokens.shared.lock();
            if let Some(token) = &state.token {
                tokens.shared.set(&Place(place), token);
            }
            state.counted += 1;
            let number = state.counted;
            state.clients.insert(number, Place(place));
            Some(Membership { tokens: tokens.clone(), number })
        });
        Self { _membership: membership, client }
    }
}

impl<T> Deref for Supplied<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.client
    }
}

struct Membership {
    tokens: Tokens,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.tokens.shared.lock().clients.remove(&self.number);
    }
}
