use std::sync::Arc;

use chrono_tz::Tz;
use proptest::{collection::hash_map, prelude::*};
use serde_json::{Value, json};

use super::{Templates, Words};
use crate::{
    event::{
        Catalog, Decoder, Event,
        record::{Record, RecordParts, TopicPartition},
    },
    handlers::notify::Person,
};

fn event(event_type: &str, data: &Value) -> Event {
    let value = json!({ "event_id": "e-1", "event_type": event_type, "user_id": "ada", "timestamp": "2026-03-28T08:00:00Z", "data": data });
    let parts = RecordParts { value: Some(value.to_string().into_bytes()), ..RecordParts::default() };
    let record = Record::copy_of(&TopicPartition::new("task-events", 0), &parts);
    Decoder::new(Arc::new(Catalog::embedded().unwrap()), false).decode(record).unwrap()
}

fn built_in() -> Templates {
    Templates::new(None, "{{ data.email }}", &Catalog::embedded().unwrap()).unwrap()
}

fn words(templates: &Templates, event_type: &str, data: Value) -> Words {
    templates.words(&event(event_type, &data), &Person::default(), Tz::Europe__Berlin).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
    folder
}

fn of(files: &[(&str, &str)]) -> Result<Templates, String> {
    let folder = folder(files);
    Templates::new(Some(folder.path().to_str().unwrap()), "{{ data.email }}", &Catalog::embedded().unwrap())
}

#[test]
fn each_event_of_the_catalogue_has_words_without_any_file() {
    let (templates, catalog) = (built_in(), Catalog::embedded().unwrap());
    for kind in catalog.types() {
        let words = words(&templates, &kind.name, kind.example.clone());
        assert!(!words.subject.is_empty() && words.text.len() > 1 && words.html.is_none(), "{}: {words:?}", kind.name);
        assert!(!format!("{words:?}").contains("undefined"), "{}: {words:?}", kind.name);
    }
}

#[test]
fn a_time_is_told_as_a_clock_on_the_users_wall_shows_it() {
    let data = json!({ "task_id": 7, "title": "Call the bank", "due_date": "2026-03-29T07:00:00Z", "email": "ada@example.com" });
    let words = words(&built_in(), "reminder.due", data);
    assert_eq!(words.subject, "Reminder: Call the bank");
    assert_eq!(words.text, "\"Call the bank\" is due: Sun 29 Mar 2026, 09:00 CEST.\n");
    assert_eq!(words.to.as_deref(), Some("ada@example.com"));
}

#[test]
fn a_title_is_text_in_a_subject_and_escaped_in_a_page() {
    let templates =
        of(&[("task.created.txt", "Subject: {{ data.title }}\n\n{{ data.title }}"), ("task.created.html", "<p>{{ data.title }}</p>")])
            .unwrap();
    let words = words(&templates, "task.created", json!({ "title": "Milk\r\nBcc: x@y.z\n<b onclick=\"x\">{{ 7 * 7 }}" }));
    assert_eq!(words.subject, "Milk Bcc: x@y.z <b onclick=\"x\">{{ 7 * 7 }}", "one line, and never rendered again");
    let html = words.html.unwrap();
    assert!(html.contains("&lt;b onclick=&quot;x&quot;&gt;") && !html.contains("<b"), "{html}");
}

#[test]
fn the_users_language_comes_first_and_the_own_default_before_the_built_in_ones_for_unknown_types() {
    let templates =
        of(&[("reminder.triggered.de.txt", "Subject: Erinnerung\n\nJetzt."), ("default.txt", "Subject: own default\n\n{{ type }}")])
            .unwrap();
    let subject = |event_type: &str, locale: &str| {
        let person = Person { locale: Some(locale.to_owned()), ..Person::default() };
        templates.words(&event(event_type, &json!({ "task_id": 7 })), &person, Tz::UTC).unwrap().subject
    };
    assert_eq!(subject("reminder.due", "de-AT"), "Erinnerung", "named by the type's alias");
    assert_eq!(subject("reminder.due", "fr"), "Reminder");
    assert_eq!(subject("reminder.sent", "de"), "own default");
}

#[test]
fn every_file_that_cannot_be_a_template_is_named_with_the_reason() {
    let problems = of(&[
        ("task.craeted.txt", "Subject: x\n\nx"),
        ("task.created.txt", "no subject"),
        ("task.updated.txt", "Subject: {{ data.title\n\nx"),
        ("task.deleted.html", "x"),
        ("reminder.sent.html", "x"),
        ("notes.md", "x"),
    ])
    .err()
    .unwrap();
    for part in [
        "task.craeted.txt: is named after no event type",
        "task.created.txt: its first line must be `Subject: ..`",
        "task.updated.txt: syntax error",
        "reminder.sent.html: needs reminder.sent.txt beside it",
        "notes.md: must end in .txt or .html",
    ] {
        assert!(problems.contains(part), "{part} is not in {problems}");
    }
    assert!(!problems.contains("task.deleted.html"), "goes with the built-in text: {problems}");
    assert!(of(&[]).is_ok());
    assert!(Templates::new(Some("/nonexistent/folder"), "x", &Catalog::embedded().unwrap()).err().unwrap().contains("/nonexistent/folder"));
    assert!(Templates::new(None, "{{ x", &Catalog::embedded().unwrap()).err().unwrap().starts_with("`to`: syntax error"));
}

#[test]
fn a_template_that_goes_on_for_ever_or_writes_without_end_is_stopped() {
    let endless =
        of(&[("task.created.txt", "Subject: x\n\n{% for a in range(9999) %}{% for b in range(9999) %}.{% endfor %}{% endfor %}")]).unwrap();
    let why = endless.words(&event("task.created", &json!({ "title": "x" })), &Person::default(), Tz::UTC).unwrap_err();
    assert!(why.starts_with("template task.created.txt: "), "{why}");
    let long = of(&[
        ("task.created.txt", "Subject: x\n\n{% for a in range(999) %}{{ data.description }}{% endfor %}"),
        ("task.created.html", "{% for a in range(999) %}{{ data.description }}{% endfor %}"),
    ])
    .unwrap();
    let words = words(&long, "task.created", json!({ "title": "x", "description": "ä".repeat(1000) }));
    assert!(words.text.ends_with("ä…\n") && words.text.len() <= super::LONGEST_TEXT + 8, "{}", words.text.len());
    assert_eq!(words.html, None, "half a page is none");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(\\PC|\r|\n)*".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            hash_map("[a-z]{1,4}", inner, 0..4).prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into())
        ]
    })
}

proptest! {
    #[test]
    fn no_data_makes_a_built_in_template_fail_or_a_subject_of_two_lines(
        kind in 0_usize..64,
        fields in hash_map("title|description|due_date|priority|reminder_type|completed_at|deleted_at|email|rule|severity|points|reason|total|login_method", any_json(), 0..8),
    ) {
        let catalog = Catalog::embedded().unwrap();
        let name = catalog.types().nth(kind % catalog.types().len()).unwrap().name.to_string();
        let data: serde_json::Map<_, _> = fields.into_iter().collect();
        let words = built_in().words(&event(&name, &data.into()), &Person::default(), Tz::UTC);
        let words = words.map_err(TestCaseError::fail)?;
        prop_assert!(!words.subject.is_empty() && !words.subject.chars().any(char::is_control), "{words:?}");
    }
}
