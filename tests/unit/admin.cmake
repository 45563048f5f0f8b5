# SPDX-License-Identifier: Apache-2.0
st_unit_test(admin_test
  SOURCES admin_json_test.cpp admin_server_test.cpp admin_http_test.cpp admin_metrics_test.cpp admin_fake_views.cpp
  LIBS st_admin st_metrics fmt::fmt nlohmann_json::nlohmann_json prometheus-cpp::core Threads::Threads)

st_unit_test(admin_ctl_test
  SOURCES admin_format_test.cpp admin_render_test.cpp admin_doctor_test.cpp admin_ctl_test.cpp admin_hooks_test.cpp
          admin_fake_views.cpp
  LIBS st_ctl st_admin fmt::fmt nlohmann_json::nlohmann_json PkgConfig::LIBBPF Threads::Threads)
target_compile_definitions(admin_ctl_test PRIVATE ST_CTL="$<TARGET_FILE:sidetrackctl>")
add_dependencies(admin_ctl_test sidetrackctl)
