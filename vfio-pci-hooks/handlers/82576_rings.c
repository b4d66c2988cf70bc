// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the queues of an 82576 VF may write: the ring itself (write-back of descriptors,
 * and of the head where TX has that), and the buffers of RX descriptors.
 *
 * A buffer's address is in its descriptor until the device writes that back, with DD
 * set. So a descriptor without DD names a buffer that the device may yet write, and of
 * one with DD the buffer was written before.
 */
#ifdef __KERNEL__
#include <linux/minmax.h>
#include <linux/slab.h>
#include <linux/unaligned.h>
#endif

#include "82576_rings.h"

/* ----------------------------------------------------------------- pages */

static unsigned int pages_find(const struct pages *pages, u64 index)
{
	unsigned int low = 0, high = pages->nr;

	while (low < high) {
		unsigned int middle = (low + high) / 2;

		if (pages->chunk[middle]->index < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Everything, from here on: what it was exactly need not be kept. */
void pages_all(struct pages *pages)
{
	pages_free(pages);
	pages->all = true;
}

static struct pages_chunk *pages_chunk_at(struct pages *pages, u64 index)
{
	unsigned int at = pages_find(pages, index);
	struct pages_chunk *chunk;

	if (at < pages->nr && pages->chunk[at]->index == index)
		return pages->chunk[at];
	if (pages->nr == RINGS_MAX_CHUNKS)
		return NULL;
	if (pages->nr == pages->room) {
		unsigned int room = pages->room ? 2 * pages->room : 16;
		struct pages_chunk **more;

		more = kvcalloc(room, sizeof(*more), GFP_KERNEL_ACCOUNT);
		if (!more)
			return NULL;
		if (pages->nr)
			memcpy(more, pages->chunk, pages->nr * sizeof(*more));
		kvfree(pages->chunk);
		pages->chunk = more;
		pages->room = room;
	}
	chunk = kzalloc(sizeof(*chunk), GFP_KERNEL_ACCOUNT);
	if (!chunk)
		return NULL;
	chunk->index = index;
	memmove(pages->chunk + at + 1, pages->chunk + at,
		(pages->nr - at) * sizeof(*pages->chunk));
	pages->chunk[at] = chunk;
	pages->nr++;
	return chunk;
}

/* What wraps around the end of the address space ends there: no device writes further. */
void pages_add(struct pages *pages, u64 iova, u64 length)
{
	u64 first = iova >> RINGS_PAGE_SHIFT;
	u64 last;

	if (!length || pages->all)
		return;
	last = (iova + length - 1 < iova ? U64_MAX : iova + length - 1) >> RINGS_PAGE_SHIFT;

	while (first <= last) {
		u64 end = min(last, first | (RINGS_CHUNK_PAGES - 1));
		struct pages_chunk *chunk = pages_chunk_at(pages, first / RINGS_CHUNK_PAGES);

		if (!chunk) {
			pages_all(pages);
			return;
		}
		bitmap_set(chunk->page, first % RINGS_CHUNK_PAGES, end - first + 1);
		first = end + 1;
	}
}

/* Calls dirty() for the parts of the range that are in it; no address twice. */
void pages_report(const struct pages *pages, u64 iova, u64 length,
		  void (*dirty)(void *context, u64 iova, u64 length), void *context)
{
	u64 first = iova >> RINGS_PAGE_SHIFT;
	u64 last;
	unsigned int i;

	if (!length)
		return;
	if (pages->all) {
		dirty(context, iova, length);
		return;
	}
	last = (iova + length - 1) >> RINGS_PAGE_SHIFT;

	for (i = pages_find(pages, first / RINGS_CHUNK_PAGES); i < pages->nr; i++) {
		const struct pages_chunk *chunk = pages->chunk[i];
		u64 base = chunk->index * RINGS_CHUNK_PAGES;
		unsigned long bit, end;

		if (base > last)
			break;
		bit = first > base ? first - base : 0;
		end = min_t(u64, last - base, RINGS_CHUNK_PAGES - 1) + 1;
		for (bit = find_next_bit(chunk->page, end, bit); bit < end;
		     bit = find_next_bit(chunk->page, end, bit)) {
			unsigned long zero = find_next_zero_bit(chunk->page, end, bit);

			dirty(context, (base + bit) << RINGS_PAGE_SHIFT,
			      (u64)(zero - bit) << RINGS_PAGE_SHIFT);
			bit = zero;
		}
	}
}

/* Pages that lie in the range as a whole; half a page may still be asked for. */
void pages_clear(struct pages *pages, u64 iova, u64 length)
{
	u64 size = 1ULL << RINGS_PAGE_SHIFT;
	u64 first = (iova >> RINGS_PAGE_SHIFT) + !!(iova & (size - 1));
	u64 end = (iova + length) >> RINGS_PAGE_SHIFT;	/* the page behind */
	unsigned int i;

	if (iova + length < iova)
		end = 1ULL << (64 - RINGS_PAGE_SHIFT);
	for (i = pages_find(pages, first / RINGS_CHUNK_PAGES); i < pages->nr; i++) {
		struct pages_chunk *chunk = pages->chunk[i];
		u64 base = chunk->index * RINGS_CHUNK_PAGES;
		unsigned long from, to;

		if (base >= end)
			break;
		from = first > base ? first - base : 0;
		to = min_t(u64, end - base, RINGS_CHUNK_PAGES);
		if (from < to)
			bitmap_clear(chunk->page, from, to - from);
	}
}

void pages_move(struct pages *to, struct pages *from)
{
	unsigned int i;

	if (from->all)
		pages_all(to);
	for (i = 0; i < from->nr && !to->all; i++) {
		struct pages_chunk *chunk = pages_chunk_at(to, from->chunk[i]->index);

		if (chunk)
			bitmap_or(chunk->page, chunk->page, from->chunk[i]->page,
				  RINGS_CHUNK_PAGES);
		else
			pages_all(to);
	}
	pages_free(from);
}

void pages_free(struct pages *pages)
{
	unsigned int i;

	for (i = 0; i < pages->nr; i++)
		kfree(pages->chunk[i]);
	kvfree(pages->chunk);
	*pages = (struct pages) {};
}

/* ---------------------------------------------------------------- queues */

static u64 queue_base(const struct queue *queue)
{
	return (u64)queue_reg(queue, QUEUE_BASE_HIGH) << 32 |
	       (queue_reg(queue, QUEUE_BASE_LOW) & ~15u);
}

static u32 queue_slots(const struct queue *queue)
{
	return (queue_reg(queue, QUEUE_LENGTH) & 0xfff80) / QUEUE_DESCRIPTOR;
}

bool queue_enabled(const struct queue *queue)
{
	return queue_reg(queue, QUEUE_CONTROL) & BIT(25);
}

/* As the queue will be when the device has got this write. */
void queue_write(struct queue *queue, unsigned int offset, const u8 *data, unsigned int length)
{
	unsigned int i;

	for (i = 0; i < length && offset + i < QUEUE_SIZE; i++) {
		u32 *reg = &queue->reg[(offset + i) / 4];
		unsigned int shift = (offset + i) % 4 * 8;

		*reg = (*reg & ~(0xffu << shift)) | (u32)data[i] << shift;
	}
}

/* At most so many bytes; 0 leaves it to the PF, which has the choice up to 16 KiB. */
static u32 queue_buffer_size(const struct queue *queue)
{
	u32 size = (queue_reg(queue, QUEUE_SRRCTL) & 0x7f) << 10;

	return size ?: 16384;
}

static u32 queue_descriptor_type(const struct queue *queue)
{
	return queue_reg(queue, QUEUE_SRRCTL) >> 25 & 7;
}

static void descriptor_add(struct pages *pages, const struct queue *queue, const __le64 *d)
{
	u32 type = queue_descriptor_type(queue);
	u64 packet = le64_to_cpu(d[0]);
	u64 header = le64_to_cpu(d[1]);

	/* DD, of the legacy type 0 and of all others. */
	if (header & (type ? BIT_ULL(0) : BIT_ULL(32)))
		return;
	pages_add(pages, packet & ~1ULL, queue_buffer_size(queue));
	/* Type 1 has no header buffer. */
	if (type > 1)
		pages_add(pages, header, (queue_reg(queue, QUEUE_SRRCTL) & 0x3f00) >> 2);
}

static int rings_read(struct queue_memory *memory, struct pages *pages, const struct queue *queue,
		      u32 from, u32 nr)
{
	u64 base = queue_base(queue);

	while (nr) {
		u32 now = min_t(u32, nr, QUEUE_READ_SLOTS);
		unsigned int i;
		int ret;

		ret = memory->read(memory->context, base + (u64)from * QUEUE_DESCRIPTOR,
				   memory->descriptor, now * QUEUE_DESCRIPTOR);
		if (ret)
			return ret;
		for (i = 0; i < now; i++)
			descriptor_add(pages, queue, memory->descriptor[i]);
		from += now;
		nr -= now;
	}
	return 0;
}

static int rings_queue_posted(struct queue_memory *memory, struct pages *pages,
			      const struct queue *queue)
{
	u32 slots = queue_slots(queue);
	u32 back = queue_reg(queue, QUEUE_BACK_LOW);

	if (!slots)
		return 0;
	/* A device that is told to begin outside of the ring uses descriptors from there. */
	if (queue_enabled(queue) && (queue_reg(queue, QUEUE_HEAD) & 0xffff) >= slots)
		pages_all(pages);
	pages_add(pages, queue_base(queue), (u64)slots * QUEUE_DESCRIPTOR);
	if (queue->rx)
		return rings_read(memory, pages, queue, 0, slots);
	if (back & BIT(0))
		pages_add(pages, (u64)queue_reg(queue, QUEUE_BACK_HIGH) << 32 | (back & ~3u), 4);
	return 0;
}

/**
 * rings_posted - Adds all that queues may write, until the next doorbell
 * @memory: guest memory
 * @pages: gets it
 * @queue: the queues' registers
 * @nr: how many
 * @unread: bit n is set if queue n is disabled and its ring cannot be read: it may lie
 *	    anywhere until it is enabled
 *
 * Return: 0, or what reading returned: @pages does not have all of it.
 */
int rings_posted(struct queue_memory *memory, struct pages *pages, const struct queue *queue,
		 unsigned int nr, u32 *unread)
{
	unsigned int i;
	int ret;

	for (i = 0; i < nr; i++) {
		ret = rings_queue_posted(memory, pages, &queue[i]);
		if (ret && queue_enabled(&queue[i]))
			return ret;
		if (ret)
			*unread |= BIT(i);
	}
	return 0;
}

/**
 * rings_announced - Adds what a write to the tail lets a queue write besides
 * @memory: guest memory
 * @pages: gets it; has what rings_posted() adds
 * @queue: the queue's registers before the write
 * @tail: that is going to be written
 *
 * Return: as rings_posted().
 */
int rings_announced(struct queue_memory *memory, struct pages *pages, const struct queue *queue,
		    u32 tail)
{
	u32 old = queue_reg(queue, QUEUE_TAIL) & 0xffff;
	u32 slots = queue_slots(queue);
	int ret;

	tail &= 0xffff;
	if (!queue->rx || !slots || tail == old)
		return 0;
	/* What a device makes of a place outside of the ring, no data sheet says. */
	if (old >= slots || tail >= slots)
		return rings_queue_posted(memory, pages, queue);
	if (old < tail)
		return rings_read(memory, pages, queue, old, tail - old);
	ret = rings_read(memory, pages, queue, old, slots - old);
	return ret ?: rings_read(memory, pages, queue, 0, tail);
}

/**
 * rings_report - Tells and forgets what was written in a range
 * @memory: guest memory
 * @pages: all that may have been written since it was told
 * @queue: the queues' registers
 * @nr: how many; 0: they cannot be read
 * @unread: as for rings_posted()
 * @iova: of the range
 * @length: of the range
 * @dirty: is told the pages, none twice
 * @context: for @dirty
 *
 * What is still posted is read first, and put back last: the buffer of a descriptor that
 * was written back meanwhile was written before it was told. Where reading fails,
 * nothing is forgotten.
 */
void rings_report(struct queue_memory *memory, struct pages *pages, const struct queue *queue,
		  unsigned int nr, u32 *unread, u64 iova, u64 length,
		  void (*dirty)(void *context, u64 iova, u64 length), void *context)
{
	struct pages posted = {};
	bool forget = nr && !pages->all && !rings_posted(memory, &posted, queue, nr, unread);

	pages_report(pages, iova, length, dirty, context);
	if (forget) {
		pages_clear(pages, iova, length);
		pages_move(pages, &posted);
	}
	pages_free(&posted);
}
