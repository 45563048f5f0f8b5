# SPDX-License-Identifier: Apache-2.0
st_unit_test(kube_decode_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/kube_decode_test.cpp
  LIBS st_kube nlohmann_json::nlohmann_json)
st_unit_test(kube_yaml_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/kube_yaml_test.cpp
  LIBS st_kube nlohmann_json::nlohmann_json)
st_unit_test(kube_text_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/kube_text_test.cpp ${CMAKE_CURRENT_LIST_DIR}/../fuzz/yaml_fuzzer.cpp
  LIBS st_kube)
target_compile_definitions(kube_text_test PRIVATE ST_FUZZ_CORPUS="${CMAKE_CURRENT_LIST_DIR}/../fuzz/corpus/yaml")
st_unit_test(kube_files_source_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/kube_files_source_test.cpp
  LIBS st_kube Boost::headers)
st_unit_test(kube_owner_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/kube_owner_test.cpp LIBS st_kube nlohmann_json::nlohmann_json)
