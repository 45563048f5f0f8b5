# SPDX-License-Identifier: Apache-2.0
st_root_test(policy_store_test SOURCES policy_store_test.cpp LIBS st_dataplane bpf)
