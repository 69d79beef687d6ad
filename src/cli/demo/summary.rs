//! The end of the tour: each figure beside what it must be, as a table or JSON.

use comfy_table::{Cell, Color};
use serde::Serialize;
use serde_json::json;

use super::figures::{DeadLetter, Figures};
use crate::{cli, outcome::DeadReason};

/// One figure, and whether it is as it must be.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) figure: &'static str,
    pub(super) observed: String,
    pub(super) must_be: String,
    pub(super) ok: bool,
}

/// Every check, in the order of the table.
pub(super) fn judge(figures: &Figures) -> Vec<Check> {
    let check = |figure, observed: String, must_be: String, ok| Check { figure, observed, must_be, ok };
    let equal = |figure, observed: u64, wanted: u64| check(figure, observed.to_string(), wanted.to_string(), observed == wanted);
    let f = figures;
    let mut checks = vec![
        equal("event types handled", f.types_handled as u64, f.types as u64),
        check(
            "events handled",
            format!("{} of {}, {} of them twice", f.handled, f.to_handle, f.handled_again),
            "each exactly once".to_owned(),
            f.handled == f.to_handle && f.to_handle > f.types && f.handled_again == 0,
        ),
        check("effects out of a user's order", f.out_of_order.to_string(), "0".to_owned(), f.out_of_order == 0),
        equal("duplicates recognised", f.duplicates_recognised, f.duplicates),
        equal("retries", f.retries, f.retries_due),
    ];
    checks.extend(dead(f));
    checks.push(failing(f));
    checks.push(others(f));
    checks.push(caused(f));
    checks.push(mailed(f));
    checks.push(audited(f));
    checks.push(check(
        "records unaccounted for, uncommitted",
        format!("{}, {}", f.unaccounted, f.uncommitted),
        "0, 0".to_owned(),
        f.unaccounted == 0 && f.uncommitted == 0,
    ));
    checks
}

fn dead(figures: &Figures) -> [Check; 2] {
    let letters = &figures.dead_letters;
    let of = |reason: DeadReason, figure, retries: u32| {
        let found: Vec<_> = letters.iter().filter(|letter| letter.reason == reason.code()).collect();
        let good = |letter: &&DeadLetter| {
            letter.untouched
                && letter.retries == Some(retries)
                && !letter.error.is_empty()
                && letter.attempts.is_some_and(|runs| runs >= retries)
        };
        let words = |letter: &&DeadLetter| {
            format!("{} of {}, {} retries, from {}", letter.event_type, letter.user, letter.retries.unwrap_or_default(), letter.source)
        };
        Check {
            figure,
            observed: if found.is_empty() { "none".to_owned() } else { found.iter().map(words).collect::<Vec<_>>().join("; ") },
            must_be: format!("1 untouched record, {retries} retries"),
            ok: letters.len() == 2 && found.len() == 1 && found.iter().all(good),
        }
    };
    [
        of(DeadReason::Exhausted, "dead-lettered as exhausted", figures.exhausted_after),
        of(DeadReason::Undecodable, "dead-lettered as undecodable", 0),
    ]
}

fn failing(figures: &Figures) -> Check {
    let failing = &figures.failing;
    Check {
        figure: "the event that failed twice",
        observed: format!(
            "handled at run {} after {} ms; {} later events of {} waited",
            failing.runs, failing.retrying_ms, failing.waited_behind, failing.user
        ),
        must_be: format!("run 3, on schedule, {} waiting", failing.later),
        ok: failing.runs == 3 && failing.on_schedule && failing.later > 0 && failing.waited_behind == failing.later,
    }
}

/// Whoever waits for the failing event waits for nearly all of its retrying: half of it tells that apart from a slow machine.
fn others(figures: &Figures) -> Check {
    let (others, failing) = (&figures.others, &figures.failing);
    let bound = failing.retrying_ms / 2;
    Check {
        figure: "other users were delayed by",
        observed: format!(
            "at most {} ms while {}'s event was retrying: {} events of {} users, {} of them on its partition",
            others.delayed_at_most_ms, failing.user, others.events, others.users, others.on_its_partition
        ),
        must_be: format!("less than {bound} ms"),
        ok: others.events > 0 && others.on_its_partition > 0 && others.delayed_at_most_ms < bound,
    }
}

