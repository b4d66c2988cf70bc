// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads, writes and mappings of regions: what is trapped walks the chain, and
 * everything else goes the way it goes under vfio-pci.
 */
#include <linux/cleanup.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/mm.h>
#include <linux/pm_runtime.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "vfio_pci_hooks_priv.h"

/* ---------------------------------------------------------- one unit, default */

static int vph_io(struct vfio_pci_core_device *core, bool test_mem, void __iomem *io,
		  unsigned int length, void *data, bool write)
{
	union {
		u8 v8;
		u16 v16;
		u32 v32;
		u64 v64;
	} value;
	int ret;

	memcpy(&value, data, length);
	switch (length) {
	case 1:
		ret = write ? vfio_pci_core_iowrite8(core, test_mem, value.v8, io) :
			      vfio_pci_core_ioread8(core, test_mem, &value.v8, io);
		break;
	case 2:
		ret = write ? vfio_pci_core_iowrite16(core, test_mem, value.v16, io) :
			      vfio_pci_core_ioread16(core, test_mem, &value.v16, io);
		break;
	case 4:
		ret = write ? vfio_pci_core_iowrite32(core, test_mem, value.v32, io) :
			      vfio_pci_core_ioread32(core, test_mem, &value.v32, io);
		break;
	case 8:
		ret = write ? vfio_pci_core_iowrite64(core, test_mem, value.v64, io) :
			      vfio_pci_core_ioread64(core, test_mem, &value.v64, io);
		break;
	default:
		return -EINVAL;
	}
	if (!ret && !write)
		memcpy(data, &value, length);
	return ret;
}

/* Memory decoding switched on for the moment of an access that nobody else disturbs. */
static int vph_force_begin(struct vph_device *hdev, u16 *command)
{
	struct vfio_pci_core_device *core = &hdev->core;
	struct pci_dev *pdev = core->pdev;

	down_write(&core->memory_lock);
	if (pdev->current_state != PCI_D0) {
		up_write(&core->memory_lock);
		return -EIO;
	}
	pci_read_config_word(pdev, PCI_COMMAND, command);
	if (!(*command & PCI_COMMAND_MEMORY))
		pci_write_config_word(pdev, PCI_COMMAND, *command | PCI_COMMAND_MEMORY);
	return 0;
}

static void vph_force_end(struct vph_device *hdev, u16 command)
{
	if (!(command & PCI_COMMAND_MEMORY))
		pci_write_config_word(hdev->core.pdev, PCI_COMMAND, command);
	up_write(&hdev->core.memory_lock);
}

static int vph_io_forced(struct vph_device *hdev, void __iomem *io, unsigned int length,
			 void *data, bool write)
{
	u16 command;
	int ret;

	ret = vph_force_begin(hdev, &command);
	if (ret)
		return ret;
	ret = vph_io(&hdev->core, false, io, length, data, write);
	vph_force_end(hdev, command);
	return ret;
}

/*
 * vfio-pci's access to a BAR with data in kernel memory: MMIO accessors, the MSI-X
 * table left out. With force also where the guest has memory decoding off, as a
 * guest has that is being restored: its config space comes after its registers.
 */
int vph_bar_unit(struct vph_device *hdev, unsigned int bar, u64 offset, unsigned int length,
		 void *data, bool write, bool force)
{
	struct vfio_pci_core_device *core = &hdev->core;
	struct pci_dev *pdev = core->pdev;
	bool memory = pci_resource_flags(pdev, bar) & IORESOURCE_MEM;
	void __iomem *io;
	int ret;

	if (offset + length > pci_resource_len(pdev, bar))
		return -EINVAL;
	if (bar == core->msix_bar && offset + length > core->msix_offset &&
	    offset < (u64)core->msix_offset + core->msix_size) {
		if (!write)
			memset(data, 0xff, length);
		return 0;
	}

	io = vph_iomap(core, bar);
	if (IS_ERR(io))
		return PTR_ERR(io);
	ret = pm_runtime_resume_and_get(&pdev->dev);
	if (ret)
		return -EIO;
	ret = vph_io(core, memory, io + offset, length, data, write);
	if (ret == -EIO && memory && force)
		ret = vph_io_forced(hdev, io + offset, length, data, write);
	pm_runtime_put(&pdev->dev);
	return ret;
}

