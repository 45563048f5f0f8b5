# SPDX-License-Identifier: Apache-2.0
st_unit_test(cgroup_test SOURCES cgroup_folder_test.cpp LIBS st_cgroup)
