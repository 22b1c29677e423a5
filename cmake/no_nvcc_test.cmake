# cmake -D GENERATOR=... -D COMPILER=... -P: this source tree, configured where no nvcc is found. QLORA_CUDA=AUTO goes on
# and says so in one line, ON is an error that names nvcc. A CUDACXX that is not there hides every nvcc from
# check_language, also one in /usr/bin.
cmake_minimum_required(VERSION 3.25)
get_filename_component(source "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
set(root "${CMAKE_CURRENT_BINARY_DIR}/no_nvcc_test")

function(configure choice)
  file(REMOVE_RECURSE ${root})
  execute_process(
    COMMAND ${CMAKE_COMMAND} -E env "CUDACXX=${root}/no/nvcc" ${CMAKE_COMMAND} -S ${source} -B ${root} -G ${GENERATOR}
      -DCMAKE_CXX_COMPILER=${COMPILER} -DQLORA_TESTS=OFF -DQLORA_CUDA=${choice}
    OUTPUT_VARIABLE output ERROR_VARIABLE errors RESULT_VARIABLE status)
  file(REMOVE_RECURSE ${root})
  set(output "${output}" PARENT_SCOPE)
  set(errors "${errors}" PARENT_SCOPE)
  set(status "${status}" PARENT_SCOPE)
endfunction()

configure(AUTO)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "QLORA_CUDA=AUTO without nvcc ended with ${status}:\n${output}${errors}")
endif()
string(REGEX MATCHALL "[^\n]*CUDA plug-in[^\n]*" said "${output}${errors}")
if(NOT said STREQUAL "-- CUDA plug-in: no (no nvcc found)")
  message(FATAL_ERROR "QLORA_CUDA=AUTO without nvcc says `${said}` of the plug-in:\n${output}${errors}")
endif()

configure(ON)
if(status EQUAL 0)
  message(FATAL_ERROR "QLORA_CUDA=ON without nvcc is no error:\n${output}")
endif()
if(NOT errors MATCHES "QLORA_CUDA=ON, but no nvcc was found")
  message(FATAL_ERROR "QLORA_CUDA=ON without nvcc ended with ${status} and does not say why:\n${output}${errors}")
endif()
