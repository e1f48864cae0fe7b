//! What every token stands for: one flat table, made from the model's vocabulary and the steps of its decoder.

use serde_json::Value;
use tokenizers::Decoder as _;

/// Where a token's texts lie in `Vocabulary::text`. As the header says.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Entry {
    pub bytes_at: u32,
    pub bytes_size: u32,
    pub spelling_at: u32,
    pub spelling_size: u32,
    pub first_at: u32,
    pub first_size: u32,
    pub control: bool,
    pub known: bool,
}

#[derive(Default)]
pub struct Vocabulary {
    pub text: Vec<u8>,
    pub entries: Vec<Entry>,
}

enum Step {
    ByteLevel,
    ByteFallback,
    /// Every character replaced by a space; none of them where the token begins a text, if `drops_first`.
    Metaspace {
        replacement: char,
        drops_first: bool,
    },
    WordPiece {
        prefix: String,
        cleanup: bool,
    },
    Suffix(String),
    Replace(Box<tokenizers::decoders::DecoderWrapper>),
    /// Cut from the ends of every token, before tokens are joined.
    StripToken(Box<tokenizers::decoders::DecoderWrapper>),
    /// Cut from the beginning of the whole text, after tokens are joined.
    StripText {
        content: char,
        count: usize,
    },
}

pub struct Decoder {
    steps: Vec<Step>,
    /// There is no decoder: tokens are joined by spaces.
    spaced: bool,
}

impl Decoder {
    pub fn parse(decoder: &Value) -> Result<Decoder, String> {
        let mut parsed = Decoder {
            steps: Vec::new(),
            spaced: decoder.is_null(),
        };
        let mut joined = false;
        parsed.add(decoder, &mut joined)?;
        Ok(parsed)
    }

    fn add(&mut self, node: &Value, joined: &mut bool) -> Result<(), String> {
        if node.is_null() {
            return Ok(());
        }
        let character = |name: &str, default: char| -> Result<char, String> {
            match node.get(name) {
                None => Ok(default),
                Some(v) => v
                    .as_str()
                    .and_then(|s| s.chars().next())
                    .ok_or_else(|| format!("a decoder's '{name}' is not a character")),
            }
        };
        let text = |name: &str, default: &str| node[name].as_str().unwrap_or(default).to_string();
        let own = || -> Result<Box<tokenizers::decoders::DecoderWrapper>, String> {
            serde_json::from_value(node.clone())
                .map(Box::new)
                .map_err(|e| format!("its decoder can't be read: {e}"))
        };
        let kind = node["type"].as_str().unwrap_or("");
        let step = match kind {
            "Sequence" => {
                for item in node["decoders"].as_array().into_iter().flatten() {
                    self.add(item, joined)?;
                }
                return Ok(());
            }
            "Fuse" => {
                *joined = true;
                return Ok(());
            }
            "ByteLevel" => {
                *joined = true;
                Step::ByteLevel
            }
            "ByteFallback" => Step::ByteFallback,
            "Metaspace" => Step::Metaspace {
                replacement: character("replacement", '▁')?,
                drops_first: match node["prepend_scheme"].as_str() {
                    Some(scheme) => scheme != "never",
                    None => node["add_prefix_space"].as_bool().unwrap_or(true),
                },
            },
            "WordPiece" => Step::WordPiece {
                prefix: text("prefix", "##"),
                cleanup: node["cleanup"].as_bool().unwrap_or(true),
            },
            "BPEDecoder" => Step::Suffix(text("suffix", "</w>")),
            "Replace" => Step::Replace(own()?),
            "Strip" if *joined => Step::StripText {
                content: character("content", ' ')?,
                count: node["start"].as_u64().unwrap_or(0).min(1 << 10) as usize,
            },
            "Strip" => Step::StripToken(own()?),
            other => {
                return Err(format!(
                    "decoders of the type {other:?} are not supported, only ByteLevel, ByteFallback, Metaspace, \
                     WordPiece, BPEDecoder, Replace, Strip, Fuse and sequences of them"
                ))
            }
        };
        self.steps.push(step);
        Ok(())
    }

    /// Whether a token may stand for something else where it begins a text.
    fn minds_beginnings(&self) -> bool {
        let minds = |step: &Step| {
            matches!(
                step,
                Step::Metaspace { .. } | Step::WordPiece { .. } | Step::StripText { .. }
            )
        };
        self.spaced || self.steps.iter().any(minds)
    }

