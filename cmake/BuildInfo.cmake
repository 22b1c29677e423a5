# Run at every build (cmake -P): writes OUT from IN with the present commit, and touches it only when it has changed,
# so that nothing is compiled again without need.
execute_process(COMMAND git rev-parse --short=10 HEAD WORKING_DIRECTORY ${SOURCE}
  OUTPUT_VARIABLE QLORA_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(QLORA_COMMIT unknown)
else()
  execute_process(COMMAND git status --porcelain --untracked-files=no WORKING_DIRECTORY ${SOURCE}
    OUTPUT_VARIABLE changed ERROR_QUIET)
  if(changed)
    string(APPEND QLORA_COMMIT "+")
  endif()
endif()
configure_file(${IN} ${OUT} @ONLY)
