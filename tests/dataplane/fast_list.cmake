# SPDX-License-Identifier: Apache-2.0
# The test list of the fast path, by what it is about.
foreach(subject start many end reading writing refused addresses engine pairs anew attacks handoff)
  st_root_test(fast_list_${subject}_test SOURCES fast_list_${subject}_test.cpp fast_list.cpp LIBS st_fast_node)
endforeach()
target_link_libraries(fast_list_refused_test PRIVATE bpf)
target_link_libraries(fast_list_addresses_test PRIVATE bpf)
target_sources(fast_list_end_test PRIVATE fast_endings.cpp)
target_sources(fast_list_handoff_test PRIVATE fast_endings.cpp)
target_sources(fast_list_engine_test PRIVATE proxies.cpp)
if(ST_URING)
  target_compile_definitions(fast_list_reading_test PRIVATE ST_HAS_URING)
  target_link_libraries(fast_list_reading_test PRIVATE ${ST_URING})
endif()
