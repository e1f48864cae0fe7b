# Writes the commit into a header's twin source only when it changed, so that a new commit recompiles one file.
find_package(Git QUIET)
add_custom_target(stator_version_stamp
  COMMAND ${CMAKE_COMMAND} -DOUT=${PROJECT_BINARY_DIR}/version/stator_version.cc
          -DVERSION=${PROJECT_VERSION} -DGIT=${GIT_EXECUTABLE} -DSRC=${PROJECT_SOURCE_DIR}
          -P ${PROJECT_SOURCE_DIR}/cmake/write_version.cmake
  BYPRODUCTS ${PROJECT_BINARY_DIR}/version/stator_version.cc)
add_library(stator_version STATIC ${PROJECT_BINARY_DIR}/version/stator_version.cc)
add_dependencies(stator_version stator_version_stamp)
target_link_libraries(stator_version PUBLIC stator_flags)
