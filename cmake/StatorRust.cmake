# Cargo: finds it, fills in the lock file, and builds the Rust static library of rust/ as target `stator_rust`.
#
# rust/Cargo.lock.in is the committed lock: every crate with its version and sha256, but `@REGISTRY@` where cargo writes
# the registry's address, because that address differs where a mirror is configured. rust/Cargo.lock is made from it here
# and is not committed. `tools/update_cargo_lock` goes the other way after a dependency changed.

# Sets STATOR_CARGO and STATOR_RUSTC to a tool chain of at least 1.85. Debian's rustc-web and cargo-web packages install
# to /usr/bin, which an older rustup on PATH would hide: hence the pinned paths.
function(stator_find_cargo)
  set(seen "")
  find_program(path_cargo cargo NO_CACHE)
  foreach(cargo IN ITEMS "$ENV{CARGO}" "${path_cargo}" "$ENV{HOME}/.cargo/bin/cargo" /usr/bin/cargo)
    if(cargo STREQUAL "" OR NOT EXISTS "${cargo}")
      continue()
    endif()
    get_filename_component(bin "${cargo}" DIRECTORY)
    set(rustc "${bin}/rustc")
    execute_process(COMMAND "${rustc}" --version OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE
      RESULT_VARIABLE rc ERROR_QUIET)
    if(rc EQUAL 0 AND version MATCHES "^rustc ([0-9]+\\.[0-9]+)" AND NOT CMAKE_MATCH_1 VERSION_LESS 1.85)
      set(STATOR_CARGO "${cargo}" PARENT_SCOPE)
      set(STATOR_RUSTC "${rustc}" PARENT_SCOPE)
      set(STATOR_RUSTC_VERSION "${version}" PARENT_SCOPE)
      return()
    endif()
    list(APPEND seen "${cargo} (${version})")
  endforeach()
  list(JOIN seen ", " seen)
  message(FATAL_ERROR "No Rust tool chain of version 1.85 or newer was found (seen: ${seen}). "
    "Run `./dev setup`, or on Debian 12: apt-get install rustc-web cargo-web.")
endfunction()

# Fills rust/Cargo.lock from rust/Cargo.lock.in, with the registry's address as this machine's cargo names it.
function(stator_fill_cargo_lock)
  set(rust "${PROJECT_SOURCE_DIR}/rust")
  execute_process(
    COMMAND "${STATOR_CARGO}" metadata --no-deps --format-version 1 --manifest-path "${rust}/Cargo.toml"
    OUTPUT_VARIABLE json COMMAND_ERROR_IS_FATAL ANY)
  set(registry "")
  string(JSON packages LENGTH "${json}" packages)
  math(EXPR last "${packages} - 1")
  foreach(i RANGE ${last})
    string(JSON dependencies LENGTH "${json}" packages ${i} dependencies)
    if(dependencies GREATER 0)
      string(JSON registry GET "${json}" packages ${i} dependencies 0 source)
      break()
    endif()
  endforeach()
  if(NOT registry MATCHES "^(sparse|registry)\\+")
    message(FATAL_ERROR "cargo metadata named no registry for the first dependency in rust/ (it said: '${registry}').")
  endif()
  file(READ "${rust}/Cargo.lock.in" lock)
  string(REPLACE "@REGISTRY@" "${registry}" lock "${lock}")
  set(old "")
  if(EXISTS "${rust}/Cargo.lock")
    file(READ "${rust}/Cargo.lock" old)
  endif()
  if(NOT old STREQUAL lock)
    file(WRITE "${rust}/Cargo.lock.tmp" "${lock}")
    file(RENAME "${rust}/Cargo.lock.tmp" "${rust}/Cargo.lock")
  endif()
endfunction()

# Brings every locked crate into cargo's cache; cargo checks each against its sha256. Does nothing when they are there.
function(stator_fetch_crates)
  set(manifest "${PROJECT_SOURCE_DIR}/rust/Cargo.toml")
  execute_process(COMMAND "${STATOR_RUSTC}" -vV OUTPUT_VARIABLE verbose COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "host: ([^\n]+)" unused "${verbose}")
  set(host "${CMAKE_MATCH_1}")
  set(fetch "${CMAKE_COMMAND}" -E env "RUSTC=${STATOR_RUSTC}" "${STATOR_CARGO}" fetch --locked --target "${host}"
    --manifest-path "${manifest}")
  execute_process(COMMAND ${fetch} --offline RESULT_VARIABLE rc OUTPUT_QUIET ERROR_QUIET)
  if(NOT rc EQUAL 0)
    message(STATUS "Fetching the crates pinned in rust/Cargo.lock.in")
    execute_process(COMMAND ${fetch} RESULT_VARIABLE rc)
    if(NOT rc EQUAL 0)
      message(FATAL_ERROR "cargo fetch failed (its message is above). If it says that the lock file needs to be "
        "updated, a Cargo.toml under rust/ changed: run tools/update_cargo_lock and commit rust/Cargo.lock.in.")
    endif()
  endif()
  set(STATOR_RUST_HOST "${host}" PARENT_SCOPE)
