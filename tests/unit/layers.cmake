# SPDX-License-Identifier: Apache-2.0
# The dependency rules between folders, checked on the includes of every source file.
find_program(PYTHON3 NAMES python3 REQUIRED)
set(layers ${PYTHON3} ${CMAKE_SOURCE_DIR}/tests/layers/check_layers.py)
add_test(NAME Layers.hold COMMAND ${layers} ${CMAKE_SOURCE_DIR})
add_test(NAME Layers.finds_violations COMMAND ${layers} --self-test)
set_tests_properties(Layers.hold Layers.finds_violations PROPERTIES LABELS unit ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
