//! C ABI of guide.rs. The contract is in include/stator_guide.h.

use std::os::raw::c_char;

use crate::guide::{without_panic, Factory, Failure, Guide, Status, TokenKind};
use crate::{bytes, owned_text, StatorText};

/// # Safety
/// As the header says: `ends` and `kinds` have `tokens` elements, `bytes` the last of `ends`.
#[no_mangle]
pub unsafe extern "C" fn stator_guides_new(
    vocabulary: *const c_char,
    ends: *const u64,
    kinds: *const u8,
    tokens: u32,
    factory: *mut *mut Factory,
    text: *mut StatorText,
) -> Status {
    *factory = std::ptr::null_mut();
    let n = tokens as usize;
    let (ends, kinds): (&[u64], &[u8]) = if n == 0 {
        (&[], &[])
    } else {
        (
            std::slice::from_raw_parts(ends, n),
            std::slice::from_raw_parts(kinds, n),
        )
    };
    let all = bytes(vocabulary, ends.last().copied().unwrap_or(0) as usize);
    let made = without_panic(|| {
        let mut words = Vec::with_capacity(n);
        let mut from = 0usize;
        for (&end, &kind) in ends.iter().zip(kinds) {
            let kind = match kind {
                0 => TokenKind::Text,
                1 => TokenKind::Special,
                2 => TokenKind::End,
                _ => TokenKind::Unused,
            };
            words.push((kind, &all[from..end as usize]));
            from = end as usize;
        }
        Factory::new(words)
    });
    give(made, factory, text)
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn stator_guide_compile(
    factory: *const Factory,
    kind: u32,
    constraint: *const c_char,
    constraint_size: usize,
    guide: *mut *mut Guide,
    text: *mut StatorText,
) -> Status {
    *guide = std::ptr::null_mut();
    let factory = &*factory;
    let source = bytes(constraint, constraint_size);
    let made = without_panic(|| match std::str::from_utf8(source) {
        Ok(source) => factory.compile(kind, source),
        Err(_) => Err(Failure {
            status: Status::Invalid,
            message: "the constraint is not UTF-8".into(),
        }),
    });
    give(made, guide, text)
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn stator_guide_clone(guide: *const Guide) -> *mut Guide {
    let guide = &*guide;
    match without_panic(|| Ok(Box::new(guide.clone()))) {
        Ok(copy) => Box::into_raw(copy),
        Err(_) => std::ptr::null_mut(),
    }
}

/// # Safety
/// As the header says; `bits` has `words` elements.
#[no_mangle]
pub unsafe extern "C" fn stator_guide_mask(
    guide: *mut Guide,
    bits: *mut u32,
    words: usize,
    text: *mut StatorText,
) -> Status {
    let bits = if words == 0 {
        &mut []
    } else {
        std::slice::from_raw_parts_mut(bits, words)
    };
    tell((*guide).mask(bits), text)
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn stator_guide_accept(
    guide: *mut Guide,
    token: u32,
    text: *mut StatorText,
) -> Status {
    tell((*guide).accept(&[token]), text)
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn stator_guide_text(
    guide: *mut Guide,
    data: *const c_char,
    size: usize,
    commit: i32,
    text: *mut StatorText,
) -> Status {
    let guide = &mut *guide;
    let data = bytes(data, size);
    tell(without_panic(|| guide.text(data, commit != 0)), text)
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn stator_guide_state(guide: *mut Guide) -> i32 {
    let guide = &mut *guide;
    if guide.complete() {
        2
    } else {
        i32::from(guide.accepting())
    }
}

/// # Safety
/// `guide` came from this crate, or is null; it is not used any more.
#[no_mangle]
pub unsafe extern "C" fn stator_guide_free(guide: *mut Guide) {
    if !guide.is_null() {
        drop(Box::from_raw(guide));
    }
}

/// # Safety
/// `factory` came from this crate, or is null; it is not used any more. Guides made by it may outlive it.
#[no_mangle]
pub unsafe extern "C" fn stator_guides_free(factory: *mut Factory) {
    if !factory.is_null() {
        drop(Box::from_raw(factory));
    }
}

unsafe fn give<T>(made: Result<T, Failure>, to: *mut *mut T, text: *mut StatorText) -> Status {
    match made {
        Ok(value) => {
            *to = Box::into_raw(Box::new(value));
            *text = owned_text(Vec::new(), 0);
            Status::Ok
        }
        Err(f) => tell(Err(f), text),
    }
}

unsafe fn tell(result: Result<(), Failure>, text: *mut StatorText) -> Status {
    match result {
        Ok(()) => {
            *text = owned_text(Vec::new(), 0);
            Status::Ok
        }
        Err(f) => {
            *text = owned_text(f.message.into_bytes(), 0);
            f.status
        }
    }
}
