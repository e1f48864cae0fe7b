# Compiler, linker, warnings and sanitizers. All of it is on the target `stator_flags`, which every room links, so that
# third-party code is never built with our flags.
set(CMAKE_CXX_FLAGS_DEV "-O1 -g" CACHE STRING "" FORCE)
set(CMAKE_C_FLAGS_DEV "-O1 -g" CACHE STRING "" FORCE)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG" CACHE STRING "" FORCE)
set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG" CACHE STRING "" FORCE)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

add_library(stator_flags INTERFACE)
target_include_directories(stator_flags INTERFACE "${PROJECT_SOURCE_DIR}")
target_compile_options(stator_flags INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough -Wunused-result
  -Werror=switch -Werror=return-type
  -fno-omit-frame-pointer -fdata-sections -ffunction-sections
  $<$<BOOL:${STATOR_WERROR}>:-Werror>)
target_link_options(stator_flags INTERFACE -fuse-ld=lld-19 -Wl,--gc-sections)

if(STATOR_SANITIZE)
  target_compile_options(stator_flags INTERFACE -fsanitize=${STATOR_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(stator_flags INTERFACE -fsanitize=${STATOR_SANITIZE})
endif()
if(STATOR_FUZZ)
  target_compile_options(stator_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
find_package(Threads REQUIRED)
target_link_libraries(stator_flags INTERFACE Threads::Threads)
