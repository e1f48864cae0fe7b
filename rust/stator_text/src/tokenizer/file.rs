//! A tokenizer.json, checked before any tokenizer crate sees it: ids and sizes are bounded, so that none of them takes
//! memory by what a lying file claims.

use serde_json::{json, Value};

/// The largest known are some 70 MB (a million tokens).
pub const MAX_FILE_BYTES: usize = 160 << 20;
/// Ids are indices of tables everywhere.
const MAX_VOCAB: usize = 1 << 21;
const MAX_ADDED_TOKENS: usize = 1 << 17;
const MAX_TOKEN_BYTES: usize = 1 << 14;
const MAX_REGEX_BYTES: usize = 1 << 14;
const MAX_WORD_CHARACTERS: u64 = 4096;

pub struct File {
    pub value: Value,
    /// One more than the highest id of the model and the added tokens.
    pub id_bound: usize,
}

impl File {
    pub fn parse(bytes: &[u8]) -> Result<File, String> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(format!(
                "it has {} bytes; at most {MAX_FILE_BYTES} are read",
                bytes.len()
            ));
        }
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|e| format!("it is not valid JSON: {e}"))?;
        let Some(fields) = value.as_object_mut() else {
            return Err("it is not a JSON object".into());
        };
        if !fields.get("model").is_some_and(Value::is_object) {
            return Err("it has no object 'model'".into());
        }
        // Not the encoder's business: prompts are neither cut nor padded, and what the template of the post-processor
        // puts in front is a fact that the caller uses.
        fields.insert("truncation".into(), Value::Null);
        fields.insert("padding".into(), Value::Null);
        let model = fields["model"].as_object_mut().expect("checked above");
        if model.contains_key("dropout") {
            model.insert("dropout".into(), Value::Null);
        }
        let longest_word = model
            .get("max_input_chars_per_word")
            .and_then(Value::as_u64);
        if longest_word.is_some_and(|n| n > MAX_WORD_CHARACTERS) {
            return Err(format!(
                "max_input_chars_per_word is over {MAX_WORD_CHARACTERS}"
            ));
        }
        check_patterns(&value)?;
        keep_marks_literal(&mut value);
        let id_bound = check_ids(&value)?;
        Ok(File { value, id_bound })
    }

    /// What the crates build their encoders from: without the parts that only matter after encoding.
    pub fn for_encoding(mut self) -> Value {
        self.value["post_processor"] = Value::Null;
        self.value["decoder"] = Value::Null;
        self.value
    }
}

/// Where text is folded before tokens of the kind `normalized` are looked for (to lower case, to compatible characters),
/// users could write marks in letters that the guard of special texts does not know. Such marks are looked for as they are
/// written, whatever the file says; ordinary added tokens stay as they are.
fn keep_marks_literal(value: &mut Value) {
    if !folds(&value["normalizer"]) {
        return;
    }
    for token in value["added_tokens"].as_array_mut().into_iter().flatten() {
        let text = token["content"].as_str().unwrap_or("");
        let special = token["special"] == Value::Bool(true);
        if (special || text.starts_with(['<', '['])) && token["normalized"] == Value::Bool(true) {
            token["normalized"] = Value::Bool(false);
        }
    }
}

/// Whether a normalizer does more than to write spaces in another way.
fn folds(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Sequence") => normalizer["normalizers"]
            .as_array()
            .is_some_and(|all| all.iter().any(folds)),
        Some("Replace") => normalizer["pattern"]["String"] != " ",
        Some("Prepend" | "Strip" | "ByteLevel") | None => false,
        Some(_) => true,
    }
}

/// Calls `f` with the texts and ids of the model's own vocabulary.
pub fn for_each_token<'a>(
    model: &'a Value,
    mut f: impl FnMut(&'a str, u64) -> Result<(), String>,
) -> Result<(), String> {
    match &model["vocab"] {
        Value::Object(vocab) => {
            for (text, id) in vocab {
                let id = id
                    .as_u64()
                    .ok_or_else(|| format!("the id of the token {text:?} is not a whole number"))?;
                f(text, id)?;
            }
            Ok(())
        }
        Value::Array(vocab) => {
            for (id, entry) in vocab.iter().enumerate() {
                let text = entry
                    .get(0)
                    .and_then(Value::as_str)
                    .ok_or_else(|| format!("entry {id} of the vocabulary has no text"))?;
                f(text, id as u64)?;
            }
            Ok(())
        }
        _ => Err("its model has no 'vocab'".into()),
    }
}

