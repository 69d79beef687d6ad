//! The catalogue as one page of HTML that loads nothing else.

use super::{Source, envelope, fields::fields};
use crate::{
    config::units::show,
    event::{EventType, catalog::TopicSpec},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub(super) fn page(source: &Source<'_>) -> String {
    let title = format!("{} events", source.config.app_id);
    let types: Vec<_> = source.catalog.types().collect();
    let mut domains: Vec<&str> = types.iter().map(|kind| kind.domain.as_str()).collect();
    domains.sort_unstable();
    domains.dedup();
    let of = |domain: &str| types.iter().copied().filter(|kind| kind.domain == domain).collect::<Vec<_>>();
    let nav: String = domains.iter().map(|domain| group(domain, &of(domain))).collect();
    let cards: String = domains.iter().flat_map(|domain| of(domain)).map(|kind| card(source, kind)).collect();
    let topics: String = source.specs.iter().map(topic).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <aside>\n<a class=\"brand\" href=\"#top\">{title}</a>\n\
         <input id=\"find\" type=\"search\" placeholder=\"Find\" aria-label=\"Find a type, a field, a topic\">\n\
         <nav>\n<a class=\"group\" href=\"#topics\">Topics</a>\n{nav}</nav>\n</aside>\n<main id=\"top\">\n\
         <header>\n<h1>{title}</h1>\n<p class=\"lead\">{} event types on {} topics, as the profile <b>{}</b> makes them. Records are keyed by \
         <code>user_id</code>: one user's events are handled in order.</p>\n</header>\n\
         <section id=\"topics\">\n<h2>Topics</h2>\n<div class=\"scroll\"><table class=\"topics\">\n<thead><tr><th>Topic</th><th class=\"n\">Partitions</th>\
         <th class=\"n\">Copies</th><th>Keeps</th><th>Types</th></tr></thead>\n<tbody>\n{topics}</tbody>\n</table></div>\n</section>\n\
         <section id=\"types\">\n<h2>Events</h2>\n<p id=\"none\" hidden>Nothing has that in it.</p>\n{cards}</section>\n\
         <footer>Made by worker {} from the catalogue ({}).</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        types.len(),
        source.specs.len(),
        escape(source.profile),
        env!("CARGO_PKG_VERSION"),
        escape(&source.catalog.origin().to_string()),
        title = escape(&title),
    )
}

fn group(domain: &str, kinds: &[&std::sync::Arc<EventType>]) -> String {
    let links: String = kinds.iter().map(|kind| format!("<a href=\"#{0}\">{0}</a>\n", escape(&kind.name))).collect();
    format!("<span class=\"group\">{}</span>\n{links}", escape(domain))
}

fn topic(spec: &TopicSpec) -> String {
    let types: Vec<_> = spec.types.iter().map(|kind| link(kind)).collect();
    let aliases = spec.aliases.iter().map(|alias| format!("<span class=\"alias\">also {}</span>", escape(alias))).collect::<String>();
    format!(
        "<tr id=\"topic-{0}\"><td><code>{0}</code>{aliases}<p>{1}</p></td><td class=\"n\">{2}</td><td class=\"n\">{3}</td><td>{4}</td>\
         <td class=\"links\">{5}</td></tr>\n",
        escape(&spec.name),
        escape(&spec.description),
        spec.partitions,
        spec.replication,
        escape(&kept(spec)),
        if types.is_empty() { "<span class=\"dim\">none of its own</span>".to_owned() } else { types.join(" ") },
    )
}

fn kept(spec: &TopicSpec) -> String {
    match spec.config.get("retention.ms").and_then(|ms| ms.parse::<i64>().ok()) {
        Some(ms) if ms >= 0 => spaced(&show(std::time::Duration::from_millis(ms.unsigned_abs()))),
        _ => "for ever".to_owned(),
    }
}

