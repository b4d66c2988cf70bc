// SPDX-License-Identifier: GPL-2.0-only
/*
 * 82576-dirty-log: which pages of the guest an 82576 VF has written.
 *
 * The device writes where descriptors tell it to, and a descriptor counts once its
 * queue's tail is moved past it. So the writes to the queues' registers are trapped,
 * and while logging runs, what one is about to announce is read before it is passed on.
 * At any time the log has each page that the device may write.
 *
 * How far the device has come is read from the descriptors: a head may be ahead of what
 * has reached memory.
 *
 * While no logging runs, a doorbell costs one shared lock. The device itself knows its
 * rings: nothing is remembered that a reset, a worker or a register program could
 * change behind this handler.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/unaligned.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_hooks.h>

#include "82576_rings.h"

#define QUEUES	4

/* What has happened to the device behind this handler. */
#define DIRTY_STARTED	0	/* the start program has enabled queues */
#define DIRTY_LOADED	1	/* a worker has set it up */

struct dirty_log {
	struct vfio_pci_hooks_link *link;
	unsigned long events;		/* DIRTY_*, set at any time */

	/* read: a doorbell while no logging runs. write: everything else. */
	struct rw_semaphore lock;
	bool running;
	bool told;			/* that everything is dirty */
	u32 unread;			/* queues set up while disabled, for whoever enables them */
	struct pages dirty;
	struct queue_memory memory;
};

static const u32 dirty_queue_at[QUEUES] = { 0x2800, 0x2900, 0x3800, 0x3900 };

static bool dirty_is_rx(unsigned int number)
{
	return dirty_queue_at[number] < 0x3000;
}

#define DIRTY_RANGE(_offset)				\
	{						\
		.region = VFIO_PCI_BAR0_REGION_INDEX,	\
		.ops = VFIO_PCI_HOOKS_OP_WRITE,		\
		.offset = _offset,			\
		.length = QUEUE_SIZE,			\
	}

static const struct vfio_pci_hooks_range dirty_ranges[QUEUES] = {
	DIRTY_RANGE(0x2800), DIRTY_RANGE(0x2900), DIRTY_RANGE(0x3800), DIRTY_RANGE(0x3900),
};

static int dirty_read_guest(void *context, u64 iova, void *to, size_t length)
{
	return vfio_pci_hooks_read_guest(context, iova, to, length);
}

static int dirty_read_queue(struct dirty_log *log, unsigned int number, struct queue *queue)
{
	static const u8 rx[] = {
		QUEUE_BASE_LOW, QUEUE_BASE_HIGH, QUEUE_LENGTH, QUEUE_SRRCTL, QUEUE_HEAD,
		QUEUE_TAIL, QUEUE_CONTROL,
	};
	static const u8 tx[] = {
		QUEUE_BASE_LOW, QUEUE_BASE_HIGH, QUEUE_LENGTH, QUEUE_HEAD, QUEUE_TAIL,
		QUEUE_CONTROL, QUEUE_BACK_LOW, QUEUE_BACK_HIGH,
	};
	const u8 *reg = dirty_is_rx(number) ? rx : tx;
	unsigned int i, nr = dirty_is_rx(number) ? ARRAY_SIZE(rx) : ARRAY_SIZE(tx);
	int ret;

	queue->rx = dirty_is_rx(number);
	for (i = 0; i < nr; i++) {
		ret = vfio_pci_hooks_read_register(log->link, VFIO_PCI_BAR0_REGION_INDEX,
						   dirty_queue_at[number] + reg[i],
						   &queue->reg[reg[i] / sizeof(u32)]);
		if (ret)
			return ret;
	}
	return 0;
}

static void dirty_tell(struct dirty_log *log)
{
	if (!log->dirty.all || log->told)
		return;
	log->told = true;
	pci_notice_ratelimited(vfio_pci_hooks_pci_dev(log->link),
			       "until DMA logging starts again, all pages are dirty: the device's rings could not be followed\n");
}

/* Descriptors that were announced with nobody looking. */
static void dirty_look_back(struct dirty_log *log)
{
	bool started = test_and_clear_bit(DIRTY_STARTED, &log->events);
	bool loaded = test_and_clear_bit(DIRTY_LOADED, &log->events);

	if (loaded || (started && log->unread))
		pages_all(&log->dirty);
}

/* What the device may write once it has got this. */
static void dirty_look_ahead(struct dirty_log *log, const struct vfio_pci_hooks_access *access)
{
	unsigned int number = 0;
	struct queue queue = {};
	u32 at;
	int ret;

	dirty_look_back(log);
	while (access->offset - dirty_queue_at[number] >= QUEUE_SIZE)
		number++;
	at = access->offset - dirty_queue_at[number];

	ret = dirty_read_queue(log, number, &queue);
	if (!ret && at == QUEUE_TAIL && access->length == sizeof(u32) && queue_enabled(&queue)) {
		ret = rings_announced(&log->memory, &log->dirty, &queue,
				      get_unaligned_le32(access->data));
	} else if (!ret) {
		queue_write(&queue, at, access->data, access->length);
		/* A ring may lie anywhere until its queue is enabled. */
		if (queue_enabled(&queue)) {
			log->unread &= ~BIT(number);
			ret = rings_posted(&log->memory, &log->dirty, &queue, 1, &log->unread);
		} else {
			log->unread |= BIT(number);
		}
	}
	if (ret)
		pages_all(&log->dirty);
	dirty_tell(log);
}

