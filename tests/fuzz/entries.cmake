# SPDX-License-Identifier: Apache-2.0
# What ctest runs of the fuzzers. HOOKLINE_FUZZ_SECONDS (or _RUNS) sets how long one libFuzzer target runs; 30 s if unset.

# The targets need clang and sanitizers everywhere: a build of their own.
set(HOOKLINE_FUZZ_DIR ${CMAKE_BINARY_DIR}/fuzz)
add_test(NAME fuzz_build COMMAND sh -c "cmake --preset fuzz -B '${HOOKLINE_FUZZ_DIR}' -Wno-dev >/dev/null && \
exec cmake --build '${HOOKLINE_FUZZ_DIR}' --target fuzz_targets" WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(fuzz_build PROPERTIES LABELS fuzz FIXTURES_SETUP fuzz_targets TIMEOUT 1800 PROCESSORS 2)

# hookline_add_fuzz_entry(NAME [SEEDS folder...] [OPTIONS libfuzzer-option...])
function(hookline_add_fuzz_entry name)
  cmake_parse_arguments(ARG "" "" "SEEDS;OPTIONS" ${ARGN})
  add_test(NAME fuzz_${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/run-target
    ${HOOKLINE_FUZZ_DIR}/tests/fuzz/${name}_fuzz ${CMAKE_BINARY_DIR}/fuzz-results/${name} ${ARG_SEEDS} -- ${ARG_OPTIONS})
  set_tests_properties(fuzz_${name} PROPERTIES LABELS fuzz FIXTURES_REQUIRED fuzz_targets TIMEOUT 100000)
endfunction()

set(seeds ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/seeds)
hookline_add_fuzz_entry(stream SEEDS ${seeds}/stream OPTIONS -max_len=16384)
hookline_add_fuzz_entry(descriptor SEEDS ${seeds}/descriptor OPTIONS -max_len=8192)
hookline_add_fuzz_entry(nic_state SEEDS ${seeds}/nic-state OPTIONS -max_len=16384)
hookline_add_fuzz_entry(gpu_state SEEDS ${seeds}/gpu-state OPTIONS -max_len=65536)
hookline_add_fuzz_entry(config SEEDS ${seeds}/config ${CMAKE_CURRENT_SOURCE_DIR}/golden/check ${PROJECT_SOURCE_DIR}/configs
  OPTIONS -max_len=4096 -dict=${CMAKE_CURRENT_SOURCE_DIR}/fuzz/config.dict)
hookline_add_fuzz_entry(plugin_file SEEDS ${seeds}/plugin-file OPTIONS -max_len=16384)
hookline_add_fuzz_entry(plugin_object SEEDS ${seeds}/plugin-object)

# Seeds that are no longer understood would leave the targets at their first refusal.
hookline_add_test(fuzz_seeds_test SOURCES fuzz/seeds_test.cpp ${PROJECT_SOURCE_DIR}/plugins/nic-82576/nic_82576.cpp
  ${PROJECT_SOURCE_DIR}/plugins/nic-82576/model/model.cpp ${PROJECT_SOURCE_DIR}/plugins/nic-82576/model/pf_82576.cpp
  ${PROJECT_SOURCE_DIR}/plugins/nic-82576/model/vf_82576.cpp LIBS hookline_loader)
target_compile_definitions(fuzz_seeds_test PRIVATE HOOKLINE_SEEDS="${CMAKE_CURRENT_SOURCE_DIR}/fuzz/seeds"
  HOOKLINE_PLUGINS="${HOOKLINE_PLUGIN_DIR}")
add_dependencies(fuzz_seeds_test nic-82576 trace)

hookline_add_test(fuzz_gpu_seeds_test SOURCES fuzz/gpu_seeds_test.cpp ${PROJECT_SOURCE_DIR}/plugins/gpu-bochs/gpu_bochs.cpp
  ${PROJECT_SOURCE_DIR}/plugins/gpu-bochs/model/model.cpp ${PROJECT_SOURCE_DIR}/plugins/gpu-bochs/model/display.cpp
  LIBS hookline_core)
target_include_directories(fuzz_gpu_seeds_test PRIVATE ${XXHASH_INCLUDE_DIR})
target_compile_definitions(fuzz_gpu_seeds_test PRIVATE HOOKLINE_SEEDS="${CMAKE_CURRENT_SOURCE_DIR}/fuzz/seeds")

# The kernel's side: a program for the virtual machine.
add_executable(channel_fuzz fuzz/channel_fuzz.cpp fuzz/channel_actor.cpp fuzz/channel_control.cpp fuzz/channel_vmm.cpp
  fuzz/channel_worker.cpp)
target_link_libraries(channel_fuzz PRIVATE hookline_kernel_test hookline_test_support GTest::gtest)
set(HOOKLINE_CHANNEL_FUZZ_SECONDS 60 CACHE STRING "How long the ctest entry vm_channel_fuzz fuzzes")
# It is worth most where the kernel checks what the module does.
foreach(kernel debug debian)
  set(full "")
  if(NOT kernel STREQUAL "debug")
    set(full FULL)
  endif()
  hookline_add_vm_command(vm_channel_fuzz ${full} KERNELS ${kernel} TIMEOUT 600
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/in-vm @MODULES@/vfio-pci-hooks.ko $<TARGET_FILE:channel_fuzz>
      --seconds ${HOOKLINE_CHANNEL_FUZZ_SECONDS})
endforeach()
