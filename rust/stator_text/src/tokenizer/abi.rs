//! The C ABI of tokenizers. The contract is in include/stator_text.h.

use std::os::raw::{c_char, c_void};

use super::vocabulary::Entry;
use super::Tokenizer;
use crate::{bytes, owned_text, StatorText};

/// An added token's text lies in `text` of the facts' spelling of its id.
#[repr(C)]
pub struct StatorTokenizerFacts {
    entries: *const Entry,
    entry_count: usize,
    text: *const u8,
    text_size: usize,
    lead: *const u32,
    lead_count: usize,
    engine: *const c_char,
    engine_size: usize,
    note: *const c_char,
    note_size: usize,
    added_count: usize,
}

#[repr(C)]
pub struct StatorAddedToken {
    text: *const c_char,
    text_size: usize,
    id: u32,
    special: bool,
}

/// # Safety
/// As the header says; `tokenizer` and `message` are writable.
#[no_mangle]
pub unsafe extern "C" fn stator_tokenizer_load(
    json: *const c_char,
    json_size: usize,
    tokenizer: *mut *mut Tokenizer,
    message: *mut StatorText,
) -> i32 {
    *tokenizer = std::ptr::null_mut();
    match Tokenizer::load(bytes(json, json_size)) {
        Ok(loaded) => {
            *tokenizer = Box::into_raw(Box::new(loaded));
            *message = owned_text(Vec::new(), 0);
            0
        }
        Err(e) => {
            *message = owned_text(e.into_bytes(), 0);
            1
        }
    }
}

/// # Safety
/// As the header says; `tokenizer` came from stator_tokenizer_load and was not freed.
#[no_mangle]
pub unsafe extern "C" fn stator_tokenizer_facts(
    tokenizer: *const Tokenizer,
    facts: *mut StatorTokenizerFacts,
) {
    let t = &*tokenizer;
    let engine = t.engine().name();
    *facts = StatorTokenizerFacts {
        entries: t.vocabulary.entries.as_ptr(),
        entry_count: t.vocabulary.entries.len(),
        text: t.vocabulary.text.as_ptr(),
        text_size: t.vocabulary.text.len(),
        lead: t.lead.as_ptr(),
        lead_count: t.lead.len(),
        engine: engine.as_ptr().cast(),
        engine_size: engine.len(),
        note: t.note.as_ptr().cast(),
        note_size: t.note.len(),
        added_count: t.added.len(),
    };
}

/// # Safety
/// As for stator_tokenizer_facts; `index` is below `added_count`.
#[no_mangle]
pub unsafe extern "C" fn stator_tokenizer_added(
    tokenizer: *const Tokenizer,
    index: usize,
    token: *mut StatorAddedToken,
) {
    let added = &(&(*tokenizer).added)[index];
    *token = StatorAddedToken {
        text: added.text.as_ptr().cast(),
        text_size: added.text.len(),
        id: added.id,
        special: added.special,
    };
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn stator_tokenizer_encode(
    tokenizer: *const Tokenizer,
    text: *const c_char,
    text_size: usize,
    continues: bool,
    take: unsafe extern "C" fn(*mut c_void, *const u32, usize),
    context: *mut c_void,
    message: *mut StatorText,
) -> i32 {
    let done = (*tokenizer).encode(bytes(text, text_size), continues, &mut |ids| {
        take(context, ids.as_ptr(), ids.len());
    });
    match done {
        Ok(()) => {
            *message = owned_text(Vec::new(), 0);
            0
        }
        Err(e) => {
            *message = owned_text(e.into_bytes(), 0);
            1
        }
    }
}

/// # Safety
/// `tokenizer` came from stator_tokenizer_load, or is null; it is not used any more.
#[no_mangle]
pub unsafe extern "C" fn stator_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}
