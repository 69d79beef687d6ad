use proptest::prelude::*;
use serde_json::{Map, Value, value::RawValue};

use super::{Plain, Reader, list, quote};

/// The value that was found is the one that serde_json finds.
fn agrees(found: Plain<'_>, value: &Value) -> bool {
    match found {
        Plain::Null => value.is_null(),
        Plain::Boolean => value.is_boolean(),
        Plain::Integer(number) => value.as_i64() == Some(number),
        Plain::Decimal => value.is_f64(),
        Plain::Text(text) => value.as_str() == Some(text),
        Plain::Escaped(_) => value.as_str() == found.text().as_deref(),
        Plain::Array(_) => value.is_array(),
        Plain::Object(_) => value.is_object(),
    }
}

/// Whether a text is read here; what is read is what serde_json reads of it.
fn reads(text: &str) -> bool {
    let mut seen = Vec::new();
    let mut reader = Reader::of(text);
    let fields = reader.members(|reader, name| {
        let (written, members) = reader.written()?;
        seen.push((name, written, members));
        Some(())
    });
    if fields.and_then(|()| reader.end()).is_some() {
        let whole: Map<String, Value> = serde_json::from_str(text).unwrap();
        for (name, value) in &whole {
            let (_, written, members) = seen.iter().rfind(|(found, ..)| *found == name).unwrap();
            assert_eq!(serde_json::from_str::<&RawValue>(written).unwrap().get(), *written);
            assert_eq!(serde_json::from_str::<Value>(written).unwrap(), *value);
            let object = value.as_object().filter(|_| members.is_some());
            assert!(members.is_none() || object.is_some(), "{text}");
            for (name, value) in object.into_iter().flatten() {
                let (_, found) = members.iter().flatten().rfind(|(found, _)| *found == name).unwrap();
                assert!(agrees(*found, value), "{name} of {text}: {found:?}");
            }
        }
        assert!(seen.iter().all(|(name, ..)| whole.contains_key(*name)), "{text}");
        return true;
    }
    let mut items = Vec::new();
    let read = list(text, |value| {
        items.push(value);
        Some(())
    });
    if read.is_some() {
        let whole: Vec<Value> = serde_json::from_str(text).unwrap();
        assert!(whole.len() == items.len() && whole.iter().zip(items).all(|(value, found)| agrees(found, value)), "{text}");
    }
    read.is_some()
}

#[test]
fn ordinary_json_is_read() {
    for text in [
        "{}",
        " { } ",
        "[]",
        r#"{"a":1,"b":-2,"c":0,"d":1.50,"e":-0.25,"f":"text","g":null,"h":true,"i":false}"#,
        "{\n  \"a\" : [ 1 , [ ] , { \"b\" : [ \"c\" ] } ] ,\r\n\t\"d\" : { }\n}",
        r#"{"escaped":"a\"b\\c\/\b\f\n\r\t\u00e9\uD83D\uDE00","umlaut":"Einkäufe 🛒, every character goes"}"#,
        r#"{"twice":1,"twice":"2"}"#,
        r#"["0123456","01234567","012345678","0123456789abcdef","x"]"#,
        r#"{"big":999999999999999999,"small":-999999999999999999}"#,
    ] {
        assert!(reads(text), "{text}");
    }
}

#[test]
fn members_are_kept_of_what_is_not_large() {
    let object = |count: usize| format!("{{{}}}", vec!["\"a\":1"; count].join(","));
    let kept = |text: &str| Reader::of(text).written().unwrap().1.map(|members| members.len());
    assert_eq!([0, 1, 64, 65, 5000].map(|count| kept(&object(count))), [Some(0), Some(1), Some(64), None, None]);
    assert_eq!(kept("[{}]"), None);
}

#[test]
fn the_unusual_is_left_to_the_whole_parser() {
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    for text in [
        "",
        " ",
        "1",
        "\"text\"",
        "null",
        "{",
        "}",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{} {}",
        "[1] x",
        "[01]",
        "[-]",
        "[-0]",
        "[1.]",
        "[.5]",
        "[1e5]",
        "[1.5E5]",
        "[+1]",
        "[0x10]",
        "[NaN]",
        "[nul]",
        "[nullx]",
        "[tru",
        "['a']",
        "[\"a]",
        "[\"\\x\"]",
        "[\"\\u12\"]",
        "[\"\\u+123\"]",
        "[\"\\ud800\"]",
        "[\"\\ud800\\n\"]",
        "[\"\\ud800\\ud800\"]",
        "[\"\\udc00\"]",
        "[\"a\nb\"]",
        "[\"abcdefgh\u{1f}\"]",
        "[1234567890123456789]",
        "{\"n\\u0061me\":1}",
        "[1\u{a0}]",
        &deep,
    ] {
        assert!(!reads(text), "{text}");
    }
}

/// Texts that are nearly JSON.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        " ",
        "\n",
        "\"a\"",
        "\"a\":",
        "1",
        "-",
        "0",
        ".",
        "e",
        "null",
        "true",
        "false",
        "\"\\u00e9\"",
        "\\u",
        "d83d",
        "\\ude00",
        "é",
        "\u{1}",
        "\"eight by\"",
        "123456789",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_read_is_what_the_whole_parser_reads(text in pieces()) {
        reads(&text);
        reads(&format!("{{\"a\":{text}}}"));
        reads(&format!("{{\"a\":{{\"b\":{text}}}}}"));
        reads(&format!("[{text}]"));
        reads(&format!("[\"{text}\"]"));
    }

    #[test]
    fn any_string_that_is_written_is_read(text in any::<String>(), name in "[a-zé]{0,20}") {
        let written = serde_json::json!({ name: text }).to_string();
        prop_assert!(reads(&written));
    }

    #[test]
    fn any_number_that_is_read_is_right(number in any::<f64>(), whole in any::<i64>(), digits in "-?[0-9]{1,30}(\\.[0-9]{1,30})?") {
        reads(&format!("[{number},{number:e},{whole},{digits}]"));
        reads(&format!("[{digits}]"));
        reads(&format!("[{whole}]"));
    }

    #[test]
    fn a_text_is_quoted_as_serde_json_would(text in r#"[ -~]{0,40}|[\x00-\x7f\u{80}-\u{ff}"\\]{0,40}|\PC{0,40}"#) {
        let mut out = b"[".to_vec();
        quote(&text, &mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), format!("[{}", serde_json::to_string(&text).unwrap()));
    }
}
