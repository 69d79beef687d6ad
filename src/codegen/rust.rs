//! Rust, as rustfmt formats it.

mod checks;
mod events;

use std::collections::BTreeSet;

use self::{
    checks::{any_of, check_field, checks},
    events::{functions, payloads, upcast},
};
use super::{
    Options,
    layout::{Piece, Style},
    model::{Choice, Either, Event, Module, Object, Type},
    names,
    template::fill,
};

/// For signatures and tables.
const STYLE: Style = Style { width: 100, indent: 4, narrow: usize::MAX, together: false };
/// For calls.
const CALL: Style = Style { narrow: 60, ..STYLE };

const KEYWORDS: [&str; 42] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else", "enum", "extern", "false",
    "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
    "ref", "return", "static", "struct", "trait", "true", "try", "type", "use", "while",
];

pub(super) fn write(module: &Module, options: Options) -> String {
    let migrations = options.versioning && module.events.iter().any(|event| !event.past.is_empty());
    let types = module.types();
    let fields = || module.objects.iter().flat_map(|object| &object.fields);
    let body = models(module, options);
    let patterns: BTreeSet<&str> =
        types.iter().filter_map(|ty| if let Type::Text { pattern, .. } = ty { pattern.as_deref() } else { None }).collect();
    let has_patterns = !patterns.is_empty();
    let flags = [
        ("metadata", options.metadata),
        ("validation", options.validation),
        ("versioning", options.versioning),
        ("migrations", migrations),
        ("nulls", fields().any(|field| field.required && field.nullable)),
        ("checks", body.contains("text(\n") || body.contains(" text(") || body.contains(" count(")),
        ("patterns", has_patterns),
        ("unique", types.iter().any(|ty| matches!(ty, Type::List { unique: true, .. }))),
    ];
    let names: Vec<&str> = module.events.iter().map(|event| event.name.as_str()).collect();
    let lifted = module.lifted();
    let values = [
        ("models", body),
        ("payloads", payloads(module, options)),
        ("upcast", upcast(module)),
        ("functions", functions(module)),
        ("lifted_count", lifted.len().to_string()),
        ("lifted", Piece::group("[", lifted.iter().map(|name| Piece::word(quoted(name))), "]").render(CALL, 0, 27, 1)),
        ("patterns", Piece::group("[", patterns.into_iter().map(|pattern| Piece::word(quoted(pattern))), "]").render(CALL, 1, 19, 1)),
        ("types", names.join(", ")),
        ("domain", module.domain.clone()),
        ("Name", module.name.clone()),
    ];
    let text = fill(include_str!("templates/models.rs.in"), &flags, &values.each_ref().map(|(name, value)| (*name, value.as_str())));
    let maps = has_patterns || types.iter().any(|ty| matches!(ty, Type::Map(_)));
    if maps { text } else { text.replacen("    collections::BTreeMap,\n", "", 1) }
}

// === Types ===

fn models(module: &Module, options: Options) -> String {
    let mut parts = vec![event_type(module)];
    parts.extend(module.choices.iter().map(choice));
    parts.extend(module.eithers.iter().map(|one| either(module, one, options)));
    for object in &module.objects {
        parts.push(structure(object));
        parts.push(methods(module, object, options));
    }
    parts.join("\n\n")
}

const PLAIN: &str = "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]\n";

