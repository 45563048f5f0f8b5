# SPDX-License-Identifier: Apache-2.0
st_unit_test(probe_test SOURCES probe_test.cpp LIBS st_probe)

st_unit_test(probe_check_test SOURCES probe_check_test.cpp admin_fake_views.cpp LIBS st_probe st_admin fmt::fmt)
target_compile_definitions(probe_check_test PRIVATE ST_PROBE="$<TARGET_FILE:sidetrack-probe>")
add_dependencies(probe_check_test sidetrack-probe)
