# SPDX-License-Identifier: Apache-2.0
st_root_test(fast_attacks_test SOURCES fast_attacks_test.cpp fast_node.cpp)

st_bpf_skeleton(naive_bpf naive/naive.bpf.c)
st_root_test(fast_naive_test SOURCES fast_naive_test.cpp fast_node.cpp LIBS naive_bpf)
st_root_test(self_test_test SOURCES self_test_test.cpp)
