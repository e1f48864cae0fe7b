# The Rust staticlib of rust/ as target `stator_rust`.
add_library(stator_rust INTERFACE)
