/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few names of the kernel that handlers/82576_rings.c uses, for tests of it in userspace. Little-endian machines only.
 */
#pragma once

#include <linux/types.h>

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;


#define U64_MAX UINT64_MAX
#define BITS_PER_LONG (8 * (unsigned)sizeof(long))
#define BIT(n) (1ul << (n))
#define BIT_ULL(n) (1ull << (n))
#define DECLARE_BITMAP(name, bits) unsigned long name[((bits) + BITS_PER_LONG - 1) / BITS_PER_LONG]
#define le64_to_cpu(value) le64toh(value)

#ifndef __cplusplus
#define min(a, b) ((a) < (b) ? (a) : (b))
#define min_t(type, a, b) min((type)(a), (type)(b))

/* Allocations fail from this one on, where a test wants that; below 0: never. */
extern long shim_allocations;
#define GFP_KERNEL_ACCOUNT 0
static inline void* shim_allocate(size_t number, size_t size) {
  if (shim_allocations == 0) return NULL;
  if (shim_allocations > 0) --shim_allocations;
  return calloc(number, size);
}
#define kvcalloc(number, size, flags) shim_allocate(number, size)
#define kzalloc(size, flags) shim_allocate(1, size)
#define kvfree(pointer) free(pointer)
#define kfree(pointer) free(pointer)

static inline unsigned long find_bit(const unsigned long* map, unsigned long end, unsigned long from, bool set) {
  while (from < end && (map[from / BITS_PER_LONG] >> from % BITS_PER_LONG & 1) != set) ++from;
  return from;
}
#define find_next_bit(map, end, from) find_bit(map, end, from, true)
#define find_next_zero_bit(map, end, from) find_bit(map, end, from, false)
static inline void bitmap_set(unsigned long* map, unsigned long from, unsigned long number) {
  for (; number; --number, ++from) map[from / BITS_PER_LONG] |= BIT(from % BITS_PER_LONG);
}
static inline void bitmap_clear(unsigned long* map, unsigned long from, unsigned long number) {
  for (; number; --number, ++from) map[from / BITS_PER_LONG] &= ~BIT(from % BITS_PER_LONG);
}
static inline void bitmap_or(unsigned long* to, const unsigned long* a, const unsigned long* b, unsigned long bits) {
  for (unsigned long i = 0; i < (bits + BITS_PER_LONG - 1) / BITS_PER_LONG; ++i) to[i] = a[i] | b[i];
}
#endif