/* Stores as wide as they come: BARs are mapped uncached, and it is their number that takes time. */
void vph_fill_words(void __iomem *io, u32 length, u32 value)
{
	u64 wide = (u64)value << 32 | value;
	u32 at = 0;

	if (length && !IS_ALIGNED((unsigned long)io, sizeof(wide))) {
		iowrite32(value, io);
		at = sizeof(value);
	}
	for (; at + sizeof(wide) <= length; at += sizeof(wide))
		writeq_relaxed(wide, io + at);
	if (at < length)
		iowrite32(value, io + at);
}

/* A piece of a memory BAR filled with this word, memory decoding on or off. */
int vph_bar_fill(struct vph_device *hdev, unsigned int bar, u64 offset, u32 length, u32 value)
{
	struct pci_dev *pdev = hdev->core.pdev;
	void __iomem *io;
	u16 command;
	int ret;

	io = vph_iomap(&hdev->core, bar);
	if (IS_ERR(io))
		return PTR_ERR(io);
	ret = pm_runtime_resume_and_get(&pdev->dev);
	if (ret)
		return -EIO;
	ret = vph_force_begin(hdev, &command);
	if (!ret) {
		vph_fill_words(io + offset, length, value);
		vph_force_end(hdev, command);
	}
	pm_runtime_put(&pdev->dev);
	return ret;
}

/*
 * vfio-pci has no access to config space with data in kernel memory. So it works
 * on the VMM's: a write cannot be changed on the way, and a read is fetched back
 * for the handlers that run the rest.
 */
static int vph_config_unit(struct vph_walk *walk)
{
	struct vfio_pci_hooks_access *access = &walk->access;
	struct vfio_device *core_vdev = &walk->hdev->core.vdev;
	loff_t pos = VFIO_PCI_INDEX_TO_OFFSET(VFIO_PCI_CONFIG_REGION_INDEX) + access->offset;
	ssize_t done;

	if (access->write) {
		if (memcmp(access->data, walk->original, access->length))
			return -EOPNOTSUPP;
		done = vfio_pci_core_write(core_vdev, walk->user, access->length, &pos);
	} else {
		done = vfio_pci_core_read(core_vdev, walk->user, access->length, &pos);
	}
	if (done < 0)
		return done;
	if (done != access->length)
		return -EIO;
	if (!access->write) {
		if (copy_from_user(access->data, walk->user, access->length))
			return -EFAULT;
		memcpy(walk->original, access->data, access->length);
		walk->in_user = true;
	}
	return 0;
}

int vph_default_unit(struct vph_walk *walk)
{
	struct vfio_pci_hooks_access *access = &walk->access;

	if (access->region == VFIO_PCI_CONFIG_REGION_INDEX)
		return vph_config_unit(walk);
	return vph_bar_unit(walk->hdev, access->region, access->offset, access->length,
			    access->data, access->write, walk->force);
}

/* ------------------------------------------------------------ read and write */

/* One unit of userspace's, through the handlers from that one on. */
int vph_user_unit(struct vph_device *hdev, const struct vph_segment *segment, unsigned int from,
		  unsigned int region, u64 offset, unsigned int length, char __user *buf,
		  bool write)
{
	struct vph_walk walk = {
		.access = {
			.region = region,
			.offset = offset,
			.length = length,
			.write = write,
		},
		.hdev = hdev,
		.user = buf,
	};
	int ret;

	if (segment)
		walk.links = write ? segment->writers : segment->readers;
	if (write) {
		/* The one copy: what handlers decide on is what the device receives. */
		if (copy_from_user(walk.access.data, buf, length))
			return -EFAULT;
		memcpy(walk.original, walk.access.data, length);
	}
	ret = vph_walk(&walk, from);
	if (ret || write)
		return ret;
	if (walk.in_user && !memcmp(walk.original, walk.access.data, length))
		return 0;
	return copy_to_user(buf, walk.access.data, length) ? -EFAULT : 0;
}

