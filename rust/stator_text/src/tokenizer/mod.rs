//! Tokenizers of Hugging Face's tokenizer.json files. The crate `tokenizers` says what a text encodes to; two faster ones
//! are used for the models where they agree with it.

mod abi;
mod corpus;
mod engine;
mod file;
mod vocabulary;

use std::time::{Duration, Instant};

use engine::{without_panic, Engine, Kind};
use serde_json::Value;
use vocabulary::Vocabulary;

/// Far more than any real vocabulary takes; a file whose patterns backtrack without end is refused.
const MAX_CHECK_TIME: Duration = Duration::from_secs(20);
const MAX_TEXT_BYTES: usize = 1 << 30;

pub struct Added {
    pub id: u32,
    pub text: String,
    pub special: bool,
}

pub struct Tokenizer {
    engine: Engine,
    /// Encodes what goes on where another text ended; none where `engine` puts nothing in front of texts anyway.
    continued: Option<Engine>,
    pub vocabulary: Vocabulary,
    pub added: Vec<Added>,
    pub lead: Vec<u32>,
    /// Why no faster engine was taken; one clause per engine.
    pub note: String,
    first_bytes: Vec<u8>,
}

impl Tokenizer {
    pub fn load(json: &[u8]) -> Result<Tokenizer, String> {
        let loaded = apart(|| Self::load_file(json));
        release_free_memory();
        loaded
    }

    pub fn engine(&self) -> Kind {
        self.engine.kind()
    }

    fn load_file(json: &[u8]) -> Result<Tokenizer, String> {
        let mut file = file::File::parse(json)?;
        let lead = file::lead_ids(&file.value["post_processor"]);
        let decoder = vocabulary::Decoder::parse(&file.value["decoder"])?;
        let id_bound = file.id_bound;
        let value = file.take_for_encoding();
        let unprefixed = file::without_prefix(&value);

        // The copies that engines are built from are made here, on one thread, and used up on another, so that what they
        // leave behind lies together and not between the parts that stay.
        let (reference, mut taken) = std::thread::scope(|scope| {
            let copies = (value.clone(), unprefixed.clone());
            let fast = aside(scope, move || Engines::build(Kind::Fast, copies))?;
            let copies = (value.clone(), unprefixed.clone());
            let (model, decoder) = (&value["model"], &decoder);
            let reference = aside(scope, move || {
                Reference::make(copies, model, id_bound, decoder)
            })?;
            let fast = join(fast);
            Ok::<_, String>((join(reference)?, fast))
        })?;
        if let Some(id) = lead.iter().find(|id| **id as usize >= id_bound) {
            return Err(format!(
                "its post-processor uses the id {id}, which no token has"
            ));
        }

        let mut notes = Vec::new();
        let mut engines = None;
        for kind in [Kind::Fast, Kind::Next] {
            if kind == Kind::Next {
                let copies = (value.clone(), unprefixed.clone());
                taken = apart(move || Engines::build(kind, copies));
            }
            let built = std::mem::replace(&mut taken, Err(String::new()))
                .map_err(|e| format!("can't load it ({})", shortened(&e)));
            let agreed = built.and_then(|built| {
                apart(|| reference.check(&built))?;
                Ok(built)
            });
            match agreed {
                Ok(built) => {
                    engines = Some(built);
                    break;
                }
                Err(reason) => notes.push(format!("{} {reason}", kind.name())),
            }
        }
        let Reference {
            engines: stable,
            vocabulary,
            added,
            ..
        } = reference;
        let Engines {
            main: engine,
            continued,
        } = engines.unwrap_or(stable);
        let mut first_bytes: Vec<u8> = added.iter().filter_map(|t| t.text.bytes().next()).collect();
        first_bytes.sort_unstable();
        first_bytes.dedup();
        Ok(Tokenizer {
            engine,
            continued,
            vocabulary,
            added,
            lead,
            note: notes.join("; "),
            first_bytes,
        })
    }

    /// `continues`: the text goes on where another ended, so nothing is put in front of it.
    pub fn encode(
        &self,
        text: &[u8],
        continues: bool,
        sink: &mut dyn FnMut(&[u32]),
    ) -> Result<(), String> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!(
                "a text of {} bytes is too long to encode (at most {MAX_TEXT_BYTES})",
                text.len()
            ));
        }
        let text = std::str::from_utf8(text)
            .map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
        if text.is_empty() {
            return Ok(());
        }
        let Some(continued) = self.continued.as_ref().filter(|_| continues) else {
            return self.engine.encode(text, sink);
        };
        // What follows an added token is encoded as anywhere.
        let border = self.first_added(text).unwrap_or(text.len());
        if border > 0 {
            continued.encode(&text[..border], sink)?;
        }
        if border < text.len() {
            self.engine.encode(&text[border..], sink)?;
        }
        Ok(())
    }

    /// Where the first text of an added token begins.
    fn first_added(&self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        (0..bytes.len()).find(|&at| {
            self.first_bytes.binary_search(&bytes[at]).is_ok()
                && text.is_char_boundary(at)
                && self
                    .added
                    .iter()
                    .any(|t| bytes[at..].starts_with(t.text.as_bytes()))
        })
    }
}

