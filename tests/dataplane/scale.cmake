# SPDX-License-Identifier: Apache-2.0
st_root_test(ports_test SOURCES ports_test.cpp scale_node.cpp)
st_root_test(limits_test SOURCES limits_test.cpp scale_node.cpp)
foreach(name external_test external_loss_test external_proxies_test)
  st_root_test(${name} SOURCES ${name}.cpp external_node.cpp proxies.cpp scale_node.cpp)
endforeach()
st_root_test(external_listeners_test SOURCES external_listeners_test.cpp scale_node.cpp)
st_root_test(scale_test SOURCES scale_test.cpp kernel_view.cpp scale_node.cpp LIBS st_headers)
foreach(name fast_scale_test fast_fault_test fast_flows_test)
  st_root_test(${name} SOURCES ${name}.cpp fast_talkers.cpp kernel_view.cpp scale_node.cpp
               LIBS st_headers PkgConfig::LIBBPF)
endforeach()