/* The bytes of one piece that lies in one segment, or in none. */
static ssize_t vph_piece(struct vph_device *hdev, const struct vph_segment *segment,
			 unsigned int region, u64 offset, size_t length, char __user *buf,
			 bool write)
{
	unsigned int most = region == VFIO_PCI_CONFIG_REGION_INDEX ? 4 : 8;
	size_t done = 0;

	if (!(segment && (write ? segment->writers : segment->readers))) {
		loff_t pos = VFIO_PCI_INDEX_TO_OFFSET(region) + offset;

		return write ? vfio_pci_core_write(&hdev->core.vdev, buf, length, &pos) :
			       vfio_pci_core_read(&hdev->core.vdev, buf, length, &pos);
	}

	while (done < length) {
		unsigned int unit = vph_unit_length(offset + done, length - done, most);
		int ret;

		ret = vph_user_unit(hdev, segment, 0, region, offset + done, unit, buf + done,
				    write);
		if (ret)
			return done ?: ret;
		done += unit;
	}
	return done;
}

static u64 vph_region_size(struct vph_device *hdev, unsigned int region)
{
	struct pci_dev *pdev = hdev->core.pdev;

	return region == VFIO_PCI_CONFIG_REGION_INDEX ? pdev->cfg_size :
							pci_resource_len(pdev, region);
}

/* Cuts an access at the edges of segments, and does the pieces in their order. */
static ssize_t vph_rw(struct vph_device *hdev, char __user *buf, size_t count, loff_t *ppos,
		      bool write)
{
	unsigned int region = VFIO_PCI_OFFSET_TO_INDEX(*ppos);
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	u64 size = vph_region_size(hdev, region);
	size_t done = 0;

	count = min_t(u64, count, size - offset);
	while (done < count) {
		const struct vph_segment *segment;
		u64 here = offset + done;
		u64 end = offset + count;
		ssize_t ret;

		segment = vph_segment_at(hdev, region, here, count - done);
		if (segment && segment->start > here) {
			end = segment->start;
			segment = NULL;
		} else if (segment) {
			end = min(end, segment->end);
		}

		ret = vph_piece(hdev, segment, region, here, end - here, buf + done, write);
		if (ret < 0 && !done)
			return ret;
		if (ret > 0)
			done += ret;
		if (ret != end - here)
			break;
	}
	*ppos += done;
	return done;
}

static bool vph_is_trapped(struct vph_device *hdev, loff_t pos, size_t count)
{
	u64 region = (u64)pos >> VFIO_PCI_OFFSET_SHIFT;
	u64 offset = pos & VFIO_PCI_OFFSET_MASK;

	if (region >= VPH_NR_REGIONS || !hdev->segments[region].nr)
		return false;
	return vph_segment_at(hdev, region, offset, min_t(u64, count, VFIO_PCI_OFFSET_MASK));
}

ssize_t vph_read(struct vfio_device *core_vdev, char __user *buf, size_t count, loff_t *ppos)
{
	struct vph_device *hdev = vph_device(core_vdev);
	loff_t pos = *ppos;
	ssize_t ret;

	if (!vph_is_trapped(hdev, pos, count))
		ret = vfio_pci_core_read(core_vdev, buf, count, ppos);
	else
		ret = vph_rw(hdev, buf, count, ppos, false);
	vph_touched_mark(hdev, pos, count);
	return ret;
}

ssize_t vph_write(struct vfio_device *core_vdev, const char __user *buf, size_t count,
		  loff_t *ppos)
{
	struct vph_device *hdev = vph_device(core_vdev);
	loff_t pos = *ppos;
	ssize_t ret;

	if (!vph_is_trapped(hdev, pos, count))
		ret = vfio_pci_core_write(core_vdev, buf, count, ppos);
	else
		ret = vph_rw(hdev, (char __user *)buf, count, ppos, true);
	vph_touched_mark(hdev, pos, count);
	return ret;
}

/* ------------------------------------------------------- mappings, region info */

struct vph_hole {
	u64 start;
	u64 end;
};

/*
 * The first pages at or after offset that must not be mapped: those with a trapped
 * byte in them. A device that migrates keeps its MSI-X table's pages out, too: what a
 * VMM lays over the table would leave a piece of a page, whose dirty state it cannot
 * ask for.
 */
