/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the queues of an 82576 VF may write into guest memory, and the pages that they
 * may have written. Nothing of PCI or VFIO: it is compiled for userspace, too, where
 * its tests run.
 *
 * Everything that is read here is the guest's: registers and descriptors may hold
 * anything. Memory is bounded by RINGS_MAX_CHUNKS, time by the length of a ring.
 *
 * The caller serialises. What cannot be counted any more (no memory, more places than
 * RINGS_MAX_CHUNKS) makes every page dirty, so that none is missed.
 *
 *	rings_posted(&memory, &pages, queue, nr, &unread);	all that may be written now
 *	rings_announced(&memory, &pages, &queue[0], tail);	and by this doorbell
 *	rings_report(&memory, &pages, queue, nr, &unread, iova, length, dirty, context);
 */
#ifndef VFIO_PCI_HOOKS_82576_RINGS_H
#define VFIO_PCI_HOOKS_82576_RINGS_H

#ifdef __KERNEL__
#include <linux/bitmap.h>
#include <linux/types.h>
#else
#include "kernel_shim.h"
#endif

/* ----------------------------------------------------------------- pages */

#define RINGS_PAGE_SHIFT	12
#define RINGS_CHUNK_PAGES	4096	/* 16 MiB */
#define RINGS_MAX_CHUNKS	16384	/* 9 MiB for 256 GiB that hold buffers everywhere */

struct pages_chunk {
	u64 index;			/* of 16 MiB */
	DECLARE_BITMAP(page, RINGS_CHUNK_PAGES);
};

/* All zero: empty. */
struct pages {
	struct pages_chunk **chunk;	/* by index */
	unsigned int nr;
	unsigned int room;
	bool all;			/* every page is in it, until pages_free() */
};

void pages_add(struct pages *pages, u64 iova, u64 length);
void pages_all(struct pages *pages);
void pages_report(const struct pages *pages, u64 iova, u64 length,
		  void (*dirty)(void *context, u64 iova, u64 length), void *context);
void pages_clear(struct pages *pages, u64 iova, u64 length);
void pages_move(struct pages *to, struct pages *from);
void pages_free(struct pages *pages);

/* ---------------------------------------------------------------- queues */

/* Registers of a queue, at 0x2800 (RX) or 0x3800 (TX) plus 0x100 for each. */
#define QUEUE_BASE_LOW		0x00
#define QUEUE_BASE_HIGH		0x04
#define QUEUE_LENGTH		0x08
#define QUEUE_SRRCTL		0x0c	/* RX */
#define QUEUE_HEAD		0x10
#define QUEUE_TAIL		0x18
#define QUEUE_CONTROL		0x28
#define QUEUE_BACK_LOW		0x38	/* TX: where the head is written back */
#define QUEUE_BACK_HIGH		0x3c
#define QUEUE_SIZE		0x40

#define QUEUE_DESCRIPTOR	16
#define QUEUE_MAX_SLOTS		65528	/* that the length can name; the data sheet has 32768 */

struct queue {
	bool rx;
	u32 reg[QUEUE_SIZE / sizeof(u32)];
};

#define QUEUE_READ_SLOTS	256

/* Guest memory, and a place for what is read of it. */
struct queue_memory {
	int (*read)(void *context, u64 iova, void *to, size_t length);
	void *context;
	__le64 descriptor[QUEUE_READ_SLOTS][2];
};

static inline u32 queue_reg(const struct queue *queue, unsigned int reg)
{
	return queue->reg[reg / sizeof(u32)];
}

bool queue_enabled(const struct queue *queue);
void queue_write(struct queue *queue, unsigned int offset, const u8 *data, unsigned int length);
int rings_posted(struct queue_memory *memory, struct pages *pages, const struct queue *queue,
		 unsigned int nr, u32 *unread);
int rings_announced(struct queue_memory *memory, struct pages *pages, const struct queue *queue,
		    u32 tail);
void rings_report(struct queue_memory *memory, struct pages *pages, const struct queue *queue,
		  unsigned int nr, u32 *unread, u64 iova, u64 length,
		  void (*dirty)(void *context, u64 iova, u64 length), void *context);

#endif /* VFIO_PCI_HOOKS_82576_RINGS_H */
