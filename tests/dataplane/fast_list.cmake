# SPDX-License-Identifier: Apache-2.0
# The test list of the fast path, by what it is about.
add_library(st_fast_list STATIC fast_list.cpp fast_endings.cpp fast_late.cpp fast_peeking.cpp fast_reading.cpp fast_uring.cpp fast_writing.cpp)
target_link_libraries(st_fast_list PUBLIC st_fast_node)
if(ST_URING)
  target_compile_definitions(st_fast_list PRIVATE ST_HAS_URING)
  target_link_libraries(st_fast_list PRIVATE ${ST_URING})
endif()
foreach(subject start many end reading writing refused addresses engine pairs anew attacks handoff external)
  st_root_test(fast_list_${subject}_test SOURCES fast_list_${subject}_test.cpp LIBS st_fast_list)
endforeach()
target_link_libraries(fast_list_refused_test PRIVATE bpf)
target_link_libraries(fast_list_addresses_test PRIVATE bpf)
target_sources(fast_list_external_test PRIVATE proxies.cpp)
