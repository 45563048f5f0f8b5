# SPDX-License-Identifier: Apache-2.0
st_root_test(engine_cgroups_test SOURCES engine_cgroups_test.cpp LIBS st_dataplane)
