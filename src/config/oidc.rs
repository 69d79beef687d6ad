//! SASL OAUTHBEARER by OIDC, under librdkafka's own names: the worker asks for the tokens itself, so the client library never sees them.

use std::path::PathBuf;

use super::{
    kafka::{KafkaConfig, Properties},
    layer::join,
    secret::Secret,
    text,
};

/// What tokens are asked for with: the client credentials grant of RFC 6749.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// `sasl.oauthbearer.token.endpoint.url`.
    pub endpoint: String,
    /// `sasl.oauthbearer.client.id`.
    pub client_id: String,
    /// `sasl.oauthbearer.client.secret`.
    pub client_secret: Secret,
    /// `sasl.oauthbearer.scope`: names with spaces between.
    pub scope: Option<String>,
    /// `sasl.oauthbearer.extensions`: sent to the brokers beside each token.
    pub extensions: Vec<(String, String)>,
    /// `https.ca.location` or `https.ca.pem`; without them the system's.
    pub authority: Option<Authority>,
}

/// Whose signature the token endpoint's certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// A PEM file.
    File(PathBuf),
    /// PEM text.
    Text(String),
}

/// A key's path, and why its value cannot be used.
pub type Wrong = (String, String);

const METHOD: &str = "sasl.oauthbearer.method";
const MECHANISMS: [&str; 2] = ["sasl.mechanism", "sasl.mechanisms"];
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const ID: [&str; 2] = ["sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"];
const SECRET: [&str; 2] = ["sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"];
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const GRANT: &str = "sasl.oauthbearer.grant.type";
const CA_FILE: &str = "https.ca.location";
const CA_TEXT: &str = "https.ca.pem";

impl Oidc {
    /// Whether that property is about tokens: the worker's to read, and not the client library's.
    pub fn owns(property: &str) -> bool {
        property.starts_with("sasl.oauthbearer.") || property.starts_with("https.ca.")
    }

    /// Whether the secret leaves this machine unencrypted.
    pub fn in_the_clear(&self) -> bool {
        let Some(rest) = self.endpoint.to_ascii_lowercase().strip_prefix("http://").map(str::to_owned) else { return false };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !["localhost", "127.", "[::1]"].iter().any(|here| authority.starts_with(here))
    }

    /// Reads `[kafka.properties]`; `None` where `sasl.oauthbearer.method` is not `oidc`.
    ///
    /// # Errors
    /// Every key that is missing, wrong, or not offered.
    pub fn read(kafka: &KafkaConfig) -> Result<Option<Self>, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let found = Reader { properties: &kafka.properties, wrong: &mut wrong }.read();
        for (table, properties) in [("kafka.consumer", &kafka.consumer), ("kafka.producer", &kafka.producer)] {
            for name in properties.keys().filter(|name| Self::owns(name)) {
                wrong.push((join(table, name), "stands in [kafka.properties]: every client logs in with the same token".to_owned()));
            }
        }
        if wrong.is_empty() { Ok(found) } else { Err(wrong) }
    }
}

struct Reader<'a> {
    properties: &'a Properties,
    wrong: &'a mut Vec<Wrong>,
}

impl Reader<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn wrong(&mut self, name: &str, why: impl Into<String>) {
        self.wrong.push((join("kafka.properties", name), why.into()));
    }

    fn read(&mut self) -> Option<Oidc> {
        let mechanism = MECHANISMS.into_iter().find_map(|name| Some((name, self.get(name)?.to_owned())));
        let bearer = mechanism.as_ref().is_some_and(|(_, value)| value.eq_ignore_ascii_case("OAUTHBEARER"));
        match self.get(METHOD).map(str::to_ascii_lowercase).as_deref() {
            Some("oidc") => {}
            None | Some("default") => {
                let unsecured = self.get("enable.sasl.oauthbearer.unsecure.jwt").is_some_and(|value| value == "true");
                if let Some((name, _)) = mechanism
                    && bearer
                    && !unsecured
                {
                    let why = format!(
                        "OAUTHBEARER needs tokens: set \"{METHOD}\" = \"oidc\", \"{ENDPOINT}\", \"{}\" and \"{}\"",
                        ID[0], SECRET[0]
                    );
                    self.wrong(name, why);
                }
                return None;
            }
            Some(other) => {
                self.wrong(METHOD, format!("`{other}` is neither oidc nor default"));
                return None;
            }
        }
        if !bearer {
            self.wrong(mechanism.map_or(MECHANISMS[0], |(name, _)| name), "must be \"OAUTHBEARER\" for tokens of OIDC");
        }
        self.not_offered();
        let endpoint = self.needed(&[ENDPOINT]);
        if let Some(endpoint) = &endpoint
            && let Err(why) = text::url(endpoint, &["https", "http"])
        {
            self.wrong(ENDPOINT, why);
        }
        let (client_id, client_secret) = (self.needed(&ID), self.needed(&SECRET));
        let extensions = self.extensions();
        let authority = match (self.get(CA_FILE), self.get(CA_TEXT)) {
            (Some(_), Some(_)) => {
                self.wrong(CA_TEXT, format!("and {CA_FILE} exclude each other"));
                None
            }
            (Some(file), None) => Some(Authority::File(file.into())),
            (None, text) => text.map(|text| Authority::Text(text.to_owned())),
        };
        let scope = self.get(SCOPE).map(str::to_owned);
        Some(Oidc { endpoint: endpoint?, client_id: client_id?, client_secret: Secret::new(client_secret?), scope, extensions, authority })
    }

    /// The first of these names that is set; a problem where none is.
    fn needed(&mut self, names: &[&str]) -> Option<String> {
        let found = names.iter().find_map(|name| self.get(name)).map(str::to_owned);
        if found.is_none() {
            self.wrong(names[0], "is missing: OIDC needs it");
        }
        found
    }

    /// Other ways to a token.
    fn not_offered(&mut self) {
        if self.get(GRANT).is_some_and(|grant| grant != "client_credentials") {
            self.wrong(GRANT, "only client_credentials is offered");
        }
        let others = ["sasl.oauthbearer.assertion.", "sasl.oauthbearer.metadata.", "sasl.oauthbearer.config"];
        let found: Vec<_> = self.properties.keys().filter(|name| others.iter().any(|other| name.starts_with(other))).cloned().collect();
        for name in found {
            self.wrong(&name, format!("is not offered: tokens are asked for with {} and {}", ID[0], SECRET[0]));
        }
    }

    /// `name=value` pairs with commas between (RFC 7628, 3.1).
    fn extensions(&mut self) -> Vec<(String, String)> {
        let pairs = self.get(EXTENSIONS).unwrap_or_default().to_owned();
        let mut read = Vec::new();
        for pair in pairs.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let legal = |(name, value): &(&str, &str)| {
                let letters = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic()) && *name != "auth";
                letters && value.chars().all(|c| c.is_ascii_graphic() || c == ' ')
            };
            match pair.split_once('=').filter(legal) {
                Some((name, value)) => read.push((name.to_owned(), value.to_owned())),
                None => self
                    .wrong(EXTENSIONS, format!("`{pair}` is no extension; write it like \"logicalCluster=lkc-1,identityPoolId=pool-1\"")),
            }
        }
        read
    }
}
