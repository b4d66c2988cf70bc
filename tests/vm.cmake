# SPDX-License-Identifier: Apache-2.0
# Tests that need a real kernel with an 82576: each ctest entry is one boot of tests/vm/run.

# The kernels they run on: "debian" is the distribution's, the others are those of tests/vm/kernels. What runs under this one
# or that one is up to each test. SLOWNESS is how much longer everything may take there, and reaches the test, too.
set(HOOKLINE_KERNEL_DIRECTORY_debian vfio-pci-hooks)
set(HOOKLINE_KERNEL_SLOWNESS_debian 1)
set(HOOKLINE_KERNEL_DIRECTORY_7.2 vfio-pci-hooks-7.2)
set(HOOKLINE_KERNEL_SLOWNESS_7.2 1)
set(HOOKLINE_KERNEL_DIRECTORY_debug vfio-pci-hooks-debug)
set(HOOKLINE_KERNEL_SLOWNESS_debug 4)

# The kernel module, built for one of them, from a copy: the source tree stays clean.
# Not part of "all", for it needs tests/prerequisites kernels.
function(hookline_add_kernel_module kernel)
  set(target ${HOOKLINE_KERNEL_DIRECTORY_${kernel}})
  add_custom_target(${target}
    COMMAND ${PROJECT_SOURCE_DIR}/tests/kernel/build-module ${PROJECT_SOURCE_DIR} ${CMAKE_BINARY_DIR}/${target} ${kernel}
    USES_TERMINAL VERBATIM
    COMMENT "Kernel module for the virtual machine, ${kernel}")
  hookline_vm_name(vm_module ${kernel} fixture)
  add_test(NAME ${fixture}
    COMMAND ${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --target ${target})
  # The kernel itself may have to be built first.
  set_tests_properties(${fixture} PROPERTIES LABELS vm FIXTURES_SETUP ${fixture} TIMEOUT 3600)
endfunction()

# NAME for Debian's kernel, NAME_7_2 and so on for others.
function(hookline_vm_name name kernel out)
  string(REPLACE "." "_" suffix "_${kernel}")
  if(kernel STREQUAL "debian")
    set(suffix "")
  endif()
  set(${out} ${name}${suffix} PARENT_SCOPE)
endfunction()

hookline_add_kernel_module(debian)
hookline_add_kernel_module(7.2)
hookline_add_kernel_module(debug)
set(HOOKLINE_KERNEL_MODULE_DIR ${CMAKE_BINARY_DIR}/${HOOKLINE_KERNEL_DIRECTORY_debian})
set(HOOKLINE_KERNEL_MODULE ${HOOKLINE_KERNEL_MODULE_DIR}/vfio-pci-hooks.ko)

# hookline_add_vm_command(NAME COMMAND argument... [KERNELS name...] [OPTIONS option...] [ENVIRONMENT name=value...]
#                         [FIXTURES name...] [TIMEOUT seconds] [FULL])
# Runs the command in a virtual machine, once for each kernel (default: debian). In the arguments, @MODULES@ is the folder of
# the kernel module, and @TIMEOUT@ what TIMEOUT (default: 300) comes to on this kernel. OPTIONS go to tests/vm/run. FULL: in ./check --full only.
function(hookline_add_vm_command name)
  cmake_parse_arguments(ARG "FULL" "TIMEOUT" "COMMAND;KERNELS;OPTIONS;ENVIRONMENT;FIXTURES" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_KERNELS)
    set(ARG_KERNELS debian)
  endif()
  foreach(kernel IN LISTS ARG_KERNELS)
    hookline_vm_name(${name} ${kernel} test)
    hookline_vm_name(vm_module ${kernel} fixture)
    set(labels vm)
    if(ARG_FULL)
      list(APPEND labels full)
    endif()
    set(slowness ${HOOKLINE_KERNEL_SLOWNESS_${kernel}})
    math(EXPR timeout "${ARG_TIMEOUT} * ${slowness}")
    math(EXPR limit "${timeout} + 240")
    set(options ${ARG_OPTIONS})
    if(NOT kernel STREQUAL "debian")
      list(APPEND options --kernel ${kernel})
    endif()
    set(modules ${CMAKE_BINARY_DIR}/${HOOKLINE_KERNEL_DIRECTORY_${kernel}})
    set(command ${ARG_COMMAND})
    list(TRANSFORM command REPLACE "@MODULES@" "${modules}")
    list(TRANSFORM command REPLACE "@TIMEOUT@" "${timeout}")
    add_test(NAME ${test}
      COMMAND ${PROJECT_SOURCE_DIR}/tests/vm/run --timeout ${timeout}
        --results ${CMAKE_BINARY_DIR}/vm-results/${test} ${options} -- ${command})
    # The machine has two processors of its own, and a slow host is what limits see.
    set_tests_properties(${test} PROPERTIES
      LABELS "${labels}" FIXTURES_REQUIRED "${fixture};${ARG_FIXTURES}" RESOURCE_LOCK virtual_machine PROCESSORS 2 TIMEOUT ${limit}
      ENVIRONMENT "HOOKLINE_SLOWNESS=${slowness};HOOKLINE_MODULES=${modules};${ARG_ENVIRONMENT}")
  endforeach()
endfunction()

# hookline_add_vm_test(NAME BINARIES target... [options of hookline_add_vm_command])
# Boots once, loads the module and runs the GoogleTest binaries one after the other, each within its limit; the module has
# to unload afterwards. A boot takes longer than most tests: put what can share one together.
function(hookline_add_vm_test name)
  cmake_parse_arguments(ARG "FULL" "TIMEOUT" "BINARIES;KERNELS;OPTIONS;ENVIRONMENT" ${ARGN})
  set(files "")
  foreach(binary IN LISTS ARG_BINARIES)
    list(APPEND files $<TARGET_FILE:${binary}>)
  endforeach()
  set(full "")
  if(ARG_FULL)
    set(full FULL)
  endif()
  hookline_add_vm_command(${name} ${full} KERNELS ${ARG_KERNELS} OPTIONS ${ARG_OPTIONS} ENVIRONMENT ${ARG_ENVIRONMENT}
    TIMEOUT ${ARG_TIMEOUT}
    COMMAND ${PROJECT_SOURCE_DIR}/tests/kernel/in-vm @TIMEOUT@ @MODULES@/vfio-pci-hooks.ko ${files})
endfunction()

# hookline_add_vm_binary(NAME SOURCES file... [LIBS lib...])
# A GoogleTest binary that only a virtual machine runs.
function(hookline_add_vm_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE hookline_test_support ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
endfunction()
