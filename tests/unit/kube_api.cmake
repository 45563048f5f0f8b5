# SPDX-License-Identifier: Apache-2.0
st_unit_test(kube_api_test
  SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/kube_api_cache_test.cpp
    ${CMAKE_CURRENT_LIST_DIR}/kube_api_event_test.cpp
    ${CMAKE_CURRENT_LIST_DIR}/kube_api_kubeconfig_test.cpp
    ${CMAKE_CURRENT_LIST_DIR}/kube_api_reflector_test.cpp
    ${CMAKE_CURRENT_LIST_DIR}/kube_api_stream_test.cpp
  LIBS st_kube st_lab nlohmann_json::nlohmann_json)
