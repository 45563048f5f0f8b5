# SPDX-License-Identifier: Apache-2.0
# The test list of the fast path, by what it is about.
foreach(subject end)
  st_root_test(fast_list_${subject}_test SOURCES fast_list_${subject}_test.cpp fast_list.cpp fast_node.cpp)
endforeach()