fn caused(figures: &Figures) -> Check {
    let caused = &figures.caused;
    let words: Vec<_> =
        caused.seen.iter().map(|(name, count)| if *count == 1 { name.clone() } else { format!("{count} {name}") }).collect();
    Check {
        figure: "what the worker did by itself",
        observed: format!("{}: {}", caused.user, words.join(", ")),
        must_be: format!("{} events, each once", caused.wanted.len()),
        ok: caused.seen.keys().eq(&caused.wanted) && caused.seen.values().all(|count| *count == 1),
    }
}

fn mailed(figures: &Figures) -> Check {
    let mails = &figures.caused.mails;
    let words: Vec<_> = mails.iter().map(|mail| format!("{}: {}", mail.to, mail.subject)).collect();
    Check {
        figure: "mail that arrived",
        observed: if words.is_empty() { "none".to_owned() } else { words.join("; ") },
        must_be: "1, of the reminder".to_owned(),
        ok: mails.len() == 1 && mails.iter().all(|mail| mail.subject.starts_with("Reminder: ")),
    }
}

fn audited(figures: &Figures) -> Check {
    let audited = &figures.audited;
    let state = audited.broken.as_ref().map_or_else(|| "whole".to_owned(), |found| format!("broken at {}: {}", found.at, found.what));
    Check {
        figure: "deletions on record",
        observed: format!("{} of {}, the chain is {state}", audited.records, audited.deleted),
        must_be: "each, in a whole chain".to_owned(),
        ok: audited.deleted > 0 && audited.records == audited.deleted as u64 && audited.broken.is_none(),
    }
}

/// The table and a closing line.
pub(super) fn table(figures: &Figures, checks: &[Check]) -> String {
    let mut table = cli::table(["", "figure", "observed", "must be"]);
    for check in checks {
        let sign = if check.ok { cli::cell("✓", Color::Green) } else { cli::cell("✗", Color::Red) };
        table.add_row([sign, Cell::new(check.figure), Cell::new(&check.observed), Cell::new(&check.must_be)]);
    }
    let wrong = checks.iter().filter(|check| !check.ok).count();
    let end = match wrong {
        0 => format!("All as it must be: {} records in {:.1} s.", figures.published, figures.seconds),
        wrong => format!("{wrong} figures are not as they must be."),
    };
    format!(
        "\n{table}\n{end}\nNext: `worker --role standalone` keeps running, with HTTP on 127.0.0.1:3500; `worker --help` lists the rest.\n"
    )
}

