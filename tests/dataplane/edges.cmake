# SPDX-License-Identifier: Apache-2.0
st_root_test(fast_edges_test SOURCES fast_edges_test.cpp LIBS st_fast_node bpf)