static struct vph_hole vph_next_hole(struct vph_device *hdev, unsigned int bar, u64 offset,
				     u64 size)
{
	const struct vfio_pci_core_device *core = &hdev->core;
	struct vph_hole hole = { size, size };
	const struct vph_segment *segment;
	u64 start, end;

	segment = vph_segment_at(hdev, bar, offset, size - offset);
	if (segment) {
		hole.start = round_down(segment->start, PAGE_SIZE);
		hole.end = round_up(segment->end, PAGE_SIZE);
	}
	if (vph_owns_migration(hdev) && bar == core->msix_bar) {
		start = round_down(core->msix_offset, PAGE_SIZE);
		end = round_up((u64)core->msix_offset + core->msix_size, PAGE_SIZE);
		if (end > offset && start < hole.start) {
			hole.start = start;
			hole.end = end;
		}
	}
	return hole;
}

int vph_mmap(struct vfio_device *core_vdev, struct vm_area_struct *vma)
{
	struct vph_device *hdev = vph_device(core_vdev);
	unsigned int bar = vma->vm_pgoff >> (VFIO_PCI_OFFSET_SHIFT - PAGE_SHIFT);
	u64 offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) & VFIO_PCI_OFFSET_MASK;
	int ret;

	/* A BAR that is mapped as a whole with its MSI-X table is one that core allows. */
	if (bar < PCI_STD_NUM_BARS && hdev->segments[bar].nr &&
	    vph_segment_at(hdev, bar, offset, vma->vm_end - vma->vm_start))
		return -EINVAL;
	ret = vfio_pci_core_mmap(core_vdev, vma);
	if (!ret)
		vph_touched_mmap(hdev, vma);
	return ret;
}

bool vph_region_info_ours(struct vph_device *hdev, unsigned int index)
{
	if (index >= PCI_STD_NUM_BARS || !hdev->core.bar_mmap_supported[index])
		return false;
	return hdev->segments[index].nr ||
	       (vph_owns_migration(hdev) && index == hdev->core.msix_bar);
}

static unsigned int vph_areas(struct vph_device *hdev, unsigned int bar,
			      struct vfio_region_sparse_mmap_area *area)
{
	u64 size = PAGE_ALIGN(pci_resource_len(hdev->core.pdev, bar));
	unsigned int nr = 0;
	u64 offset = 0;

	while (offset < size) {
		struct vph_hole hole = vph_next_hole(hdev, bar, offset, size);

		if (hole.start > offset) {
			if (area)
				area[nr] = (struct vfio_region_sparse_mmap_area) {
					.offset = offset,
					.size = hole.start - offset,
				};
			nr++;
		}
		offset = max(offset, hole.end);
	}
	return nr;
}

/* The answer to GET_REGION_INFO for a BAR of which not every page may be mapped. */
int vph_region_info(struct vph_device *hdev, struct vfio_region_info *info,
		    struct vfio_info_cap *caps)
{
	struct vfio_region_info_cap_sparse_mmap *sparse __free(kfree) = NULL;
	struct vfio_info_cap_header msix = {
		.id = VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
		.version = 1,
	};
	unsigned int bar = info->index;
	unsigned int nr;
	int ret;

	info->offset = VFIO_PCI_INDEX_TO_OFFSET(bar);
	info->size = pci_resource_len(hdev->core.pdev, bar);
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;

	nr = vph_areas(hdev, bar, NULL);
	if (!nr)
		return 0;
	info->flags |= VFIO_REGION_INFO_FLAG_MMAP;

	sparse = kzalloc(struct_size(sparse, areas, nr), GFP_KERNEL);
	if (!sparse)
		return -ENOMEM;
	sparse->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	sparse->header.version = 1;
	sparse->nr_areas = nr;
	vph_areas(hdev, bar, sparse->areas);

	ret = vfio_info_add_capability(caps, &sparse->header, struct_size(sparse, areas, nr));
	if (!ret && bar == hdev->core.msix_bar)
		ret = vfio_info_add_capability(caps, &msix, sizeof(msix));
	return ret;
}