/// The figures and the checks.
pub(super) fn json(figures: &Figures, checks: &[Check]) -> anyhow::Result<String> {
    let ok = checks.iter().all(|check| check.ok);
    Ok(serde_json::to_string_pretty(&json!({ "ok": ok, "figures": figures, "checks": checks }))? + "\n")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::{
        figures::{Audited, Caused, Failing, Others},
        mailbox::Mail,
    };
    use super::*;
    use crate::audit::verify::Break;

    fn letter(reason: &str, retries: u32) -> DeadLetter {
        DeadLetter {
            reason: reason.to_owned(),
            event_type: "task.updated".to_owned(),
            user: "eve".to_owned(),
            attempts: Some(retries + 1),
            retries: Some(retries),
            error: "words".to_owned(),
            source: "task-events/3@4".to_owned(),
            untouched: true,
        }
    }

    fn good() -> Figures {
        Figures {
            published: 70,
            types: 20,
            types_handled: 20,
            to_handle: 67,
            handled: 67,
            handled_again: 0,
            out_of_order: 0,
            duplicates: 1,
            duplicates_recognised: 1,
            retries_due: 7,
            retries: 7,
            exhausted_after: 5,
            dead_letters: vec![letter("exhausted", 5), letter("undecodable", 0)],
            failing: Failing {
                user: "user-7".to_owned(),
                event_type: "task.completed".to_owned(),
                runs: 3,
                retrying_ms: 3300,
                on_schedule: true,
                waited_behind: 2,
                later: 2,
            },
            others: Others { users: 12, events: 44, on_its_partition: 9, delayed_at_most_ms: 20 },
            caused: Caused {
                user: "mia".to_owned(),
                wanted: vec!["reminder.due".to_owned()],
                seen: [("reminder.due".to_owned(), 1)].into(),
                mails: vec![Mail { to: "mia@example.com".to_owned(), subject: "Reminder: Water the plants".to_owned() }],
            },
            audited: Audited { deleted: 4, records: 4, chains: vec!["audit-host".to_owned()], broken: None },
            unaccounted: 0,
            uncommitted: 0,
            schedules_divided_by: 100,
            seconds: 6.0,
        }
    }

    #[test]
    fn figures_as_they_must_be_pass_every_check() {
        let checks = judge(&good());
        assert!(checks.iter().all(|check| check.ok), "{checks:?}");
        assert!(table(&good(), &checks).contains("All as it must be: 70 records"));
    }

    #[test]
    fn each_wrong_figure_fails_a_check_of_its_own() {
        type Spoil = fn(&mut Figures);
        let wrongs: [(&str, Spoil); 27] = [
            ("event types handled", |f| f.types_handled = 19),
            ("events handled", |f| f.handled = 66),
            ("events handled", |f| f.handled_again = 1),
            ("events handled", |f| (f.handled, f.to_handle) = (0, 0)),
            ("effects out of a user's order", |f| f.out_of_order = 1),
            ("duplicates recognised", |f| f.duplicates_recognised = 0),
            ("retries", |f| f.retries = 6),
            ("dead-lettered as exhausted", |f| f.dead_letters[0].retries = Some(4)),
            ("dead-lettered as exhausted", |f| f.dead_letters[0].untouched = false),
            ("dead-lettered as exhausted", |f| f.dead_letters[0].attempts = None),
            ("dead-lettered as undecodable", |f| f.dead_letters[1].error.clear()),
            ("the event that failed twice", |f| f.failing.runs = 2),
            ("the event that failed twice", |f| f.failing.on_schedule = false),
            ("the event that failed twice", |f| f.failing.waited_behind = 1),
            ("other users were delayed by", |f| f.others.delayed_at_most_ms = 3000),
            ("other users were delayed by", |f| f.others.events = 0),
            ("other users were delayed by", |f| f.others.on_its_partition = 0),
            ("what the worker did by itself", |f| f.caused.seen.clear()),
            ("what the worker did by itself", |f| f.caused.seen.values_mut().for_each(|count| *count = 2)),
            ("mail that arrived", |f| f.caused.mails.clear()),
            ("mail that arrived", |f| f.caused.mails.extend_from_within(..)),
            ("mail that arrived", |f| f.caused.mails[0].subject.clear()),
            ("deletions on record", |f| f.audited.records = 3),
            ("deletions on record", |f| (f.audited.deleted, f.audited.records) = (0, 0)),
            ("deletions on record", |f| {
                f.audited.broken = Some(Break { kind: "removed", at: "file:2".to_owned(), what: "record 2".to_owned() });
            }),
            ("records unaccounted for, uncommitted", |f| f.unaccounted = 1),
            ("records unaccounted for, uncommitted", |f| f.uncommitted = 1),
        ];
        for (figure, spoil) in wrongs {
            let mut figures = good();
            spoil(&mut figures);
            let failed: Vec<_> = judge(&figures).into_iter().filter(|check| !check.ok).map(|check| check.figure).collect();
            assert_eq!(failed, [figure]);
        }
    }

    #[test]
    fn a_dead_letter_too_many_or_too_few_fails_both() {
        let mut figures = good();
        figures.dead_letters.push(letter("permanent", 0));
        assert_eq!(judge(&figures).iter().filter(|check| !check.ok).count(), 2);
        figures.dead_letters.truncate(1);
        assert_eq!(judge(&figures).iter().filter(|check| !check.ok).count(), 2);
    }

    #[test]
    fn json_says_whether_all_is_well() {
        let mut figures = good();
        let text = |figures: &Figures| json(figures, &judge(figures)).unwrap();
        assert!(text(&figures).contains("\"ok\": true,\n  \"figures\""));
        figures.retries = 0;
        assert!(text(&figures).starts_with("{\n  \"ok\": false"));
    }
}
