//! `state.redis`: the store, for dedupe and for the state API.

use super::{
    Translation,
    component::{Component, Content},
};

/// Keys that the translation reads.
const READ: [&str; 8] = ["redisHost", "redisUsername", "redisPassword", "redisDB", "enableTLS", "redisType", "failover", "keyPrefix"];

/// Translates the first component; the names of all become stores of the state API.
pub(super) fn translate(components: &[Component<'_>], out: &mut Translation) {
    let Some(first) = components.first() else { return };
    for other in components[1..].iter().filter(|other| !other.same_as(first)) {
        out.decide(&other.label(), format!("differs from {}: one worker has one Redis", first.label()));
    }
    let names: Vec<&str> = components.iter().filter(|other| other.same_as(first)).map(Component::name).collect();
    out.set(&["state", "stores"], names, &first.label());
    url(first, out);
    for item in first.items().iter().filter(|item| !READ.iter().any(|name| item.name.eq_ignore_ascii_case(name))) {
        out.ignore(&first.from(item), "the worker manages its own connection");
    }
    if let Some(item) = first.get("keyPrefix")
        && !matches!(first.text("keyPrefix"), Some("appid"))
    {
        out.decide(&first.from(item), "keys are `<app-id>||<key>` here, Dapr's default: others are not found");
    }
}

fn url(component: &Component<'_>, out: &mut Translation) {
    let label = component.label();
    let is = |name: &str, value: &str| component.text(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    if is("redisType", "cluster") {
        return out.decide(&label, "is a Redis Cluster, which the worker refuses: give it a single server or a Sentinel in store.url");
    }
    if component.is_true("failover") {
        return out.decide(&label, "is behind Sentinel: set store.url as config/default.toml says");
    }
    let Some(host) = component.text("redisHost") else {
        return out.decide(&label, "redisHost is no plain text: set store.url");
    };
    let scheme = if component.is_true("enableTLS") { "rediss" } else { "redis" };
    let database = component.text("redisDB").unwrap_or("0");
    let user = component.text("redisUsername").unwrap_or_default();
    match component.get("redisPassword").map(|item| (item, &item.content)) {
        None => out.set(&["store", "url"], format!("{scheme}://{host}/{database}"), &label),
        Some((item, Content::Text(password))) => {
            let from = component.from(item);
            out.set(&["store", "url"], format!("{scheme}://{}:{}@{host}/{database}", encoded(user), encoded(password)), &label);
            out.decide(&from, "is a secret in plain text: better give WORKER_STORE__URL, or url_file");
        }
        Some((item, _)) => {
            let url = format!("{scheme}://{}:<password>@{host}/{database}", encoded(user));
            let why = format!("the password is a secret: put {url} into a file and name it here, or set WORKER_STORE__URL");
            out.root.leave_out(&["store", "url_file"], "\"/run/secrets/redis-url\"".to_owned(), &why);
            out.decide(&component.from(item), why);
        }
    }
}

/// Percent-encoded for the user's part of a URL.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