endfunction()

# stator_crate_dir(<crate> <out>): the unpacked source folder of a locked crate.
function(stator_crate_dir crate out)
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env "RUSTC=${STATOR_RUSTC}" "${STATOR_CARGO}" metadata --format-version 1 --locked
            --offline --manifest-path "${PROJECT_SOURCE_DIR}/rust/Cargo.toml" --filter-platform "${STATOR_RUST_HOST}"
    OUTPUT_VARIABLE json COMMAND_ERROR_IS_FATAL ANY)
  string(JSON packages LENGTH "${json}" packages)
  math(EXPR last "${packages} - 1")
  foreach(i RANGE ${last})
    string(JSON name GET "${json}" packages ${i} name)
    if(name STREQUAL crate)
      string(JSON path GET "${json}" packages ${i} manifest_path)
      get_filename_component(dir "${path}" DIRECTORY)
      set(${out} "${dir}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "The crate ${crate} is not in rust/Cargo.lock.in.")
endfunction()

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/rust/Cargo.lock.in" "${PROJECT_SOURCE_DIR}/rust/Cargo.toml"
  "${PROJECT_SOURCE_DIR}/rust/stator_text/Cargo.toml" "${PROJECT_SOURCE_DIR}/rust/sources/Cargo.toml"
  "${PROJECT_SOURCE_DIR}/bench/text/peer/Cargo.toml")
stator_find_cargo()
file(LOCK "${STATOR_CACHE_DIR}/cargo.lock" GUARD FILE TIMEOUT 1800)
stator_fill_cargo_lock()
stator_fetch_crates()
file(LOCK "${STATOR_CACHE_DIR}/cargo.lock" RELEASE)

# The static library. One cargo target folder serves every preset of a checkout, so that the crates below ours are built
# once. Checkouts can't share one: cargo names what it builds by paths within the workspace, and takes another
# checkout's archive for fresh where that is the newer one.
string(SHA256 rust_key "${STATOR_RUSTC_VERSION} ${STATOR_RUST_HOST} ${PROJECT_SOURCE_DIR}")
string(SUBSTRING "${rust_key}" 0 12 rust_key)
set(STATOR_RUST_TARGET_DIR "${STATOR_CACHE_DIR}/rust-target-${rust_key}")
set(STATOR_RUST_ARCHIVE "${PROJECT_BINARY_DIR}/rust/libstator_text.a")
file(GLOB_RECURSE rust_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/rust/stator_text/src/*.rs")
set_property(GLOBAL APPEND PROPERTY JOB_POOLS cargo=1)
add_custom_command(
  OUTPUT "${STATOR_RUST_ARCHIVE}"
  COMMAND "${CMAKE_COMMAND}" -DCARGO=${STATOR_CARGO} -DRUSTC=${STATOR_RUSTC}
          -DMANIFEST=${PROJECT_SOURCE_DIR}/rust/Cargo.toml -DTARGET_DIR=${STATOR_RUST_TARGET_DIR}
          -DOUT=${STATOR_RUST_ARCHIVE} -DPACKAGE=stator_text -P "${PROJECT_SOURCE_DIR}/cmake/build_staticlib.cmake"
  DEPENDS ${rust_sources} "${PROJECT_SOURCE_DIR}/rust/Cargo.lock.in" "${PROJECT_SOURCE_DIR}/rust/Cargo.toml"
          "${PROJECT_SOURCE_DIR}/rust/stator_text/Cargo.toml" "${PROJECT_SOURCE_DIR}/cmake/build_staticlib.cmake"
  COMMENT "Building the Rust static library with cargo"
  JOB_POOL cargo VERBATIM)
add_custom_target(stator_rust_archive DEPENDS "${STATOR_RUST_ARCHIVE}")
add_library(stator_rust INTERFACE)
add_dependencies(stator_rust stator_rust_archive)
target_include_directories(stator_rust INTERFACE "${PROJECT_SOURCE_DIR}/rust/stator_text/include")
target_link_libraries(stator_rust INTERFACE "${STATOR_RUST_ARCHIVE}" Threads::Threads ${CMAKE_DL_LIBS} m)
