# One static library per level, and its tests beside its sources.

# -O2 keeps the build short; the kernels ask for -O3 themselves, tests are content with -O1.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

# Flags of our own targets. No -march: wide instructions live only in the target regions of kernels/cpu.
add_library(qlora_options INTERFACE)
target_compile_options(qlora_options INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Werror -ffp-contract=off -fno-math-errno)
target_include_directories(qlora_options INTERFACE ${CMAKE_SOURCE_DIR})
target_link_libraries(qlora_options INTERFACE Threads::Threads)
if(QLORA_SANITIZE)
  string(REPLACE ";" "," qlora_sanitize "${QLORA_SANITIZE}")
  target_compile_options(qlora_options INTERFACE -fsanitize=${qlora_sanitize} -fno-omit-frame-pointer -g
    -Wno-error)  # GCC 12's flow warnings are often false in instrumented code; the plain builds hold the line
  target_link_options(qlora_options INTERFACE -fsanitize=${qlora_sanitize})
endif()

# Headers of the standard library and fmt that most sources read, parsed once for all of them. A source still includes
# what it uses: with QLORA_PRECOMPILE=OFF each reads for itself. One set for libraries, one (with Catch2) for tests:
# GCC takes precompiled headers only under the flags that they were made with.
option(QLORA_PRECOMPILE "Parse the headers that most sources read once for all of them" ON)
set(qlora_precompiled_headers <algorithm> <array> <bit> <cmath> <cstdint> <cstring> <filesystem> <functional> <map> <memory> <numbers>
  <optional> <set> <span> <sstream> <string> <string_view> <unordered_map> <variant> <vector> <fmt/format.h>)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/precompiled.cpp CONTENT "int main() {}\n")
if(QLORA_PRECOMPILE)
  add_library(qlora_precompiled OBJECT ${CMAKE_BINARY_DIR}/precompiled.cpp)
  target_link_libraries(qlora_precompiled PRIVATE qlora_options fmt::fmt)
  target_precompile_headers(qlora_precompiled PRIVATE ${qlora_precompiled_headers})
  if(QLORA_TESTS)
    add_executable(qlora_precompiled_tests ${CMAKE_BINARY_DIR}/precompiled.cpp)
    target_link_libraries(qlora_precompiled_tests PRIVATE qlora_options fmt::fmt Catch2::Catch2)
    target_compile_options(qlora_precompiled_tests PRIVATE $<$<CONFIG:Release>:-O1>)
    target_precompile_headers(qlora_precompiled_tests PRIVATE <catch2/catch.hpp> ${qlora_precompiled_headers})
  endif()
endif()
function(qlora_precompile target from)
  if(QLORA_PRECOMPILE)
    target_precompile_headers(${target} REUSE_FROM ${from})
    # Of std::string out of precompiled headers, GCC 12's flow warnings are often false.
    target_compile_options(${target} PRIVATE
      "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow;-Wno-restrict>")
  endif()
endfunction()

# Sources of one target compiled several at a time: what they share (templates of JSON, CLI11, Catch2) is made once, which
# halves the build's time for these targets. Names in unnamed namespaces must differ within a target then; a source that
# keeps its own (as one of many formats, tasks) is named as ALONE. QLORA_UNITY=OFF compiles each by itself, which is
# quicker where one file is edited again and again.
option(QLORA_UNITY "Compile the sources of a target several at a time" ON)
function(qlora_unity target)
  cmake_parse_arguments(arg "" "" "ALONE" ${ARGN})
  if(NOT TARGET ${target})
    return()  # no tests
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${QLORA_UNITY} UNITY_BUILD_BATCH_SIZE 6)
  set_source_files_properties(${arg_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# qlora_level(NAME SOURCES a.cpp ... DEPS qlora_base fmt::fmt ... [OWN_FLAGS: compiled with further ones])
function(qlora_level name)
  cmake_parse_arguments(arg "OWN_FLAGS" "" "SOURCES;DEPS" ${ARGN})
  if(arg_SOURCES)
    add_library(qlora_${name} STATIC ${arg_SOURCES})
    target_link_libraries(qlora_${name} PUBLIC qlora_options ${arg_DEPS})
    if(NOT arg_OWN_FLAGS)
      qlora_precompile(qlora_${name} qlora_precompiled)
    endif()
  else()
    add_library(qlora_${name} INTERFACE)  # headers only, so far
    target_link_libraries(qlora_${name} INTERFACE qlora_options ${arg_DEPS})
  endif()
endfunction()

# qlora_tests(NAME SOURCES a_test.cpp ... [DEPS more]): one executable. A test case is tagged [golden] (compared
# with outside data), [slow], or neither (= unit). One that finds no data prints "SKIPPED: why" and nothing else.
function(qlora_tests name)
  if(NOT QLORA_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  if(NOT arg_SOURCES)
    return()
  endif()
  add_executable(qlora_${name}_test ${arg_SOURCES})
  target_link_libraries(qlora_${name}_test PRIVATE qlora_test_main qlora_${name} ${arg_DEPS})
  target_compile_options(qlora_${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)
  qlora_precompile(qlora_${name}_test qlora_precompiled_tests)
  set(common TEST_PREFIX "${name}: " WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  foreach(labels unit golden slow golden_slow)
    if(labels STREQUAL unit)
      set(spec "~[golden]~[slow]~[.]")
    elseif(labels STREQUAL golden)
      set(spec "[golden]~[slow]")
    elseif(labels STREQUAL slow)
      set(spec "[slow]~[golden]")
    else()
      set(spec "[golden][slow]")
      set(labels golden_slow)  # found by -L golden and by -L slow
    endif()
    catch_discover_tests(qlora_${name}_test TEST_SPEC ${spec} ${common}
      PROPERTIES LABELS ${labels} SKIP_REGULAR_EXPRESSION "SKIPPED: " TIMEOUT 1200)
  endforeach()
endfunction()
