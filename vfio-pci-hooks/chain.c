// SPDX-License-Identifier: GPL-2.0-only
/*
 * The chain of one device: who is asked, in which order, for which bytes. It is
 * built when the driver binds and constant from then on, so that walking it takes
 * no lock.
 */
#include <linux/cleanup.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/unaligned.h>

#include "vfio_pci_hooks_priv.h"
#include "trace.h"

struct vph_ranges {
	const struct vfio_pci_hooks_range *range;
	unsigned int nr;
};

/* The worker's come from the definition, a handler's from the handler. */
static struct vph_ranges vph_link_ranges(const struct vfio_pci_hooks_link *link)
{
	const struct vph_definition *def = link->hdev->def;

	if (link->index == def->channel)
		return (struct vph_ranges) { def->ranges, def->nr_ranges };
	return (struct vph_ranges) { link->ops->ranges, link->ops->nr_ranges };
}

static int vph_edge_compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static unsigned int vph_edges(struct vph_device *hdev, unsigned int region, u64 *edge)
{
	unsigned int i, j, nr = 0;

	for (i = 0; i < hdev->nr_links; i++) {
		struct vph_ranges ranges = vph_link_ranges(&hdev->links[i]);

		for (j = 0; j < ranges.nr; j++) {
			if (ranges.range[j].region != region)
				continue;
			edge[nr++] = ranges.range[j].offset;
			edge[nr++] = ranges.range[j].offset + ranges.range[j].length;
		}
	}
	sort(edge, nr, sizeof(*edge), vph_edge_compare, NULL);
	return nr;
}

static void vph_segment_links(struct vph_device *hdev, unsigned int region,
			      struct vph_segment *segment)
{
	unsigned int i, j;

	for (i = 0; i < hdev->nr_links; i++) {
		struct vph_ranges ranges = vph_link_ranges(&hdev->links[i]);

		for (j = 0; j < ranges.nr; j++) {
			const struct vfio_pci_hooks_range *range = &ranges.range[j];

			if (range->region != region || segment->start < range->offset ||
			    segment->end > range->offset + range->length)
				continue;
			if (range->ops & VFIO_PCI_HOOKS_OP_READ)
				segment->readers |= BIT(i);
			if (range->ops & VFIO_PCI_HOOKS_OP_WRITE)
				segment->writers |= BIT(i);
		}
	}
}

/*
 * Cuts a region at the edges of all ranges. Within a segment all bytes are wanted
 * by the same handlers, so that no access can carry bytes around one of them.
 */
static int vph_segments_init(struct vph_device *hdev, unsigned int region)
{
	struct vph_segments *segments = &hdev->segments[region];
	u64 *edge __free(kvfree) = NULL;
	unsigned int i, nr = 0;

	for (i = 0; i < hdev->nr_links; i++)
		nr += vph_link_ranges(&hdev->links[i]).nr;
	if (!nr)
		return 0;
	edge = kvmalloc_array(nr, 2 * sizeof(*edge), GFP_KERNEL);
	if (!edge)
		return -ENOMEM;
	nr = vph_edges(hdev, region, edge);
	if (!nr)
		return 0;
	segments->segment = kvcalloc(nr - 1, sizeof(*segments->segment), GFP_KERNEL_ACCOUNT);
	if (!segments->segment)
		return -ENOMEM;

	for (i = 0; i + 1 < nr; i++) {
		struct vph_segment segment = { .start = edge[i], .end = edge[i + 1] };
		struct vph_segment *last = NULL;

		if (segment.start == segment.end)
			continue;
		vph_segment_links(hdev, region, &segment);
		if (!segment.readers && !segment.writers)
			continue;
		if (segments->nr)
			last = &segments->segment[segments->nr - 1];
		if (last && last->end == segment.start && last->readers == segment.readers &&
		    last->writers == segment.writers)
			last->end = segment.end;
		else
			segments->segment[segments->nr++] = segment;
	}
	return 0;
}