static int dirty_write(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_access *access)
{
	struct dirty_log *log = vfio_pci_hooks_data(link);
	bool running;
	int ret = 0;

	/* Held until the device has got the write: START reads what it has. */
	if (down_read_killable(&log->lock))
		return -EINTR;
	running = log->running;
	if (!running)
		ret = vfio_pci_hooks_run_rest(link, access);
	up_read(&log->lock);
	if (!running)
		return ret;

	if (down_write_killable(&log->lock))
		return -EINTR;
	if (log->running)
		dirty_look_ahead(log, access);
	ret = vfio_pci_hooks_run_rest(link, access);
	up_write(&log->lock);
	return ret;
}

static int dirty_read_queues(struct dirty_log *log, struct queue *queue)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < QUEUES && !ret; i++)
		ret = dirty_read_queue(log, i, &queue[i]);
	return ret;
}

static int dirty_log_start(struct vfio_pci_hooks_link *link)
{
	struct dirty_log *log = vfio_pci_hooks_data(link);
	struct queue queue[QUEUES] = {};

	if (down_write_killable(&log->lock))
		return -EINTR;
	clear_bit(DIRTY_STARTED, &log->events);
	clear_bit(DIRTY_LOADED, &log->events);
	/* Queues that are disabled now are read like all others. */
	log->unread = 0;
	log->told = false;
	log->running = true;
	if (dirty_read_queues(log, queue) ||
	    rings_posted(&log->memory, &log->dirty, queue, QUEUES, &log->unread))
		pages_all(&log->dirty);
	dirty_tell(log);
	up_write(&log->lock);
	return 0;
}

static void dirty_log_stop(struct vfio_pci_hooks_link *link)
{
	struct dirty_log *log = vfio_pci_hooks_data(link);

	down_write(&log->lock);
	log->running = false;
	pages_free(&log->dirty);
	up_write(&log->lock);
}

static void dirty_report_one(void *context, u64 iova, u64 length)
{
	vfio_pci_hooks_log_dirty(context, iova, length);
}

static int dirty_log_report(struct vfio_pci_hooks_link *link, u64 iova, u64 length,
			    struct vfio_pci_hooks_log *report)
{
	struct dirty_log *log = vfio_pci_hooks_data(link);
	struct queue queue[QUEUES] = {};
	unsigned int nr;

	if (down_write_killable(&log->lock))
		return -EINTR;
	if (!log->running) {
		up_write(&log->lock);
		return -EINVAL;
	}
	dirty_look_back(log);
	/* Asleep, or with its memory off: what it may have written meanwhile stays. */
	nr = dirty_read_queues(log, queue) ? 0 : QUEUES;
	rings_report(&log->memory, &log->dirty, queue, nr, &log->unread, iova, length,
		     dirty_report_one, report);
	dirty_tell(log);
	up_write(&log->lock);
	return 0;
}

static void dirty_state(struct vfio_pci_hooks_link *link, u32 from, u32 to)
{
	struct dirty_log *log = vfio_pci_hooks_data(link);

	if (from == VFIO_DEVICE_STATE_RESUMING)
		set_bit(DIRTY_LOADED, &log->events);
	if (to == VFIO_DEVICE_STATE_RUNNING)
		set_bit(DIRTY_STARTED, &log->events);
}

static int dirty_open(struct vfio_pci_hooks_link *link)
{
	struct dirty_log *log = kzalloc(sizeof(*log), GFP_KERNEL_ACCOUNT);

	if (!log)
		return -ENOMEM;
	init_rwsem(&log->lock);
	log->link = link;
	log->memory.read = dirty_read_guest;
	log->memory.context = link;
	vfio_pci_hooks_set_data(link, log);
	return 0;
}

static void dirty_close(struct vfio_pci_hooks_link *link)
{
	struct dirty_log *log = vfio_pci_hooks_data(link);

	vfio_pci_hooks_set_data(link, NULL);
	pages_free(&log->dirty);
	kfree(log);
}

static const struct pci_device_id dirty_ids[] = {
	{ PCI_VDEVICE(INTEL, 0x10ca) },
	{}
};

static const struct vfio_pci_hooks_ops dirty_ops = {
	VFIO_PCI_HOOKS_OPS_INIT,
	.name = "82576-dirty-log",
	.id_table = dirty_ids,
	.ranges = dirty_ranges,
	.nr_ranges = ARRAY_SIZE(dirty_ranges),
	.open = dirty_open,
	.close = dirty_close,
	.state = dirty_state,
	.write = dirty_write,
	.log_start = dirty_log_start,
	.log_stop = dirty_log_stop,
	.log_report = dirty_log_report,
};

static int __init dirty_init(void)
{
	return vfio_pci_hooks_register(&dirty_ops);
}
module_init(dirty_init);

static void __exit dirty_exit(void)
{
	vfio_pci_hooks_unregister(&dirty_ops);
}
module_exit(dirty_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Hookline authors");
MODULE_DESCRIPTION("DMA logging of Intel 82576 virtual functions for vfio-pci-hooks");
MODULE_ALIAS_VFIO_PCI_HOOKS_HANDLER("82576-dirty-log");
