# SPDX-License-Identifier: Apache-2.0
st_unit_test(cni_test
  SOURCES cni_files_test.cpp cni_server_test.cpp cni_test_agent.cpp cni_wire_test.cpp
  LIBS st_cni_server st_cni_install st_lab st_wire Threads::Threads)