    /// The bytes of one token in the middle of a text, or at its beginning.
    fn apply(&self, token: &str, first: bool, alphabet: &Alphabet) -> Vec<u8> {
        let mut text = token.to_string();
        if self.spaced && !first {
            text.insert(0, ' ');
        }
        let mut bytes: Option<Vec<u8>> = None;
        for step in &self.steps {
            match step {
                Step::ByteLevel => {
                    let raw: Option<Vec<u8>> = text.chars().map(|c| alphabet.byte(c)).collect();
                    bytes = Some(raw.unwrap_or_else(|| text.as_bytes().to_vec()));
                }
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        bytes = Some(vec![byte]);
                    }
                }
                Step::StripText { content, count } => {
                    if !first {
                        continue;
                    }
                    match &mut bytes {
                        Some(b) => {
                            if content.is_ascii()
                                && *count > 0
                                && b.first() == Some(&(*content as u8))
                            {
                                b.remove(0);
                            }
                        }
                        None => {
                            for _ in 0..*count {
                                match text.strip_prefix(*content) {
                                    Some(rest) => text = rest.to_string(),
                                    None => break,
                                }
                            }
                        }
                    }
                }
                // Bytes are final but for what is cut from the beginning of the text.
                _ if bytes.is_some() => {}
                Step::Metaspace {
                    replacement,
                    drops_first,
                } => {
                    let with = if first && *drops_first { "" } else { " " };
                    text = text.replace(*replacement, with);
                }
                Step::WordPiece { prefix, cleanup } => {
                    if !first {
                        text = match text.strip_prefix(prefix.as_str()) {
                            Some(rest) => rest.to_string(),
                            None => format!(" {text}"),
                        };
                    }
                    if *cleanup {
                        text = tokenizers::decoders::wordpiece::cleanup(&text);
                    }
                }
                Step::Suffix(suffix) => {
                    if !suffix.is_empty() {
                        text = text.replace(suffix.as_str(), " ");
                    }
                }
                Step::Replace(decoder) | Step::StripToken(decoder) => {
                    if !text.is_empty() {
                        if let Ok(tokens) = decoder.decode_chain(vec![std::mem::take(&mut text)]) {
                            text = tokens.concat();
                        }
                    }
                }
            }
        }
        bytes.unwrap_or_else(|| text.into_bytes())
    }
}

fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (token.len() == 6)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Which byte each character of a byte-level vocabulary stands for: printable Latin-1 for itself, the others from U+0100
/// on (as GPT-2 has it).
pub struct Alphabet([Option<u8>; 0x144]);

impl Alphabet {
    pub fn new() -> Alphabet {
        let mut bytes = [None; 0x144];
        let mut next = 0x100;
        for byte in 0..=255u8 {
            if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
                bytes[usize::from(byte)] = Some(byte);
            } else {
                bytes[next] = Some(byte);
                next += 1;
            }
        }
        Alphabet(bytes)
    }

    fn byte(&self, character: char) -> Option<u8> {
        self.0.get(character as usize).copied().flatten()
    }
}

impl Vocabulary {
    pub fn new(id_bound: usize) -> Vocabulary {
        Vocabulary {
            text: Vec::new(),
            entries: vec![Entry::default(); id_bound],
        }
    }

    fn append(&mut self, bytes: &[u8]) -> (u32, u32) {
        let at = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        (at, bytes.len() as u32)
    }

    /// `control`: a special token, which is no text.
    pub fn set(
        &mut self,
        id: usize,
        name: &str,
        control: bool,
        decoder: &Decoder,
        alphabet: &Alphabet,
    ) {
        let mut entry = Entry {
            control,
            known: true,
            ..Entry::default()
        };
        if control {
            (entry.spelling_at, entry.spelling_size) = self.append(name.as_bytes());
            self.entries[id] = entry;
            return;
        }
        let bytes = decoder.apply(name, false, alphabet);
        let first = if decoder.minds_beginnings() {
            decoder.apply(name, true, alphabet)
        } else {
            bytes.clone()
        };
        // One stretch of text serves both where one ends the other.
        if bytes.ends_with(&first) {
            (entry.bytes_at, entry.bytes_size) = self.append(&bytes);
            entry.first_at = entry.bytes_at + (bytes.len() - first.len()) as u32;
            entry.first_size = first.len() as u32;
        } else {
            (entry.bytes_at, entry.bytes_size) = self.append(&bytes);
            (entry.first_at, entry.first_size) = self.append(&first);
        }
        if !bytes.is_empty() && std::str::from_utf8(&bytes).is_ok() {
            (entry.spelling_at, entry.spelling_size) = (entry.bytes_at, entry.bytes_size);
        } else {
            (entry.spelling_at, entry.spelling_size) = self.append(name.as_bytes());
        }
        self.entries[id] = entry;
    }

    pub fn bytes(&self, id: usize) -> &[u8] {
        let e = &self.entries[id];
        &self.text[e.bytes_at as usize..][..e.bytes_size as usize]
    }
}
