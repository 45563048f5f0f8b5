# SPDX-License-Identifier: Apache-2.0
# Faults of engine and agent, pods that come and go, uninstall, what TCP promises.
foreach(name ctl_test engine_process_test engine_killed_test engine_full_test fault_engine_test fault_agent_test agent_reload_test agent_repair_test agent_start_test agent_standby_test lifecycle_test links_test records_test uninstall_test stream_test)
  st_root_test(${name} SOURCES ${name}.cpp fault_node.cpp kernel_view.cpp traffic.cpp)
endforeach()

st_root_test(agent_without_api_test SOURCES agent_without_api_test.cpp fault_node.cpp kernel_view.cpp traffic.cpp LIBS st_kube)
