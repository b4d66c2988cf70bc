/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a register-accurate software model of a device is: the same plugin binary migrates it where no such device is at
 * hand. A model knows nothing of migration, plugins or VFIO; it answers register accesses as the hardware does, its traps
 * included, and does DMA, interrupts and frames through its host. C11; one exported data object per shared object.
 *
 * Thread rule: one thread per model object. Errors: register accesses have none, as on hardware; DMA callbacks answer 0 or
 * -errno (a failed DMA is the model's to handle as the hardware would). Memory: what is passed is valid for the call.
 */
#ifndef HOOKLINE_MODEL_H
#define HOOKLINE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HOOKLINE_MODEL_MAGIC 0x4d4c4b48u /* "HKLM" in memory */
#define HOOKLINE_MODEL_SYMBOL "hookline_model_v1"

/* What the model may use; the host's, valid until destroy(). */
struct hookline_model_host {
  uint32_t size; /* sizeof(struct hookline_model_host) */
  uint32_t reserved;
  void* context; /* first argument of every function */
  int (*dma_read)(void* context, uint64_t iova, void* data, size_t length);
  int (*dma_write)(void* context, uint64_t iova, const void* data, size_t length);
  void (*interrupt)(void* context, uint32_t vector); /* one MSI-X message */
  void (*transmit)(void* context, const void* frame, size_t length); /* a frame leaves for the wire */
};

struct hookline_model {
  uint32_t magic; /* HOOKLINE_MODEL_MAGIC */
  uint32_t size;  /* sizeof(struct hookline_model) of the model's build */
  const char* name;      /* static; that of the plugin it is a device for */
  uint16_t vendor, device;
  uint32_t vectors;      /* MSI-X */
  uint64_t bar_size[6];  /* bytes; 0: none */

  /* The model of function number `index` of its kind: two of them differ in what hardware lets differ (address, history).
   * NULL: out of memory. */
  void* (*create)(const struct hookline_model_host* host, uint32_t index);
  void (*destroy)(void* self);
  /* A register access of 1, 2, 4 or 8 bytes, naturally aligned, inside the BAR. */
  uint64_t (*read)(void* self, uint32_t bar, uint64_t offset, uint32_t width);
  void (*write)(void* self, uint32_t bar, uint64_t offset, uint32_t width, uint64_t value);
  /* Function level reset: leaves behind what the hardware's leaves behind. */
  void (*reset)(void* self);
  /* A frame arrives from the wire. 1: taken, 0: dropped (not for this function, or no buffer). NULL: no network device. */
  int (*receive)(void* self, const void* frame, size_t length);
};

extern __attribute__((visibility("default"))) const struct hookline_model hookline_model_v1;

#ifdef __cplusplus
}
#endif

#endif /* HOOKLINE_MODEL_H */
