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

# qlora_level(NAME SOURCES a.cpp ... DEPS qlora_base fmt::fmt ...)
function(qlora_level name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  if(arg_SOURCES)
    add_library(qlora_${name} STATIC ${arg_SOURCES})
    target_link_libraries(qlora_${name} PUBLIC qlora_options ${arg_DEPS})
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
  target_precompile_headers(qlora_${name}_test PRIVATE <catch2/catch.hpp>)
  target_compile_definitions(qlora_${name}_test PRIVATE QLORA_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
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
