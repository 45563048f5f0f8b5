# SPDX-License-Identifier: Apache-2.0
find_package(OpenSSL REQUIRED)
st_library(st_source_lab
  SOURCES source_canned.cpp source_pki.cpp source_tls_server.cpp
  PUBLIC st_lab st_kube
  PRIVATE Boost::headers OpenSSL::SSL fmt::fmt Threads::Threads)

st_unit_test(kube_client_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/source_client_test.cpp LIBS st_source_lab)
st_unit_test(kube_source_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/source_canned_test.cpp
  LIBS st_source_lab Boost::headers)
