# SPDX-License-Identifier: Apache-2.0
st_unit_test(engine_routes_test SOURCES engine_routes_test.cpp LIBS st_engine)
st_unit_test(engine_relay_test
  SOURCES engine_lab.cpp engine_links_test.cpp engine_many_test.cpp engine_netns_test.cpp engine_relay_test.cpp engine_upstream_test.cpp
  LIBS st_engine)
st_unit_test(engine_daemon_test
  SOURCES engine_lab.cpp engine_agent_link_test.cpp engine_options_test.cpp
  LIBS st_engine_daemon st_cgroup)
