//! Constraints on generated text: a grammar (of a JSON schema, a regex, a list of choices, Lark) made into a machine that
//! says which tokens may come next. The parser is llguidance's; here are the limits, the errors and the vocabulary.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, INVALID_TOKEN,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::{json, Value};

/// The numbers are those of the header.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Ok = 0,
    Invalid = 1,
    TooComplex = 2,
    Rejected = 3,
    Stuck = 4,
    Panic = 5,
}

pub struct Failure {
    pub status: Status,
    pub message: String,
}

fn failure(status: Status, message: impl Into<String>) -> Failure {
    Failure {
        status,
        message: message.into(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    Text,
    Special,
    End,
    Unused,
}

/// What a client may put between the tokens of JSON: a space, or a line break and its indentation. Without a bound a small
/// model may go on with blanks for ever.
const WHITESPACE: &str = r"( |\r?\n[ \t]{0,64})";

/// Beyond these a constraint is refused, whatever its text says. Fuel and items bound the time of a compilation (some 100 ms)
/// and of one mask (some 20 ms), states and grammar size the memory (some 30 MB).
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// References that a schema may follow, and brackets that may be open at once: what recursion depends on. Compiling runs on a
/// stack of its own that holds this many.
const MAX_REFERENCES: usize = 2_000;
const MAX_BRACKETS: usize = 128;
const COMPILE_STACK_BYTES: usize = 256 << 20;

pub struct Factory {
    parsers: ParserFactory,
}

#[derive(Clone)]
pub struct Guide {
    matcher: Matcher,
}

impl Factory {
    /// `words[i]`: the bytes of token i; the name of a special one.
    pub fn new(words: Vec<(TokenKind, &[u8])>) -> Result<Factory, Failure> {
        let mut ends = Vec::new();
        let mut texts = Vec::with_capacity(words.len());
        for (id, (kind, bytes)) in words.iter().enumerate() {
            texts.push(match kind {
                // 0xff marks special tokens in the trie, and no text has it.
                TokenKind::Text if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) => vec![],
                TokenKind::Text => bytes.to_vec(),
                TokenKind::Special | TokenKind::End => {
                    let mut name = vec![TokTrie::SPECIAL_TOKEN_MARKER];
                    name.extend_from_slice(bytes);
                    name
                }
                TokenKind::Unused => vec![],
            });
            if *kind == TokenKind::End {
                ends.push(id as u32);
            }
        }
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        if longest > 1_000 || texts.len() >= 1 << 21 {
            return Err(failure(
                Status::Invalid,
                format!(
                    "a vocabulary of {} tokens, the longest of {longest} bytes, is too large",
                    texts.len()
                ),
            ));
        }
        let info = TokRxInfo::new(
            texts.len() as u32,
            ends.first().copied().unwrap_or(INVALID_TOKEN),
        );
        let mut trie = TokTrie::from(&info, &texts);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(&ends);
        }
        // Not canonical: the model chooses how to spell what the grammar forces.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut parsers = ParserFactory::new(
            &env,
            InferenceCapabilities::default(),
            &SlicedBiasComputer::general_slices(),
        )
        .map_err(|e| failure(Status::Invalid, e.to_string()))?;
        parsers.quiet();
        *parsers.limits_mut() = limits();
        Ok(Factory { parsers })
    }

    pub fn compile(&self, kind: u32, text: &str) -> Result<Guide, Failure> {
        // On a stack of its own: how deep the compiler recurses depends on the client's text, and running out of stack
        // would end the process. Untouched pages of it cost nothing.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("guide-compile".into())
                .stack_size(COMPILE_STACK_BYTES)
                .spawn_scoped(scope, || {
                    without_panic(|| {
                        let grammar = grammar(kind, text)?;
                        let matcher = Matcher::new(self.parsers.create_parser(grammar));
                        match matcher.get_error() {
                            None => Ok(Guide { matcher }),
                            Some(message) => Err(compile_failure(&message)),
                        }
                    })
                })
                .map_err(|e| failure(Status::Panic, format!("no thread to compile on: {e}")))?
                .join()
                .unwrap_or_else(|_| Err(failure(Status::Panic, "the compiler failed")))
        })
    }
}

