# SPDX-License-Identifier: Apache-2.0
find_package(OpenSSL REQUIRED)
st_library(st_source_lab
  SOURCES source_canned.cpp source_pki.cpp source_tls_server.cpp
  PUBLIC st_lab st_kube
  PRIVATE Boost::headers OpenSSL::SSL fmt::fmt Threads::Threads)

st_unit_test(kube_client_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/source_client_test.cpp LIBS st_source_lab)
st_unit_test(kube_source_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/source_canned_test.cpp ${CMAKE_CURRENT_LIST_DIR}/source_daemonset_test.cpp
  LIBS st_source_lab Boost::headers)

# One ctest entry for a program that starts one API server for all its cases; skipped where there is none.
function(st_api_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE st_options st_api_lab ${arg_LIBS} GTest::gtest_main GTest::gmock)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS kubernetes RUN_SERIAL TRUE TIMEOUT 1200 SKIP_REGULAR_EXPRESSION "there is no API server")
endfunction()

st_library(st_api_lab
  SOURCES source_cluster.cpp source_faults_fixture.cpp source_proxy.cpp
  PUBLIC st_source_lab GTest::gtest
  PRIVATE Boost::headers OpenSSL::SSL fmt::fmt nlohmann_json::nlohmann_json Threads::Threads)
st_api_test(kube_faults_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/source_faults_test.cpp ${CMAKE_CURRENT_LIST_DIR}/source_writes_test.cpp
  LIBS Boost::headers fmt::fmt nlohmann_json::nlohmann_json)

st_api_test(kube_chart_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/chart_upgrade_test.cpp LIBS fmt::fmt nlohmann_json::nlohmann_json)
target_compile_definitions(kube_chart_test PRIVATE ST_CHART="${CMAKE_SOURCE_DIR}/helm/sidetrack")

# ST_SCALE_CLUSTER=1 (a whole `make test-kubernetes`, make scale-cluster) is 5,000 pods; the default is a tenth.
st_api_test(kube_scale_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/agent_scale_test.cpp ${CMAKE_CURRENT_LIST_DIR}/scale_churn.cpp
          ${CMAKE_CURRENT_LIST_DIR}/scale_objects.cpp ${CMAKE_SOURCE_DIR}/tests/dataplane/kernel_view.cpp
  LIBS st_lab fmt::fmt nlohmann_json::nlohmann_json)
add_dependencies(kube_scale_test sidetrack-agent sidetrack-cni sidetrack-engine)

st_api_test(kube_agent_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/agent_faults_test.cpp ${CMAKE_CURRENT_LIST_DIR}/agent_late_test.cpp
          ${CMAKE_CURRENT_LIST_DIR}/agent_end_test.cpp ${CMAKE_CURRENT_LIST_DIR}/agent_leave_test.cpp ${CMAKE_CURRENT_LIST_DIR}/agent_runtime_test.cpp
          ${CMAKE_CURRENT_LIST_DIR}/agent_on_node.cpp
          ${CMAKE_SOURCE_DIR}/tests/dataplane/kernel_view.cpp
  LIBS st_files st_lab fmt::fmt nlohmann_json::nlohmann_json)
add_dependencies(kube_agent_test sidetrack-agent sidetrack-cni sidetrack-engine)
