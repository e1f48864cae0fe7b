//! C ABI over minijinja, the tokenizer crates and llguidance, linked into the stator program as a static library. The contracts
//! are in include/.

mod context;
mod generation;
mod guide;
mod guide_abi;
mod methods;
mod python;
mod template;
mod time;
mod tokenizer;

use std::os::raw::{c_char, c_void};
use std::slice;

use template::{Failure, Options, Status, Template};

#[repr(C)]
pub struct StatorText {
    data: *mut u8,
    size: usize,
    capacity: usize,
    line: u32,
}

#[repr(C)]
pub struct StatorTextView {
    data: *const c_char,
    size: usize,
}

#[repr(C)]
pub struct StatorTemplateOptions {
    bos_token: *const c_char,
    bos_token_size: usize,
    eos_token: *const c_char,
    eos_token_size: usize,
    max_steps: u64,
    max_output_bytes: u64,
}

/// # Safety
/// `data` points to `size` readable bytes, or `size` is 0.
unsafe fn bytes<'a>(data: *const c_char, size: usize) -> &'a [u8] {
    if data.is_null() || size == 0 {
        return &[];
    }
    slice::from_raw_parts(data.cast(), size)
}

fn owned_text(bytes: Vec<u8>, line: u32) -> StatorText {
    // Not shrunk to its size, which would copy it.
    let mut bytes = std::mem::ManuallyDrop::new(bytes);
    let capacity = bytes.capacity();
    StatorText {
        data: if capacity == 0 {
            std::ptr::null_mut()
        } else {
            bytes.as_mut_ptr()
        },
        size: bytes.len(),
        capacity,
        line,
    }
}

/// # Safety
/// As the header says; `compiled` and `text` are writable.
#[no_mangle]
pub unsafe extern "C" fn stator_template_compile(
    source: *const c_char,
    source_size: usize,
    options: *const StatorTemplateOptions,
    compiled: *mut *mut Template,
    text: *mut StatorText,
) -> Status {
    *compiled = std::ptr::null_mut();
    let options = &*options;
    let lossy = |data, size| String::from_utf8_lossy(bytes(data, size)).into_owned();
    let result = without_panic(|| {
        Template::compile(
            bytes(source, source_size),
            Options {
                bos_token: lossy(options.bos_token, options.bos_token_size),
                eos_token: lossy(options.eos_token, options.eos_token_size),
                max_steps: options.max_steps,
                max_output_bytes: options.max_output_bytes,
            },
        )
    });
    match result {
        Ok(template) => {
            *compiled = Box::into_raw(Box::new(template));
            *text = owned_text(Vec::new(), 0);
            Status::Ok
        }
        Err(failure) => report(failure, text),
    }
}

/// # Safety
/// As the header says; `compiled` came from stator_template_compile and was not freed.
#[no_mangle]
pub unsafe extern "C" fn stator_template_render(
    compiled: *const Template,
    context: *const c_char,
    context_size: usize,
    texts: *const StatorTextView,
    text_count: usize,
    unix_seconds: *const i64,
    append: unsafe extern "C" fn(*mut c_void, *const c_char, usize),
    to: *mut c_void,
    message: *mut StatorText,
) -> Status {
    let template = &*compiled;
    let views = if text_count == 0 {
        &[][..]
    } else {
        slice::from_raw_parts(texts, text_count)
    };
    match without_panic(|| {
        let texts: Vec<&[u8]> = views.iter().map(|t| bytes(t.data, t.size)).collect();
        template.render(
            bytes(context, context_size),
            &texts,
            unix_seconds.as_ref().copied(),
            &mut |piece| append(to, piece.as_ptr().cast(), piece.len()),
        )
    }) {
        Ok(()) => Status::Ok,
        Err(failure) => report(failure, message),
    }
}

/// Templates and contexts come from strangers. A panic on their account is an error like any other; what was borrowed is only
/// read, so nothing half-changed is left behind.
fn without_panic<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or_else(|_| {
        Err(Failure {
            status: Status::Panic,
            message: "the template engine failed".into(),
            line: 0,
        })
    })
}

unsafe fn report(failure: Failure, text: *mut StatorText) -> Status {
    *text = owned_text(failure.message.into_bytes(), failure.line);
    failure.status
}

/// # Safety
/// `compiled` came from stator_template_compile, or is null; it is not used any more.
#[no_mangle]
pub unsafe extern "C" fn stator_template_free(compiled: *mut Template) {
    if !compiled.is_null() {
        drop(Box::from_raw(compiled));
    }
}

/// # Safety
/// `text` came from this crate and was not freed.
#[no_mangle]
pub unsafe extern "C" fn stator_text_free(text: StatorText) {
    if !text.data.is_null() {
        drop(Vec::from_raw_parts(text.data, text.size, text.capacity));
    }
}
