//! Bad values, and the seeded choice among them.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// A small generator: the same seed tries the same requests.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// One of the items.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// JSON texts that stand where a good value stood. Not all of them are JSON.
pub(super) static BAD_VALUES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut values: Vec<String> = [
        "null",
        "true",
        "-1",
        "0",
        "1.5",
        "1e400",
        "-1e-400",
        "9007199254740992",
        "-9223372036854775809",
        "18446744073709551616",
        "123456789012345678901234567890",
        "{}",
        "[]",
        "[null]",
        "[[],{}]",
        r#""""#,
        r#"" ""#,
        r#""\u0000""#,
        r#""a\u0000b""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\ud83d\ude00""#,
        r#""\u202e\u200b\ufeff""#,
        r#""../../../etc/passwd""#,
        r#""%00%ff%2e%2e""#,
        r#""\r\nX-Bad: 1""#,
        r#""@""#,
        r#""@:matron.test""#,
        r#""@nobody:matron.test""#,
        r#""@a:b:c:d""#,
        r#""!""#,
        r#""!unknown:matron.test""#,
        r#""$unknown""#,
        r##""#:""##,
        r##""#unknown:matron.test""##,
        r#""mxc://""#,
        r#""mxc://../..""#,
        r#""*""#,
        r#""[a-z""#,
        r#""(((((((((((((((a*)*)*)*)*)*)*)*)*)*)*)*)*)*)*""#,
        r#"{"a":1,"a":2}"#,
        r#"{"":{"":{"":null}}}"#,
        r#"{"\u0000":"\u0000"}"#,
        r#"{"@:matron.test":{"":""}}"#,
        r#"{"@a:matron.test":-1,"!":1e9}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    values.push(json!("long".repeat(20_000)).to_string());
    values.push(json!("é".repeat(300)).to_string());
    values.push(json!(format!("@{}:matron.test", "a".repeat(300))).to_string());
    values.push(nested("[", "]", 100));
    values.push(nested("[", "]", 10_000));
    values.push(nested("{\"a\":", "}", 10_000));
    values.push(Value::Array(vec![json!("x"); 3_000]).to_string());
    values.push(Value::Object((0..3_000).map(|n| (format!("k{n}"), json!(n))).collect()).to_string());
    values
});

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

/// Whole bodies that fit no endpoint.
pub(super) static BAD_BODIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut bodies: Vec<Vec<u8>> = [
        &b""[..],
        b" ",
        b"{",
        b"}",
        b"{}",
        b"[]",
        b"null",
        b"true",
        b"0",
        b"\"a\"",
        b"{}{}",
        b"{} x",
        b"{\"a\":}",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf{}",
        b"{\"\xff\":1}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"\x00",
        b"<?xml version=\"1.0\"?>",
        b"a=b&c=d",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    bodies.extend(["[", "{\"a\":", "[{\"a\":"].map(|open| open.repeat(10_000).into_bytes()));
    bodies.push(nested("{\"a\":", "}", 10_000).into_bytes());
    bodies
});

/// Texts that stand, as they are, in a path part or a query value.
pub(super) const BAD_PARTS: &[&str] = &[
    "%00",
    "a%00b",
    "%ff%fe",
    "%C3%28",
    "%",
    "%2",
    "%zz",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..",
    ".",
    "%20",
    "+",
    "%0d%0aX-Bad:%201",
    "%21",
    "%21:",
    "%21unknown",
    "%21unknown:matron.test",
    "%21a%2Fb:matron.test",
    "%24",
    "%24unknown",
    "@",
    "@:",
    "@a",
    "@:matron.test",
    "@nobody:matron.test",
    "@a:b:c",
    "@%C3%A9:matron.test",
    "%23",
    "%23unknown:matron.test",
    "%23:matron.test",
    "a:b",
    "-1",
    "0",
    "1.5",
    "9999999999999999999999",
    "18446744073709551615",
    "9223372036854775807",
    "NaN",
    "null",
    "true",
    "%5B%5D",
    "%7B%7D",
    "%7B%22limit%22:-1%7D",
    "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:1e99%7D%7D%7D",
    "%F0%9F%98%80",
    "%E2%80%AE",
    "*",
    "s",
    "t-1",
    "s1_2_3_4",
    "f",
    "%22%3Cscript%3E",
    ";",
    "~",
    "m.room.message",
];

/// A long path part.
pub(super) fn long_part() -> String {
    "a".repeat(3_000)
}

/// How many places of a value can be spoilt.
pub(super) fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(places).sum(),
        Value::Object(fields) => fields.values().map(places).sum(),
        _ => 0,
    }
}

/// What stands in a value until its text is made: the bad text may be no JSON.
const MARK: &str = "\u{fdd0}spoilt\u{fdd0}";

/// The value's text with the value at this place, counted from 0, replaced.
pub(super) fn spoil(value: &Value, place: usize, bad: &str) -> String {
    let mut value = value.clone();
    let mut left = place;
    replace(&mut value, &mut left);
    value.to_string().replace(&Value::from(MARK).to_string(), bad)
}

/// The value's text without the field at this place, or with it twice.
pub(super) fn without(value: &Value, place: usize) -> String {
    let mut value = value.clone();
    let mut left = place;
    replace(&mut value, &mut left);
    drop_marked(&mut value);
    value.to_string()
}

fn replace(value: &mut Value, left: &mut usize) -> bool {
    if *left == 0 {
        *value = Value::from(MARK);
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, left)),
        Value::Object(fields) => fields.iter_mut().any(|(_, field)| replace(field, left)),
        _ => false,
    }
}

fn drop_marked(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| item != MARK);
            items.iter_mut().for_each(drop_marked);
        }
        Value::Object(fields) => {
            fields.retain(|_, field| field != MARK);
            fields.iter_mut().for_each(|(_, field)| drop_marked(field));
        }
        _ => {}
    }
}
