//! Words for each event: a type's template, its user's language first, else the built-in one.

mod built_in;
mod files;

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use chrono_tz::Tz;
use minijinja::{
    AutoEscape, Environment, Error, State, UndefinedBehavior, Value, context,
    value::{Kwargs, Serde},
};

use super::{Person, header};
use crate::event::{Catalog, Event, time};

/// Steps of one rendering; a template that needs more goes round in circles.
const FUEL: u64 = 100_000;
/// Longest text, in bytes; what is longer is cut off.
const LONGEST_TEXT: usize = 64 * 1024;
/// Longest HTML, in bytes; a longer one is left out, since half a page is none.
const LONGEST_HTML: usize = 256 * 1024;
/// Longest address or subject before it is made one line.
const LONGEST_LINE: usize = 4096;
/// The name of the template of `to`.
const TO: &str = "to";
/// The template of types that have none of their own.
const DEFAULT: &str = "default";
/// The template of many messages in one.
const DIGEST: &str = "digest";

/// What a message says, and to which address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The address; `None`: neither the event nor the directory tells one.
    pub to: Option<String>,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// The same as HTML, where there is a template of it.
    pub html: Option<String>,
}

/// Every template, compiled. What a template asks for and an event lacks is empty, not an error.
pub struct Templates {
    environment: Environment<'static>,
    /// `task.created`, `task.created.de`, `default`.
    names: BTreeSet<String>,
    with_html: BTreeSet<String>,
}

impl Templates {
    /// The built-in templates, with those of a folder before them, and the template of the address.
    ///
    /// # Errors
    /// Every template that does not compile, and every file whose name is no type's of the catalogue.
    pub fn new(folder: Option<&str>, to: &str, catalog: &Catalog) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
        environment.set_fuel(Some(FUEL));
        environment.add_filter("local", local);
        environment.add_template_owned(TO, to.to_owned()).map_err(|error| format!("`to`: {}", shown(&error)))?;
        let mut templates = Self { environment, names: BTreeSet::new(), with_html: BTreeSet::new() };
        for (name, source) in built_in::TEMPLATES {
            templates.add_text(name, source)?;
        }
        if let Some(folder) = folder {
            files::read(folder, catalog, &mut templates)?;
        }
        Ok(templates)
    }

    /// Adds a text with its subject in the first line: `Subject: ..`.
    fn add_text(&mut self, name: &str, source: &str) -> Result<(), String> {
        let (first, text) = source.split_once('\n').unwrap_or((source, ""));
        let subject = first.strip_prefix("Subject:").ok_or("its first line must be `Subject: ..`")?;
        let mut add = |kind: &str, source: &str| {
            let added = self.environment.add_template_owned(format!("{name}.{kind}"), source.to_owned());
            added.map_err(|error| shown(&error))
        };
        add("subject", subject.trim())?;
        add("txt", text.trim_start_matches(['\r', '\n']))?;
        self.names.insert(name.to_owned());
        Ok(())
    }

    fn add_html(&mut self, name: &str, source: String) -> Result<(), String> {
        self.environment.add_template_owned(format!("{name}.html"), source).map_err(|error| shown(&error))?;
        self.with_html.insert(name.to_owned());
        Ok(())
    }

    /// What to tell whom about an event.
    ///
    /// # Errors
    /// Where a template of the folder cannot be rendered with it: a filter that meets another type than it takes, or a loop without end.
    pub(super) fn words(&self, event: &Event, person: &Person, zone: Tz) -> Result<Words, String> {
        let user = user(person, zone);
        let data = event.data();
        let all = context! {
            id => event.id(), type => &**event.event_type(), time => time::format(event.time()), user_id => event.user_id(),
            data => Value::from(Serde(&data)), user => user,
        };
        let to = header::line(&self.render(TO, &all, LONGEST_LINE)?.0);
        let to = Some(to).filter(|to| !to.is_empty()).or_else(|| person.email.clone());
        let name = self.name_for(event.event_type(), person.locale.as_deref());
        Ok(Words { to, ..self.render_words(name, &all, event.event_type())? })
    }

    /// What to tell a user of many messages at once: `items` with `type`, `time`, `subject` and `text`, how many there were `more`, and the `count` of all.
    ///
    /// # Errors
    /// As [`Templates::words`].
    pub(super) fn digest(&self, many: &serde_json::Value, to: Option<String>, person: &Person, zone: Tz) -> Result<Words, String> {
        let part = |name: &str| Value::from(Serde(&many[name]));
        let all = context! { items => part("items"), more => part("more"), count => part("count"), user => user(person, zone) };
        let name = self.name_for(DIGEST, person.locale.as_deref());
        Ok(Words { to: to.or_else(|| person.email.clone()), ..self.render_words(name, &all, DIGEST)? })
    }

    fn render_words(&self, name: &str, all: &Value, otherwise: &str) -> Result<Words, String> {
        let subject = header::line(&self.render(&format!("{name}.subject"), all, LONGEST_LINE)?.0);
        let subject = if subject.is_empty() { otherwise.to_owned() } else { subject };
        let (text, is_cut) = self.render(&format!("{name}.txt"), all, LONGEST_TEXT)?;
        let text = header::body(&text).trim_end().to_owned() + if is_cut { "…\n" } else { "\n" };
        let html = match self.with_html.contains(name) {
            true => Some(self.render(&format!("{name}.html"), all, LONGEST_HTML)?).filter(|(_, is_cut)| !is_cut).map(|(html, _)| html),
            false => None,
        };
        Ok(Words { to: None, subject, text, html })
    }

    /// The template of a type: in the user's locale (`de-AT`), its language (`de`), or none.
    fn name_for(&self, event_type: &str, locale: Option<&str>) -> &str {
        let locale = locale.unwrap_or_default();
        let language = locale.split(['-', '_']).next().unwrap_or_default();
        let of = |stem: &str| {
            let found = [format!("{stem}.{locale}"), format!("{stem}.{language}"), stem.to_owned()];
            found.iter().find_map(|name| self.names.get(name)).map(String::as_str)
        };
        of(event_type).or_else(|| of(DEFAULT)).unwrap_or(DEFAULT)
    }

    /// A rendered template, and whether it was cut off at `limit` bytes.
    fn render(&self, name: &str, context: &Value, limit: usize) -> Result<(String, bool), String> {
        let mut written = Bounded { bytes: Vec::new(), limit, is_full: false };
        let rendered = self.environment.get_template(name).and_then(|template| {
            let rendered = template.render_captured_to(context.clone(), &mut written);
            rendered.map(drop)
        });
        if let Err(error) = rendered
            && !written.is_full
        {
            return Err(format!("template {name}: {}", shown(&error)));
        }
        let text = match String::from_utf8(written.bytes) {
            Ok(text) => text,
            // Cut within a character.
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned()
            }
        };
        Ok((text, written.is_full))
    }
}

