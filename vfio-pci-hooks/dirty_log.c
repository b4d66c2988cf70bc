// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMA logging. Nobody here knows which pages the device has written, so every page
 * that is asked for is one: a VMM on IOMMUFD, which sees no DMA itself, would lose
 * what the device wrote otherwise.
 *
 * It goes on over resets and in every migration state, until it is stopped or the
 * device is closed.
 */
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/log2.h>

#include "vfio_pci_hooks_priv.h"
#include "trace.h"

static void vph_log_trace(struct vph_device *hdev, u32 feature, int ret)
{
	trace_call(hdev->core.pdev, "dma-log", true, feature, 0, ret);
}

static int vph_log_check(struct rb_root_cached *ranges, u64 page_size)
{
	struct interval_tree_node *node;

	if (!is_power_of_2(page_size))
		return -EINVAL;
	/* An empty range, which vfio lets through, ends before it begins. */
	for (node = interval_tree_iter_first(ranges, 0, ULONG_MAX); node;
	     node = interval_tree_iter_next(node, 0, ULONG_MAX))
		if (node->last - node->start == ULONG_MAX)
			return -EINVAL;
	return 0;
}

static int vph_log_start(struct vfio_device *core_vdev, struct rb_root_cached *ranges, u32 nnodes,
			 u64 *page_size)
{
	struct vph_device *hdev = vph_device(core_vdev);
	int ret;

	ret = vph_log_check(ranges, *page_size);
	if (!ret && atomic_xchg(&hdev->logging, true))
		ret = -EINVAL;
	if (!ret)
		*page_size = max_t(u64, *page_size, SZ_4K);
	vph_log_trace(hdev, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, ret);
	return ret;
}

static int vph_log_stop(struct vfio_device *core_vdev)
{
	struct vph_device *hdev = vph_device(core_vdev);

	atomic_set(&hdev->logging, false);
	vph_log_trace(hdev, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, 0);
	return 0;
}

static int vph_log_read_and_clear(struct vfio_device *core_vdev, unsigned long iova,
				  unsigned long length, struct iova_bitmap *dirty)
{
	struct vph_device *hdev = vph_device(core_vdev);
	int ret = atomic_read(&hdev->logging) && length ? 0 : -EINVAL;

	if (!ret)
		iova_bitmap_set(dirty, iova, length);
	vph_log_trace(hdev, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, ret);
	return ret;
}

const struct vfio_log_ops vph_log_ops = {
	.log_start = vph_log_start,
	.log_stop = vph_log_stop,
	.log_read_and_clear = vph_log_read_and_clear,
};
