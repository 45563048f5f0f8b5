# SPDX-License-Identifier: Apache-2.0
add_library(st_fast_node STATIC fast_node.cpp fast_scenarios.cpp held_receive.cpp kernel_view.cpp memory_group.cpp repaired.cpp shared_fast_node.cpp talker.cpp)
target_include_directories(st_fast_node PUBLIC ${CMAKE_SOURCE_DIR})
target_link_libraries(st_fast_node PUBLIC st_options st_lab st_headers nlohmann_json::nlohmann_json GTest::gtest PkgConfig::LIBBPF)

st_root_test(fast_attacks_test SOURCES fast_attacks_test.cpp LIBS st_fast_node)

st_bpf_skeleton(naive_bpf naive/naive.bpf.c)
st_root_test(fast_naive_test SOURCES fast_naive_test.cpp naive_node.cpp LIBS st_fast_node naive_bpf APPLICATIONS FastNaiveMemory)
st_root_test(fast_workloads_test SOURCES fast_workloads_test.cpp LIBS st_fast_node)
st_root_test(fast_window_test SOURCES fast_window_test.cpp LIBS st_fast_node)
st_root_test(self_test_test SOURCES self_test_test.cpp)

# Tests that share a node: one entry per program.
foreach(name fast_deviations_test fast_fin_test fast_hostile_test fast_lost_events_test fast_marks_test fast_moments_test fast_reasons_test fast_switches_test)
  add_executable(${name} ${name}.cpp)
  target_link_libraries(${name} PRIVATE st_fast_node GTest::gmock)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  st_whole_test(${name} ${name} dataplane 120 -*Memory.*)
endforeach()
if(ST_URING)
  target_compile_definitions(fast_deviations_test PRIVATE ST_HAS_URING)
  target_link_libraries(fast_deviations_test PRIVATE ${ST_URING})
endif()
# Needs a controller that many machines have not.
st_whole_test(fast_hostile_memory fast_hostile_test e2e 120 *Memory.*)

# Not a part of the tier that must run wherever BPF works: many kernels have no kTLS.
st_root_test(fast_ktls_test SOURCES fast_ktls_test.cpp LIBS st_fast_node APPLICATIONS FastKtls)
