# SPDX-License-Identifier: Apache-2.0
add_library(st_mesh STATIC mesh.cpp kernel_view.cpp)
target_include_directories(st_mesh PUBLIC ${CMAKE_SOURCE_DIR})
target_link_libraries(st_mesh PUBLIC st_options st_lab st_headers nlohmann_json::nlohmann_json fmt::fmt GTest::gtest GTest::gmock)

foreach(subject verdict names ipv6_only past_engine close rules engine_service)
  st_root_test(${subject}_test SOURCES ${subject}_test.cpp LIBS st_mesh)
endforeach()
target_sources(rules_test PRIVATE edits_test.cpp traffic.cpp)
# Built by the test itself: what Go's own compiler makes is part of what is tested.
st_root_test(connect_kinds_test SOURCES connect_kinds_test.cpp LIBS st_mesh APPLICATIONS ConnectKindsOfGo)
st_go_since(ST_PAIR_GO 1.16)
target_compile_definitions(connect_kinds_test PRIVATE ST_GO="${ST_PAIR_GO}" ST_GO_SOURCE="${CMAKE_CURRENT_SOURCE_DIR}/http_pair.go")
st_root_test(losses_test SOURCES losses_test.cpp LIBS st_mesh APPLICATIONS FallbackTest)