fn event_type(module: &Module) -> String {
    let name = format!("{}EventType", module.name);
    let each = |line: &dyn Fn(&Event, String) -> String| -> String {
        module.events.iter().map(|event| line(event, names::pascal(&event.action))).collect()
    };
    let variants = each(&|event, variant| format!("    /// `{0}`.\n    #[serde(rename = \"{0}\")]\n    {variant},\n", event.name));
    let words = each(&|event, variant| format!("            Self::{variant} => {},\n", quoted(&event.name)));
    let versions = each(&|event, variant| format!("            Self::{variant} => {},\n", quoted(&event.version)));
    let named = each(&|event, variant| {
        let all: Vec<_> = [&event.name].into_iter().chain(&event.aliases).map(|name| quoted(name)).collect();
        format!("            {} => Self::{variant},\n", all.join(" | "))
    });
    format!(
        "/// The events of the domain.\n{PLAIN}pub enum {name} {{\n{variants}}}\n\n\
         impl {name} {{\n    /// The type as events carry it.\n    pub fn name(self) -> &'static str {{\n        match self {{\n{words}        }}\n    }}\n\n\
         \x20   /// The newest version of its payload.\n    pub fn version(self) -> &'static str {{\n        match self {{\n{versions}        }}\n    }}\n\n\
         \x20   /// The type of that name, alias, or name with a major version (`{}.v1`), and that version.\n\
         \x20   pub fn named(sent: &str) -> Option<(Self, String)> {{\n\
         \x20       let digits = |major: &str| major.bytes().all(|byte| byte.is_ascii_digit());\n\
         \x20       let suffix = sent.rsplit_once(\".v\").filter(|(_, major)| digits(major));\n\
         \x20       let (name, major) = suffix.unwrap_or((sent, \"1\"));\n\
         \x20       let found = match name {{\n{named}            _ => return None,\n        }};\n\
         \x20       Some((found, format!(\"{{major}}.0\")))\n    }}\n}}",
        module.events.first().map_or("", |event| &event.name),
    )
}

fn choice(choice: &Choice) -> String {
    let variants = names::distinct(choice.values.iter().map(String::as_str), names::pascal);
    let lines = variants.iter().zip(&choice.values).map(|(variant, value)| {
        let value = quoted(value);
        format!("    /// {value}\n    #[serde(rename = {value})]\n    {variant},\n")
    });
    format!("/// One of these words.\n{PLAIN}pub enum {} {{\n{}}}", choice.name, lines.collect::<String>())
}

fn either(module: &Module, either: &Either, options: Options) -> String {
    let variants = names::distinct(either.types.iter().map(variant), str::to_owned);
    let name = &either.name;
    let lines: String = variants
        .iter()
        .zip(&either.types)
        .map(|(variant, ty)| {
            let ty = written(ty);
            format!("    /// As {ty}.\n    {variant}({ty}),\n")
        })
        .collect();
    let mut text = format!(
        "/// One of these types.\n#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]\n#[serde(untagged)]\npub enum {name} {{\n{lines}}}"
    );
    for (variant, ty) in variants.iter().zip(&either.types) {
        let ty = written(ty);
        if variants.iter().zip(&either.types).filter(|(_, other)| written(other) == ty).count() == 1 {
            text += &format!(
                "\n\nimpl From<{ty}> for {name} {{\n    fn from(value: {ty}) -> Self {{\n        Self::{variant}(value)\n    }}\n}}"
            );
        }
    }
    let arms: Vec<_> = variants.iter().zip(&either.types).map(|(variant, ty)| (variant, checks(module, ty, "value", "path", 3))).collect();
    if options.validation && arms.iter().any(|(_, checks)| !checks.is_empty()) {
        text += &format!("\n\nimpl {name} {{\n    fn check(&self, path: &str, problems: &mut Vec<String>) {{\n        match self {{\n");
        for (variant, checks) in arms {
            text += &match checks.as_str() {
                "" => format!("            Self::{variant}(_) => {{}}\n"),
                checks => format!("            Self::{variant}(value) => {{\n{}            }}\n", indented(checks)),
            };
        }
        text += "        }\n    }\n}";
    }
    text
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("    {line}\n")).collect()
}

fn variant(ty: &Type) -> &'static str {
    match ty {
        Type::Text { .. } | Type::Choice(_) => "Text",
        Type::Timestamp => "Timestamp",
        Type::Uuid => "Uuid",
        Type::Integer(_) => "Integer",
        Type::Number(_) => "Number",
        Type::Boolean => "Boolean",
        Type::List { .. } => "List",
        Type::Map(_) | Type::Object(_) => "Object",
        Type::Either(_) | Type::Any => "Other",
    }
}

fn written(ty: &Type) -> String {
    match ty {
        Type::Text { .. } => "String".to_owned(),
        Type::Choice(name) | Type::Object(name) | Type::Either(name) => name.clone(),
        Type::Timestamp => "Timestamp".to_owned(),
        Type::Uuid => "Uuid".to_owned(),
        Type::Integer(_) => "i64".to_owned(),
        Type::Number(_) => "serde_json::Number".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::List { item, .. } => format!("Vec<{}>", written(item)),
        Type::Map(value) => format!("BTreeMap<String, {}>", written(value)),
        Type::Any => "Value".to_owned(),
    }
}