/// `7days` as `7 days`.
fn spaced(duration: &str) -> String {
    let mut out = String::with_capacity(duration.len() + 1);
    for c in duration.chars() {
        if c.is_ascii_alphabetic() && out.ends_with(|last: char| last.is_ascii_digit()) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

fn link(kind: &str) -> String {
    format!("<a href=\"#{0}\">{0}</a>", escape(kind))
}

fn card(source: &Source<'_>, kind: &EventType) -> String {
    let rows: String = fields(kind.schema.json())
        .iter()
        .map(|field| {
            format!(
                "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}</td></tr>\n",
                escape(&field.name),
                // The event's own time stands in for it, so that a producer may leave it out.
                match (field.required, kind.fill.contains(&field.name)) {
                    (_, true) => "<span class=\"filled\">filled in</span>",
                    (true, false) => "<span class=\"must\">required</span>",
                    (false, false) => "",
                },
                escape(&field.kind),
                [field.description.as_str(), field.rules.as_str()]
                    .into_iter()
                    .filter(|text| !text.is_empty())
                    .map(escape)
                    .collect::<Vec<_>>()
                    .join(" &middot; "),
            )
        })
        .collect();
    let topics: Vec<_> = source.topics_of(kind).iter().map(|name| format!("<a href=\"#topic-{0}\">{0}</a>", escape(name))).collect();
    let mut facts = vec![("Topic", topics.join(" ")), ("Key", format!("<code>{}</code>", escape(&kind.key)))];
    if !kind.aliases.is_empty() {
        facts.push((
            "Also sent as",
            kind.aliases.iter().map(|alias| format!("<code>{}</code>", escape(alias))).collect::<Vec<_>>().join(" "),
        ));
    }
    let consumers = kind.consumers.iter().map(|(who, what)| format!("<b>{}</b> {}", escape(who), escape(what)));
    facts.push(("Who reacts", consumers.collect::<Vec<_>>().join("<br>")));
    if !kind.past.is_empty() {
        let past: Vec<_> = kind.past.iter().map(|past| past.version.to_string()).collect();
        facts.push(("Older versions", format!("{}, brought up to {} before a handler sees them", past.join(", "), kind.version)));
    }
    let facts: String = facts.into_iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n")).collect();
    let example = serde_json::to_string_pretty(&envelope(kind, &source.config.app_id, &kind.example)).unwrap_or_default();
    format!(
        "<article id=\"{0}\">\n<h3><a href=\"#{0}\">{0}</a><span class=\"version\">{1}</span></h3>\n<p>{2}</p>\n<dl>\n{facts}</dl>\n\
         <div class=\"scroll\"><table><thead><tr><th>Field of data</th><th>Type</th><th>Meaning</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n\
         <details><summary>Example</summary><pre>{3}</pre></details>\n</article>\n",
        escape(&kind.name),
        kind.version,
        escape(&kind.description),
        escape(&example),
    )
}

/// Text for HTML, also inside quoted attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Sources},
        event::Catalog,
    };

    #[test]
    fn a_duration_is_told_as_people_write_it() {
        assert_eq!((spaced("7days").as_str(), spaced("1h 30m").as_str()), ("7 days", "1 h 30 m"));
    }

    #[test]
    fn the_page_shows_every_type_and_topic_and_loads_nothing() {
        let (catalog, config) = (Catalog::embedded().unwrap(), Config::load(&Sources::default()).unwrap().config);
        let source = Source { config: &config, catalog: &catalog, profile: "<local>", specs: catalog.topic_specs("local").unwrap() };
        let page = page(&source);
        for kind in catalog.types() {
            assert!(page.contains(&format!("<article id=\"{}\">", kind.name)), "{}", kind.name);
        }
        for spec in &source.specs {
            assert!(page.contains(&format!("<tr id=\"topic-{}\">", spec.name)), "{}", spec.name);
        }
        assert!(page.contains("&lt;local&gt;") && !page.contains("<local>"));
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "it loads something");
    }
}
