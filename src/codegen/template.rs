//! The fixed part of a generated file: text with optional lines and places to fill.

/// Fills a template. A line `#if name` (or `//#if name`) opens lines that stand only where `flags` has the name, `#else` those that stand
/// only where it has not, `#end` closes both; `{{name}}` is replaced by what `values` has.
pub(super) fn fill(template: &str, flags: &[(&str, bool)], values: &[(&str, &str)]) -> String {
    let mut open: Vec<bool> = Vec::new();
    let mut text = String::with_capacity(template.len() * 2);
    for line in template.lines() {
        let directive = line.strip_prefix("//").unwrap_or(line).strip_prefix('#');
        match directive.map(|directive| directive.split_once(' ').unwrap_or((directive, ""))) {
            Some(("if", name)) => open.push(flags.iter().any(|(flag, on)| *flag == name && *on)),
            Some(("else", "")) => {
                if let Some(last) = open.last_mut() {
                    *last = !*last;
                }
            }
            Some(("end", "")) => drop(open.pop()),
            _ if open.iter().all(|on| *on) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn lines_stand_where_their_flag_is_on_and_places_are_filled() {
        let template = "a {{x}}\n#if on\nb\n//#if off\nc\n//#else\nd\n//#end\n#end\n#if off\ne\n#end\n#[derive]\n";
        assert_eq!(fill(template, &[("on", true), ("off", false)], &[("x", "y")]), "a y\nb\nd\n#[derive]\n");
    }
}