fn structure(object: &Object) -> String {
    let mut text = doc(&object.doc, "", &object.name);
    text += "#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]\n";
    if object.closed {
        text += "#[serde(deny_unknown_fields)]\n";
    }
    text += &format!("pub struct {} {{\n", object.name);
    for field in &object.fields {
        text += &doc(&field.doc, "    ", &field.name);
        let (name, mut ty) = (ident(&field.name), written(&field.ty));
        let mut rules = Vec::new();
        if name.strip_prefix("r#").unwrap_or(&name) != field.name {
            rules.push(Piece::word(format!("rename = {}", quoted(&field.name))));
        }
        if !field.required {
            rules.push(Piece::word("default"));
            rules.push(Piece::word("skip_serializing_if = \"Option::is_none\""));
        } else if field.nullable {
            rules.push(Piece::word("deserialize_with = \"present\""));
        }
        if !field.required || field.nullable {
            ty = format!("Option<{ty}>");
        }
        if !rules.is_empty() {
            let narrow = Style { narrow: 70, ..STYLE };
            let rules = Piece::group("serde(", rules, ")").render(narrow, 1, 6, 1);
            // An attribute takes no comma at its end.
            text += &format!("    #[{}]\n", rules.replace(",\n    )", "\n    )"));
        }
        text += &format!("    pub {name}: {ty},\n");
    }
    if !object.closed {
        text += &format!("    /// Unknown fields, kept.\n    #[serde(flatten)]\n    pub {}: Map<String, Value>,\n", more(object));
    }
    text + "}"
}

/// The name of the place for unknown fields.
fn more(object: &Object) -> &'static str {
    if object.fields.iter().any(|field| field.name == "more") { "more_fields" } else { "more" }
}

fn methods(module: &Module, object: &Object, options: Options) -> String {
    let needed: Vec<_> = object.fields.iter().filter(|field| field.required && !field.nullable).collect();
    let parameters = needed.iter().map(|field| {
        let ty = written(&field.ty);
        let ty = if matches!(field.ty, Type::Text { .. } | Type::Either(_)) { format!("impl Into<{ty}>") } else { ty };
        Piece::word(format!("{}: {ty}", ident(&field.name)))
    });
    let signature = Piece::group("    pub fn new(", parameters, ")").render(STYLE, 1, 0, " -> Self {".len());
    let mut text = format!("impl {} {{\n    /// With what it must have.\n{signature} -> Self {{\n        Self {{\n", object.name);
    for field in &object.fields {
        let name = ident(&field.name);
        let into = matches!(field.ty, Type::Text { .. } | Type::Either(_));
        text += &match (field.required && !field.nullable, into) {
            (false, _) => format!("            {name}: None,\n"),
            (true, true) => format!("            {name}: {name}.into(),\n"),
            (true, false) => format!("            {name},\n"),
        };
    }
    if !object.closed {
        text += &format!("            {}: Map::new(),\n", more(object));
    }
    text += "        }\n    }\n";
    if options.validation {
        let body: String = object.fields.iter().map(|field| check_field(module, field)).collect::<String>() + &any_of(object);
        let (path, problems) = if body.is_empty() { ("_path", "_problems") } else { ("path", "problems") };
        text += &format!("\n    fn check(&self, {path}: &str, {problems}: &mut Vec<String>) {{");
        text += &if body.is_empty() { "}\n".to_owned() } else { format!("\n{body}    }}\n") };
    }
    text + "}"
}

// === Words ===

/// A field's name in Rust.
fn ident(field: &str) -> String {
    let mut name: String =
        field.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        name.insert_str(0, "field_");
    }
    match name.as_str() {
        "self" | "super" | "crate" | "_" => name + "_field",
        keyword if KEYWORDS.contains(&keyword) => format!("r#{name}"),
        _ => name,
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Documentation; a field without any has its name said, since public things are documented.
fn doc(text: &str, indent: &str, name: &str) -> String {
    let text = if text.is_empty() { format!("`{name}`.") } else { text.replace('\n', " ") };
    format!("{indent}/// {text}\n")
}
