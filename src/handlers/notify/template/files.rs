//! A folder of templates: `<type>.txt` with its subject, `<type>.html` beside it, both also for one locale, `<type>.<locale>.txt`.

use std::{fs, path::Path};

use super::{DEFAULT, DIGEST, Templates};
use crate::event::Catalog;

/// Longest file, in bytes.
const LONGEST: u64 = 256 * 1024;

/// Adds every template of the folder. Hidden files are not looked at.
///
/// # Errors
/// Every file that cannot be one, each with the reason.
pub(super) fn read(folder: &str, catalog: &Catalog, templates: &mut Templates) -> Result<(), String> {
    let list = fs::read_dir(folder).map_err(|error| format!("`templates`: {folder}: {error}"))?;
    let mut paths = list
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("`templates`: {folder}: {error}"))?;
    // Texts before their pages, and the same problem first every time.
    paths.sort_by_key(|path| (path.extension().is_some_and(|kind| kind == "html"), path.clone()));
    let problems: Vec<String> = paths
        .iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str().unwrap_or("a name that is no text");
            if name.starts_with('.') || path.is_dir() {
                return None;
            }
            add(path, name, catalog, templates).err().map(|problem| format!("{name}: {problem}"))
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(format!("`templates`: {}", problems.join("; "))) }
}

fn add(path: &Path, name: &str, catalog: &Catalog, templates: &mut Templates) -> Result<(), String> {
    let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| ["txt", "html"].contains(kind)).ok_or("must end in .txt or .html")?;
    let stem = canonical(stem, catalog)?;
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > LONGEST {
        return Err(format!("{length} bytes; the limit is {LONGEST}"));
    }
    let source = fs::read_to_string(path).map_err(|error| error.to_string())?;
    match kind {
        "txt" => templates.add_text(&stem, &source),
        _ if templates.names.contains(&stem) => templates.add_html(&stem, source),
        _ => Err(format!("needs {stem}.txt beside it: the subject, and the text for who reads no HTML")),
    }
}

/// `task.created`, `task.created.de`, `default`: with the catalogue's name of the type.
fn canonical(stem: &str, catalog: &Catalog) -> Result<String, String> {
    let known = |name: &str| match name {
        DEFAULT | DIGEST => Some(name.to_owned()),
        name => catalog.canonical(name).map(|name| name.to_string()),
    };
    let of_locale = || {
        let (name, locale) = stem.rsplit_once('.')?;
        Some(format!("{}.{locale}", known(name)?))
    };
    known(stem)
        .or_else(of_locale)
        .ok_or_else(|| "is named after no event type of the catalogue, with or without a locale, nor `default` or `digest`".to_owned())
}
