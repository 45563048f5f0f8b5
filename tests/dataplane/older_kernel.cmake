# SPDX-License-Identifier: Apache-2.0
st_root_test(older_kernel_test SOURCES older_kernel_test.cpp LIBS st_cgroup st_dataplane sidetrack_bpf bpf)
