//! Python's methods of strings, lists and dicts: those of minijinja-contrib, some it lacks, and a price on their work.

use minijinja::value::{from_args, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

const BYTES_PER_STEP: usize = 64;

pub fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        if value.kind() == ValueKind::Seq && method == "index" {
            let (wanted,): (&Value,) = from_args(args)?;
            return index(value, wanted);
        }
        return pycompat::unknown_method_callback(state, value, method, args);
    };
    charge(state, text.len())?;
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            parts(
                text,
                separator,
                text.find(not_empty(separator)?),
                [text, "", ""],
            )
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            parts(
                text,
                separator,
                text.rfind(not_empty(separator)?),
                ["", "", text],
            )
        }
        "rsplit" => {
            let (separator, count): (Option<&str>, Option<i64>) = from_args(args)?;
            rsplit(text, separator, count)
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            join(state, text, items)
        }
        "replace" => {
            let (old, new): (&str, &str) = from_args(args.get(..2).unwrap_or(args))?;
            // Bounds the memory before it is taken; the result itself is charged by minijinja.
            ensure(state, text.matches(old).count().saturating_mul(new.len()))?;
            pycompat::unknown_method_callback(state, value, method, args)
        }
        "format" => {
            bound_format(state, text)?;
            pycompat::unknown_method_callback(state, value, method, args)
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Widths and precisions are written as numbers; minijinja pads to any of them.
fn bound_format(state: &State, format: &str) -> Result<(), Error> {
    const MAX_DIGITS: usize = 4;
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let longest = format
        .split(|c: char| !c.is_ascii_digit())
        .map(digits)
        .max()
        .unwrap_or(0);
    if longest > MAX_DIGITS {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "format: a width over 9999",
        ));
    }
    if longest > 0 {
        ensure(state, format.matches('{').count().saturating_mul(10_000))?;
    }
    Ok(())
}

fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_STEP) as u64)
}

/// Fails, as running out of steps does, where so many bytes could not be paid for.
fn ensure(state: &State, bytes: usize) -> Result<(), Error> {
    match state.fuel_levels() {
        Some((_, left)) if (bytes / BYTES_PER_STEP) as u64 > left => state.consume_fuel(u64::MAX),
        _ => Ok(()),
    }
}

fn index(list: &Value, wanted: &Value) -> Result<Value, Error> {
    match list.try_iter()?.position(|item| item == *wanted) {
        Some(i) => Ok(Value::from(i)),
        None => Err(Error::new(
            ErrorKind::InvalidOperation,
            "index: the value is not in the list",
        )),
    }
}

fn not_empty(separator: &str) -> Result<&str, Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    Ok(separator)
}

fn parts(text: &str, separator: &str, at: Option<usize>, none: [&str; 3]) -> Result<Value, Error> {
    let found = at.map(|i| [&text[..i], separator, &text[i + separator.len()..]]);
    Ok(Value::from(Tuple::from(
        found.unwrap_or(none).map(Value::from),
    )))
}

fn rsplit(text: &str, separator: Option<&str>, count: Option<i64>) -> Result<Value, Error> {
    let limit = match count {
        Some(n) if n >= 0 => usize::try_from(n).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let pieces = limit.saturating_add(1);
    let mut found: Vec<Value> = match separator {
        Some(separator) => text
            .rsplitn(pieces, not_empty(separator)?)
            .map(Value::from)
            .collect(),
        None => rsplit_whitespace(text, limit),
    };
    found.reverse();
    Ok(Value::from(found))
}

/// Words from the right; after `limit` of them what is left is one piece, as in Python.
fn rsplit_whitespace(text: &str, limit: usize) -> Vec<Value> {
    let mut found = Vec::new();
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        match rest.rfind(char::is_whitespace) {
            Some(space) if found.len() < limit => {
                found.push(Value::from(rest[space..].trim_start()));
                rest = rest[..space].trim_end();
            }
            Some(_) => {
                found.push(Value::from(rest));
                break;
            }
            None => {
                found.push(Value::from(rest));
                break;
            }
        }
    }
    found
}

fn join(state: &State, separator: &str, items: &Value) -> Result<Value, Error> {
    let mut out = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        let owned;
        let text = match item.as_str() {
            Some(text) => text,
            None => {
                owned = item.to_string();
                &owned
            }
        };
        ensure(state, out.len().saturating_add(text.len()))?;
        out.push_str(text);
    }
    Ok(Value::from(out))
}
