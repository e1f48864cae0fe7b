//! Filters and tests that differ from minijinja's: above all `tojson` as Transformers defines it, which is Python's
//! json.dumps(value, ensure_ascii=False).

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

const MAX_DEPTH: usize = 256;
const MAX_INDENT: usize = 64;
const BYTES_PER_STEP: u64 = 16;
/// How stator/text marks broken special texts: goes through as it is, even where all else is escaped.
const GUARD: char = '\u{FDD0}';

struct Writer<'a> {
    out: String,
    state: &'a State<'a, 'a>,
    charged: usize,
    ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)
pub fn tojson(
    state: &State,
    value: &Value,
    positional: Rest<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    if positional.len() > 4 {
        return Err(Error::new(
            ErrorKind::TooManyArguments,
            "tojson takes at most 4",
        ));
    }
    let argument = |position: usize, name: &str| -> Result<Option<Value>, Error> {
        let found = match positional.get(position) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(found.filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?;
    let indent = argument(1, "indent")?
        .map(|v| indentation(&v))
        .transpose()?;
    let separators = argument(2, "separators")?.map(|v| pair(&v)).transpose()?;
    let sort_keys = argument(3, "sort_keys")?;
    named.assert_all_used()?;
    let (item_separator, key_separator) = separators.unwrap_or_else(|| {
        let item = if indent.is_some() { "," } else { ", " };
        (item.to_string(), ": ".to_string())
    });
    let mut writer = Writer {
        out: String::new(),
        state,
        charged: 0,
        ascii: ensure_ascii.is_some_and(|v| v.is_true()),
        sort_keys: sort_keys.is_some_and(|v| v.is_true()),
        indent,
        item_separator,
        key_separator,
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

fn indentation(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        if text.len() <= MAX_INDENT {
            return Ok(text.to_string());
        }
    } else if let Some(width) = value.as_i64() {
        let width = width.max(0) as usize;
        if width <= MAX_INDENT {
            return Ok(" ".repeat(width));
        }
    }
    Err(invalid(format!(
        "tojson: indent must be a number or a text of at most {MAX_INDENT}"
    )))
}

fn pair(value: &Value) -> Result<(String, String), Error> {
    let items: Vec<Value> = value.try_iter()?.take(3).collect();
    match items.as_slice() {
        [item, key] => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.to_string(), key.to_string())),
            _ => Err(invalid("tojson: separators must be two texts".to_string())),
        },
        _ => Err(invalid("tojson: separators must be two texts".to_string())),
    }
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson: nested deeper than {MAX_DEPTH}")));
        }
        self.charge()?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            ValueKind::Undefined => {
                return Err(Error::new(
                    ErrorKind::UndefinedError,
                    "tojson: the value is undefined",
                ))
            }
            other => {
                return Err(invalid(format!(
                    "tojson: can't write a value of kind {other}"
                )))
            }
        }
        Ok(())
    }

    /// Pays for what was written since the last call.
    fn charge(&mut self) -> Result<(), Error> {
        let steps = (self.out.len() - self.charged) as u64 / BYTES_PER_STEP;
        if steps == 0 {
            return Ok(());
        }
        self.charged = self.out.len();
        self.state.consume_fuel(steps)
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.separate(empty, depth + 1);
            self.value(&item, depth + 1)?;
            empty = false;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('{');
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        for (i, key) in keys.iter().enumerate() {
            self.separate(i == 0, depth + 1);
            self.key(key)?;
            self.out.push_str(&self.key_separator);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.close(keys.is_empty(), depth, '}');
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None => self.out.push_str("\"null\""),
            ValueKind::Bool => self.out.push_str(if key.is_true() {
                "\"true\""
            } else {
                "\"false\""
            }),
            ValueKind::Number => {
                let text = number(key);
                self.string(&text);
            }
            other => return Err(invalid(format!("tojson: a key can't be of kind {other}"))),
        }
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.item_separator);
        }
        self.new_line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.reserve(text.len() + 2);
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c) && c != GUARD) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// As Python writes floats: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_string();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The `indent` filter: Python's lines (also "\r\n"), and a last empty one is kept.
pub fn indent(text: &str, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let argument = |position: usize, name: &str| -> Result<Option<Value>, Error> {
        match positional.get(position) {
            Some(value) => Ok(Some(value.clone())),
            None => named.get(name),
        }
    };
    let width = argument(0, "width")?.map_or(Ok("    ".to_string()), |v| indentation(&v))?;
    let first = argument(1, "first")?.is_some_and(|v| v.is_true());
    let blank = argument(2, "blank")?.is_some_and(|v| v.is_true());
    named.assert_all_used()?;
    let mut out = String::new();
    let lines: Vec<&str> = text
        .lines()
        .chain(text.ends_with('\n').then_some(""))
        .collect();
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 {
            first
        } else {
            blank || !line.is_empty()
        } {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// The `escape` filter, with the entities that Jinja2 writes.
pub fn escape(text: &Value) -> String {
    let mut out = String::new();
    for c in text.to_string().chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// Jinja2 asks for a length and indexing, which strings and dicts have too.
pub fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined
    )
}

pub fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}
