# SPDX-License-Identifier: Apache-2.0
st_unit_test(cni_test
  SOURCES cni_enrolled_test.cpp cni_server_test.cpp cni_test_agent.cpp cni_wire_test.cpp
  LIBS st_cni_server st_files st_lab st_wire Threads::Threads)

st_unit_test(cni_plugin_test
  SOURCES cni_deny_for_test.cpp cni_plugin_alone_test.cpp cni_plugin_test.cpp cni_test_agent.cpp
  LIBS st_cni_plugin st_cni_server st_lab st_wire nlohmann_json::nlohmann_json Threads::Threads)
add_dependencies(cni_plugin_test sidetrack-cni)
if(ST_SANITIZE)
  target_compile_definitions(cni_plugin_test PRIVATE ST_NOT_STATIC)
endif()

st_unit_test(cni_install_test
  SOURCES cni_conflist_test.cpp cni_folder_test.cpp cni_installer_test.cpp cni_kill_test.cpp cni_race_test.cpp
  LIBS st_cni_install st_cni_plugin st_files st_lab nlohmann_json::nlohmann_json Threads::Threads)
target_compile_definitions(cni_install_test PRIVATE ST_CONFLISTS="${CMAKE_CURRENT_LIST_DIR}/conflists")
