# SPDX-License-Identifier: Apache-2.0
st_root_test(fast_attacks_test SOURCES fast_attacks_test.cpp fast_node.cpp)
