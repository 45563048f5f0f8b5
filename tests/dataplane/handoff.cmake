# SPDX-License-Identifier: Apache-2.0
st_root_test(handoff_test SOURCES handoff_test.cpp LIBS st_fast_node)
st_root_test(handoff_cut_test SOURCES handoff_cut_test.cpp LIBS st_fast_node)
st_root_test(handoff_long_test SOURCES handoff_long_test.cpp LIBS st_fast_list)