fn user(person: &Person, zone: Tz) -> Value {
    context! { email => person.email.as_deref(), timezone => zone.name(), locale => person.locale.as_deref() }
}

/// Takes so many bytes and no more.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.limit - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.is_full |= bytes.len() > room;
        if self.is_full { Err(io::Error::other("too long")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Filter `local`: a time as a clock on the user's wall shows it, `Sat 28 Mar 2026, 09:00 CET`; what is no time stays as it is.
fn local(state: &State<'_, '_>, value: Value, options: Kwargs) -> Result<Value, Error> {
    let format: Option<String> = options.get("format")?;
    options.assert_all_used()?;
    let zone = state.lookup("user").and_then(|user| user.get_attr("timezone").ok()).and_then(|zone| zone.as_str()?.parse::<Tz>().ok());
    let Some(at) = value.as_str().and_then(time::parse) else { return Ok(value) };
    let at = at.with_timezone(&zone.unwrap_or(Tz::UTC));
    let mut text = String::new();
    // A pattern that chrono does not know is an error of its formatter, not of ours.
    match std::fmt::Write::write_fmt(&mut text, format_args!("{}", at.format(format.as_deref().unwrap_or("%a %-d %b %Y, %H:%M %Z")))) {
        Ok(()) => Ok(text.into()),
        Err(_) => Err(Error::new(minijinja::ErrorKind::InvalidOperation, "`local` has a format that makes no sense")),
    }
}

/// An error in one line, without what the template or the event holds.
fn shown(error: &Error) -> String {
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {}", header::line(detail))).unwrap_or_default();
    format!("{}{detail}{line}", error.kind())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
