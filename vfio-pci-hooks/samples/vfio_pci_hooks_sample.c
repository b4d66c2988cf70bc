// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sample handlers, to copy and to test with: sample-a, sample-b and sample-c want
 * four bytes of BAR 0 and two ioctls, and answer what debugfs says. sample-old is
 * a guard that knows fewer operations than the host module.
 *
 *	/sys/kernel/debug/vfio_pci_hooks_sample/sample-a/
 *		open read write ioctl	answer: 0 handled, above 0 pass, below 0 -errno
 *		rest			1: read and write run the rest of the chain first
 *		edit			xor-ed into the value after a read, before a write
 *		value			what a handled read returns and a handled write sets
 *		calls			how often it was asked
 *		order			when it was asked last, counted over all handlers
 */
#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/unaligned.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_hooks.h>

#define SAMPLE_OFFSET	0x40
#define SAMPLE_LENGTH	4

struct sample {
	struct vfio_pci_hooks_ops ops;
	u32 open;
	u32 read;
	u32 write;
	u32 ioctl;
	u32 rest;
	u32 edit;
	u32 value;
	u32 calls;
	u32 order;
};

static atomic_t sample_order;

static struct sample samples[];

/* A handler that needs more than this per device uses vfio_pci_hooks_set_data(). */
static struct sample *sample_of(struct vfio_pci_hooks_link *link)
{
	return vfio_pci_hooks_data(link);
}

static int sample_open(struct vfio_pci_hooks_link *link, struct sample *sample)
{
	vfio_pci_hooks_set_data(link, sample);
	pci_dbg(vfio_pci_hooks_pci_dev(link), "%s: open\n", sample->ops.name);
	return (int)sample->open < 0 ? (int)sample->open : 0;
}

static void sample_close(struct vfio_pci_hooks_link *link)
{
	pci_dbg(vfio_pci_hooks_pci_dev(link), "%s: close\n", sample_of(link)->ops.name);
	vfio_pci_hooks_set_data(link, NULL);
}

static void sample_asked(struct sample *sample)
{
	sample->calls++;
	sample->order = atomic_inc_return(&sample_order);
}

static int sample_read(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_access *access)
{
	struct sample *sample = sample_of(link);
	u8 value[8] = {};
	unsigned int i;
	int ret;

	sample_asked(sample);
	put_unaligned_le32(sample->value, value);
	if (sample->rest) {
		ret = vfio_pci_hooks_run_rest(link, access);
		if (ret)
			return ret;
		put_unaligned_le32(sample->edit, value);
		for (i = 0; i < access->length; i++)
			access->data[i] ^= value[i];
		return 0;
	}
	if (!(int)sample->read)
		memcpy(access->data, value, access->length);
	return sample->read;
}

static int sample_write(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_access *access)
{
	struct sample *sample = sample_of(link);
	u8 edit[8] = {};
	unsigned int i;

	sample_asked(sample);
	if (sample->rest) {
		put_unaligned_le32(sample->edit, edit);
		for (i = 0; i < access->length; i++)
			access->data[i] ^= edit[i];
		return vfio_pci_hooks_run_rest(link, access);
	}
	if (!(int)sample->write)
		sample->value = get_unaligned_le32(access->data);
	return sample->write;
}

static int sample_ioctl(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_call *call)
{
	struct sample *sample = sample_of(link);

	sample_asked(sample);
	/* A handled one goes back as it came. */
	return sample->ioctl;
}

static int sample_a_open(struct vfio_pci_hooks_link *link);
static int sample_b_open(struct vfio_pci_hooks_link *link);
static int sample_c_open(struct vfio_pci_hooks_link *link);

static const struct vfio_pci_hooks_range sample_ranges[] = {
	{
		.region = VFIO_PCI_BAR0_REGION_INDEX,
		.ops = VFIO_PCI_HOOKS_OP_READ | VFIO_PCI_HOOKS_OP_WRITE,
		.offset = SAMPLE_OFFSET,
		.length = SAMPLE_LENGTH,
	},
};

#define SAMPLE(_name, _open)						\
	{								\
		.ops = {						\
			VFIO_PCI_HOOKS_OPS_INIT,			\
			.name = _name,					\
			.ranges = sample_ranges,			\
			.nr_ranges = ARRAY_SIZE(sample_ranges),		\
			/* VFIO_DEVICE_GET_IRQ_INFO, VFIO_DEVICE_RESET */	\
			.ioctls = BIT(9) | BIT(11),			\
			.open = _open,					\
			.close = sample_close,				\
			.read = sample_read,				\
			.write = sample_write,				\
			.ioctl = sample_ioctl,				\
		},							\
		.read = 1, .write = 1, .ioctl = 1,			\
	}

static struct sample samples[] = {
	SAMPLE("sample-a", sample_a_open),
	SAMPLE("sample-b", sample_b_open),
	SAMPLE("sample-c", sample_c_open),
	{
		.ops = {
			.size = sizeof(struct vfio_pci_hooks_ops),
			.known = VFIO_PCI_HOOKS_OPS_KNOWN - 1,
			.owner = THIS_MODULE,
			.flags = VFIO_PCI_HOOKS_REFUSE_UNKNOWN,
			.name = "sample-old",
		},
	},
};

static int sample_a_open(struct vfio_pci_hooks_link *link)
{
	return sample_open(link, &samples[0]);
}

static int sample_b_open(struct vfio_pci_hooks_link *link)
{
	return sample_open(link, &samples[1]);
}

static int sample_c_open(struct vfio_pci_hooks_link *link)
{
	return sample_open(link, &samples[2]);
}

static struct dentry *sample_root;

static void sample_debugfs(struct sample *sample)
{
	struct dentry *dir = debugfs_create_dir(sample->ops.name, sample_root);

	/* Written as a 32 bit number: -5 is 4294967291. */
	debugfs_create_u32("open", 0600, dir, &sample->open);
	debugfs_create_u32("read", 0600, dir, &sample->read);
	debugfs_create_u32("write", 0600, dir, &sample->write);
	debugfs_create_u32("ioctl", 0600, dir, &sample->ioctl);
	debugfs_create_u32("rest", 0600, dir, &sample->rest);
	debugfs_create_x32("edit", 0600, dir, &sample->edit);
	debugfs_create_x32("value", 0600, dir, &sample->value);
	debugfs_create_u32("calls", 0600, dir, &sample->calls);
	debugfs_create_u32("order", 0600, dir, &sample->order);
}

static void sample_unregister(unsigned int nr)
{
	while (nr--)
		vfio_pci_hooks_unregister(&samples[nr].ops);
}

static int __init sample_init(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(samples); i++) {
		ret = vfio_pci_hooks_register(&samples[i].ops);
		if (ret) {
			sample_unregister(i);
			return ret;
		}
	}
	sample_root = debugfs_create_dir(KBUILD_MODNAME, NULL);
	for (i = 0; i < ARRAY_SIZE(samples); i++)
		sample_debugfs(&samples[i]);
	return 0;
}
module_init(sample_init);

static void __exit sample_exit(void)
{
	debugfs_remove(sample_root);
	sample_unregister(ARRAY_SIZE(samples));
}
module_exit(sample_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Hookline authors");
MODULE_DESCRIPTION("Sample handlers for vfio-pci-hooks");
MODULE_ALIAS_VFIO_PCI_HOOKS_HANDLER("sample-a");
MODULE_ALIAS_VFIO_PCI_HOOKS_HANDLER("sample-b");
MODULE_ALIAS_VFIO_PCI_HOOKS_HANDLER("sample-c");
MODULE_ALIAS_VFIO_PCI_HOOKS_HANDLER("sample-old");
