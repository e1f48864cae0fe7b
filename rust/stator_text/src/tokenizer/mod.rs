//! Tokenizers of Hugging Face's tokenizer.json files. The crate `tokenizers` says what a text encodes to; two faster ones
//! are used for the models where they agree with it.

mod abi;
mod corpus;
mod engine;
mod file;
mod vocabulary;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use engine::{without_panic, Engine, Kind};
use file::File;
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
    finder: AddedFinder,
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

    /// One engine at a time, each from the file's bytes: what building leaves behind is reused and not added up.
    fn load_file(json: &[u8]) -> Result<Tokenizer, String> {
        let (stable, reference) = Reference::make(json)?;
        drop(stable);
        let mut notes = Vec::new();
        let mut agreed = None;
        for kind in [Kind::Fast, Kind::Next] {
            let built = Engines::build(kind, json)
                .map_err(|e| format!("can't load it ({})", shortened(&e)))
                .and_then(|engines| reference.check(&engines).map(|()| engines));
            match built {
                Ok(engines) => {
                    agreed = Some(engines);
                    break;
                }
                Err(reason) => notes.push(format!("{} {reason}", kind.name())),
            }
        }
        let Engines {
            main: engine,
            continued,
        } = match agreed {
            Some(engines) => engines,
            None => Engines::build(Kind::Stable, json)?,
        };
        let Reference {
            vocabulary,
            added,
            lead,
            ..
        } = reference;
        let finder = AddedFinder::new(&added);
        Ok(Tokenizer {
            engine,
            continued,
            vocabulary,
            added,
            lead,
            note: notes.join("; "),
            finder,
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
        // Faster than the standard library's where characters have several bytes: there that takes a tenth of the encoding.
        let text = simdutf8::compat::from_utf8(text)
            .map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
        if text.is_empty() {
            return Ok(());
        }
        let Some(continued) = self.continued.as_ref().filter(|_| continues) else {
            return self.engine.encode(text, sink);
        };
        // What follows an added token is encoded as anywhere.
        let border = self.finder.first(text).unwrap_or(text.len());
        if border > 0 {
            continued.encode(&text[..border], sink)?;
        }
        if border < text.len() {
            self.engine.encode(&text[border..], sink)?;
        }
        Ok(())
    }
}

/// Finds texts of added tokens, in time that does not depend on how many there are.
struct AddedFinder {
    texts: HashSet<Vec<u8>>,
    lengths: Vec<usize>,
    begins: [bool; 256],
}

impl AddedFinder {
    fn new(added: &[Added]) -> AddedFinder {
        let mut finder = AddedFinder {
            texts: HashSet::new(),
            lengths: added.iter().map(|t| t.text.len()).collect(),
            begins: [false; 256],
        };
        finder.lengths.sort_unstable();
        finder.lengths.dedup();
        for text in added
            .iter()
            .map(|t| t.text.as_bytes())
            .filter(|t| !t.is_empty())
        {
            finder.begins[usize::from(text[0])] = true;
            finder.texts.insert(text.to_vec());
        }
        finder
    }

    /// Where the first of them begins.
    fn first(&self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        let is_text = |at: usize| {
            self.lengths.iter().any(|n| {
                bytes
                    .get(at..at + n)
                    .is_some_and(|s| self.texts.contains(s))
            })
        };
        (0..bytes.len()).find(|&at| self.begins[usize::from(bytes[at])] && is_text(at))
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
    fn build(kind: Kind, json: &[u8]) -> Result<Engines, String> {
        Self::of_file(kind, File::parse(json)?)
    }

    /// From the file and from the file without what it puts in front of texts.
    fn of_file(kind: Kind, file: File) -> Result<Engines, String> {
        let value = file.for_encoding();
        let unprefixed = file::without_prefix(&value);
        let main = Engine::build(kind, value)?;
        let continued = match unprefixed {
            Some(value) => Some(Engine::build(kind, value)?),
            None => None,
        };
        Ok(Engines { main, continued })
    }
}

/// What the stable crate says of a file: its vocabulary, and what it makes of the texts that are compared.
struct Reference {
    vocabulary: Vocabulary,
    added: Vec<Added>,
    lead: Vec<u32>,
    texts: Vec<String>,
    main: Vec<Ids>,
    continued: Vec<Ids>,
}

impl Reference {
    fn make(json: &[u8]) -> Result<(Engines, Reference), String> {
        let file = File::parse(json)?;
        let id_bound = file.id_bound;
        let lead = file::lead_ids(&file.value["post_processor"]);
        if let Some(id) = lead.iter().find(|id| **id as usize >= id_bound) {
            return Err(format!(
                "its post-processor uses the id {id}, which no token has"
            ));
        }
        let decoder = vocabulary::Decoder::parse(&file.value["decoder"])?;
        let alphabet = vocabulary::Alphabet::new();
        let mut vocabulary = Vocabulary::new(id_bound);
        file::for_each_token(&file.value["model"], |text, id| {
            vocabulary.set(id as usize, text, false, &decoder, &alphabet);
            Ok(())
        })?;
        let engines = Engines::of_file(Kind::Stable, file)?;
        let added = added_tokens(&engines.main, id_bound)?;
        for t in &added {
            vocabulary.set(t.id as usize, &t.text, t.special, &decoder, &alphabet);
        }
        vocabulary.text.shrink_to_fit();
        let names: Vec<&str> = added.iter().map(|t| t.text.as_str()).collect();
        let texts = corpus::texts(&vocabulary, &names);
        let main = expected(&engines.main, &texts)?;
        let continued = match &engines.continued {
            Some(engine) => expected(engine, &texts)?,
            None => Vec::new(),
        };
        let reference = Reference {
            vocabulary,
            added,
            lead,
            texts,
            main,
            continued,
        };
        Ok((engines, reference))
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

/// Work on a thread of its own: what engines keep per thread (megabytes) goes with it.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    const STACK_BYTES: usize = 16 << 20;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || without_panic(work))
            .map_err(|e| format!("no thread to load it on: {e}"))?
            .join()
            .unwrap_or_else(|_| Err("loading it panicked".into()))
    })
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
