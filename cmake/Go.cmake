# SPDX-License-Identifier: Apache-2.0
# ST_GO: the Go compiler, for programs of the tests; empty: none. Debian 12's is 1.19. What needs a later one asks for it:
# st_go_since(VARIABLE VERSION): VARIABLE is ST_GO if it is at least that version, else empty.
find_program(ST_GO go PATHS /usr/local/go/bin)
if(ST_GO)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env GOTOOLCHAIN=local ${ST_GO} version OUTPUT_VARIABLE said ERROR_QUIET)
  string(REGEX MATCH "go([0-9.]+)" said "${said}")
  set(ST_GO_VERSION ${CMAKE_MATCH_1})
endif()

function(st_go_since variable version)
  if(ST_GO AND ST_GO_VERSION VERSION_GREATER_EQUAL version)
    set(${variable} ${ST_GO} PARENT_SCOPE)
  else()
    set(${variable} "" PARENT_SCOPE)
  endif()
endfunction()
