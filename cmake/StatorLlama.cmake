# llama.cpp as target `stator_llama`.
if(STATOR_WITH_LLAMA)
  add_library(stator_llama INTERFACE)
endif()
