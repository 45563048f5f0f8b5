# SPDX-License-Identifier: Apache-2.0
st_unit_test(agent_test
  SOURCES agent_cgroups_test.cpp agent_options_test.cpp agent_options_errors_test.cpp agent_cni_door_test.cpp agent_event_watch_test.cpp agent_external_watch_test.cpp agent_fast_path_test.cpp agent_held_test.cpp agent_instance_lock_test.cpp agent_late_watch_test.cpp agent_pod_netns_test.cpp agent_flow_log_test.cpp agent_names_test.cpp agent_listener_ports_test.cpp agent_listens_on_test.cpp agent_problem_log_test.cpp agent_unregistered_test.cpp
  LIBS st_agent st_lab nlohmann_json::nlohmann_json)
