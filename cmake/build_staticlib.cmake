# Run at build time: cmake -DCARGO= -DRUSTC= -DMANIFEST= -DTARGET_DIR= -DOUT= -DPACKAGE= -P build_staticlib.cmake
# Builds a crate of the workspace in rust/ and copies its archive or program to OUT, holding a lock on the target folder
# meanwhile.
file(MAKE_DIRECTORY "${TARGET_DIR}")
file(LOCK "${TARGET_DIR}/.stator-lock" GUARD PROCESS TIMEOUT 1800)
# Cargo takes the crate of another checkout for this one, where that was built last and after this one's files were
# written: its own record of our crate goes, those of the crates below stay.
file(GLOB records "${TARGET_DIR}/release/.fingerprint/stator_text-*")
if(records)
  file(REMOVE_RECURSE ${records})
endif()
execute_process(
  COMMAND "${CMAKE_COMMAND}" -E env "RUSTC=${RUSTC}" "${CARGO}" build --release --locked --offline -p ${PACKAGE}
          --manifest-path "${MANIFEST}" --target-dir "${TARGET_DIR}"
  RESULT_VARIABLE rc)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "cargo build of ${PACKAGE} failed (its messages are above).")
endif()
get_filename_component(folder "${OUT}" DIRECTORY)
get_filename_component(name "${OUT}" NAME)
file(MAKE_DIRECTORY "${folder}")
configure_file("${TARGET_DIR}/release/${name}" "${OUT}.tmp" COPYONLY)
file(RENAME "${OUT}.tmp" "${OUT}")
file(TOUCH "${OUT}")
