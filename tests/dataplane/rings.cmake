# SPDX-License-Identifier: Apache-2.0
st_root_test(rings_test SOURCES rings_test.cpp LIBS st_lab st_cgroup st_dataplane)