static void vph_link_calls(struct vph_device *hdev, const struct vfio_pci_hooks_link *link)
{
	const struct vph_definition *def = hdev->def;
	bool channel = link->index == def->channel;
	unsigned long ioctls = channel ? def->ioctls : link->ops->ioctls;
	unsigned long features = channel ? def->device_features : link->ops->device_features;
	unsigned int bit;

	for_each_set_bit(bit, &ioctls, ARRAY_SIZE(hdev->ioctls))
		hdev->ioctls[bit] |= BIT(link->index);
	for_each_set_bit(bit, &features, ARRAY_SIZE(hdev->device_features))
		hdev->device_features[bit] |= BIT(link->index);
}

int vph_chain_init(struct vph_device *hdev)
{
	const struct vph_definition *def = hdev->def;
	unsigned int i;
	int ret;

	for (i = 0; i < def->nr_handlers; i++) {
		struct vfio_pci_hooks_link *link = &hdev->links[i];

		link->hdev = hdev;
		link->ops = &def->handlers[i]->ops;
		link->index = i;
		hdev->nr_links++;
		vph_link_calls(hdev, link);
	}
	for (i = 0; i < VPH_NR_REGIONS; i++) {
		ret = vph_segments_init(hdev, i);
		if (ret)
			return ret;
		if (i < PCI_STD_NUM_BARS && hdev->segments[i].nr)
			hdev->bars_trapped = true;
	}
	return 0;
}

void vph_chain_exit(struct vph_device *hdev)
{
	unsigned int i;

	for (i = 0; i < VPH_NR_REGIONS; i++)
		kvfree(hdev->segments[i].segment);
}

int vph_chain_open(struct vph_device *hdev)
{
	unsigned int i;
	int ret;

	for (i = 0; i < hdev->nr_links; i++) {
		struct vfio_pci_hooks_link *link = &hdev->links[i];

		ret = link->ops->open ? link->ops->open(link) : 0;
		if (ret < 0) {
			pci_notice_ratelimited(hdev->core.pdev, "handler %s refuses open: %d\n",
					       link->ops->name, ret);
			goto out_close;
		}
	}
	return 0;

out_close:
	while (i--)
		if (hdev->links[i].ops->close)
			hdev->links[i].ops->close(&hdev->links[i]);
	return ret;
}

void vph_chain_close(struct vph_device *hdev)
{
	unsigned int i = hdev->nr_links;

	while (i--)
		if (hdev->links[i].ops->close)
			hdev->links[i].ops->close(&hdev->links[i]);
}

void vph_chain_reset(struct vph_device *hdev)
{
	unsigned int i;

	for (i = 0; i < hdev->nr_links; i++)
		if (hdev->links[i].ops->reset)
			hdev->links[i].ops->reset(&hdev->links[i]);
}

void vph_chain_state(struct vph_device *hdev, u32 from, u32 to)
{
	unsigned int i;

	for (i = 0; i < hdev->nr_links; i++)
		if (hdev->links[i].ops->state)
			hdev->links[i].ops->state(&hdev->links[i], from, to);
}

/* The first segment that has bytes in [offset, offset + length), or NULL. */
const struct vph_segment *vph_segment_at(struct vph_device *hdev, unsigned int region, u64 offset,
					 u64 length)
{
	const struct vph_segments *segments = &hdev->segments[region];
	unsigned int i;

	for (i = 0; i < segments->nr; i++) {
		const struct vph_segment *segment = &segments->segment[i];

		if (segment->start >= offset + length)
			break;
		if (segment->end > offset)
			return segment;
	}
	return NULL;
}

/* Whether a handler behind that one wants a byte of the range. */
bool vph_is_trapped_behind(struct vph_device *hdev, unsigned int link, unsigned int region,
			   u64 offset, u64 length)
{
	u64 end = offset + length;

	while (offset < end) {
		const struct vph_segment *segment;

		segment = vph_segment_at(hdev, region, offset, end - offset);
		if (!segment)
			return false;
		if ((segment->readers | segment->writers) >> (link + 1))
			return true;
		offset = segment->end;
	}
	return false;
}

/* The longest naturally aligned unit at the beginning of a range. */
unsigned int vph_unit_length(u64 offset, u64 length, unsigned int most)
{
	unsigned int unit = most;

	while (unit > length || !IS_ALIGNED(offset, unit))
		unit /= 2;
	return unit;
}

static u64 vph_value(const struct vfio_pci_hooks_access *access)
{
	return get_unaligned_le64(access->data) &
	       GENMASK_ULL(access->length * BITS_PER_BYTE - 1, 0);
}