fn check_ids(value: &Value) -> Result<usize, String> {
    let mut bound = 0usize;
    let mut count = 0usize;
    let mut seen = vec![0u64; MAX_VOCAB / 64];
    for_each_token(&value["model"], |text, id| {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(format!("a token has {} bytes", text.len()));
        }
        if id >= MAX_VOCAB as u64 {
            return Err(format!(
                "the token {text:?} has the id {id}; ids go up to {}",
                MAX_VOCAB - 1
            ));
        }
        let id = id as usize;
        if seen[id / 64] & (1 << (id % 64)) != 0 {
            return Err(format!("two tokens have the id {id}"));
        }
        seen[id / 64] |= 1 << (id % 64);
        bound = bound.max(id + 1);
        count += 1;
        Ok(())
    })?;
    if count == 0 {
        return Err("its vocabulary is empty".into());
    }
    let none = Vec::new();
    let added = match &value["added_tokens"] {
        Value::Array(tokens) => tokens,
        Value::Null => &none,
        _ => return Err("'added_tokens' is not a list".into()),
    };
    if added.len() > MAX_ADDED_TOKENS {
        return Err(format!("it has {} added tokens", added.len()));
    }
    for token in added {
        let (Some(text), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) else {
            return Err("an added token lacks 'content' or 'id'".into());
        };
        if id >= MAX_VOCAB as u64 || text.len() > MAX_TOKEN_BYTES {
            return Err(format!(
                "the added token {:?} has the id {id} and {} bytes; ids go up to {}, texts to {MAX_TOKEN_BYTES} bytes",
                text.chars().take(40).collect::<String>(),
                text.len(),
                MAX_VOCAB - 1
            ));
        }
        bound = bound.max(id as usize + 1);
        count += 1;
    }
    if bound > 4 * count + (1 << 16) {
        return Err(format!(
            "its {count} tokens have ids up to {}: too many holes",
            bound - 1
        ));
    }
    Ok(bound)
}

/// Expressions are compiled as they come; only their size is bounded here.
fn check_patterns(value: &Value) -> Result<(), String> {
    for part in ["normalizer", "pre_tokenizer", "decoder"] {
        let mut pending = vec![&value[part]];
        while let Some(node) = pending.pop() {
            match node {
                Value::Array(items) => pending.extend(items),
                Value::Object(fields) => {
                    if let Some(regex) = fields.get("Regex").and_then(Value::as_str) {
                        if regex.len() > MAX_REGEX_BYTES {
                            return Err(format!("a pattern has {} bytes", regex.len()));
                        }
                    }
                    pending.extend(fields.values());
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The ids that the post-processor's template puts in front of a text.
pub fn lead_ids(post_processor: &Value) -> Vec<u32> {
    let id_of = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match post_processor["type"].as_str() {
        Some("Sequence") => post_processor["processors"]
            .as_array()
            .and_then(|all| all.iter().map(lead_ids).find(|ids| !ids.is_empty()))
            .unwrap_or_default(),
        Some("BertProcessing" | "RobertaProcessing") => {
            id_of(&post_processor["cls"][1]).into_iter().collect()
        }
        Some("TemplateProcessing") => {
            let mut ids = Vec::new();
            for item in post_processor["single"].as_array().into_iter().flatten() {
                let Some(name) = item["SpecialToken"]["id"].as_str() else {
                    break;
                };
                let special = &post_processor["special_tokens"][name]["ids"];
                ids.extend(special.as_array().into_iter().flatten().filter_map(id_of));
            }
            ids
        }
        _ => Vec::new(),
    }
}

/// The same tokenizer without what it puts in front of every text (a space, as SentencePiece does); null where it puts
/// nothing there.
pub fn without_prefix(value: &Value) -> Option<Value> {
    fn strip(node: &mut Value) -> bool {
        let mut changed = false;
        match node {
            Value::Array(items) => {
                for item in items {
                    changed |= strip(item);
                }
            }
            Value::Object(fields) => {
                let kind = fields.get("type").and_then(Value::as_str).unwrap_or("");
                match kind {
                    "Prepend" => {
                        *node = json!({"type": "Sequence", "normalizers": []});
                        return true;
                    }
                    "Metaspace" => {
                        let never = fields.get("prepend_scheme").and_then(Value::as_str)
                            == Some("never")
                            || (!fields.contains_key("prepend_scheme")
                                && fields.get("add_prefix_space") == Some(&Value::Bool(false)));
                        if !never {
                            fields.insert("prepend_scheme".into(), "never".into());
                            fields.insert("add_prefix_space".into(), false.into());
                            changed = true;
                        }
                    }
                    "ByteLevel" => {
                        if fields.get("add_prefix_space") != Some(&Value::Bool(false)) {
                            fields.insert("add_prefix_space".into(), false.into());
                            changed = true;
                        }
                    }
                    _ => {
                        for item in fields.values_mut() {
                            changed |= strip(item);
                        }
                    }
                }
            }
            _ => {}
        }
        changed
    }
    let mut normalizer = value["normalizer"].clone();
    let mut pre_tokenizer = value["pre_tokenizer"].clone();
    // A ByteLevel normalizer has no prefix to add.
    let changed_normalizer = strip(&mut normalizer) && has_prefix_step(&value["normalizer"]);
    if !changed_normalizer {
        normalizer = value["normalizer"].clone();
    }
    if !(strip(&mut pre_tokenizer) | changed_normalizer) {
        return None;
    }
    let mut copy = value.clone();
    copy["normalizer"] = normalizer;
    copy["pre_tokenizer"] = pre_tokenizer;
    Some(copy)
}

fn has_prefix_step(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Prepend" | "Metaspace") => true,
        Some("Sequence") => normalizer["normalizers"]
            .as_array()
            .is_some_and(|all| all.iter().any(has_prefix_step)),
        _ => false,
    }
}
