# SPDX-License-Identifier: Apache-2.0
# Tests that need a real kernel with an 82576: each ctest entry is one boot of tests/vm/run.

# The kernel module, built for the kernel of the virtual machine, from a copy: the source tree stays clean.
# Not part of "all", for it needs tests/prerequisites vm.
set(HOOKLINE_KERNEL_MODULE_DIR ${CMAKE_BINARY_DIR}/vfio-pci-hooks)
set(HOOKLINE_KERNEL_MODULE ${HOOKLINE_KERNEL_MODULE_DIR}/vfio-pci-hooks.ko)
add_custom_target(vfio-pci-hooks
  COMMAND ${PROJECT_SOURCE_DIR}/tests/kernel/build-module ${PROJECT_SOURCE_DIR} ${HOOKLINE_KERNEL_MODULE_DIR}
  USES_TERMINAL VERBATIM
  COMMENT "Kernel module for the virtual machine")

add_test(NAME vm_module
  COMMAND ${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --target vfio-pci-hooks)
set_tests_properties(vm_module PROPERTIES LABELS vm FIXTURES_SETUP vm_module TIMEOUT 600)

# hookline_add_vm_test(NAME BINARIES target... [OPTIONS option...] [TIMEOUT seconds])
# Boots once, loads the module and runs the GoogleTest binaries one after the other, each within its limit; the module has
# to unload afterwards. OPTIONS go to tests/vm/run. A boot takes longer than most tests: put what can share one together.
function(hookline_add_vm_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "BINARIES;OPTIONS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set(files "")
  foreach(binary IN LISTS ARG_BINARIES)
    list(APPEND files $<TARGET_FILE:${binary}>)
  endforeach()
  add_test(NAME ${name}
    COMMAND ${PROJECT_SOURCE_DIR}/tests/vm/run --timeout ${ARG_TIMEOUT}
      --results ${CMAKE_BINARY_DIR}/vm-results/${name} ${ARG_OPTIONS} --
      ${PROJECT_SOURCE_DIR}/tests/kernel/in-vm ${ARG_TIMEOUT} ${HOOKLINE_KERNEL_MODULE} ${files})
  # The machine has two processors of its own, and a slow host is what limits see.
  set_tests_properties(${name} PROPERTIES
    LABELS vm FIXTURES_REQUIRED vm_module RESOURCE_LOCK virtual_machine PROCESSORS 2)
  math(EXPR limit "${ARG_TIMEOUT} + 240")
  set_tests_properties(${name} PROPERTIES TIMEOUT ${limit})
endfunction()

# hookline_add_vm_binary(NAME SOURCES file... [LIBS lib...])
# A GoogleTest binary that only a virtual machine runs.
function(hookline_add_vm_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE hookline_test_support ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
endfunction()