/* Asks the handlers from that one on, then vfio-pci's default. */
int vph_walk(struct vph_walk *walk, unsigned int from)
{
	struct vfio_pci_hooks_access *access = &walk->access;
	struct vph_device *hdev = walk->hdev;
	unsigned int i;
	int ret;

	for (i = from; i < hdev->nr_links; i++) {
		struct vfio_pci_hooks_link *link = &hdev->links[i];
		int (*ask)(struct vfio_pci_hooks_link *link, struct vfio_pci_hooks_access *access);

		ask = access->write ? link->ops->write : link->ops->read;
		if (!(walk->links & BIT(i)) || !ask)
			continue;
		ret = ask(link, access);
		trace_access(hdev->core.pdev, link->ops->name, access->write, access->region,
			     access->offset, access->length, vph_value(access), ret);
		if (ret <= 0)
			return ret;
	}

	ret = vph_default_unit(walk);
	trace_access(hdev->core.pdev, "vfio-pci", access->write, access->region, access->offset,
		     access->length, vph_value(access), ret);
	return ret;
}

/**
 * vfio_pci_hooks_run_rest - Runs the rest of the chain for an access
 * @link: the handler that asks
 * @access: the access it was asked with
 *
 * For handlers that observe or edit: afterwards @access holds what was read, and
 * what the handler leaves there is what the VMM gets with the answer 0. Before, a
 * handler may change the data of a write to a BAR.
 *
 * A config write cannot be changed (-EOPNOTSUPP): vfio-pci takes it from the
 * VMM's memory.
 *
 * Return: 0, or a negative errno, which is to be answered. Never positive.
 */
int vfio_pci_hooks_run_rest(struct vfio_pci_hooks_link *link,
			    struct vfio_pci_hooks_access *access)
{
	struct vph_walk *walk = container_of(access, struct vph_walk, access);

	return vph_walk(walk, link->index + 1);
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_run_rest);

/**
 * vfio_pci_hooks_pci_dev - The function that a link is for
 * @link: the link
 *
 * Return: the function, valid as long as the link.
 */
struct pci_dev *vfio_pci_hooks_pci_dev(struct vfio_pci_hooks_link *link)
{
	return link->hdev->core.pdev;
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_pci_dev);

/**
 * vfio_pci_hooks_set_data - Keeps a pointer of the handler's for this device
 * @link: the link
 * @data: the pointer; to be set in open and dropped in close
 */
void vfio_pci_hooks_set_data(struct vfio_pci_hooks_link *link, void *data)
{
	link->data = data;
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_set_data);

/**
 * vfio_pci_hooks_data - The pointer that vfio_pci_hooks_set_data() kept
 * @link: the link
 *
 * Return: the pointer, or NULL.
 */
void *vfio_pci_hooks_data(struct vfio_pci_hooks_link *link)
{
	return link->data;
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_data);

/**
 * vfio_pci_hooks_read_register - Reads a register of the device
 * @link: the handler that asks
 * @bar: number of the BAR, in which the handler has a range
 * @offset: of the register, a multiple of 4
 * @value: gets it, as the processor has numbers
 *
 * Asks no handler. May wait for a reset to end.
 *
 * Return: 0, or a negative errno: the device is asleep, or its memory is not enabled.
 */
int vfio_pci_hooks_read_register(struct vfio_pci_hooks_link *link, unsigned int bar, u64 offset,
				 u32 *value)
{
	return vph_bar_unit(link->hdev, bar, offset, sizeof(*value), value, false, false);
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_read_register);

/**
 * vfio_pci_hooks_read_guest - Reads guest memory, as the device would
 * @link: the handler that asks
 * @iova: where
 * @data: gets it
 * @length: bytes
 *
 * In a thread of the VMM that has mapped the memory: it waits where that thread would, for
 * a page that has to be brought.
 *
 * Return: 0, or a negative errno: nothing is mapped there, or this is another process.
 */
int vfio_pci_hooks_read_guest(struct vfio_pci_hooks_link *link, u64 iova, void *data,
			      size_t length)
{
	return vph_iova_rw(link->hdev, iova, data, length, false);
}
EXPORT_SYMBOL_GPL(vfio_pci_hooks_read_guest);
