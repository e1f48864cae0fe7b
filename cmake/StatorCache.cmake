# Where built third-party code (llama.cpp, the Rust staticlib) and models are kept: outside the source tree, shared by
# all presets and checkouts, keyed by what went into each. Deleting the folder costs only the time to rebuild it.
if(DEFINED ENV{STATOR_CACHE})
  set(STATOR_CACHE_DIR "$ENV{STATOR_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(STATOR_CACHE_DIR "$ENV{XDG_CACHE_HOME}/stator")
else()
  set(STATOR_CACHE_DIR "$ENV{HOME}/.cache/stator")
endif()
file(MAKE_DIRECTORY "${STATOR_CACHE_DIR}")
