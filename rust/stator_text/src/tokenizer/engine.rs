//! The three crates behind one call.

use std::panic::{catch_unwind, AssertUnwindSafe};

use serde_json::Value;
use tokenizers_next::pipeline::{EncodeOptions, PipelineToken, PipelineTokenizer};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Fast,
    Next,
    Stable,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fast => "fastokens",
            Kind::Next => "tokenizers-next",
            Kind::Stable => "tokenizers",
        }
    }
}

pub enum Engine {
    Fast(Box<fastokens::Tokenizer>),
    Next(PipelineTokenizer),
    Stable(Box<tokenizers::Tokenizer>),
}

thread_local! {
    /// Ids on their way to the caller; kept, so that a call allocates nothing of its own.
    static IDS: std::cell::RefCell<Vec<PipelineToken>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// What a thread keeps of that buffer between calls.
const KEPT_IDS: usize = 1 << 18;

impl Engine {
    /// A panic while building is an error like any other: files come from strangers.
    pub fn build(kind: Kind, value: Value) -> Result<Engine, String> {
        without_panic(move || match kind {
            Kind::Fast => {
                keep_fastokens_to_one_thread();
                let mut value = value;
                fill_holes(&mut value);
                fastokens::Tokenizer::from_json(value)
                    .map(|t| Engine::Fast(Box::new(t)))
                    .map_err(|e| e.to_string())
            }
            Kind::Next => {
                let mut value = value;
                tokenizers_next::canonicalize_value(&mut value).map_err(|e| e.to_string())?;
                let text = value.to_string();
                drop(value);
                tokenizers_next::from_json(&text)
                    .map(Engine::Next)
                    .map_err(|e| e.to_string())
            }
            Kind::Stable => serde_json::from_value::<tokenizers::Tokenizer>(value)
                .map(|t| Engine::Stable(Box::new(t)))
                .map_err(|e| e.to_string()),
        })
    }

    pub fn kind(&self) -> Kind {
        match self {
            Engine::Fast(_) => Kind::Fast,
            Engine::Next(_) => Kind::Next,
            Engine::Stable(_) => Kind::Stable,
        }
    }

    /// Hands the ids of `text`, added tokens recognised, to `sink` in one piece.
    pub fn encode(&self, text: &str, sink: &mut dyn FnMut(&[u32])) -> Result<(), String> {
        without_panic(|| match self {
            Engine::Fast(t) => {
                let ids = t.encode(text).map_err(|e| e.to_string())?;
                sink(&ids);
                Ok(())
            }
            Engine::Next(t) => IDS.with(|ids| {
                let mut ids = ids.take();
                ids.clear();
                let options = EncodeOptions::no_specials();
                let done = t.encode_into(text, &options, &mut ids);
                if done.is_ok() {
                    sink(PipelineToken::cast_slice(&ids));
                }
                ids.shrink_to(KEPT_IDS);
                IDS.with(|kept| *kept.borrow_mut() = ids);
                done.map_err(|e| e.to_string())
            }),
            Engine::Stable(t) => {
                let encoding = t.encode_fast(text, false).map_err(|e| e.to_string())?;
                sink(encoding.get_ids());
                Ok(())
            }
        })
    }

    pub fn ids(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut all = Vec::new();
        self.encode(text, &mut |ids| all.extend_from_slice(ids))?;
        Ok(all)
    }
}

thread_local! {
    /// Panics on this thread become errors; nothing is printed for them.
    static CAUGHT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

pub fn without_panic<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                others(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    CAUGHT.set(outer);
    result.unwrap_or_else(|cause| {
        let what = cause
            .downcast_ref::<&str>()
            .map(|s| s.to_string())
            .or_else(|| cause.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(format!("it panicked: {what}"))
    })
}

/// fastokens takes no vocabulary with holes. Ids that no token has get one that no text can give: it begins with a
/// noncharacter and no merge makes it. (What it would stand for matters to nobody: decoding is done from our own table.)
fn fill_holes(value: &mut Value) {
    const MOST: usize = 4096;
    // Only there is it certain that no text holds it: what the model sees is written in an alphabet of 256 characters.
    if !value["pre_tokenizer"].to_string().contains("\"ByteLevel\"") {
        return;
    }
    let Some(vocab) = value["model"]["vocab"].as_object_mut() else {
        return;
    };
    let ids: Vec<usize> = vocab
        .values()
        .filter_map(|id| id.as_u64().map(|id| id as usize))
        .collect();
    let bound = ids.iter().max().map_or(0, |most| most + 1);
    if bound == ids.len() || bound > ids.len() + MOST {
        return;
    }
    let mut taken = vec![false; bound];
    ids.iter().for_each(|id| taken[*id] = true);
    for hole in (0..bound).filter(|id| !taken[*id]) {
        vocab.insert(format!("\u{10FFFE}{hole}\u{10FFFE}"), hole.into());
    }
}

/// fastokens spreads long texts over a pool of threads of its own, one per core it may run on. The threads that encode are
/// the caller's to count, so the pool is set up (once per process) by a thread that may run on one core only: it then has
/// no threads.
fn keep_fastokens_to_one_thread() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let alone = std::thread::Builder::new().spawn(|| {
            if affinity::keep_to_first_core() {
                fastokens::fanout::threads();
            }
        });
        let _ = alone.map(std::thread::JoinHandle::join);
    });
}

mod affinity {
    const BYTES: usize = 1024;
    extern "C" {
        fn sched_getaffinity(pid: i32, size: usize, mask: *mut u8) -> i32;
        fn sched_setaffinity(pid: i32, size: usize, mask: *const u8) -> i32;
    }

    /// The calling thread alone.
    pub fn keep_to_first_core() -> bool {
        let mut mask = [0u8; BYTES];
        // SAFETY: both calls get a mask of the size they are told.
        unsafe {
            if sched_getaffinity(0, BYTES, mask.as_mut_ptr()) < 0 {
                return false;
            }
            let Some(at) = mask.iter().position(|byte| *byte != 0) else {
                return false;
            };
            let first = mask[at] & mask[at].wrapping_neg();
            mask = [0; BYTES];
            mask[at] = first;
            sched_setaffinity(0, BYTES, mask.as_ptr()) == 0
        }
    }
}
