# llama.cpp as target `stator_llama`: headers and static libraries, built once, without sanitizers, and kept in the cache
# for every preset and checkout. The sources are those in the crate llama-cpp-sys-2 (docs/adr/0003): cargo fetches and
# verifies it, its build script never runs.

# What decides the machine code: tool chain, pinned sources, options, and the CPU, because GGML_NATIVE is on.
function(stator_llama_key out)
  file(READ "${PROJECT_SOURCE_DIR}/rust/Cargo.lock.in" lock)
  string(REGEX MATCH "name = \"llama-cpp-sys-2\"[^[]*" crate "${lock}")
  file(READ "${PROJECT_SOURCE_DIR}/third_party/llama/CMakeLists.txt" superproject)
  set(cpu "${CMAKE_SYSTEM_PROCESSOR}")
  if(EXISTS /proc/cpuinfo)
    file(STRINGS /proc/cpuinfo cpu REGEX "^(flags|Features|model name)[ \t]*:" LIMIT_COUNT 2)
  endif()
  execute_process(COMMAND "${CMAKE_CXX_COMPILER}" --version OUTPUT_VARIABLE compiler COMMAND_ERROR_IS_FATAL ANY)
  string(SHA256 key "${crate}\n${superproject}\n${cpu}\n${compiler}\n${STATOR_CUDA} ${CUDAToolkit_VERSION}")
  string(SUBSTRING "${key}" 0 16 key)
  set(${out} "${key}" PARENT_SCOPE)
endfunction()

# Configures, builds and installs into `dir`; `.complete` is written last, so a build that was cut short is done again.
function(stator_build_llama dir)
  stator_crate_dir(llama-cpp-sys-2 crate)
  cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
  message(STATUS "Building llama.cpp once for this machine, on ${cores} cores: a few minutes; later configures reuse it")
  string(TIMESTAMP start %s)
  file(REMOVE_RECURSE "${dir}/build" "${dir}/install")
  set(options -DCMAKE_BUILD_TYPE=Release "-DCMAKE_C_COMPILER=${CMAKE_C_COMPILER}"
    "-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}" "-DCMAKE_C_FLAGS_RELEASE=-O3 -DNDEBUG"
    "-DCMAKE_CXX_FLAGS_RELEASE=-O3 -DNDEBUG" "-DCMAKE_INSTALL_PREFIX=${dir}/install"
    "-DLLAMA_DIR=${crate}/llama.cpp" -DGGML_CUDA=${STATOR_CUDA})
  if(STATOR_CUDA)
    list(APPEND options "-DCMAKE_CUDA_COMPILER=${CUDAToolkit_NVCC_EXECUTABLE}")
  endif()
  execute_process(COMMAND "${CMAKE_COMMAND}" -G Ninja -S "${PROJECT_SOURCE_DIR}/third_party/llama" -B "${dir}/build"
    ${options} OUTPUT_FILE "${dir}/configure.log" ERROR_FILE "${dir}/configure.log" RESULT_VARIABLE rc)
  if(NOT rc EQUAL 0)
    message(FATAL_ERROR "llama.cpp's configure step failed; its output is in ${dir}/configure.log")
  endif()
  execute_process(COMMAND "${CMAKE_COMMAND}" --build "${dir}/build" --parallel ${cores} RESULT_VARIABLE rc)
  if(NOT rc EQUAL 0)
    message(FATAL_ERROR "Building llama.cpp failed (the compiler's messages are above).")
  endif()
  execute_process(COMMAND "${CMAKE_COMMAND}" --install "${dir}/build" --component stator OUTPUT_QUIET
    COMMAND_ERROR_IS_FATAL ANY)
  file(REMOVE_RECURSE "${dir}/build")
  string(TIMESTAMP end %s)
  math(EXPR seconds "${end} - ${start}")
  message(STATUS "llama.cpp is built (${seconds} s)")
  file(TOUCH "${dir}/.complete")
endfunction()

if(STATOR_CUDA)
  find_package(CUDAToolkit QUIET)
  if(NOT CUDAToolkit_FOUND OR NOT CUDAToolkit_NVCC_EXECUTABLE)
    message(FATAL_ERROR "STATOR_CUDA is on, but no CUDA tool kit with nvcc was found. Install one and put nvcc on PATH, "
      "or use the preset `release` instead of `release-cuda`.")
  endif()
endif()

if(STATOR_WITH_LLAMA)
  stator_llama_key(llama_key)
  set(STATOR_LLAMA_DIR "${STATOR_CACHE_DIR}/llama-${llama_key}")
  file(MAKE_DIRECTORY "${STATOR_LLAMA_DIR}")
  if(NOT EXISTS "${STATOR_LLAMA_DIR}/.complete")
    file(LOCK "${STATOR_LLAMA_DIR}/.lock" GUARD FILE TIMEOUT 3600)
    if(NOT EXISTS "${STATOR_LLAMA_DIR}/.complete")
      stator_build_llama("${STATOR_LLAMA_DIR}")
    endif()
    file(LOCK "${STATOR_LLAMA_DIR}/.lock" RELEASE)
  endif()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    "${PROJECT_SOURCE_DIR}/third_party/llama/CMakeLists.txt" "${STATOR_LLAMA_DIR}/.complete")

  set(llama_lib "${STATOR_LLAMA_DIR}/install/lib")
  add_library(stator_llama INTERFACE)
  target_include_directories(stator_llama SYSTEM INTERFACE "${STATOR_LLAMA_DIR}/install/include")
  target_link_libraries(stator_llama INTERFACE "${llama_lib}/libllama.a" -Wl,--start-group)
  foreach(library IN ITEMS ggml ggml-cpu ggml-cuda ggml-base)
    if(EXISTS "${llama_lib}/lib${library}.a")
      target_link_libraries(stator_llama INTERFACE "${llama_lib}/lib${library}.a")
    endif()
  endforeach()
  target_link_libraries(stator_llama INTERFACE -Wl,--end-group Threads::Threads ${CMAKE_DL_LIBS} m)
  if(STATOR_CUDA)
    target_link_libraries(stator_llama INTERFACE CUDA::cudart CUDA::cublas CUDA::cuda_driver)
  endif()
endif()
