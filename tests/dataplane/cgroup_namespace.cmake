# SPDX-License-Identifier: Apache-2.0
st_root_test(cgroup_namespace_test SOURCES cgroup_namespace_test.cpp LIBS st_cgroup)
