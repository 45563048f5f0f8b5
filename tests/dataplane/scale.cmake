# SPDX-License-Identifier: Apache-2.0
st_root_test(ports_test SOURCES ports_test.cpp scale_node.cpp)
st_root_test(limits_test SOURCES limits_test.cpp scale_node.cpp)
st_root_test(external_test SOURCES external_test.cpp proxies.cpp scale_node.cpp)
st_root_test(scale_test SOURCES scale_test.cpp scale_node.cpp)
st_root_test(fast_scale_test SOURCES fast_scale_test.cpp scale_node.cpp)