/// What the stable crate makes of the file's list: it has the last word on ids.
fn added_tokens(stable: &Engine, id_bound: usize) -> Result<Vec<Added>, String> {
    let Engine::Stable(tokenizer) = stable else {
        return Ok(Vec::new());
    };
    let mut added: Vec<Added> = tokenizer
        .get_added_tokens_decoder()
        .into_iter()
        .map(|(id, token)| Added {
            id,
            special: token.special,
            text: token.content,
        })
        .collect();
    added.sort_by_key(|t| t.id);
    if let Some(t) = added.iter().find(|t| t.id as usize >= id_bound) {
        return Err(format!(
            "the added token {:?} would get the id {}, over all ids in the file",
            t.text, t.id
        ));
    }
    Ok(added)
}

type Ids = Result<Vec<u32>, String>;

/// One crate's encoders of a file.
struct Engines {
    main: Engine,
    continued: Option<Engine>,
}

impl Engines {
    /// From the file and from the file without what it puts in front of texts.
    fn build(kind: Kind, (file, unprefixed): (Value, Option<Value>)) -> Result<Engines, String> {
        Ok(Engines {
            main: Engine::build(kind, file)?,
            continued: match unprefixed {
                Some(value) => Some(Engine::build(kind, value)?),
                None => None,
            },
        })
    }
}

/// The stable crate, what it says of the vocabulary, and what it makes of the texts that are compared.
struct Reference {
    engines: Engines,
    vocabulary: Vocabulary,
    added: Vec<Added>,
    texts: Vec<String>,
    main: Vec<Ids>,
    continued: Vec<Ids>,
}

impl Reference {
    fn make(
        copies: (Value, Option<Value>),
        model: &Value,
        id_bound: usize,
        decoder: &vocabulary::Decoder,
    ) -> Result<Reference, String> {
        let engines = Engines::build(Kind::Stable, copies)?;
        let added = added_tokens(&engines.main, id_bound)?;
        let mut vocabulary = Vocabulary::new(id_bound);
        let alphabet = vocabulary::byte_alphabet();
        file::for_each_token(model, |text, id| {
            vocabulary.set(id as usize, text, false, decoder, &alphabet);
            Ok(())
        })?;
        for t in &added {
            vocabulary.set(t.id as usize, &t.text, t.special, decoder, &alphabet);
        }
        vocabulary.text.shrink_to_fit();
        let names: Vec<(String, bool)> =
            added.iter().map(|t| (t.text.clone(), t.special)).collect();
        let texts = corpus::texts(&vocabulary, &names);
        let main = expected(&engines.main, &texts)?;
        let continued = match &engines.continued {
            Some(engine) => expected(engine, &texts)?,
            None => Vec::new(),
        };
        Ok(Reference {
            engines,
            vocabulary,
            added,
            texts,
            main,
            continued,
        })
    }

    /// Whether other engines give the same ids.
    fn check(&self, engines: &Engines) -> Result<(), String> {
        agrees(&engines.main, &self.texts, &self.main)?;
        match &engines.continued {
            Some(engine) => agrees(engine, &self.texts, &self.continued),
            None => Ok(()),
        }
    }
}

fn expected(stable: &Engine, texts: &[String]) -> Result<Vec<Ids>, String> {
    let begin = Instant::now();
    texts
        .iter()
        .map(|text| {
            if begin.elapsed() > MAX_CHECK_TIME {
                return Err(format!(
                    "encoding some texts takes over {} s",
                    MAX_CHECK_TIME.as_secs()
                ));
            }
            Ok(stable.ids(text))
        })
        .collect()
}

fn agrees(engine: &Engine, texts: &[String], wanted: &[Ids]) -> Result<(), String> {
    let begin = Instant::now();
    for (text, wanted) in texts.iter().zip(wanted) {
        let same = match (engine.ids(text), wanted) {
            (Ok(ids), Ok(wanted)) => ids == *wanted,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        if !same {
            return Err(format!("differs on {:?}", shortened(text)));
        }
        if begin.elapsed() > MAX_CHECK_TIME {
            return Err("is too slow".into());
        }
    }
    Ok(())
}

type Aside<'scope, T> = std::thread::ScopedJoinHandle<'scope, Result<T, String>>;

/// Work on a thread of its own: what engines keep per thread (megabytes) goes with it.
fn aside<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: impl FnOnce() -> Result<T, String> + Send + 'scope,
) -> Result<Aside<'scope, T>, String> {
    const STACK_BYTES: usize = 16 << 20;
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn_scoped(scope, || without_panic(work))
        .map_err(|e| format!("no thread to load it on: {e}"))
}

/// aside(), waited for.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| aside(scope, work).and_then(join))
}

fn join<T>(work: Aside<'_, T>) -> Result<T, String> {
    work.join()
        .unwrap_or_else(|_| Err("loading it panicked".into()))
}

fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    let mut cut: String = text.chars().take(MOST).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// What loading leaves behind is given back to the system: it is several times what stays.
fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc's own; it may be called at any time from any thread.
        unsafe {
            malloc_trim(0);
        }
    }
}