fn grammar(kind: u32, text: &str) -> Result<TopLevelGrammar, Failure> {
    match kind {
        1 => Ok(TopLevelGrammar::from_json_schema(with_whitespace(
            json!({"type": "object"}),
        )?)),
        2 => schema_grammar(text),
        3 => {
            check_brackets(text)?;
            Ok(TopLevelGrammar::from_regex(unanchored(text)))
        }
        4 => choice_grammar(text),
        5 => {
            check_brackets(text)?;
            if text.trim_start().starts_with('{') {
                return Err(failure(
                    Status::Invalid,
                    "a Lark grammar is expected, not JSON",
                ));
            }
            Ok(TopLevelGrammar::from_lark(text.to_string()))
        }
        _ => Err(failure(
            Status::Invalid,
            format!("kind {kind} of constraint is unknown"),
        )),
    }
}

fn schema_grammar(text: &str) -> Result<TopLevelGrammar, Failure> {
    // serde_json itself refuses more than 127 levels.
    let schema: Value = serde_json::from_str(text)
        .map_err(|e| failure(Status::Invalid, format!("the schema is not JSON: {e}")))?;
    let schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(_) => schema,
        _ => {
            return Err(failure(
                Status::Invalid,
                "the schema must be an object or true",
            ))
        }
    };
    let references = text.matches("\"$ref\"").count();
    if references > MAX_REFERENCES {
        return Err(failure(
            Status::TooComplex,
            format!("the schema has {references} references; at most {MAX_REFERENCES} are allowed"),
        ));
    }
    Ok(TopLevelGrammar::from_json_schema(with_whitespace(schema)?))
}

/// The schema with our choice of whitespace, where its own `x-guidance` makes none.
fn with_whitespace(mut schema: Value) -> Result<Value, Failure> {
    let object = schema.as_object_mut().expect("made by the caller");
    let options = object.entry("x-guidance").or_insert_with(|| json!({}));
    let Some(options) = options.as_object_mut() else {
        return Err(failure(Status::Invalid, "x-guidance must be an object"));
    };
    if !options.contains_key("whitespace_pattern") && !options.contains_key("whitespace_flexible") {
        options.insert("whitespace_pattern".into(), json!(WHITESPACE));
    }
    if let Some(pattern) = options.get("whitespace_pattern").and_then(Value::as_str) {
        check_brackets(pattern)?;
    }
    Ok(schema)
}

fn choice_grammar(text: &str) -> Result<TopLevelGrammar, Failure> {
    let choices: Vec<String> = serde_json::from_str(text).map_err(|e| {
        failure(
            Status::Invalid,
            format!("the choices are not a JSON array of strings: {e}"),
        )
    })?;
    if choices.is_empty() {
        return Err(failure(Status::Invalid, "there is no choice to make"));
    }
    if choices.iter().any(String::is_empty) {
        return Err(failure(Status::Invalid, "a choice may not be empty"));
    }
    let any: Vec<String> = choices
        .iter()
        .map(|c| format!("/{}/", llguidance::regex_to_lark(&escape_regex(c), "")))
        .collect();
    Ok(TopLevelGrammar::from_lark(format!(
        "start: CHOICE\nCHOICE: {}\n",
        any.join(" | ")
    )))
}

