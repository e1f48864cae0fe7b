//! C ABI over minijinja, linked into the stator program as a static library.
