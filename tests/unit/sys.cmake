# SPDX-License-Identifier: Apache-2.0
st_unit_test(sys_test SOURCES sys_server_test.cpp sys_sock_diag_test.cpp LIBS st_sys st_lab Threads::Threads)