/// `text` as a regex that matches it alone.
fn escape_regex(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$'
            | '#' | '&' | '-' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\x{{{:x}}}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// All of the text is to match in any case: a leading ^ and a closing $ change nothing and are not known to the engine.
fn unanchored(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    let Some(body) = regex.strip_suffix('$') else {
        return regex;
    };
    let escapes = body.len() - body.trim_end_matches('\\').len();
    if escapes % 2 == 0 {
        body
    } else {
        regex
    }
}

fn check_brackets(text: &str) -> Result<(), Failure> {
    let mut open = 0usize;
    for b in text.bytes() {
        match b {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_BRACKETS {
            return Err(failure(
                Status::TooComplex,
                format!("more than {MAX_BRACKETS} brackets are open at once"),
            ));
        }
    }
    Ok(())
}

impl Guide {
    /// Sets the bits of the tokens that may come next and clears all others. `Stuck` where there is none.
    pub fn mask(&mut self, bits: &mut [u32]) -> Result<(), Failure> {
        bits.fill(0);
        if self.stopped_well() {
            return Ok(());
        }
        let mask = without_panic(|| self.matcher.compute_mask().map_err(step_failure))?;
        let words = mask.as_slice();
        let n = words.len().min(bits.len());
        bits[..n].copy_from_slice(&words[..n]);
        Ok(())
    }

    fn stopped_well(&self) -> bool {
        matches!(
            self.matcher.stop_reason(),
            StopReason::NoExtension | StopReason::EndOfSentence
        )
    }

    pub fn accept(&mut self, tokens: &[u32]) -> Result<(), Failure> {
        let taken = without_panic(|| {
            self.matcher
                .try_consume_tokens(tokens)
                .map_err(step_failure)
        })?;
        if taken == tokens.len() {
            return Ok(());
        }
        Err(failure(
            Status::Rejected,
            format!("token {} does not fit the constraint", tokens[taken]),
        ))
    }

    /// Whether text may go on with `bytes`; `commit`: and it does.
    pub fn text(&mut self, bytes: &[u8], commit: bool) -> Result<(), Failure> {
        let rejected = || failure(Status::Rejected, "the text does not fit the constraint");
        let env = self.matcher.tok_env().map_err(step_failure)?;
        let tokens = env.tokenize_bytes(bytes);
        let spelled: usize = tokens.iter().map(|&t| env.tok_trie().token_len(t)).sum();
        if spelled != bytes.len() {
            return Err(rejected());
        }
        let valid = without_panic(|| self.matcher.validate_tokens(&tokens).map_err(step_failure))?;
        if valid < tokens.len() {
            return Err(rejected());
        }
        if commit {
            self.accept(&tokens)?;
        }
        Ok(())
    }

    /// The text so far may be all of it.
    pub fn accepting(&mut self) -> bool {
        if self.matcher.is_stopped() {
            return self.stopped_well();
        }
        without_panic(|| self.matcher.is_accepting().map_err(step_failure)).unwrap_or(false)
    }

    /// … and nothing can follow.
    pub fn complete(&self) -> bool {
        self.stopped_well()
    }
}

fn compile_failure(message: &str) -> Failure {
    let text = first_part(message);
    if text.starts_with("panic") {
        return failure(Status::Panic, "the compiler of constraints failed on it");
    }
    if says_too_complex(&text) {
        return failure(Status::TooComplex, text);
    }
    failure(Status::Invalid, text)
}

/// The parser names the reason in words alone: after an error its own state says no more.
fn step_failure(error: impl Display) -> Failure {
    let text = first_part(&error.to_string());
    if text.contains("NoExtension") {
        return failure(
            Status::Stuck,
            "no token of the vocabulary fits the constraint",
        );
    }
    if text.starts_with("panic") {
        return failure(Status::Panic, "the engine of constraints failed");
    }
    if says_too_complex(&text) {
        return failure(Status::TooComplex, text);
    }
    failure(Status::Panic, text)
}

fn says_too_complex(text: &str) -> bool {
    [
        "too large",
        "too complex",
        "TooComplex",
        "limit",
        "fuel",
        "exceeded",
        "too many",
        "too big",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// The sentence of an error, without the states and traces that may follow it.
fn first_part(message: &str) -> String {
    let cut = ["\n<state>", "\n<non-verbose", "\n<backtrace"]
        .iter()
        .filter_map(|mark| message.find(mark))
        .min()
        .unwrap_or(message.len());
    let text = message[..cut].trim();
    const MOST: usize = 600;
    if text.len() <= MOST {
        return text.to_string();
    }
    let end = (0..=MOST)
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}

/// Constraints come from strangers. What a panic leaves half changed is the guide it was about, which ends with it.
pub fn without_panic<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(failure(Status::Panic, "the engine of constraints failed")))
}

#[allow(dead_code)]
fn guides_move_between_threads() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Guide>();
    send::<Factory>();
    sync::<Factory>();
}
