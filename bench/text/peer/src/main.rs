//! text_peer encode TOKENIZER.json TEXT PROMPT-BYTES | decode TOKENIZER.json TEXT | template TEMPLATE CONTEXT.json
//! The crates called as a Rust program would; prints one JSON object of figures, in CPU seconds of the process.

use std::hint::black_box;

use serde_json::json;
use tokenizers_next::pipeline::{EncodeOptions, PipelineToken};

const WARM_ROUNDS: usize = 3;

/// CPU seconds of this process.
fn cpu() -> f64 {
    #[repr(C)]
    struct Time {
        seconds: i64,
        nanoseconds: i64,
    }
    extern "C" {
        fn clock_gettime(clock: i32, time: *mut Time) -> i32;
    }
    const PROCESS_CPU: i32 = 2;
    let mut t = Time {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: `t` is a timespec.
    unsafe { clock_gettime(PROCESS_CPU, &mut t) };
    t.seconds as f64 + t.nanoseconds as f64 * 1e-9
}

fn prompts(text: &str, size: usize) -> Vec<&str> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let mut end = (at + size).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        all.push(&text[at..end]);
        at = end;
    }
    all
}

/// FNV over all ids: both sides must have made the same.
fn digest(ids: &[u32], mut hash: u64) -> u64 {
    for id in ids {
        hash = (hash ^ u64::from(*id)).wrapping_mul(0x100_0000_01B3);
    }
    hash
}

/// The faster of the two crates that takes the file.
enum Crate {
    Fast(fastokens::Tokenizer),
    Next(tokenizers_next::pipeline::PipelineTokenizer),
}

impl Crate {
    fn load(path: &str) -> Crate {
        match fastokens::Tokenizer::from_file(std::path::Path::new(path)) {
            Ok(t) => Crate::Fast(t),
            Err(_) => Crate::Next(load_next(path)),
        }
    }

    fn encode(&self, text: &str, out: &mut Vec<PipelineToken>) -> Vec<u32> {
        match self {
            Crate::Fast(t) => t.encode(text).expect("encodes"),
            Crate::Next(t) => {
                out.clear();
                t.encode_into(text, &EncodeOptions::no_specials(), out)
                    .expect("encodes");
                PipelineToken::cast_slice(out).to_vec()
            }
        }
    }
}

fn load_next(path: &str) -> tokenizers_next::pipeline::PipelineTokenizer {
    let json = std::fs::read_to_string(path).expect("the file");
    let json = tokenizers_next::canonicalize_str(&json).expect("a tokenizer.json");
    tokenizers_next::from_json(&json).expect("a tokenizer.json")
}

fn encode(file: &str, text: &str, size: usize) -> serde_json::Value {
    let tokenizer = Crate::load(file);
    let text = std::fs::read_to_string(text).expect("the text");
    let prompts = prompts(&text, size);
    let mut buffer = Vec::new();
    let mut hash = 0xCBF2_9CE4_8422_2325;
    let mut tokens = 0;
    tokenizer.encode("a", &mut buffer);
    let begin = cpu();
    for p in &prompts {
        let ids = tokenizer.encode(black_box(p), &mut buffer);
        tokens += ids.len();
        black_box(&ids);
    }
    let cold = cpu() - begin;
    let begin = cpu();
    for _ in 0..WARM_ROUNDS {
        for p in &prompts {
            black_box(tokenizer.encode(black_box(p), &mut buffer));
        }
    }
    let warm = (cpu() - begin) / WARM_ROUNDS as f64;
    for p in &prompts {
        hash = digest(&tokenizer.encode(p, &mut buffer), hash);
    }
    json!({"bytes": text.len(), "tokens": tokens, "cold": cold, "warm": warm, "digest": hash.to_string()})
}

/// As servers stream: a token at a time, each step's new text.
fn decode(file: &str, text: &str) -> serde_json::Value {
    let tokenizer = load_next(file);
    let text = std::fs::read_to_string(text).expect("the text");
    let mut ids = Vec::new();
    tokenizer
        .encode_into(&text, &EncodeOptions::no_specials(), &mut ids)
        .expect("encodes");
    let begin = cpu();
    let mut stream = tokenizer.decode_stream(true);
    for id in PipelineToken::cast_slice(&ids) {
        black_box(stream.step(*id).expect("decodes"));
    }
    json!({"tokens": ids.len(), "seconds": cpu() - begin})
}

fn template(source: &str, context: &str) -> serde_json::Value {
    let source = std::fs::read_to_string(source).expect("the template");
    let context = std::fs::read_to_string(context).expect("the context");
    let mut env = minijinja::Environment::new();
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    env.set_syntax(syntax.expect("a syntax"));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_global("bos_token", "<s>");
    env.add_global("eos_token", "</s>");
    env.add_function(
        "raise_exception",
        |m: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(
                minijinja::ErrorKind::InvalidOperation,
                m,
            ))
        },
    );
    env.add_function("strftime_now", |_: String| "26 Jul 2024".to_string());
    env.add_template("chat", &source).expect("compiles");
    let compiled = env.get_template("chat").expect("is there");
    let render = || {
        let context: minijinja::Value = serde_json::from_str(&context).expect("JSON");
        compiled.render(context).expect("renders")
    };
    let text = render();
    let mut best = f64::MAX;
    for _ in 0..20 {
        const TIMES: usize = 200;
        let begin = cpu();
        for _ in 0..TIMES {
            black_box(render());
        }
        best = best.min((cpu() - begin) / TIMES as f64);
    }
    json!({"bytes": text.len(), "seconds": best, "digest": digest(&text.bytes().map(u32::from).collect::<Vec<_>>(), 0xCBF2_9CE4_8422_2325).to_string()})
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let a: Vec<&str> = a.iter().map(String::as_str).collect();
    let figures = match a[1..] {
        ["encode", file, text, size] => encode(file, text, size.parse().expect("a size")),
        ["decode", file, text] => decode(file, text),
        ["template", source, context] => template(source, context),
        _ => panic!("usage: text_peer encode|decode|template …"),
    };
    println!("{figures}");
}
