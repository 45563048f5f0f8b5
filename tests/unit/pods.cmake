# SPDX-License-Identifier: Apache-2.0
st_unit_test(pods_test SOURCES pods_cgroup_test.cpp pods_netns_test.cpp pods_netns_table_test.cpp pods_processes_test.cpp LIBS st_pods st_lab)
